"""Masks: which elements come from the partner.

A sample is seen as planes of H rows, each ROW elements wide: ROW = W for contiguous samples (a plane is a channel),
ROW = W * C for channels_last ones (one plane). STEP is the elements per pixel within a row: 1 or C.
"""

import triton
import triton.language as tl


@triton.jit
def inside(offs, y0, x0, y1, x1, H: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr):
    """True where the element lies in the half-open box."""
    y, column = (offs // ROW) % H, offs % ROW
    return (y >= y0) & (y < y1) & (column >= x0 * STEP) & (column < x1 * STEP)


@triton.jit
def vector_inside(offs, y0, x0, y1, x1, H: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr):
    """(any, all) of `inside` over each aligned run of VEC elements; VEC divides ROW.

    Constant over a run by construction, so that masked accesses keep their 128 bits.
    """
    first = offs // VEC * VEC
    y, column = (first // ROW) % H, first % ROW
    row = (y >= y0) & (y < y1)
    some = row & (column < x1 * STEP) & (column + VEC > x0 * STEP)
    every = row & (column >= x0 * STEP) & (column + VEC <= x1 * STEP)
    return some, every
