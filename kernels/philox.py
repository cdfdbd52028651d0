"""Philox4x32 words, addressed as the table in `fusedmix.rng` says."""

import triton
import triton.language as tl

from fusedmix import rng

NOISE_ROUNDS = tl.constexpr(rng.NOISE_ROUNDS)
ROUND_A, ROUND_B = tl.constexpr(rng.ROUND_A), tl.constexpr(rng.ROUND_B)
KEY_A, KEY_B = tl.constexpr(rng.KEY_A), tl.constexpr(rng.KEY_B)


@triton.jit
def words(seed, offset, index, STREAM: tl.constexpr):
    """Four uint32 words per index; seed and offset: int64 scalars, index: int32."""
    offset_lo = offset.to(tl.uint32)
    offset_hi = (offset >> 32).to(tl.uint32)
    return tl.philox(seed, offset_lo, offset_hi, index.to(tl.uint32), STREAM)


@triton.jit
def words_at(seed, offset, index, stream):
    """As `words`, of a stream that is a tensor of the shape of index."""
    offset_lo = offset.to(tl.uint32)
    offset_hi = (offset >> 32).to(tl.uint32)
    return tl.philox(seed, offset_lo, offset_hi, index.to(tl.uint32), stream.to(tl.uint32))


@triton.jit
def words_of(key, stream, PTX: tl.constexpr):
    """Words of NOISE_ROUNDS, as `words_at` of the seed `key`, a uint32 scalar, and zeros. PTX: see `product`."""
    key_a, key_b = key, key * 0
    a, b, c, d = key_b, key_b, key_b, stream.to(tl.uint32)
    for _ in tl.static_range(NOISE_ROUNDS):
        low_a, high_a = product(a, ROUND_A, PTX)
        low_c, high_c = product(c, ROUND_B, PTX)
        a, b, c, d = high_c ^ b ^ key_a, low_c, high_a ^ d ^ key_b, low_a
        key_a, key_b = key_a + KEY_A, key_b + KEY_B
    return a, b, c, d


@triton.jit
def product(a, FACTOR: tl.constexpr, PTX: tl.constexpr):
    """(low, high) words of a product. PTX: by one instruction, of which `tl.philox` makes two, and LLVM here three.

    But where a GPU has it, see `arch_of` in launch.py.
    """
    if PTX and len(a.shape) > 0:
        low, high = tl.inline_asm_elementwise(
            "{ .reg .b64 p; mul.wide.u32 p, $2, $3; mov.b64 {$0, $1}, p; }", "=r,=r,r,r",
            [a, tl.full([], FACTOR, tl.uint32)], (tl.uint32, tl.uint32), True, 1,
        )  # fmt: skip
    else:
        both = a.to(tl.uint64) * FACTOR
        low, high = both.to(tl.uint32), (both >> 32).to(tl.uint32)
    return low, high
