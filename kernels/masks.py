"""Masks: which elements come from the partner.

Elements are given as aligned runs of VEC, `start` int32 [R, 1] and `lane` int32 [1, VEC], so that what a run shares is
computed once for it. A sample is seen as planes of H rows, each ROW elements wide: ROW = W for contiguous samples (a
plane is a channel), ROW = W * C for channels_last ones (one plane). STEP is the elements of a pixel in a row: 1 or C.
"""

import triton
import triton.language as tl


@triton.jit
def inside(
    start, lane, y0, x0, y1, x1, H: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr
):  # fmt: skip
    """True where the element lies in the half-open box."""
    left, width = x0 * STEP, (x1 - x0) * STEP
    if ROW % VEC == 0:  # a run lies in one row
        y = (start // ROW) % H
        here = tl.where((y >= y0) & (y < y1), width, 0)
        distance = (start % ROW - left) + lane
    else:
        offs = start + lane
        y = (offs // ROW) % H
        here = tl.where((y >= y0) & (y < y1), width, 0)
        distance = offs % ROW - left
    return distance.to(tl.uint32, bitcast=True) < here.to(tl.uint32, bitcast=True)  # 0 <= distance < here


@triton.jit
def run_inside(
    start, lane, y0, x0, y1, x1, H: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr
):  # fmt: skip
    """(any, all) of `inside` over each run, or over the longest shorter runs that rows are made of.

    Constant over those by construction, so that masked accesses stay as wide.
    """
    if ROW % VEC == 0:
        first = start
        SHORT: tl.constexpr = VEC
    else:
        SHORT: tl.constexpr = ROW & -ROW
        first = (start + lane) // SHORT * SHORT
    y, column = (first // ROW) % H, first % ROW
    row = (y >= y0) & (y < y1)
    some = row & (column < x1 * STEP) & (column + SHORT > x0 * STEP)
    every = row & (column >= x0 * STEP) & (column + SHORT <= x1 * STEP)
    return some, every


@triton.jit
def inside_bytes(
    start, y0, x0, y1, x1, H: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr
):  # fmt: skip
    """`inside` of bytes, four to a word: int32 [R, VEC // 4], all bits of a byte set or none. ROW % VEC == 0."""
    y, column = (start // ROW) % H, start % ROW
    first = tl.minimum(tl.maximum(x0 * STEP - column, 0), VEC)
    last = tl.minimum(tl.maximum(x1 * STEP - column, 0), VEC)
    run = tl.where((y >= y0) & (y < y1), (1 << last) - (1 << first), 0)  # a bit for each byte of the run
    four = (run >> (4 * tl.arange(0, VEC // 4))[None, :]) & 15
    return (four * 0x204081 & 0x01010101) * 255  # bit k of four to bit 8 k, then to all bits of byte k
