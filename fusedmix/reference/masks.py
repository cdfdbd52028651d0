"""Masks: which pixels come from the partner."""

import torch
from torch import Tensor


def inside(box: Tensor, height: int, width: int) -> Tensor:
    """True inside each half-open box: bool [B, H, W]."""
    y0, x0, y1, x1 = (edge[:, None, None] for edge in box.unbind(1))
    y = torch.arange(height, device=box.device)[:, None]
    x = torch.arange(width, device=box.device)
    return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
