"""nn.Modules that hold a spec."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .functional import Plan, call
from .spec import MixupOrCutMix, describe


class FusedMix(nn.Module):
    """mixup or CutMix, chosen per sample (pair, batch) inside one launch; the identity in `eval()` mode.

    Args:
        mixup_alpha: >= 0, Beta parameter of mixup; 0 switches mixup off.
        cutmix_alpha: >= 0, Beta parameter of CutMix; 0 switches CutMix off.
        prob: chance in [0, 1] that a sample (pair, batch) is mixed.
        switch_prob: chance in [0, 1] that a mixed sample gets CutMix rather than mixup.
        mode, partner, num_classes, smoothing, correct_lam, minmax, mean, std, out_dtype, memory_format, inplace: as of
            `fused_cutmix`.

    Called with (x, y=None, *, plan=None, generator=None, sample_offset=0, return_plan=False) it returns what
    `fused_cutmix` returns. In `eval()` it returns x and y as they came, without normalising.

    Raises ValueError or TypeError at construction for a wrong argument. Source: timm's `Mixup` for the words and the
    choice; arXiv 1710.09412 and 1905.04899 for the methods.

    Example:
        >>> import torch, fusedmix
        >>> mix = fusedmix.FusedMix(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)
        >>> mix
        FusedMix(mixup_alpha=0.8, num_classes=10)
        >>> x, y = mix(torch.rand(4, 3, 8, 8), torch.tensor([1, 2, 3, 4]))
        >>> y.shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "elem",
        partner: str = "matching",
        num_classes: int | None = None,
        smoothing: float = 0.0,
        correct_lam: bool = True,
        minmax: tuple[float, float] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        out_dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        inplace: bool = False,
    ):
        super().__init__()
        self.spec = MixupOrCutMix(
            mixup_alpha, cutmix_alpha, prob, switch_prob, mode, partner, num_classes, smoothing, correct_lam, minmax
        )
        self.recipe = self.spec.recipe
        self.mean, self.std = mean, std
        self.out_dtype, self.memory_format, self.inplace = out_dtype, memory_format, inplace

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        plan: Plan | None = None,
        generator: torch.Generator | None = None,
        sample_offset: int = 0,
        return_plan: bool = False,
    ) -> Any:
        if not self.training:
            if return_plan:
                raise ValueError("return_plan=True: in eval() nothing is mixed, so there is no plan")
            return x if y is None else (x, y)
        return call(
            self.recipe, x, y, None, None, None, plan, self.mean, self.std, self.out_dtype, self.memory_format,
            self.inplace, None, generator, sample_offset, return_plan,
        )  # fmt: skip

    def extra_repr(self) -> str:
        shown = [describe(self.spec)]
        for name in ("mean", "std", "out_dtype", "memory_format"):
            if getattr(self, name) is not None:
                shown.append(f"{name}={getattr(self, name)!r}")
        if self.inplace:
            shown.append("inplace=True")
        return ", ".join(shown)
