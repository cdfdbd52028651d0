"""FusedAugment: from a batch of bytes to the training tensor in one launch."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import ops
from .checks import (
    MAX_SIDE,
    PerChannel,
    check_fills,
    check_finish,
    check_given,
    check_images,
    check_memory_format,
    check_out,
    check_out_dtype,
    check_values,
    composes,
    fills_of,
    knobs_of,
    norm_of,
)
from .functional import MAX_INDEX, Plan, debugging, field_of, fresh_seed, reads_values
from .labels import MixedTarget, check_target
from .layout import as_dense
from .placement import (
    INTERPOLATIONS,
    NO_KNOBS,
    NOTHING,
    ColorJitter,
    Crop,
    Flip,
    Placement,
    RandomAffine,
)
from .recipe import ALONE, MAX_CHANNELS, PLACE_COLUMNS, Geometry, Recipe
from .reference.augment import white_of
from .reference.regions import from_bits
from .schedule import Number
from .spec import (
    DropSpec,
    Fill,
    MixupOrCutMix,
    Policy,
    Spec,
    check_choice,
    check_common,
    check_integer,
    check_knob,
    check_value,
    per_channel,
)
from .transforms import Methods, Scheduled

GRAY_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
CHANNELS = {"first": 0, "last": 1}
EMPTY_KNOBS = (*NO_KNOBS, (0.0,), (0.0,), (0.0,))
NO_FILLS = (Fill(), Fill())
NO_METHODS = ((None, 1.0),)


class AugmentPlan(Plan):
    """The parameters of every sample of one call of FusedAugment.

    As `Plan`, whose `box` and other regions refer to the result's H and W, `size`. `source_size` is that of the images
    that went in.
    """

    def __init__(
        self,
        packed: Tensor,
        recipe: Recipe,
        geometry: Geometry,
        source_size: tuple[int, int],
        fills: tuple[Fill, ...],
        field: Tensor | None = None,
    ):
        self.geometry, self.source_size, self.more_columns = geometry, source_size, geometry.columns
        super().__init__(packed, recipe, (geometry.height, geometry.width), fills, field)

    @property
    def map(self) -> Tensor:
        """float32 [B, 6]: (x + 1/2, y + 1/2) of a pixel of the result goes to u = m0 x + m1 y + m2, v = m3 x + ..."""
        start = self.recipe.columns
        return from_bits(self.packed[:, start : start + 6])

    @property
    def color(self) -> Tensor | None:
        """float32 [B, 4]: factors of brightness, contrast and saturation, pivot of contrast as a share of white.

        None without colour.
        """
        if not self.geometry.color:
            return None
        start = self.recipe.columns + PLACE_COLUMNS
        return from_bits(self.packed[:, start : start + 4])

    @property
    def grayscale(self) -> Tensor:
        """bool [B]: whether an image lost its colour."""
        if not self.geometry.color:
            return torch.zeros(len(self), dtype=torch.bool, device=self.packed.device)
        return self.packed[:, -1] != 0

    def apply(self, x: Tensor, y: Tensor | None = None, **options: Any) -> Any:
        """Does to `x` (and targets `y`) what this plan did to the batch it was drawn for.

        x: uint8 or float [B, C, H, W] of `source_size`. options: interpolation ("nearest" for masks, whose colour is
        then left alone; the plan's own by default), fill (a number or one per channel for what lies beyond an image
        and for what is dropped or erased, without noise: the label to ignore of a mask), num_classes, smoothing, mean,
        std, dtype, memory_format, out. Mixup blends whatever it is given: it has no meaning for masks of classes.
        Returns x, or (x, y).
        """
        return replay(self, x, y, **options)

    def to(self, device: torch.device | str) -> "AugmentPlan":
        field = None if self.field is None else self.field.to(device)
        return AugmentPlan(
            self.packed.to(device), self.recipe, self.geometry, self.source_size, self.fills, field
        )  # fmt: skip

    def explain(self, i: int) -> str:
        """What sample i got, in words: where its image came from, its colour, then as `Plan.explain`."""
        m0, m1, m2, m3, m4, m5 = self.map[i].tolist()
        height, width = self.geometry.height, self.geometry.width
        if self.geometry.turns:
            area = m0 * m4 - m1 * m3
            if area < 0:  # a flip, undone to see the turn
                m0, m1 = -m0, -m1
            angle = -math.degrees(math.atan2(m3 - m1, m0 + m4)) % 360  # of the rotation nearest to the map
            parts = [f"turned {angle:.1f} degrees, {math.sqrt(abs(area)):.3f} pixels a pixel"]
            parts += ["flipped"] * (area < 0)
        else:
            y0, y1 = sorted((m5, m5 + m4 * height))
            x0, x1 = sorted((m2, m2 + m0 * width))
            parts = [f"from y {y0:.0f}..{y1:.0f} x {x0:.0f}..{x1:.0f}"]
            parts += ["flipped"] * (m0 < 0) + ["upside down"] * (m4 < 0)
        if self.color is not None:
            brightness, contrast, saturation, _ = self.color[i].tolist()
            parts.append(f"brightness {brightness:.2f}, contrast {contrast:.2f}, saturation {saturation:.2f}")
            parts += ["gray"] * bool(self.grayscale[i])
        return ", ".join(parts) + "; " + super().explain(i)


class FusedAugment(Scheduled):
    """The whole image recipe of a training step in one launch: uint8 batch in, normalised and mixed batch out.

    Each image is cut out, flipped and turned by one map and sampled once; then coloured; then mixed with its partner,
    which has a place and colour of its own; then erased, normalised, cast and written.

    Args:
        size: int or (H, W) of the result; the images' own by default.
        crop: `RandomCrop`, `RandomResizedCrop`, `CenterCrop`; None resizes the whole image where `size` differs.
        flip: chance in [0, 1] of a horizontal flip, or a `Flip`.
        affine: `RandomAffine(degrees, translate, scale, shear)`.
        color: `ColorJitter(brightness, contrast, saturation, grayscale)`, for RGB.
        mix: a spec (`CutMix()`), or pairs (spec or None, probability) as of `FusedMix`, or `MixupOrCutMix` for timm's
            words. All methods but ResizeMix.
        erase: a spec that drops a region after mixing (`RandomErasing(p=0.25)`).
        mean, std: a number or one per channel, in the units of x (0..255 for uint8): the result is
            (mixed - mean) / std.
        dtype: of the result; x's own by default, float32 for normalised uint8.
        interpolation: "bilinear" (without antialiasing) or "nearest", where an image is resized or turned. Crops and
            flips alone copy pixels bit for bit.
        fill: a number or one per channel, in the units of x, of what lies beyond an image.
        mode, partner, num_classes, smoothing: as of `fused_cutmix`.
        memory_format: torch.contiguous_format or torch.channels_last for the result; x's own by default.
        channels: "first" for x [B, C, H, W], "last" for x [B, H, W, C] as decoders and NumPy give it; the result is
            [B, C, H', W'] either way.

    Called with (x, y=None, *, gray=None, plan=None, out=None, generator=None, sample_offset=0, return_plan=False):
        x: uint8, float16, bfloat16 or float32 images, up to 16 channels. Floats lie in [0, 1] where `color` is used.
        y: int64 [B] classes, float [B, K], or None.
        gray: float [B], the mean gray of each image in the units of x, about which contrast changes.
        plan: an `AugmentPlan` to do again; nothing is drawn.
    Returns (x, y), x alone when y is None; with return_plan (x, y, plan) or (x, plan). Targets as of `fused_cutmix`.
    In `eval()` nothing is left to chance: the middle of the image (after RandomResizedCrop that of 0.875 of its sides),
    normalised; y as it came.

    Numbers that are chances or pairs may be schedules (`Linear`, `Until`), which `set_progress` moves, or tensors of
    one number. There are no gradients with respect to x.

    Raises TypeError or ValueError for a wrong argument, before anything is written.

    Source: torchvision's transforms v2 for crops, flips, affine maps and colour (semantics; one resampling instead of
    one a step); the methods as of `fused_cutmix` and its family.

    Example:
        >>> import torch, fusedmix
        >>> augment = fusedmix.FusedAugment(
        ...     crop=fusedmix.RandomCrop(4), flip=0.5, mix=fusedmix.CutMix(), mean=127.5, std=127.5, num_classes=10
        ... )
        >>> x, y = augment(torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8))
        >>> x.dtype, x.shape, y.shape
        (torch.float32, torch.Size([8, 3, 32, 32]), torch.Size([8, 10]))
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        crop: Crop | None = None,
        flip: Number | Flip | None = None,
        affine: RandomAffine | None = None,
        color: ColorJitter | None = None,
        mix: Methods | Spec | MixupOrCutMix | None = None,
        erase: DropSpec | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        *,
        interpolation: str = "bilinear",
        fill: float | Sequence[float] = 0.0,
        mode: str = "elem",
        partner: str = "matching",
        num_classes: int | None = None,
        smoothing: float = 0.0,
        memory_format: torch.memory_format | None = None,
        channels: str = "first",
    ):
        super().__init__()
        if isinstance(size, int) and not isinstance(size, bool):
            size = size, size
        if flip is not None and not isinstance(flip, Flip):
            check_knob("flip", flip, 0.0, 1.0)
            flip = Flip(flip)
        sides: Any = tuple(size) if isinstance(size, list) else size
        self.placement = Placement(sides, crop, flip, affine, color, interpolation)
        self.policy = policy_of(mix, erase, mode, partner, num_classes, smoothing)
        self.recipe = NOTHING if self.policy is None else self.policy.recipe
        self.recipe = self.recipe._replace(num_classes=num_classes or 0, smoothing=float(smoothing))
        fill = tuple(fill) if isinstance(fill, list) else fill
        check_value("fill", fill)
        check_choice("channels", channels, CHANNELS)
        self.fills = (*(NO_FILLS if self.policy is None else self.policy.fills), Fill(per_channel(fill)))
        check_finish(mean, std, dtype, memory_format, "dtype")
        self.mean, self.std, self.dtype, self.memory_format = mean, std, dtype, memory_format
        self.channels = channels
        self.init_knobs()

    def rows(self, progress: float) -> tuple[tuple[Number, ...], ...]:
        policy = NO_KNOBS if self.policy is None else self.policy.knobs(progress)
        return (*policy, *self.placement.knobs(progress))

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        gray: Tensor | None = None,
        plan: AugmentPlan | None = None,
        out: Tensor | None = None,
        generator: torch.Generator | None = None,
        sample_offset: int = 0,
        return_plan: bool = False,
    ) -> Any:
        if self.channels == "last" and isinstance(x, Tensor):
            if x.dim() != 4:
                raise ValueError(f'x must be [B, H, W, C] with channels="last", got {list(x.shape)}')
            x = x.permute(0, 3, 1, 2)
        recipe, placement, policy, knobs, fills = self.recipe, self.placement, self.policy, None, self.fills
        if self.training:
            knobs = self.knobs_on(x)
        elif return_plan or plan is not None:
            raise ValueError("return_plan=True and plan= need train(): in eval() nothing is drawn")
        else:
            recipe, placement, policy = NOTHING, self.placement.evaluation, None
            fills = (*NO_FILLS, self.fills[-1])
        result = call(
            x, y if self.training else None, recipe, placement, policy, knobs, fills, self.mean, self.std, self.dtype,
            self.memory_format, gray, plan, out, generator, sample_offset, return_plan,
        )  # fmt: skip
        return result if self.training or y is None else (result, y)

    def extra_repr(self) -> str:
        shown = []
        placement = self.placement
        for name in ("size", "crop", "flip", "affine", "color"):
            if getattr(placement, name) is not None:
                shown.append(f"{name}={getattr(placement, name)!r}")
        if self.policy is not None:
            if self.policy.methods != NO_METHODS:
                shown.append(f"mix={list(self.policy.methods)!r}")
            if self.policy.erase is not None:
                shown.append(f"erase={self.policy.erase!r}")
            shown += [f"mode={self.policy.mode!r}"] * (self.policy.mode != "elem")
            shown += [f"partner={self.policy.partner!r}"] * (self.policy.partner != "matching")
        shown += [f"num_classes={self.recipe.num_classes}"] * (self.recipe.num_classes > 0)
        shown += [f"smoothing={self.recipe.smoothing}"] * (self.recipe.smoothing > 0)
        shown += [f"interpolation={placement.interpolation!r}"] * (placement.interpolation != "bilinear")
        shown += [f"fill={self.fills[-1].value!r}"] * (self.fills[-1].value != 0)
        shown += [f"channels={self.channels!r}"] * (self.channels != "first")
        for name in ("mean", "std", "dtype", "memory_format"):
            if getattr(self, name) is not None:
                shown.append(f"{name}={getattr(self, name)!r}")
        return ", ".join(shown)


def policy_of(
    mix: Any, erase: DropSpec | None, mode: str, partner: str, num_classes: int | None, smoothing: float
) -> Policy | None:
    """The policy of `mix` and `erase`; None where there is neither, its other arguments checked all the same."""
    methods: Any = mix
    if mix is None:
        methods = NO_METHODS
    elif isinstance(mix, MixupOrCutMix):
        methods = mix.methods
        bare = MixupOrCutMix()
        for name in ("mode", "partner", "num_classes", "smoothing"):
            if getattr(mix, name) != getattr(bare, name):
                raise ValueError(f"mix sets {name}: give it to FusedAugment instead")
    elif isinstance(mix, Spec):
        methods = ((mix, 1.0),)
    elif isinstance(mix, list | tuple) and mix:
        methods = tuple(mix)
    else:
        raise TypeError(f"mix must be None, a spec (CutMix(), ...) or a list of pairs (spec, probability), got {mix!r}")
    if mix is None and erase is None:
        check_common(mode, partner, num_classes, smoothing)
        return None
    try:
        policy = Policy(methods, erase, mode, partner, num_classes, smoothing)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("methods", "mix")) from None
    if policy.recipe.resizes:
        raise ValueError("mix holds ResizeMix, which FusedAugment can't do: use fused_resizemix on its result")
    return policy


def call(
    x: Tensor,
    y: Tensor | None,
    recipe: Recipe,
    placement: Placement,
    policy: Policy | None,
    knobs: Tensor | None,
    fills: tuple[Fill, ...],
    mean: PerChannel,
    std: PerChannel,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
    gray: Tensor | None,
    plan: AugmentPlan | None,
    out: Tensor | None,
    generator: torch.Generator | None,
    sample_offset: int,
    return_plan: bool,
) -> Any:
    """Checks everything, then runs one op. Nothing is drawn without knobs: from a plan, or in `eval()`."""
    draws = knobs is not None and plan is None
    check_source(x, recipe)
    if plan is not None:
        recipe = check_plan(plan, recipe, x, gray)
        geometry, fills = plan.geometry, plan.fills
    else:
        geometry = placement.geometry(x.shape[2], x.shape[3])
    if geometry.color and x.shape[1] != 3:
        raise ValueError(f"x must have 3 channels (RGB) where color is used, got {x.shape[1]}")
    target = None if y is None else check_target(y, x, recipe)
    if target is not None and target.requires_grad and torch.is_grad_enabled():
        raise ValueError("y must not require grad: FusedAugment has no gradients")
    if recipe.pairing == ALONE and target is not None and target.dim() == 1 and recipe.num_classes == 0:
        target = None  # labels stay as they are
    if gray is not None:
        gray = check_given("gray", gray, x, (x.shape[0],), GRAY_DTYPES).float().contiguous()
        if not geometry.color and draws:
            raise ValueError("gray plays no part without color: give FusedAugment a ColorJitter")
        gray = gray if draws else None
    if not isinstance(sample_offset, torch.SymInt):
        check_integer("sample_offset", sample_offset, 0, MAX_INDEX - x.shape[0])
    normalises = mean is not None or std is not None
    if not normalises:
        check_fills(fills, x)
    norm, fill = norm_and_fill(mean, std, fills, x, geometry)
    channels_last = None if memory_format is None else check_memory_format(memory_format, x)
    out_dtype = check_out_dtype(dtype, x, normalises, out, "dtype")
    size = geometry.height, geometry.width
    if out is not None:
        check_out(x, out, (*x.shape[:2], *size), out_dtype, channels_last, False)
    traced = composes(x)
    if not traced and reads_values(x):
        check_values(target, None, None, None, recipe, x)
    if not traced and debugging() and geometry.color and x.is_floating_point() and x.numel() and float(x.amax()) > 1:
        raise ValueError(f"x must lie in [0, 1] where color is used on floats, got values up to {float(x.amax())}")

    state, seed, offset = fresh_seed(x, traced, generator) if draws else (None, 0, 0)
    if knobs is None and plan is None:
        knobs = knobs_of(EMPTY_KNOBS, x.device)
    field = None if plan is None else plan.field
    if plan is None and policy is not None:
        field = field_of(policy, x, size, None if state is not None else seed ^ offset)
    extras: ops.Extras = (knobs, fill, field)
    as_classes = target is not None and target.dim() == 1 and recipe.num_classes == 0
    want_plan = plan is None and (return_plan or as_classes)
    packed = None if plan is None else plan.packed
    arguments = (target, norm, packed, gray, None, state, seed, offset, sample_offset)
    if traced:
        op = torch.ops.fusedmix
        numbers = (*recipe, [int(number) for number in geometry], want_plan, *extras)
        if out is not None:
            result, (target_out, drawn) = out, op.augment_out.default(x, out, *arguments, *numbers)
        else:
            result, target_out, drawn = op.augment.default(x, *arguments, *numbers, out_dtype, channels_last)
    else:
        result = ops.allocate_image(x, out_dtype, channels_last, size) if out is None else out
        target_out, drawn = ops.call_augment_into(as_dense(x), result, *arguments, recipe, geometry, want_plan, extras)
    if plan is None and want_plan:
        plan = AugmentPlan(drawn, recipe, geometry, (x.shape[2], x.shape[3]), fills, field)
    if y is None:
        return (result, plan) if return_plan else result
    if target is None:
        target_out = y
    elif as_classes:
        assert plan is not None
        target_out = MixedTarget(target, target_out, plan.lam)
    return (result, target_out, plan) if return_plan else (result, target_out)


def norm_and_fill(
    mean: PerChannel, std: PerChannel, fills: tuple[Fill, ...], x: Tensor, geometry: Geometry
) -> tuple[Tensor | None, Tensor]:
    """What images are normalised by, if at all, and what they are filled with.

    Coloured bytes are mixed and erased in shares of white, which `norm` then brings to the units that are asked for.
    """
    white = white_of(x.dtype, geometry)
    norm = None if mean is None and std is None and white == 1.0 else norm_of(mean, std, x, white)
    return norm, fills_of(fills, norm, x, white)


def check_source(x: object, recipe: Recipe) -> None:
    if isinstance(x, Tensor) and (x.dim() != 4 or 0 in x.shape[1:]):
        raise ValueError(f"x must be [B, C, H, W] with sides of at least 1, got {list(x.shape)}")
    check_images(x, recipe)
    assert isinstance(x, Tensor)
    if x.shape[1] > MAX_CHANNELS:
        raise ValueError(f"x must have at most {MAX_CHANNELS} channels, got {x.shape[1]}")
    if max(x.shape[2:]) >= MAX_SIDE:
        raise ValueError(f"x must have H and W below {MAX_SIDE}, got {list(x.shape)}")
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError("x must not require grad: FusedAugment has no gradients (fused_cutmix and its family have)")


def check_plan(plan: object, recipe: Recipe, x: Tensor, gray: Tensor | None) -> Recipe:
    """The recipe of a replay."""
    if not isinstance(plan, AugmentPlan):
        raise TypeError(f"plan must be a fusedmix.AugmentPlan, got {type(plan).__name__}")
    if gray is not None:
        raise ValueError("plan already fixes what gray decides: gray must be None, got a Tensor")
    if len(plan) != x.shape[0]:
        raise ValueError(f"plan is for {len(plan)} samples, but x has {x.shape[0]}")
    if tuple(x.shape[2:]) != plan.source_size:
        raise ValueError(f"plan is for images of H, W = {plan.source_size}, but x is {list(x.shape)}")
    if plan.packed.device != x.device:
        raise ValueError(f"plan must be on the device of x ({x.device}), got {plan.packed.device}: use plan.to()")
    return plan.recipe._replace(num_classes=recipe.num_classes, smoothing=recipe.smoothing)


def replay(
    plan: AugmentPlan,
    x: Tensor,
    y: Tensor | None = None,
    *,
    interpolation: str | None = None,
    fill: float | Sequence[float] | None = None,
    num_classes: int | None = None,
    smoothing: float = 0.0,
    mean: PerChannel = None,
    std: PerChannel = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    out: Tensor | None = None,
) -> Any:
    """`AugmentPlan.apply`."""
    if interpolation is not None:
        check_choice("interpolation", interpolation, INTERPOLATIONS)
        samples = plan.geometry.turns or plan.geometry.resizes
        geometry = plan.geometry._replace(bilinear=interpolation == "bilinear" and samples)
        packed = plan.packed
        if interpolation == "nearest" and geometry.color:
            geometry = geometry._replace(color=False)
            packed = packed[:, : plan.recipe.columns + geometry.columns].contiguous()
        plan = AugmentPlan(packed, plan.recipe, geometry, plan.source_size, plan.fills, plan.field)
    if fill is not None:
        fill = tuple(fill) if isinstance(fill, list) else fill
        check_value("fill", fill)
        fills = (Fill(per_channel(fill)),) * len(plan.fills)
        plan = AugmentPlan(plan.packed, plan.recipe, plan.geometry, plan.source_size, fills, plan.field)
    check_common("elem", "matching", num_classes, smoothing)
    recipe = NOTHING._replace(num_classes=num_classes or 0, smoothing=float(smoothing))
    return call(
        x, y, recipe, Placement(), None, None, plan.fills, mean, std, dtype, memory_format, None, plan, out,
        None, 0, False,
    )  # fmt: skip
