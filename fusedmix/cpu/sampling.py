"""The samplers of `reference/sampling.py` in numpy, a few microseconds a step instead of dozens.

Same names, same float32 steps, same bits; tests hold the two equal.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from fusedmix import rng
from fusedmix.recipe import (
    ALONE,
    EXACT,
    FLIP,
    GIVEN,
    MATCHING,
    METHOD_CUTMIX,
    METHOD_MIXUP,
    METHOD_NONE,
    MODE_BATCH,
    MODE_PAIR,
    PERMUTE,
    ROLL,
    Recipe,
    side_range,
)
from fusedmix.rng import KEY_A, KEY_B, ROUND_A, ROUND_B, ROUNDS

from . import native
from .native import Draw

Array = NDArray

MASK32, MASK64 = 2**32 - 1, 2**64 - 1
MULTIPLIERS = np.array([[ROUND_A], [ROUND_B]], np.uint64)
KEY_STEPS = np.array([[[r * KEY_A & MASK32], [r * KEY_B & MASK32]] for r in range(ROUNDS)], np.uint32)  # [round, 2, 1]
HIGH, LOW = (1, 0) if sys.byteorder == "little" else (0, 1)  # the halves of a uint64

# Polynomials of one length, so that Horner's rule takes them all at once; 0 x + c is c.
POLYS = np.zeros((len(rng.EXP_POLY), 3, 1), np.float32)  # [power, polynomial, 1]
for _n, _poly in enumerate((rng.EXP_POLY, rng.EXPM1_POLY, rng.SIN_POLY)):
    POLYS[: len(_poly), _n, 0] = _poly
LOG_POLY = np.array(rng.LOG_POLY, np.float32)


NO_BOX = np.zeros((1, 4), np.int64)


def word(seed: int, offset: int, index: int, stream: int) -> tuple[int, int, int, int]:
    """The four Philox words at one (index, stream), in Python integers: faster than numpy for one."""
    c0, c1, c2, c3 = offset & MASK32, (offset >> 32) & MASK32, index, stream
    k0, k1 = seed & MASK32, (seed >> 32) & MASK32
    for _ in range(ROUNDS):
        a, b = ROUND_A * c0, ROUND_B * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK32, (a >> 32) ^ c3 ^ k1, a & MASK32
        k0, k1 = (k0 + KEY_A) & MASK32, (k1 + KEY_B) & MASK32
    return c0, c1, c2, c3


def words(
    seed: int, offset: int, index: Array, stream: Array | int, rounds: int = ROUNDS
) -> tuple[Array, Array, Array, Array]:
    """The four Philox words at each (index, stream), uint32 [n]. One round is three numpy calls on [2, n]."""
    library = native.library()
    if library is not None:
        return native.words(library, seed & MASK64, offset & MASK64, index, stream, rounds)
    n = len(index)
    even = np.zeros((2, n), np.uint64)  # words 0 and 2 of the counter, ready to be multiplied
    even_words = even.view(np.uint32)[:, LOW::2]
    odd = np.empty((2, n), np.uint32)  # words 1 and 3
    even_words[0], even_words[1] = offset & MASK32, index
    odd[0], odd[1] = (offset >> 32) & MASK32, stream
    products = np.empty((2, 2, n), np.uint64)  # of this round and the one before, whose low words are still `odd`
    halves = products.view(np.uint32).reshape(2, 2, n, 2)[:, ::-1]
    high, low = halves[..., HIGH], halves[..., LOW]
    key = np.array([[seed & MASK32], [(seed >> 32) & MASK32]], np.uint32)
    for r, step in enumerate(KEY_STEPS[:rounds] + key):
        turn = r & 1
        np.multiply(even, MULTIPLIERS, out=products[turn])
        np.bitwise_xor(high[turn], odd, out=even_words)
        np.bitwise_xor(even_words, step, out=even_words)
        odd = low[turn]
    return even_words[0], odd[0], even_words[1], odd[1]


def horner(coefficients: Array, x: Array) -> Array:
    """One polynomial, or several: coefficients [power, ...] that broadcast with x."""
    total = x * coefficients[-1]
    total += coefficients[-2]
    for c in coefficients[-3::-1]:
        total *= x
        total += c
    return total


def log(x: Array) -> Array:
    bits = x.view(np.int32) + np.int32(rng.ONE_BITS - rng.SQRT_HALF_BITS)
    e = (bits >> 23) - 127
    bits &= 0x7FFFFF
    bits += np.int32(rng.SQRT_HALF_BITS)
    m = bits.view(np.float32)
    s = m - 1
    s /= m + 1
    total = horner(LOG_POLY, s * s)
    total *= s
    total += e.astype(np.float32) * np.float32(rng.LN2)
    return total


def unit(word: Array) -> Array:
    return (word >> 8).astype(np.float32) * np.float32(2.0**-24)


def open_unit(word: Array) -> Array:
    u = (word >> 9).astype(np.float32)
    u += np.float32(0.5)
    u *= np.float32(2.0**-23)
    return u


def below(word: Array, n: int | Array) -> Array:
    return (np.multiply(word, n, dtype=np.int64)) >> 32


def symmetric_beta(word_u: Array, word_v: Array, alpha: Array | np.float32) -> Array:
    u = open_unit(word_u)
    uniform = alpha == 1
    if uniform.all():
        return u
    length = -log(u)
    length /= alpha
    np.minimum(length, np.float32(rng.BETA_MAX_LOG), out=length)

    x = np.empty((3, len(u)), np.float32)  # arguments of exp, expm1 and sin
    n = length * np.float32(-rng.LOG2_E)
    n += np.float32(0.5)
    np.floor(n, out=n)
    np.subtract(-length, n * np.float32(rng.LN2_HI), out=x[0])
    x[0] -= n * np.float32(rng.LN2_LO)
    x[1] = length
    v = open_unit(word_v)
    np.multiply(v, v, out=x[2])
    q, p, c = horner(POLYS, x)
    scale = n.astype(np.int32)
    scale += 127
    scale <<= 23
    q *= scale.view(np.float32)  # e**-L
    p *= length
    p = np.where(length < 0.25, p, 1 - q)  # 1 - e**-L
    c *= v

    p *= c
    p *= c
    r = np.minimum(q / p, np.float32(rng.BETA_MAX_RATIO))
    root = np.sqrt(1 + r)
    small = r / (2 * root * (root + 1))
    return np.where(uniform, u, np.where(word_u & 1, 1 - small, small))


def matching(h: int, i: Array, batch: int) -> Array:
    n = batch - 1 if batch % 2 == 0 else batch
    mate = (2 * h - i) % n
    if batch % 2 == 0:
        mate[h], mate[n] = n, h
    return mate


def sort_keys(seed: int, offset: int, sample_offset: int, batch: int) -> Array:
    four = np.stack(words(seed, offset, sample_offset + np.arange((batch + 3) // 4), rng.STREAM_KEYS))  # [4, n]
    return ((four.T.reshape(-1)[:batch] >> 1).astype(np.int64) << 32) | np.arange(batch)


def mates(recipe: Recipe, seed: int, offset: int, sample_offset: int, batch: int, given: Array | None) -> Array:
    i = np.arange(batch)
    if recipe.pairing == FLIP:
        return batch - 1 - i
    if recipe.pairing == GIVEN:
        assert given is not None
        return np.where((given >= 0) & (given < batch), given, i)
    if recipe.pairing == ROLL:
        return (i - 1) % batch
    if recipe.pairing == ALONE:
        return i
    if recipe.pairing == MATCHING:
        h = (word(seed, offset, sample_offset, rng.STREAM_MATCHING)[0] * (batch - 1 + batch % 2)) >> 32
        return matching(h, i, batch)
    order = sort_keys(seed, offset, sample_offset, batch).argsort()
    mate = i.copy()
    if recipe.pairing == PERMUTE:
        mate[order] = i
        return mate
    assert recipe.pairing == EXACT
    even = batch - batch % 2
    mate[order[0:even:2]], mate[order[1:even:2]] = order[1:even:2], order[0:even:2]
    return mate


def kept_fraction(box: Array, height: int, width: int) -> Array:
    total = height * width
    sides = box[:, 2:] - box[:, :2]
    return (total - sides[:, 0] * sides[:, 1]).astype(np.float32) / np.float32(total)


def cut_box(lam: Array, word_y: Array, word_x: Array, height: int, width: int) -> Array:
    size = np.array([[height], [width]])
    half = (np.sqrt(1 - lam) * size.astype(np.float32)).astype(np.int64)  # [2, n]
    half >>= 1
    edges = np.empty((2, *half.shape), np.int64)
    centre = np.stack((word_y, word_x)) * size >> 32
    np.maximum(centre - half, 0, out=edges[0])
    np.minimum(centre + half, size, out=edges[1])
    return edges.reshape(4, -1).T


def minmax_box(
    recipe: Recipe, word_h: Array, word_w: Array, word_y: Array, word_x: Array, height: int, width: int
) -> Array:
    box = np.empty((len(word_h), 4), np.int64)
    for axis, (word_side, word_origin, side) in enumerate(((word_h, word_y, height), (word_w, word_x, width))):
        lo, count = side_range(recipe.minmax_lo, recipe.minmax_hi, side)
        cut = lo + below(word_side, count)
        box[:, axis] = below(word_origin, side - cut + 1)
        box[:, axis + 2] = box[:, axis] + cut
    return box


def clip_box(box: Array, height: int, width: int) -> Array:
    clipped = np.empty(box.shape, np.int64)
    for axis, side in enumerate((height, width)):
        clipped[:, axis] = np.clip(box[:, axis], 0, side)
        clipped[:, axis + 2] = np.maximum(np.minimum(box[:, axis + 2], side), clipped[:, axis])
    return clipped


def drawing(recipe: Recipe, mate: Array, sample_offset: int) -> Array:
    """The index that each sample draws by: of itself, of the lower of its pair, or one for the batch, int64 [1]."""
    if recipe.mode == MODE_BATCH:
        return np.zeros(1, np.int64)
    i = np.arange(len(mate))
    return sample_offset + (np.minimum(i, mate) if recipe.mode == MODE_PAIR else i)


def draw(
    recipe: Recipe,
    batch: int,
    height: int,
    width: int,
    seed: int,
    offset: int,
    sample_offset: int = 0,
    *,
    lam: Array | None = None,
    box: Array | None = None,
    partner: Array | None = None,
) -> Draw:
    """As the reference's `draw`; batch >= 1."""
    library = native.library()
    if library is not None:
        mate = None
        if recipe.pairing != MATCHING:
            mate = mates(recipe, seed, offset, sample_offset, batch, partner)
        return native.draw(
            library, recipe, batch, height, width, seed & MASK64, offset & MASK64, sample_offset, mate, lam, box
        )
    i = np.arange(batch)
    mate = mates(recipe, seed, offset, sample_offset, batch, partner)
    sample = drawing(recipe, mate, sample_offset)
    n = len(sample)
    if recipe.has_box and box is None:  # both streams at once
        index, stream = np.concatenate((sample, sample)), np.full(2 * n, rng.STREAM_SAMPLE)
        stream[n:] = rng.STREAM_BOX
        drawn = words(seed, offset, index, stream)
        word_y, word_x = drawn[0][n:], drawn[1][n:]
        apply, switch, word_u, word_v = (word[:n] for word in drawn)
    else:
        apply, switch, word_u, word_v = words(seed, offset, sample, rng.STREAM_SAMPLE)

    mixed = mate != i
    if recipe.p < 1:
        mixed = mixed & (unit(apply) < np.float32(recipe.p))
    cut: Array | np.bool_ = np.bool_(recipe.has_box)
    alpha: Array | np.float32 = np.float32(recipe.cutmix_alpha if recipe.has_box else recipe.mixup_alpha)
    if recipe.has_box and recipe.has_mixup:
        cut = unit(switch) < np.float32(recipe.switch_prob)
        alpha = np.where(cut, alpha, np.float32(recipe.mixup_alpha))
    if lam is None:
        drawn_lam = symmetric_beta(word_u, word_v, alpha)
    else:
        drawn_lam = np.minimum(np.maximum(lam, np.float32(0)), np.float32(1))

    drawn_box: Array = NO_BOX
    if recipe.has_box:
        if box is not None:
            drawn_box = clip_box(box, height, width)
        elif recipe.minmax_hi >= 0:
            drawn_box = minmax_box(recipe, word_u, word_v, word_y, word_x, height, width)
        else:
            drawn_box = cut_box(drawn_lam, word_y, word_x, height, width)
        if recipe.correct_lam:
            kept = kept_fraction(drawn_box, height, width)
            drawn_lam = np.where(cut, kept, drawn_lam) if recipe.has_mixup else kept

    if not recipe.has_box:
        drawn_box = np.broadcast_to(NO_BOX, (batch, 4))
    one_method = recipe.has_box != recipe.has_mixup
    if one_method and batch == len(drawn_lam) == len(drawn_box) and mixed.all():  # the usual call: nothing to choose
        return Draw(np.full(batch, METHOD_CUTMIX if recipe.has_box else METHOD_MIXUP), drawn_lam, mate, mate, drawn_box)
    method = np.where(mixed, np.where(cut, METHOD_CUTMIX, METHOD_MIXUP), METHOD_NONE)
    return Draw(
        method=method,
        lam=np.where(mixed, drawn_lam, np.float32(1.0)),
        partner=np.where(mixed, mate, i),
        mate=mate,
        box=np.where((mixed & cut)[:, None], drawn_box, 0) if recipe.has_box else drawn_box,
    )
