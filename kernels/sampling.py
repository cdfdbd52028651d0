"""Samplers: from Philox words to partners, lam and boxes. Values in, values out; float32, no fused multiply-add."""

import triton
import triton.language as tl

from fusedmix import recipe, rng

from .philox import words

STREAM_MATCHING = tl.constexpr(rng.STREAM_MATCHING)
STREAM_SAMPLE = tl.constexpr(rng.STREAM_SAMPLE)
STREAM_BOX = tl.constexpr(rng.STREAM_BOX)
STREAM_KEYS = tl.constexpr(rng.STREAM_KEYS)

MATCHING = tl.constexpr(recipe.MATCHING)
EXACT = tl.constexpr(recipe.EXACT)
FLIP = tl.constexpr(recipe.FLIP)
ROLL = tl.constexpr(recipe.ROLL)
PERMUTE = tl.constexpr(recipe.PERMUTE)
ALONE = tl.constexpr(recipe.ALONE)

LN2 = tl.constexpr(rng.LN2)
LN2_HI = tl.constexpr(rng.LN2_HI)
LN2_LO = tl.constexpr(rng.LN2_LO)
LOG2_E = tl.constexpr(rng.LOG2_E)
SQRT_HALF_BITS = tl.constexpr(rng.SQRT_HALF_BITS)
ONE_BITS = tl.constexpr(rng.ONE_BITS)
LOG_SHIFT = tl.constexpr(rng.ONE_BITS - rng.SQRT_HALF_BITS)
LOG_POLY = tl.constexpr(rng.LOG_POLY)
LOG_DEGREE = tl.constexpr(len(rng.LOG_POLY) - 1)
EXP_POLY = tl.constexpr(rng.EXP_POLY)
EXP_DEGREE = tl.constexpr(len(rng.EXP_POLY) - 1)
EXPM1_POLY = tl.constexpr(rng.EXPM1_POLY)
EXPM1_DEGREE = tl.constexpr(len(rng.EXPM1_POLY) - 1)
SIN_POLY = tl.constexpr(rng.SIN_POLY)
SIN_DEGREE = tl.constexpr(len(rng.SIN_POLY) - 1)
BETA_MAX_LOG = tl.constexpr(rng.BETA_MAX_LOG)
BETA_MAX_RATIO = tl.constexpr(rng.BETA_MAX_RATIO)

KEY_CHUNK = tl.constexpr(128)  # Philox calls per step of a ranking, four keys each
NO_KEY = tl.constexpr(2**63 - 1)


@triton.jit
def horner(POLY: tl.constexpr, DEGREE: tl.constexpr, x):
    total = x * POLY[DEGREE] + POLY[DEGREE - 1]
    for k in tl.static_range(2, DEGREE + 1):
        total = total * x + POLY[DEGREE - k]
    return total


@triton.jit
def log(x):
    """ln x for normal positive x, as x = 2**e * m with m in [sqrt(1/2), sqrt(2))."""
    bits = x.to(tl.int32, bitcast=True) + LOG_SHIFT
    e = (bits >> 23) - 127
    m = ((bits & 0x7FFFFF) + SQRT_HALF_BITS).to(tl.float32, bitcast=True)
    s = tl.div_rn(m - 1.0, m + 1.0)
    return e.to(tl.float32) * LN2 + s * horner(LOG_POLY, LOG_DEGREE, s * s)


@triton.jit
def exp(x):
    """e**x for -87 < x <= 0, as 2**n * e**r with |r| <= ln(2)/2."""
    n = tl.floor(x * LOG2_E + 0.5)
    r = x - n * LN2_HI
    r = r - n * LN2_LO
    scale = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return horner(EXP_POLY, EXP_DEGREE, r) * scale


@triton.jit
def sin_half_pi(v):
    """sin(pi v / 2) for 0 < v < 1."""
    return v * horner(SIN_POLY, SIN_DEGREE, v * v)


@triton.jit
def unit(word):
    """Uniform float32 in [0, 1) on a grid of 2**-24."""
    return (word >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def open_unit(word):
    """Uniform float32 in (0, 1), symmetric about 1/2: (k + 1/2) 2**-23 with k the top 23 bits.

    As a number of [1, 2) less 1 - 2**-24, which is exact, since conversions are slower than arithmetic.
    """
    return ((word >> 9).to(tl.int32) | ONE_BITS).to(tl.float32, bitcast=True) - 0.999999940395355224609375


@triton.jit
def below(word, n):
    """Uniform integer in [0, n)."""
    return tl.umulhi(word, tl.cast(n, tl.uint32)).to(tl.int32)


@triton.jit
def symmetric_beta(word_u, word_v, alpha):
    """Beta(alpha, alpha) in closed form (after Devroye 1996), its small side with full relative precision.

    Beta(1, 1) is the uniform u itself.
    """
    u = open_unit(word_u)
    length = tl.minimum(tl.div_rn(-log(u), alpha), BETA_MAX_LOG)  # L = -ln(u) / alpha
    q = exp(-length)  # e**-L
    p = tl.where(length < 0.25, length * horner(EXPM1_POLY, EXPM1_DEGREE, length), 1.0 - q)  # 1 - e**-L
    c = sin_half_pi(open_unit(word_v))
    r = tl.minimum(tl.div_rn(q, p * c * c), BETA_MAX_RATIO)
    root = tl.sqrt_rn(1.0 + r)
    small = tl.div_rn(r, 2.0 * root * (root + 1.0))
    return tl.where(alpha == 1.0, u, tl.where((word_u & 1) == 1, 1.0 - small, small))


@triton.jit
def draw_h(seed, offset, sample_offset, B):
    """h of the random matching, one per call."""
    word, _, _, _ = words(seed, offset, sample_offset, STREAM_MATCHING)
    return below(word, B - 1 + B % 2)


@triton.jit
def matching(h, i, B):
    """Partner of i in factor h of the 1-factorisation of the complete graph on B samples: (2h - i) mod n."""
    n = B - 1 + B % 2  # odd
    mate = 2 * h - i
    mate = tl.where(mate < 0, mate + n, mate)
    mate = tl.where(mate >= n, mate - n, mate)
    if B % 2 == 0:
        mate = tl.where(i == h, n, mate)
        mate = tl.where(i == n, h, mate)
    return mate


@triton.jit
def matching_pair(h, q, B):
    """Pair number q of the matching: (h + q, h - q) mod n, and (h, last) or (h, h) for q = 0."""
    n = B - 1 + B % 2
    i = tl.where(h + q >= n, h + q - n, h + q)
    return i, matching(h, i, B)


@triton.jit
def sort_key(word, i):
    """int64 key of sample i out of its word: 31 random bits, then the index. Distinct by construction."""
    return ((word >> 1).to(tl.int64) << 32) | i.to(tl.int64)


@triton.jit
def beside(seed, offset, sample_offset, i, B, ABOVE: tl.constexpr, UNDER: tl.constexpr):
    """(rank of i's key among B random ones, the samples with the next key above, and below) of i: int32 [R], no sort.

    i itself where there is none; None where not asked for. Each lane keeps its own count and nearest keys, which meet
    after the loop: as distances less 1, unsigned, so that what lies on the other side is far away.
    """
    w0, w1, w2, w3 = words(seed, offset, sample_offset + i // 4, STREAM_KEYS)
    word = tl.where(i % 4 < 2, tl.where(i % 4 == 0, w0, w1), tl.where(i % 4 == 2, w2, w3))
    own = sort_key(word, i)[:, None]
    reached = tl.zeros([i.shape[0], KEY_CHUNK], tl.int32)  # of keys not above, i's among them
    above = tl.full([i.shape[0], KEY_CHUNK], NO_KEY, tl.uint64)
    under = above
    for start in range(0, B, 4 * KEY_CHUNK):
        four = start // 4 + tl.arange(0, KEY_CHUNK)
        drawn = words(seed, offset, sample_offset + four, STREAM_KEYS)
        for w in tl.static_range(4):
            j = 4 * four + w
            keys = tl.where(j < B, sort_key(drawn[w], j), NO_KEY)[None, :]
            beyond = (keys - (own + 1)).to(tl.uint64, bitcast=True)
            reached += (beyond >> 63).to(tl.int32)
            if ABOVE:
                above = tl.minimum(above, beyond)
            if UNDER:
                under = tl.minimum(under, ((own - 1) - keys).to(tl.uint64, bitcast=True))
    rank = tl.sum(reached, 1) - 1
    upper, lower = None, None
    if ABOVE:
        upper = sample_of(own + 1, tl.min(above, 1)[:, None], i, 1)
    if UNDER:
        lower = sample_of(own - 1, tl.min(under, 1)[:, None], i, -1)
    return rank, upper, lower


@triton.jit
def sample_of(start, distance, alone, SIGN: tl.constexpr):
    """The sample of the key at a distance from `start`; `alone` where that is beyond all keys. [R, 1] to [R]."""
    key = start + distance.to(tl.int64, bitcast=True) * SIGN
    there = (distance < NO_KEY) & (key != NO_KEY)
    return tl.max(tl.where(there, (key & 0x7FFFFFFF).to(tl.int32), alone[:, None]), 1)


@triton.jit
def ranked(seed, offset, sample_offset, i, B, KIND: tl.constexpr):
    """Partner of i: int32 [R] by ranking B random keys.

    "permute": i's rank itself. "exact": ranks (0, 1), (2, 3), ... are pairs, so the partner is the key next above for
    an even rank and next below for an odd one; the last of an odd batch is alone.
    """
    rank, upper, lower = beside(seed, offset, sample_offset, i, B, KIND == EXACT, KIND == EXACT)
    if KIND == PERMUTE:
        mate = rank
    else:
        mate = tl.where(rank % 2 == 0, upper, lower)
    return mate


@triton.jit
def drawn_mate(seed, offset, sample_offset, i, B, KIND: tl.constexpr):
    """Partner of i before p is applied, for i: int32 [R] and every kind that is drawn or computed."""
    if KIND == MATCHING:
        mate = matching(draw_h(seed, offset, sample_offset, B), i, B)
    elif KIND == FLIP:
        mate = B - 1 - i
    elif KIND == ROLL:
        mate = tl.where(i == 0, B - 1, i - 1)
    elif KIND == ALONE:
        mate = i
    else:
        mate = ranked(seed, offset, sample_offset, i, B, KIND)
    return mate


@triton.jit
def kept_fraction(y0, x0, y1, x1, H: tl.constexpr, W: tl.constexpr):
    """Exact share of the pixels outside the half-open box."""
    kept = H * W - (y1 - y0) * (x1 - x0)
    return tl.div_rn(kept.to(tl.float32), H * W * 1.0)


@triton.jit
def cut_side(ratio, word, SIDE: tl.constexpr):
    """One axis of CutMix's box: side int(S sqrt(1 - lam)), centre uniform, edges clipped."""
    half = (ratio * SIDE).to(tl.int32) // 2
    centre = below(word, SIDE)
    return tl.maximum(centre - half, 0), tl.minimum(centre + half, SIDE)


@triton.jit
def minmax_side(word_side, word_origin, LO: tl.constexpr, COUNT: tl.constexpr, SIDE: tl.constexpr):
    """One axis of timm's `cutmix_minmax` box: side uniform in [LO, LO + COUNT), origin anywhere it fits."""
    cut = LO + below(word_side, COUNT)
    start = below(word_origin, SIDE - cut + 1)
    return start, start + cut
