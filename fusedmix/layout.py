"""How samples lie in memory. Bottom floor."""

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

LARGE = 1 << 22  # bytes of a result from which its pages are asked to be large


def sample_is_dense(x: Tensor, channels_last: bool) -> bool:
    """True when each sample of x is one dense run of memory in the given layout, whatever the batch stride."""
    one = x[:1]
    return one.is_contiguous(memory_format=torch.channels_last) if channels_last else one.is_contiguous()


def is_channels_last(x: Tensor) -> bool:
    """True when samples lie in memory as [H, W, C]; ambiguous shapes (C = 1, one pixel) count as contiguous."""
    if x.is_contiguous() or x.dim() != 4:
        return False
    return sample_is_dense(x, True) and not sample_is_dense(x, False)


def on_large_pages(result: Tensor) -> Tensor:
    """A new result, whose memory is asked for in pages of 2 MiB instead of 4 KiB, which cost more than mixing does.

    On a CPU, under Linux where it lets programs ask (transparent huge pages "madvise"); elsewhere nothing changes.
    """
    if type(result) is Tensor and result.is_cpu and result.nbytes >= LARGE:  # no fake one, of unknown size
        start = -(-result.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        ask_for_large_pages()(start, result.data_ptr() + result.nbytes - start)
    return result


@cache
def ask_for_large_pages() -> Callable[[int, int], object]:
    """madvise(start, bytes, MADV_HUGEPAGE), where there is such advice."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return lambda start, size: None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return lambda start, size: madvise(start, size, advice)


def as_dense(x: Tensor) -> Tensor:
    """x itself when its samples are dense in either layout, else a contiguous copy."""
    if x.is_contiguous() or sample_is_dense(x, False) or (x.dim() == 4 and sample_is_dense(x, True)):
        return x
    return x.contiguous()
