"""The calls: `fused_mixup(x, y)` and `fused_cutmix(x, y)`."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import ops, rng
from .labels import MixedTarget, check_classes, check_target
from .layout import as_dense, is_channels_last, sample_is_dense
from .plan import Plan
from .recipe import Recipe
from .spec import GIVEN_TENSOR, CutMix, Mixup, check_integer, check_number

IMAGE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)
MEMORY_FORMATS = {None: None, torch.contiguous_format: False, torch.channels_last: True, torch.preserve_format: None}
MAX_INDEX = 2**31 - 1

_debug = False


def debug(on: bool = True) -> None:
    """Turns on checks of values on a GPU (class indices, partners, boxes, lam). Each costs a synchronisation."""
    global _debug
    _debug = bool(on)


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
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
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
        lam: a number or float [B] in [0, 1] to use instead of a draw.
        plan: replays a plan; nothing is drawn, and alpha, p, mode, partner play no part.
        mean, std: per channel, in the units of x (0..255 for uint8): the result is (mixed - mean) / std.
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
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
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
        box: int32 or int64 [B, 4] boxes (y0, x0, y1, x1) in pixels, half-open, to use instead of drawn ones.

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
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    inplace: bool = False,
    out: Tensor | None = None,
) -> Any:
    """`Plan.apply`."""
    recipe = recipe_of(Mixup, 1.0, 1.0, "elem", "matching", num_classes, smoothing)
    return call(recipe, x, y, None, None, None, plan, mean, std, out_dtype, memory_format, inplace, out, None, 0, False)


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


def composes(x: Tensor) -> bool:
    """True where a plain launch would escape something that is tracing, transforming or faking tensor operations."""
    return (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or torch._C._len_torch_dispatch_stack() != 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def call(
    recipe: Recipe,
    x: Tensor,
    y: Tensor | None,
    lam: float | Tensor | None,
    box: Tensor | None,
    partner: Tensor | None,
    plan: Plan | None,
    mean: Any,
    std: Any,
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


# Checks. Each names the argument, what came and what is allowed, and runs before anything is written.


def check_images(x: object, recipe: Recipe) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a Tensor of images, got {type(x).__name__}")
    if x.dtype not in IMAGE_DTYPES:
        raise TypeError(f"x must be uint8, float16, bfloat16 or float32, got {x.dtype}")
    if recipe.has_box and x.dim() != 4:
        raise ValueError(f"x must be [B, C, H, W] where boxes are cut, got {list(x.shape)}")
    if x.dim() < 2:
        raise ValueError(f"x must be [B, ...] with at least 2 dimensions, got {list(x.shape)}")
    if x.device.type not in ops.IMPLEMENTATIONS and x.device.type != "meta":
        raise ValueError(f"x must be on a cpu or cuda device, got {x.device}")


def check_given(name: str, value: object, x: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a Tensor {list(shape)}, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must be {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if value.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, got {list(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{name} must be on the device of x ({x.device}), got {value.device}")
    return value


def check_lam(lam: float | Tensor, x: Tensor) -> Tensor:
    batch = x.shape[0]
    if isinstance(lam, Tensor):
        dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        return check_given("lam", lam, x, (batch,), dtypes).detach().float().contiguous()
    check_number("lam", lam, 0.0, 1.0)
    return torch.full((batch,), float(lam), device=x.device)


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


def check_memory_format(memory_format: object, x: Tensor) -> bool | None:
    if memory_format not in MEMORY_FORMATS:
        raise ValueError(f"memory_format must be torch.contiguous_format or torch.channels_last, got {memory_format!r}")
    if memory_format == torch.channels_last and x.dim() != 4:
        raise ValueError(f"memory_format=torch.channels_last needs x as [B, C, H, W], got {list(x.shape)}")
    return MEMORY_FORMATS[memory_format]


def check_out_dtype(out_dtype: object, x: Tensor, has_norm: bool, out: Tensor | None) -> torch.dtype:
    """dtype of the result: asked for, else that of `out`, else x's own, else float32 for normalised uint8."""
    name = "out_dtype"
    if out_dtype is None and isinstance(out, Tensor):
        name, out_dtype = "out.dtype", out.dtype
    if out_dtype is None:
        return torch.float32 if has_norm and x.dtype == torch.uint8 else x.dtype
    if not isinstance(out_dtype, torch.dtype):
        raise TypeError(f"out_dtype must be a torch.dtype, got {type(out_dtype).__name__}")
    if out_dtype not in IMAGE_DTYPES:
        raise ValueError(f"{name} must be float32, float16, bfloat16 or uint8, got {out_dtype}")
    if out_dtype == torch.uint8 and (x.dtype != torch.uint8 or has_norm):
        raise ValueError(f"{name} torch.uint8 needs x of uint8 without mean and std, got x of {x.dtype}")
    return out_dtype


def check_destination(
    x: Tensor, out: object, inplace: bool, recipe: Recipe, partner: Tensor | None, out_dtype: torch.dtype | None,
    channels_last: bool | None, differentiates: bool,
) -> None:  # fmt: skip
    """Refuses an `out` or an in-place `x` that can't be written as asked."""
    if inplace and out is not None:
        raise ValueError("inplace=True and out= exclude each other: give one")
    if inplace:
        if x.requires_grad and x.is_leaf and torch.is_grad_enabled():
            raise ValueError("inplace=True: x is a leaf that requires grad, which can't be written in place")
        if not recipe.is_paired or partner is not None:
            raise ValueError('inplace=True needs partner "matching", "exact" or "flip" (pairs), got another')
        if out_dtype not in (None, x.dtype):
            raise ValueError(f"inplace=True keeps the dtype of x ({x.dtype}), got out_dtype={out_dtype}")
        if channels_last is not None and channels_last != is_channels_last(x):
            raise ValueError("inplace=True keeps the memory format of x, got another memory_format")
        check_writable("x with inplace=True", x)
        return
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a Tensor, got {type(out).__name__}")
    if out.shape != x.shape:
        raise ValueError(f"out must have the shape of x {list(x.shape)}, got {list(out.shape)}")
    if out.dtype != out_dtype:
        raise ValueError(f"out must be {out_dtype}, got {out.dtype}")
    if out.device != x.device:
        raise ValueError(f"out must be on the device of x ({x.device}), got {out.device}")
    if differentiates or out.requires_grad:
        raise ValueError("out does not work with gradients: neither x, y nor out may require grad")
    if channels_last is not None and channels_last != is_channels_last(out):
        raise ValueError("out is not in the memory_format asked for")
    check_writable("out", out)
    if not torch.compiler.is_compiling() and type(x) is Tensor and overlap(x, out):
        raise ValueError("out overlaps x in memory: it must be separate (inplace=True writes into x)")


def check_writable(name: str, t: Tensor) -> None:
    dense = t.is_contiguous() or sample_is_dense(t, False) or (t.dim() == 4 and sample_is_dense(t, True))
    if not dense or (t.shape[0] > 1 and t.stride(0) < t[0].numel()):
        raise ValueError(
            f"{name} must have samples that are dense in memory, contiguous or channels_last, and apart from each "
            f"other; got shape {list(t.shape)} with strides {list(t.stride())}"
        )


def overlap(a: Tensor, b: Tensor) -> bool:
    """True when the memory spans of two tensors meet."""
    if a.numel() == 0 or b.numel() == 0:
        return False

    def span(t: Tensor) -> tuple[int, int]:
        reach = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
        return t.data_ptr(), t.data_ptr() + (reach + 1) * t.element_size()

    (a0, a1), (b0, b1) = span(a), span(b)
    return a.device == b.device and a0 < b1 and b0 < a1


def check_values(
    target: Tensor | None, lam: Tensor | None, box: Tensor | None, partner: Tensor | None, recipe: Recipe, x: Tensor
) -> None:
    """Checks of values, where reading them costs nothing (CPU) or `debug` asks for it."""
    if target is not None and target.dim() == 1 and recipe.num_classes:
        check_classes(target, recipe.num_classes)
    if x.shape[0] == 0:
        return
    if lam is not None and not bool(((lam >= 0) & (lam <= 1)).all()):
        raise ValueError(f"lam must be in [0, 1], got values from {float(lam.min())} to {float(lam.max())}")
    if partner is not None and not bool(((partner >= 0) & (partner < x.shape[0])).all()):
        low, high = int(partner.min()), int(partner.max())
        raise ValueError(f"partner must hold indices in [0, {x.shape[0]}), got values from {low} to {high}")
    if box is not None:
        y0, x0, y1, x1 = box.unbind(1)
        if not bool(((y0 >= 0) & (x0 >= 0) & (y0 <= y1) & (x0 <= x1) & (y1 <= x.shape[2]) & (x1 <= x.shape[3])).all()):
            raise ValueError(f"box must hold 0 <= y0 <= y1 <= {x.shape[2]} and 0 <= x0 <= x1 <= {x.shape[3]}")


def norm_of(mean: Any, std: Any, x: Tensor) -> Tensor:
    """float32 [2, C]: mean and inverse std per channel, on x's device."""
    mean, std = (v if isinstance(v, Tensor | float | int | None) else tuple(v) for v in (mean, std))
    build = build_norm if composes(x) or isinstance(mean, Tensor) or isinstance(std, Tensor) else cached_norm
    return build(mean, std, x.shape[1], x.device)


def build_norm(mean: Any, std: Any, channels: int, device: torch.device) -> Tensor:
    rows = []
    for name, value, default in (("mean", mean, 0.0), ("std", std, 1.0)):
        row = torch.as_tensor(default if value is None else value, dtype=torch.float64)
        if row.dim() > 1 or (row.dim() == 1 and row.shape[0] not in (1, channels)):
            raise ValueError(f"{name} must be a number or one per channel ({channels}), got {list(row.shape)}")
        if name == "std" and not torch.compiler.is_compiling() and not bool((row > 0).all()):
            raise ValueError(f"std must be > 0, got {row.tolist()}")
        rows.append(row.expand(channels))
    return torch.stack([rows[0], 1.0 / rows[1]]).to(device=device, dtype=torch.float32)


cached_norm = lru_cache(maxsize=64)(build_norm)
