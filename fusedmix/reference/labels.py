"""Target rows."""

import torch
from torch import Tensor

from fusedmix.recipe import smoothed_on_off

from .pixel import lerp


def dense_rows(target: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """float32 [B, K] rows of int64 [B] classes or of float [B, K] soft targets, smoothed as timm does.

    A class outside [0, K) has no labelled entry.
    """
    on, off = (torch.tensor(v, dtype=torch.float32) for v in smoothed_on_off(smoothing, num_classes))
    if target.dim() == 1:
        return torch.where(target[:, None] == torch.arange(num_classes), on, off)
    target = target.float()
    return target * torch.tensor(1.0 - smoothing, dtype=torch.float32) + off if smoothing else target


def mix_rows(rows: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """lam_i * rows_i + (1 - lam_i) * rows_partner(i)."""
    return lerp(rows, rows[partner], lam[:, None])
