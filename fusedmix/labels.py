"""Target forms: what may come in as `y`, and the pair of classes that comes out when `num_classes` is unknown."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .recipe import Recipe
from .reference.labels import dense_rows
from .reference.pixel import lerp
from .spec import check_integer, check_number

SOFT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FEW = 32  # labels that Python looks through sooner than torch


class MixedTarget(NamedTuple):
    """Own class, partner's class and own weight of every sample: int64 [B], int64 [B], float32 [B]."""

    y_a: Tensor
    y_b: Tensor
    lam: Tensor

    def dense(self, num_classes: int, smoothing: float = 0.0) -> Tensor:
        """float32 [B, num_classes] target rows, smoothed as timm does (off = smoothing / num_classes)."""
        check_integer("num_classes", num_classes, 1, 2**31 - 1)
        check_number("smoothing", smoothing, 0.0, 1.0)
        own, other = (dense_rows(y, num_classes, smoothing) for y in (self.y_a, self.y_b))
        return lerp(own, other, self.lam[:, None])

    def loss(self, logits: Tensor, criterion: Callable[..., Tensor] = F.cross_entropy) -> Tensor:
        """Mean of lam * criterion(logits, y_a) + (1 - lam) * criterion(logits, y_b).

        logits: float [B, K]. criterion: takes `reduction="none"` and returns one loss per sample, float [B].
        """
        own, other = (criterion(logits, y, reduction="none") for y in (self.y_a, self.y_b))
        return (self.lam * own + (1 - self.lam) * other).mean()


def check_target(y: object, x: Tensor, recipe: Recipe) -> Tensor:
    """y when it is a target for the batch x: int64 [B] or float [B, K] on x's device. Contiguous."""
    if not isinstance(y, Tensor):
        raise TypeError(f"y must be a Tensor, int64 [B] or float [B, K], got {type(y).__name__}")
    batch = x.shape[0]
    if y.dtype == torch.int64:
        if y.dim() != 1 or y.shape[0] != batch:
            raise ValueError(f"y of int64 must be [B] with B = {batch} as in x, got {list(y.shape)}")
        if not recipe.num_classes and recipe.smoothing:
            raise ValueError(f"num_classes is missing: smoothing={recipe.smoothing} of int64 targets needs it")
    elif y.dtype in SOFT_DTYPES:
        if y.dim() != 2 or y.shape[0] != batch or y.shape[1] < 1:
            raise ValueError(f"y of floats must be [B, K] with B = {batch} as in x and K >= 1, got {list(y.shape)}")
        if recipe.num_classes and recipe.num_classes != y.shape[1]:
            raise ValueError(f"num_classes is {recipe.num_classes}, but y has {y.shape[1]} columns")
    else:
        raise TypeError(f"y must be int64 [B] or float32/float16/bfloat16 [B, K], got {y.dtype}")
    if y.device != x.device:
        raise ValueError(f"y must be on the device of x ({x.device}), got {y.device}")
    return y if y.is_contiguous() else y.contiguous()


def check_classes(y: Tensor, num_classes: int) -> None:
    """Refuses class indices outside [0, num_classes). Reads values: a sync on a GPU."""
    if y.numel() == 0:
        return
    if y.numel() <= FEW:
        values = y.tolist()
        low, high = min(values), max(values)
    else:
        low, high = (int(v) for v in torch.aminmax(y))
    if low < 0 or high >= num_classes:
        bad = low if low < 0 else high
        raise ValueError(f"num_classes is {num_classes}, but y holds class {bad}; allowed are 0 to {num_classes - 1}")
