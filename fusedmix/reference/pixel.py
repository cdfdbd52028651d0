"""Pixel arithmetic in float32: mix, normalise, and the one rounding at the end."""

import torch
from torch import Tensor


def addcmul_rounds_once() -> bool:
    """As in torch's loops for processors that have the instruction, in the ends of rows as well."""
    x = torch.full((67,), 1 + 2.0**-12, dtype=torch.float32, device="cpu")  # whose square is 1 + 2**-11 + 2**-24
    return bool((torch.addcmul(x - x - (1 + 2.0**-11), x, x) == 2.0**-24).all())


HAS_FMA = addcmul_rounds_once()


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c of float32 numbers, rounded once."""
    if HAS_FMA and a.device.type == "cpu":
        return torch.addcmul(c, a, b)
    return emulated_fma(a, b, c)


def emulated_fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`fma` by way of float64, which holds the product.

    It may round the sum, and the last step would then round what was rounded: an odd last bit, where something was
    lost, keeps that step from seeing a tie (S. Boldo, G. Melquiond: "Emulation of a FMA and correctly rounded sums").
    """
    product, c = a.double() * b.double(), c.double()
    total = product + c
    back = total - product
    lost = (product - (total - back)) + (c - back)
    odd = total.view(torch.int64) % 2 != 0
    other = torch.nextafter(total, torch.copysign(torch.full_like(lost, torch.inf), lost))
    return torch.where((lost == 0) | odd | lost.isnan(), total, other).float()


def lerp(own: Tensor, other: Tensor, lam: Tensor) -> Tensor:
    """lam * own + (1 - lam) * other, computed from the side with the larger weight; lam = 1 returns `own` untouched."""
    big, small = torch.where(lam < 0.5, other, own), torch.where(lam < 0.5, own, other)
    weight = torch.where(lam < 0.5, lam, 1 - lam)  # <= 1/2, exact
    return torch.where(lam == 1, own, fma(small - big, weight, big))


def normalise(value: Tensor, norm: Tensor) -> Tensor:
    """value / std - mean / std per channel; norm: float32 [2, C], mean and inverse std; value: float32 [B, C, ...]."""
    mean, inverse_std = norm.view(2, 1, -1, *[1] * (value.dim() - 2))
    return fma(value, inverse_std, -(mean * inverse_std))


def round_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 to `dtype`; to the nearest integer (halves to even) for uint8."""
    return value.round().to(dtype) if dtype == torch.uint8 else value.to(dtype)
