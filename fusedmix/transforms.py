"""nn.Modules that hold a spec."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_finish, knobs_of
from .functional import Plan, call
from .schedule import Number
from .spec import DropSpec, MixupOrCutMix, Policy, Spec, check_number, describe

Methods = Sequence[tuple[Spec | None, Number]]


def check_unused(spec: MixupOrCutMix, names: Sequence[str]) -> None:
    """Refuses timm's words beside a list of methods, where they would play no part."""
    for field in fields(spec):
        if field.name in names and getattr(spec, field.name) != field.default:
            raise ValueError(f"{field.name} plays no part beside a list of methods: give it to a spec of the list")


class Scheduled(nn.Module):
    """A module whose numbers lie in a tensor of knobs, which schedules move and kernels read."""

    knobs: Tensor | None
    progress = 0.0

    def rows(self, progress: float) -> tuple[tuple[Number, ...], ...] | None:
        """The rows of knobs at a share of the training done; None where the module has none."""
        raise NotImplementedError

    def init_knobs(self) -> None:
        rows = self.rows(0.0)
        self.has_scalars = rows is not None and any(isinstance(number, Tensor) for row in rows for number in row)
        knobs = None if rows is None else knobs_of(rows, torch.device("cpu")).clone()
        self.register_buffer("knobs", knobs, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves the knobs with the module; half() and its like leave them float32."""
        super()._apply(fn, recurse)
        if self.knobs is not None and self.knobs.dtype != torch.float32:
            rows = self.rows(self.progress)
            assert rows is not None
            self.knobs = knobs_of(rows, self.knobs.device).clone()
        return self

    def knobs_on(self, x: Tensor) -> Tensor | None:
        """The numbers on x's device."""
        if self.knobs is None or not isinstance(x, Tensor):
            return None
        if self.has_scalars:
            rows = self.rows(self.progress)
            assert rows is not None
            return knobs_of(rows, x.device)
        if self.knobs.device == x.device:
            return self.knobs
        moved = self.knobs.to(x.device)
        if not torch.compiler.is_compiling():
            self.knobs = moved  # once, so that a CUDA graph can be captured after a first call
        return moved

    def set_progress(self, progress: float) -> None:
        """Moves every schedule to a share of the training done, in [0, 1]; nothing is recompiled.

        Raises ValueError outside [0, 1], or where the module has no list of methods and no `erase`.
        """
        check_number("progress", progress, 0.0, 1.0)
        rows = self.rows(float(progress))
        if rows is None or self.knobs is None:
            raise ValueError("set_progress needs a list of methods or erase=: mixup_alpha to switch_prob are fixed")
        self.progress = float(progress)
        with torch.no_grad():
            self.knobs.copy_(knobs_of(rows, self.knobs.device))


class FusedMix(Scheduled):
    """A method per sample (pair, batch), chosen inside one launch; the identity in `eval()` mode.

    Args:
        methods: pairs (spec or None, probability), as `[(CutMix(1.0), 0.4), (Mixup(0.2), 0.3), (None, 0.3)]`; the
            rest of the probability stays untouched. Without them, mixup or CutMix by timm's words:
        mixup_alpha: >= 0, Beta parameter of mixup; 0 switches mixup off.
        cutmix_alpha: >= 0, Beta parameter of CutMix; 0 switches CutMix off.
        prob: chance in [0, 1] that a sample (pair, batch) is mixed.
        switch_prob: chance in [0, 1] that a mixed sample gets CutMix rather than mixup.
        erase: a spec that drops a region after mixing (`RandomErasing(p=0.25)`, `Cutout()`, ...), per sample.
        mode, partner, num_classes, smoothing, correct_lam, minmax, mean, std, out_dtype, memory_format, inplace: as of
            `fused_cutmix`.

    Called with (x, y=None, *, plan=None, generator=None, sample_offset=0, return_plan=False) it returns what
    `fused_cutmix` returns. Numbers of specs (probabilities, p, alpha, sizes) may be schedules (`Linear`, `Until`) that
    `set_progress` moves, or tensors of one number, which are read on the device in each call; neither recompiles
    anything. In `eval()` it returns x and y as they came, without normalising.

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
        methods: Methods | None = None,
        *,
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
        erase: DropSpec | None = None,
    ):
        super().__init__()
        timm = MixupOrCutMix(
            mixup_alpha, cutmix_alpha, prob, switch_prob, mode, partner, num_classes, smoothing, correct_lam, minmax
        )
        self.spec: MixupOrCutMix | Policy = timm
        self.policy: Policy | None = None
        if methods is not None:
            check_unused(timm, ("mixup_alpha", "cutmix_alpha", "prob", "switch_prob", "correct_lam", "minmax"))
            pairs: Any = tuple(methods) if isinstance(methods, list) else methods
            self.spec = self.policy = Policy(pairs, erase, mode, partner, num_classes, smoothing)
        elif erase is not None:
            self.policy = Policy(timm.methods, erase, mode, partner, num_classes, smoothing)
        self.init_knobs()
        self.erase = erase
        self.recipe = (self.policy or timm).recipe
        check_finish(mean, std, out_dtype, memory_format)
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
            self.inplace, None, generator, sample_offset, return_plan, self.policy, self.knobs_on(x),
        )  # fmt: skip

    def rows(self, progress: float) -> tuple[tuple[Number, ...], ...] | None:
        return None if self.policy is None else self.policy.knobs(progress)

    def extra_repr(self) -> str:
        shown = [describe(self.spec)]
        if self.erase is not None and self.spec is not self.policy:
            shown.append(f"erase={self.erase!r}")
        for name in ("mean", "std", "out_dtype", "memory_format"):
            if getattr(self, name) is not None:
                shown.append(f"{name}={getattr(self, name)!r}")
        if self.inplace:
            shown.append("inplace=True")
        return ", ".join(shown)
