"""The calls, `fused_mixup(x, y)` and `fused_cutmix(x, y)`, and the plan that they can return."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import ops, rng
from .checks import (
    PerChannel,
    check_destination,
    check_given,
    check_images,
    check_lam,
    check_memory_format,
    check_out_dtype,
    check_values,
    composes,
    norm_of,
)
from .labels import MixedTarget, check_target
from .layout import as_dense
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
from .spec import GIVEN_TENSOR, CutMix, Mixup, check_integer

MAX_INDEX = 2**31 - 1

_debug = False


def debug(on: bool = True) -> None:
    """Turns on checks of values on a GPU (class indices, partners, boxes, lam). Each costs a synchronisation."""
    global _debug
    _debug = bool(on)


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
        return replay(self, x, y, **options)

    def to(self, device: torch.device | str) -> "Plan":
        return Plan(self.packed.to(device), self.recipe, self.size)

    def __len__(self) -> int:
        return self.packed.shape[0]

    def __repr__(self) -> str:
        counts = torch.bincount(self.method.cpu(), minlength=len(METHOD_NAMES)).tolist()
        drawn = ", ".join(f"{n} {name}" for name, n in zip(METHOD_NAMES, counts, strict=True) if n)
        return f"Plan({len(self)} samples: {drawn or 'empty'}; device={self.packed.device})"


def fused_mixup(
    x: Tensor,
    y: Tensor | None = None,
    *,
    alpha: float = 1.0,
    p: float = 1.0,
    mode: str = "elem",
    partner: str | Tensor = "matching",
    num_classes: int | None = None,
    smoothing: float = 0.0,
    lam: float | Tensor | None = None,
    plan: Plan | None = None,
    mean: PerChannel = None,
    std: PerChannel = None,
    out_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    inplace: bool = False,
    out: Tensor | None = None,
    generator: torch.Generator | None = None,
    sample_offset: int = 0,
    return_plan: bool = False,
) -> Any:
    """mixup of a batch: x_i <- lam_i x_i + (1 - lam_i) x_partner(i), and the targets alike, lam ~ Beta(alpha, alpha).

    Args:
        x: uint8, float16, bfloat16 or float32 [B, ...]. Blended in float32 and rounded once, to nearest.
        y: int64 [B] classes, float [B, K] soft or multi-label targets, or None.
        alpha: > 0; 0.2 to 0.4 is usual for ImageNet, 1 for CIFAR.
        p: chance in [0, 1] that a sample (pair, batch) is mixed.
        mode: one lam per sample ("elem"), per pair ("pair") or for all ("batch").
        partner: "matching" (random perfect matching, the default: pairs are read once), "exact" (uniform over all
            perfect matchings), "flip" (reversed batch, timm), "roll" (previous sample, torchvision), "permute" (random
            permutation, the paper), or int64 [B] indices.
        num_classes: K of int64 targets; without it they come back as a `MixedTarget`.
        smoothing: label smoothing in [0, 1], off = smoothing / K (timm).
        lam: a number or float [B] in [0, 1] to use instead of a draw; float32 needs no conversion, hence no launch.
        plan: replays a plan; nothing is drawn, and alpha, p, mode, partner play no part.
        mean, std: per channel, in the units of x (0..255 for uint8): the result is (mixed - mean) / std. Numbers are
            kept on the device between calls; tensors are converted in each.
        out_dtype: dtype of the result; x's own by default, float32 for normalised uint8.
        memory_format: torch.contiguous_format or torch.channels_last for the result; x's own by default.
        inplace: writes into x.
        out: writes into this tensor, which must not overlap x.
        generator: a CPU or CUDA generator to draw from instead of torch's default CPU generator.
        sample_offset: global index of the first sample, so that shards draw what the whole batch would.
        return_plan: also returns the `Plan`.

    Returns:
        (x, y), x alone when y is None; with return_plan (x, y, plan) or (x, plan). y: float32 [B, K], or a
        `MixedTarget` for int64 classes without num_classes.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range; nothing is written.

    Source: arXiv 1710.09412; semantics of facebookresearch/mixup-cifar10, per sample.

    Example:
        >>> import torch, fusedmix
        >>> x, y = torch.rand(8, 3, 32, 32), torch.arange(8)
        >>> mixed, target = fusedmix.fused_mixup(x, y, alpha=0.2, num_classes=10)
        >>> mixed.shape, target.shape
        (torch.Size([8, 3, 32, 32]), torch.Size([8, 10]))
    """
    kind, given = (GIVEN_TENSOR, partner) if isinstance(partner, Tensor) else (partner, None)
    recipe = recipe_of(Mixup, alpha, p, mode, kind, num_classes, smoothing)
    return call(
        recipe, x, y, lam, None, given, plan, mean, std, out_dtype, memory_format, inplace, out, generator,
        sample_offset, return_plan,
    )  # fmt: skip


def fused_cutmix(
    x: Tensor,
    y: Tensor | None = None,
    *,
    alpha: float = 1.0,
    p: float = 1.0,
    mode: str = "elem",
    partner: str | Tensor = "matching",
    num_classes: int | None = None,
    smoothing: float = 0.0,
    correct_lam: bool = True,
    minmax: tuple[float, float] | None = None,
    lam: float | Tensor | None = None,
    box: Tensor | None = None,
    plan: Plan | None = None,
    mean: PerChannel = None,
    std: PerChannel = None,
    out_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    inplace: bool = False,
    out: Tensor | None = None,
    generator: torch.Generator | None = None,
    sample_offset: int = 0,
    return_plan: bool = False,
) -> Any:
    """CutMix of a batch: a box of each image is replaced by its partner's pixels, the targets mixed by area.

    The box has sides int(S sqrt(1 - lam)) with lam ~ Beta(alpha, alpha), a uniform centre and clipped edges. Pixels are
    copied bit for bit.

    Args:
        x: uint8, float16, bfloat16 or float32 [B, C, H, W].
        y, alpha, p, mode, partner, num_classes, smoothing, plan, mean, std, out_dtype, memory_format, inplace, out,
            generator, sample_offset, return_plan: as of `fused_mixup`.
        correct_lam: the target weight is the exact share of pixels kept (True) or the lam that was drawn (False).
        minmax: (lowest, highest) share of each side, drawn uniformly instead of lam (timm's `cutmix_minmax`).
        lam: a number or float [B] in [0, 1]; the boxes follow from it.
        box: int32 [B, 4] boxes (y0, x0, y1, x1) in pixels, half-open, to use instead of drawn ones; int64 is converted
            first.

    Returns, Raises: as `fused_mixup`.

    Source: arXiv 1905.04899; semantics of clovaai/CutMix-PyTorch, per sample.

    Example:
        >>> import torch, fusedmix
        >>> x, y = torch.rand(8, 3, 32, 32), torch.arange(8)
        >>> mixed, target, plan = fusedmix.fused_cutmix(x, y, num_classes=10, return_plan=True)
        >>> bool(torch.allclose(target.sum(1), torch.ones(8)))
        True
    """
    kind, given = (GIVEN_TENSOR, partner) if isinstance(partner, Tensor) else (partner, None)
    if isinstance(minmax, list):
        minmax = tuple(minmax)
    recipe = recipe_of(CutMix, alpha, p, mode, kind, num_classes, smoothing, correct_lam, minmax)
    return call(
        recipe, x, y, lam, box, given, plan, mean, std, out_dtype, memory_format, inplace, out, generator,
        sample_offset, return_plan,
    )  # fmt: skip


def replay(
    plan: Plan,
    x: Tensor,
    y: Tensor | None = None,
    *,
    num_classes: int | None = None,
    smoothing: float = 0.0,
    mean: PerChannel = None,
    std: PerChannel = None,
    out_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    inplace: bool = False,
    out: Tensor | None = None,
) -> Any:
    """`Plan.apply`."""
    recipe = recipe_of(Mixup, 1.0, 1.0, "elem", "matching", num_classes, smoothing)
    return call(recipe, x, y, None, None, None, plan, mean, std, out_dtype, memory_format, inplace, out, None, 0, False)


def check_plan(plan: object, recipe: Recipe, x: object, lam: object, box: object, partner: object) -> Recipe:
    """The recipe of a replay: methods and pairs of the plan, target numbers of the call."""
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a fusedmix.Plan, got {type(plan).__name__}")
    for name, value in (("lam", lam), ("box", box), ("partner", partner)):
        if value is not None:
            raise ValueError(
                f"plan already fixes lam, box and partner: {name} must be None, got {type(value).__name__}"
            )
    if isinstance(x, Tensor) and x.dim() > 0:
        if len(plan) != x.shape[0]:
            raise ValueError(f"plan is for {len(plan)} samples, but x has {x.shape[0]}")
        if plan.packed.device != x.device:
            raise ValueError(f"plan must be on the device of x ({x.device}), got {plan.packed.device}: use plan.to()")
        if plan.size is not None and tuple(x.shape[2:]) != plan.size:
            raise ValueError(f"plan has boxes in images of H, W = {plan.size}, but x is {list(x.shape)}")
    return plan.recipe._replace(num_classes=recipe.num_classes, smoothing=recipe.smoothing)


def recipe_of(spec: Callable[..., Mixup | CutMix], *arguments: Any) -> Recipe:
    """The recipe of a spec; checked once per set of arguments."""
    if torch.compiler.is_compiling():
        return spec(*arguments).recipe
    try:
        return _recipe_of(spec, *arguments)
    except TypeError:
        return spec(*arguments).recipe  # an unhashable argument: let its own check speak


@lru_cache(maxsize=256, typed=True)
def _recipe_of(spec: Callable[..., Mixup | CutMix], *arguments: Any) -> Recipe:
    return spec(*arguments).recipe


def call(
    recipe: Recipe,
    x: Tensor,
    y: Tensor | None,
    lam: float | Tensor | None,
    box: Tensor | None,
    partner: Tensor | None,
    plan: Plan | None,
    mean: PerChannel,
    std: PerChannel,
    out_dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    inplace: bool,
    out: Tensor | None,
    generator: torch.Generator | None,
    sample_offset: int,
    return_plan: bool,
) -> Any:
    """Checks everything, then runs one op. All public calls end here."""
    if plan is not None:
        recipe = check_plan(plan, recipe, x, lam, box, partner)
    check_images(x, recipe)
    target = None if y is None else check_target(y, x, recipe)
    batch = x.shape[0]
    if lam is not None:
        lam = check_lam(lam, x)
    if box is not None:
        box = check_given("box", box, x, (batch, 4), (torch.int32, torch.int64)).int().contiguous()
    if partner is not None:
        partner = check_given("partner", partner, x, (batch,), (torch.int64,)).contiguous()
    if not isinstance(sample_offset, torch.SymInt):
        check_integer("sample_offset", sample_offset, 0, MAX_INDEX - batch)
    norm = None
    if mean is not None or std is not None:
        norm = norm_of(mean, std, x)
    channels_last = None
    if memory_format is not None:
        channels_last = check_memory_format(memory_format, x)
    if out_dtype is not None or norm is not None or out is not None:
        out_dtype = check_out_dtype(out_dtype, x, norm is not None, out)
    differentiates = torch.is_grad_enabled() and (x.requires_grad or (target is not None and target.requires_grad))
    if inplace or out is not None:
        check_destination(x, out, inplace, recipe, partner, out_dtype, channels_last, differentiates)
    traced = composes(x)
    if not traced and (_debug or x.device.type == "cpu"):
        check_values(target, lam, box, partner, recipe, x)

    seed = offset = 0
    state = None
    if plan is None:
        if traced or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
            if generator is not None:
                raise ValueError("generator cannot be used under torch.compile, tracing or CUDA graph capture")
            state = rng.graph_state(x.device)
        else:
            seed, offset = rng.next_seed(generator)

    packed = None if plan is None else plan.packed
    as_classes = target is not None and target.dim() == 1 and recipe.num_classes == 0
    want_plan = plan is None and (return_plan or as_classes or differentiates)
    arguments = (target, norm, packed, lam, box, partner, state, seed, offset, sample_offset)
    if traced or differentiates:
        op = torch.ops.fusedmix
        numbers = (*recipe, want_plan)
        if inplace and not differentiates:
            result, (target_out, drawn) = x, op.mix_.default(x, *arguments, *numbers)
        elif out is not None:
            result, (target_out, drawn) = out, op.mix_out.default(x, out, *arguments, *numbers)
        else:
            result, target_out, drawn = op.mix.default(x, *arguments, *numbers, out_dtype, channels_last)
            if inplace:
                result = x.copy_(result)
        drawn = drawn if want_plan else packed
    else:
        destination = x if inplace else out
        result = ops.allocate_image(x, out_dtype, channels_last) if destination is None else destination
        target_out, drawn = ops.call_mix_into(as_dense(x), result, *arguments, recipe, want_plan)

    if plan is None and drawn is not None:
        plan = Plan(drawn, recipe, (x.shape[2], x.shape[3]) if recipe.has_box else None)
    if y is None:
        return (result, plan) if return_plan else result
    if as_classes:
        assert plan is not None
        assert target_out is not None
        target_out = MixedTarget(y, target_out, plan.lam)
    return (result, target_out, plan) if return_plan else (result, target_out)
