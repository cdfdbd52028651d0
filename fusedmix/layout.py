"""How samples lie in memory. Bottom floor."""

import torch
from torch import Tensor


def sample_is_dense(x: Tensor, channels_last: bool) -> bool:
    """True when each sample of x is one dense run of memory in the given layout, whatever the batch stride."""
    one = x[:1]
    return one.is_contiguous(memory_format=torch.channels_last) if channels_last else one.is_contiguous()


def is_channels_last(x: Tensor) -> bool:
    """True when samples lie in memory as [H, W, C]; ambiguous shapes (C = 1, one pixel) count as contiguous."""
    if x.is_contiguous() or x.dim() != 4:
        return False
    return sample_is_dense(x, True) and not sample_is_dense(x, False)


def as_dense(x: Tensor) -> Tensor:
    """x itself when its samples are dense in either layout, else a contiguous copy."""
    if x.is_contiguous() or sample_is_dense(x, False) or (x.dim() == 4 and sample_is_dense(x, True)):
        return x
    return x.contiguous()
