"""Philox4x32-10 words, addressed as the table in `fusedmix.rng` says."""

import triton
import triton.language as tl


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
