"""Target rows."""

import triton
import triton.language as tl


@triton.jit
def one_hot(labelled, column, on, off):
    """Smoothed one-hot rows, float32 [R, K]; a class outside [0, K) has no labelled entry."""
    return tl.where(labelled[:, None].to(tl.int64) == column[None, :], on, off)


@triton.jit
def smooth(rows, keep, off):
    """Soft targets smoothed towards uniform."""
    return rows * keep + off
