"""Samplers: from Philox words to partners, lam and boxes. All float arithmetic is float32, one rounding per step."""

from typing import NamedTuple

import torch
from torch import Tensor

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

from .philox import Words
from .philox import words as philox_words


class Draw(NamedTuple):
    """One row per sample: method int32 [B], lam float32 [B], partner and mate int64 [B], box int32 [B, 4].

    `mate` is the partner before `p` was applied: it pairs the samples up even where one of them stays unmixed.
    """

    method: Tensor
    lam: Tensor
    partner: Tensor
    mate: Tensor
    box: Tensor


def number(value: float, like: Tensor) -> Tensor:
    """`value` rounded to float32; a tensor, since torch's `scalar / tensor` is not correctly rounded."""
    return torch.full_like(like, value, dtype=torch.float32)


def sqrt(x: Tensor) -> Tensor:
    return x.double().sqrt().float()  # torch's float32 sqrt on the CPU is not correctly rounded


def horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    total = number(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        total = total * x + number(c, x)
    return total


def log(x: Tensor) -> Tensor:
    """ln x for normal positive x, as x = 2**e * m with m in [sqrt(1/2), sqrt(2))."""
    bits = x.view(torch.int32) + (rng.ONE_BITS - rng.SQRT_HALF_BITS)
    e = (bits >> 23) - 127
    m = ((bits & 0x7FFFFF) + rng.SQRT_HALF_BITS).view(torch.float32)
    s = (m - 1) / (m + 1)
    return e.float() * number(rng.LN2, x) + s * horner(rng.LOG_POLY, s * s)


def exp(x: Tensor) -> Tensor:
    """e**x for -87 < x <= 0, as 2**n * e**r with |r| <= ln(2)/2."""
    n = torch.floor(x * number(rng.LOG2_E, x) + 0.5)
    r = x - n * number(rng.LN2_HI, x)
    r = r - n * number(rng.LN2_LO, x)
    scale = ((n.to(torch.int32) + 127) << 23).view(torch.float32)
    return horner(rng.EXP_POLY, r) * scale


def sin_half_pi(v: Tensor) -> Tensor:
    """sin(pi v / 2) for 0 < v < 1."""
    return v * horner(rng.SIN_POLY, v * v)


def unit(word: Tensor) -> Tensor:
    """Uniform float32 in [0, 1) on a grid of 2**-24."""
    return (word >> 8).float() * 2.0**-24


def open_unit(word: Tensor) -> Tensor:
    """Uniform float32 in (0, 1), symmetric about 1/2: (k + 1/2) 2**-23 with k the top 23 bits."""
    return ((word >> 9).float() + 0.5) * 2.0**-23


def below(word: Tensor, n: int | Tensor) -> Tensor:
    """Uniform integer in [0, n)."""
    return (word * n) >> 32


def symmetric_beta(word_u: Tensor, word_v: Tensor, alpha: Tensor) -> Tensor:
    """Beta(alpha, alpha) in closed form (after Devroye 1996), its small side with full relative precision.

    Beta(1, 1) is the uniform u itself.
    """
    u = open_unit(word_u)
    length = (-log(u) / alpha).clamp(max=rng.BETA_MAX_LOG)  # L = -ln(u) / alpha
    q = exp(-length)  # e**-L
    p = torch.where(length < 0.25, length * horner(rng.EXPM1_POLY, length), 1 - q)  # 1 - e**-L
    c = sin_half_pi(open_unit(word_v))
    r = (q / (p * c * c)).clamp(max=rng.BETA_MAX_RATIO)
    root = sqrt(1 + r)
    small = r / (2 * root * (root + 1))
    return torch.where(alpha == 1, u, torch.where((word_u & 1) == 1, 1 - small, small))


def matching(h: Tensor, i: Tensor, batch: int) -> Tensor:
    """Partner of i in factor h of the 1-factorisation of the complete graph on `batch` samples.

    With n = batch - 1 (even batch) or batch (odd): i's partner is (2h - i) mod n; sample h pairs with the last sample
    when the batch is even and stays alone when it is odd.
    """
    n = batch - 1 if batch % 2 == 0 else batch
    mate = (2 * h - i) % n
    if batch % 2 == 0:
        mate = torch.where(i == h, n, mate)
        mate = torch.where(i == n, h, mate)
    return mate


def sort_keys(seed: int, offset: int, sample_offset: int, batch: int, words: Words) -> Tensor:
    """One distinct int64 key per sample: 31 random bits, then the index."""
    i = torch.arange(batch)
    four = torch.stack(words(seed, offset, sample_offset + i // 4, rng.STREAM_KEYS))  # [4, B]
    return ((four[i % 4, i] >> 1) << 32) | i


def mates(
    recipe: Recipe, seed: int, offset: int, sample_offset: int, batch: int, given: Tensor | None,
    words: Words = philox_words,
) -> Tensor:  # fmt: skip
    """Partner of every sample before `p` is applied, int64 [B]."""
    i = torch.arange(batch)
    if batch == 0 or recipe.pairing == FLIP:
        return batch - 1 - i
    if recipe.pairing == GIVEN:
        assert given is not None
        given = given.cpu()
        return torch.where((given >= 0) & (given < batch), given, i)
    if recipe.pairing == ROLL:
        return (i - 1) % batch
    if recipe.pairing == ALONE:
        return i
    if recipe.pairing == MATCHING:
        word = words(seed, offset, torch.tensor([sample_offset]), rng.STREAM_MATCHING)[0]
        return matching(below(word, batch - 1 if batch % 2 == 0 else batch), i, batch)
    order = sort_keys(seed, offset, sample_offset, batch, words).argsort()  # the sample at each rank
    if recipe.pairing == PERMUTE:
        rank = torch.empty_like(order)
        rank[order] = i
        return rank
    assert recipe.pairing == EXACT
    mate = i.clone()
    even = batch - batch % 2
    mate[order[0:even:2]], mate[order[1:even:2]] = order[1:even:2], order[0:even:2]
    return mate


def kept_fraction(box: Tensor, height: int, width: int) -> Tensor:
    """Exact share of the pixels outside the box, float32 [B]."""
    y0, x0, y1, x1 = box.long().unbind(1)  # half-open
    total = torch.full_like(y0, height * width)
    return (total - (y1 - y0) * (x1 - x0)).float() / total.float()


def cut_box(lam: Tensor, word_y: Tensor, word_x: Tensor, height: int, width: int) -> Tensor:
    """CutMix's box (1905.04899): sides int(S sqrt(1 - lam)), centre uniform, edges clipped. int32 [B, 4]."""
    ratio = sqrt(1 - lam)
    edges = []
    for word, side in ((word_y, height), (word_x, width)):
        half = (ratio * side).long() // 2
        centre = below(word, side)
        edges.append(((centre - half).clamp(0, side), (centre + half).clamp(0, side)))
    (y0, y1), (x0, x1) = edges
    return torch.stack([y0, x0, y1, x1], 1).int()


def minmax_box(recipe: Recipe, word_h: Tensor, word_w: Tensor, word_y: Tensor, word_x: Tensor, height: int, width: int):
    """timm's box for `cutmix_minmax`: sides uniform in [int(S lo), int(S hi)), origin anywhere it fits."""
    edges = []
    for word_side, word_origin, side in ((word_h, word_y, height), (word_w, word_x, width)):
        lo, count = side_range(recipe.minmax_lo, recipe.minmax_hi, side)
        cut = lo + below(word_side, count)
        start = below(word_origin, side - cut + 1)
        edges.append((start, start + cut))
    (y0, y1), (x0, x1) = edges
    return torch.stack([y0, x0, y1, x1], 1).int()


def clip_box(box: Tensor, height: int, width: int) -> Tensor:
    """A box given by the caller, cut to the image; an inverted one becomes empty."""
    y0, x0, y1, x1 = box.cpu().int().unbind(1)
    y0, x0 = y0.clamp(0, height), x0.clamp(0, width)
    return torch.stack([y0, x0, torch.maximum(y1.clamp(max=height), y0), torch.maximum(x1.clamp(max=width), x0)], 1)


def draw(
    recipe: Recipe,
    batch: int,
    height: int,
    width: int,
    seed: int,
    offset: int,
    sample_offset: int = 0,
    *,
    lam: Tensor | None = None,
    box: Tensor | None = None,
    partner: Tensor | None = None,
) -> Draw:
    """Draws every sample's method, lam, partner and box, on the CPU; what the caller gave is not drawn."""
    i = torch.arange(batch)
    mate = mates(recipe, seed, offset, sample_offset, batch, partner)
    sample = sample_offset + (torch.minimum(i, mate) if recipe.mode == MODE_PAIR else i)
    if recipe.mode == MODE_BATCH:
        sample = torch.zeros_like(i)
    apply, switch, word_u, word_v = philox_words(seed, offset, sample, rng.STREAM_SAMPLE)
    word_y, word_x, _, _ = philox_words(seed, offset, sample, rng.STREAM_BOX)

    mixed = (unit(apply) < number(recipe.p, apply)) & (mate != i)  # a sample left alone is not mixed
    cut = unit(switch) < number(recipe.switch_prob, switch)
    alpha = torch.where(cut, number(recipe.cutmix_alpha, cut), number(recipe.mixup_alpha, cut))
    drawn_lam = symmetric_beta(word_u, word_v, alpha) if lam is None else lam.cpu().float().expand(batch).clamp(0, 1)

    if not recipe.has_box:
        drawn_box = torch.zeros(batch, 4, dtype=torch.int32)
    elif box is not None:
        drawn_box = clip_box(box, height, width)
    elif recipe.minmax_hi >= 0:
        drawn_box = minmax_box(recipe, word_u, word_v, word_y, word_x, height, width)
    else:
        drawn_box = cut_box(drawn_lam, word_y, word_x, height, width)
    if recipe.has_box and recipe.correct_lam:
        drawn_lam = torch.where(cut, kept_fraction(drawn_box, height, width), drawn_lam)

    method = torch.where(mixed, torch.where(cut, METHOD_CUTMIX, METHOD_MIXUP), METHOD_NONE)
    return Draw(
        method=method.int(),
        lam=torch.where(mixed, drawn_lam, 1.0),
        partner=torch.where(mixed, mate, i),
        mate=mate,
        box=torch.where((mixed & cut)[:, None], drawn_box, 0),
    )


def pack(plan: Draw) -> Tensor:
    """The plan as one int32 tensor, as kernels write it."""
    columns = plan.method, plan.lam.contiguous().view(torch.int32), plan.partner, plan.mate
    return torch.cat([torch.stack([column.int() for column in columns], 1), plan.box], 1)
