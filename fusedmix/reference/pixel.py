"""Pixel arithmetic in float32: mix, normalise, and the one rounding at the end."""

import torch
from torch import Tensor


def lerp(own: Tensor, other: Tensor, lam: Tensor) -> Tensor:
    """lam * own + (1 - lam) * other, computed from the side with the larger weight; lam = 1 returns `own` untouched."""
    big, small = torch.where(lam < 0.5, other, own), torch.where(lam < 0.5, own, other)
    weight = torch.where(lam < 0.5, lam, 1 - lam)  # <= 1/2, exact
    return torch.where(lam == 1, own, big + weight * (small - big))


def normalise(value: Tensor, norm: Tensor) -> Tensor:
    """(value - mean) * inverse_std per channel; norm: float32 [2, C], value: float32 [B, C, ...]."""
    mean, inverse_std = norm.view(2, 1, -1, *[1] * (value.dim() - 2))
    return (value - mean) * inverse_std


def round_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 to `dtype`; to the nearest integer (halves to even) for uint8."""
    return value.round().to(dtype) if dtype == torch.uint8 else value.to(dtype)
