"""What one call drew: enough to replay it on anything."""

import torch
from torch import Tensor

from .recipe import (
    METHOD_NAMES,
    PLAN_BOX,
    PLAN_COLUMNS,
    PLAN_LAM,
    PLAN_MATE,
    PLAN_METHOD,
    PLAN_PARTNER,
    Recipe,
)


class Plan:
    """The parameters of every sample of one call.

    Held as one int32 [B, 8] tensor, `packed`, which kernels read and write. `size` is the (H, W) that boxes refer to,
    None for a plan without boxes.
    """

    def __init__(self, packed: Tensor, recipe: Recipe, size: tuple[int, int] | None):
        if packed.dim() != 2 or packed.shape[1] != PLAN_COLUMNS or packed.dtype != torch.int32:
            raise ValueError(f"packed must be int32 [B, {PLAN_COLUMNS}], got {packed.dtype} {list(packed.shape)}")
        self.packed, self.recipe, self.size = packed, recipe, size

    @property
    def method(self) -> Tensor:
        """int32 [B]: 0 not mixed, 1 mixup, 2 CutMix."""
        return self.packed[:, PLAN_METHOD]

    @property
    def lam(self) -> Tensor:
        """float32 [B]: weight of the sample's own target; 1 = not mixed."""
        return self.packed.view(torch.float32)[:, PLAN_LAM]

    @property
    def partner(self) -> Tensor:
        """int64 [B]: whom sample i was mixed with; i itself when it was not mixed."""
        return self.packed[:, PLAN_PARTNER].long()

    @property
    def mate(self) -> Tensor:
        """int64 [B]: the partner before `p` was applied."""
        return self.packed[:, PLAN_MATE].long()

    @property
    def box(self) -> Tensor:
        """int32 [B, 4]: (y0, x0, y1, x1) in pixels, half-open; empty unless CutMix."""
        return self.packed[:, PLAN_BOX:]

    def apply(self, x: Tensor, y: Tensor | None = None, **options):
        """Does to `x` (and targets `y`) what this plan did to the batch it was drawn for.

        x: uint8 or float [B, ...]; [B, C, H, W] of the same H and W when the plan has boxes. options: as of
        `fused_cutmix` (num_classes, smoothing, out, inplace, mean, std, out_dtype, ...). Returns x, or (x, y).
        """
        from .functional import replay

        return replay(self, x, y, **options)

    def to(self, device: torch.device | str) -> "Plan":
        return Plan(self.packed.to(device), self.recipe, self.size)

    def __len__(self) -> int:
        return self.packed.shape[0]

    def __repr__(self) -> str:
        counts = torch.bincount(self.method.cpu(), minlength=len(METHOD_NAMES)).tolist()
        drawn = ", ".join(f"{n} {name}" for name, n in zip(METHOD_NAMES, counts, strict=True) if n)
        return f"Plan({len(self)} samples: {drawn or 'empty'}; device={self.packed.device})"
