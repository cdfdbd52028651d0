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
    element, along = place_in_row(start, lane, ROW, VEC)
    first = start if ROW % VEC == 0 else start + lane
    return inside_row((first // ROW) % H, element, along, y0, x0, y1, x1, STEP)


@triton.jit
def place_in_row(start, lane, ROW: tl.constexpr, VEC: tl.constexpr):
    """Two parts of the elements' places in their rows: that of a run that lies in one row, and the lane in it."""
    if ROW % VEC == 0:
        element, along = start % ROW, lane
    else:
        element, along = (start + lane) % ROW, lane * 0
    return element, along


@triton.jit
def origin_of(start, step, STRIDE: tl.constexpr, ROW: tl.constexpr):
    """Where elements at `start` in tile `step` of a program lie in their rows, up to whole rows. STRIDE: tile to tile.

    With a stride of whole rows that is the program's first tile. Written as a difference, from which LLVM sees that it
    does not change, so that it moves what only columns decide out of the loop; triton, if it saw, would do so as well,
    but with a layout of which the tiles make eight times the work.
    """
    return start - step * STRIDE if STRIDE % ROW == 0 else start


@triton.jit
def inside_row(y, element, along, y0, x0, y1, x1, STEP: tl.constexpr):
    """`inside` of the elements of rows y, at `element + along` in them. y: None if all are known to be the box's."""
    here = (x1 - x0) * STEP
    if y is not None:
        here = tl.where((y >= y0) & (y < y1), here, 0)
    distance = (element - x0 * STEP) + along
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
