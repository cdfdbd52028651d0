"""The calls, `fused_mixup(x, y)` and `fused_cutmix(x, y)`, and the plan that they can return."""

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Unpack

from . import ops, rng
from .checks import (
    PerChannel,
    check_destination,
    check_fills,
    check_given,
    check_images,
    check_lam,
    check_memory_format,
    check_out_dtype,
    check_values,
    composes,
    fills_of,
    knobs_of,
    norm_of,
)
from .field import fmix_ranks
from .labels import MixedTarget, check_target
from .layout import as_dense
from .recipe import (
    ALONE,
    METHOD_CUTOUT,
    METHOD_ERASING,
    METHOD_FMIX,
    METHOD_GRIDMASK,
    METHOD_GRIDMIX,
    METHOD_HIDE,
    METHOD_NAMES,
    METHOD_SMOOTHMIX,
    PLAN_BOX,
    PLAN_LAM,
    PLAN_MATE,
    PLAN_METHOD,
    PLAN_PARTNER,
    TITLES,
    Recipe,
    boxed,
    code_of,
    count_of,
    method_of,
)
from .schedule import Number
from .spec import (
    GIVEN_TENSOR,
    CutMix,
    Cutout,
    FamilySpec,
    Fill,
    FMix,
    GridMask,
    GridMix,
    HideAndSeek,
    Mixup,
    Policy,
    RandomErasing,
    ResizeMix,
    SmoothMix,
    check_integer,
    with_compat,
)

MAX_INDEX = 2**31 - 1

_debug = False


def debug(on: bool = True) -> None:
    """Turns on checks of values on a GPU (class indices, partners, boxes, lam), each at the cost of a synchronisation.

    On any device also that floats whose colour is changed lie in [0, 1].
    """
    global _debug
    _debug = bool(on)


def debugging() -> bool:
    return _debug


def reads_values(x: Tensor) -> bool:
    """Whether values are checked: where that costs nothing, or `debug` asks for it."""
    return _debug or x.device.type == "cpu"


class Plan:
    """The parameters of every sample of one call.

    Held as one int32 tensor, `packed`, [B, 8] or wider for the family, which kernels read and write. `size` is the
    (H, W) that boxes and other regions refer to, None for a plan without. `fills` are what dropped regions are filled
    with, one a method; `field` the int32 [B, H, W] ranks of FMix.
    """

    more_columns = 0  # of `packed`, beyond those of the recipe

    def __init__(
        self,
        packed: Tensor,
        recipe: Recipe,
        size: tuple[int, int] | None,
        fills: tuple[Fill, ...] = (),
        field: Tensor | None = None,
    ):
        columns = recipe.columns + self.more_columns
        if packed.dim() != 2 or packed.shape[1] != columns or packed.dtype != torch.int32:
            raise ValueError(f"packed must be int32 [B, {columns}], got {packed.dtype} {list(packed.shape)}")
        self.packed, self.recipe, self.size, self.fills, self.field = packed, recipe, size, fills, field

    @property
    def method(self) -> Tensor:
        """int32 [B]: index into `fusedmix.METHOD_NAMES`; 0 untouched, 1 mixup, 2 CutMix, ..."""
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
        """int32 [B, 4]: (y0, x0, y1, x1) in pixels, half-open; empty unless the method cuts one.

        The first one where a method drops several.
        """
        box = self.packed[:, PLAN_BOX : PLAN_BOX + 4]
        if not self.recipe.choices:
            return box
        cuts = [method_of(code) for code in self.recipe.choices if boxed(method_of(code))]
        return torch.where(torch.isin(self.method, torch.tensor(cuts, device=box.device))[:, None], box, 0)

    @property
    def erased(self) -> Tensor:
        """bool [B]: whether something was erased after mixing."""
        if not self.recipe.erase:
            return torch.zeros(len(self), dtype=torch.bool, device=self.packed.device)
        return self.packed[:, self.recipe.columns - 1] != 0

    def regions(self, row: list[int]) -> list[tuple[list[int], int]]:
        """(slots, code) of the chosen region and of the erased one, from a row of the family's `packed`."""
        size, erase = self.recipe.slots, self.recipe.erase_slots
        found = [(row[PLAN_BOX : PLAN_BOX + size], row[PLAN_BOX + size + 1])]
        if self.recipe.erase:
            start = PLAN_BOX + size + 2
            found.append((row[start : start + erase], row[start + erase + 1]))
        return found

    def explain(self, i: int) -> str:
        """What sample i got, in words: "CutMix, partner 17, box y 40..152 x 0..88, 0.804 own"."""
        return explain(self, self.packed[i].tolist(), i)

    def apply(self, x: Tensor, y: Tensor | None = None, **options):
        """Does to `x` (and targets `y`) what this plan did to the batch it was drawn for.

        x: uint8 or float [B, ...]; [B, C, H, W] of the same H and W when the plan has boxes. options: as of
        `fused_cutmix` (num_classes, smoothing, out, inplace, mean, std, out_dtype, ...). Returns x, or (x, y).
        """
        return replay(self, x, y, **options)

    def to(self, device: torch.device | str) -> "Plan":
        field = None if self.field is None else self.field.to(device)
        return Plan(self.packed.to(device), self.recipe, self.size, self.fills, field)

    def __len__(self) -> int:
        return self.packed.shape[0]

    def __repr__(self) -> str:
        counts = torch.bincount(self.method.cpu(), minlength=len(METHOD_NAMES)).tolist()
        drawn = ", ".join(f"{n} {name}" for name, n in zip(METHOD_NAMES, counts, strict=True) if n)
        return f"{type(self).__name__}({len(self)} samples: {drawn or 'empty'}; device={self.packed.device})"


def fused_mixup(
    x: Tensor,
    y: Tensor | None = None,
    *,
    alpha: Number = 1.0,
    p: Number = 1.0,
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
    compat: str | None = None,
) -> Any:
    """mixup of a batch: x_i <- lam_i x_i + (1 - lam_i) x_partner(i), and the targets alike, lam ~ Beta(alpha, alpha).

    Args:
        x: uint8, float16, bfloat16 or float32 [B, ...]. Blended in float32 and rounded once, to nearest.
        y: int64 [B] classes, float [B, K] soft or multi-label targets, or None.
        alpha: > 0; 0.2 to 0.4 is usual for ImageNet, 1 for CIFAR.
        p: chance in [0, 1] that a sample (pair, batch) is mixed. alpha and p may be tensors of one number:
            torch.compile, which makes a graph of its own for each Python number, then makes one for all.
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
        compat: "paper", "timm", "torchvision" or "kornia": their alpha, mode and partner for what is left at ours.

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
    if compat is not None:
        named = with_compat(Mixup, compat, dict(alpha=alpha, mode=mode, partner=partner))
        alpha, mode, partner = named.values()
    kind, given = (GIVEN_TENSOR, partner) if isinstance(partner, Tensor) else (partner, None)
    if is_data(alpha) or is_data(p):
        recipe, policy = data_policy(Mixup, (alpha, p), (mode, kind, num_classes, smoothing))
    else:
        recipe, policy = recipe_of(Mixup, alpha, p, mode, kind, num_classes, smoothing), None
    return call(
        recipe, x, y, lam, None, given, plan, mean, std, out_dtype, memory_format, inplace, out, generator,
        sample_offset, return_plan, policy,
    )  # fmt: skip


def fused_cutmix(
    x: Tensor,
    y: Tensor | None = None,
    *,
    alpha: Number = 1.0,
    p: Number = 1.0,
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
    compat: str | None = None,
) -> Any:
    """CutMix of a batch: a box of each image is replaced by its partner's pixels, the targets mixed by area.

    The box has sides int(S sqrt(1 - lam)) with lam ~ Beta(alpha, alpha), a uniform centre and clipped edges. Pixels are
    copied bit for bit.

    Args:
        x: uint8, float16, bfloat16 or float32 [B, C, H, W].
        y, alpha, p, mode, partner, num_classes, smoothing, plan, mean, std, out_dtype, memory_format, inplace, out,
            generator, sample_offset, return_plan, compat: as of `fused_mixup`.
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
    if compat is not None:
        named = with_compat(CutMix, compat, dict(alpha=alpha, mode=mode, partner=partner))
        alpha, mode, partner = named.values()
    kind, given = (GIVEN_TENSOR, partner) if isinstance(partner, Tensor) else (partner, None)
    if isinstance(minmax, list):
        minmax = tuple(minmax)
    if is_data(alpha) or is_data(p):
        spec = partial(CutMix, correct_lam=correct_lam, minmax=minmax)
        recipe, policy = data_policy(spec, (alpha, p), (mode, kind, num_classes, smoothing))
    else:
        recipe = recipe_of(CutMix, alpha, p, mode, kind, num_classes, smoothing, correct_lam, minmax)
        policy = None
    return call(
        recipe, x, y, lam, box, given, plan, mean, std, out_dtype, memory_format, inplace, out, generator,
        sample_offset, return_plan, policy,
    )  # fmt: skip


def is_data(number: object) -> bool:
    """True for a tensor of one number, and for a number that torch.compile traces as an input: data, not structure."""
    return isinstance(number, Tensor | torch.SymFloat)


def data_policy(spec: Callable[..., Any], numbers: tuple[Any, ...], shared: tuple[Any, ...]) -> tuple[Recipe, Policy]:
    """The same method as one of the family, whose numbers are data: new ones compile nothing."""
    policy = build_policy(spec, numbers, shared)
    return policy.recipe, policy


class Options(TypedDict, total=False):
    """The options that every function of the family takes, as `fused_mixup` describes them."""

    mode: str
    partner: str | Tensor
    num_classes: int | None
    smoothing: float
    lam: float | Tensor | None
    plan: Plan | None
    mean: PerChannel
    std: PerChannel
    out_dtype: torch.dtype | None
    memory_format: torch.memory_format | None
    inplace: bool
    out: Tensor | None
    generator: torch.Generator | None
    sample_offset: int
    return_plan: bool


OPTIONS = tuple(Options.__annotations__)
NO_LAM = (METHOD_SMOOTHMIX, METHOD_CUTOUT, METHOD_ERASING, METHOD_GRIDMASK, METHOD_HIDE)


def family(spec: Callable[..., FamilySpec], values: tuple[Any, ...], x: Tensor, y: Tensor | None, options: Any) -> Any:
    """A call of one method of the family."""
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise TypeError(f"{unknown[0]} is no option; allowed are {', '.join(OPTIONS)}")
    given = options.get
    asked = given("partner", "matching")
    kind, partner = (GIVEN_TENSOR, asked) if isinstance(asked, Tensor) else (asked, None)
    shared = (given("mode", "elem"), kind, given("num_classes"), given("smoothing", 0.0))
    policy = policy_of(spec, values, shared)
    recipe = policy.recipe
    lam = given("lam")
    if lam is not None and method_of(recipe.choices[0]) in NO_LAM:
        raise ValueError(f"lam can't be given: {TITLES[method_of(recipe.choices[0])]} has none to choose")
    return call(
        recipe, x, y, lam, None, partner, given("plan"), given("mean"), given("std"), given("out_dtype"),
        given("memory_format"), given("inplace", False), given("out"), given("generator"), given("sample_offset", 0),
        given("return_plan", False), policy,
    )  # fmt: skip


def policy_of(spec: Callable[..., FamilySpec], values: tuple[Any, ...], shared: tuple[Any, ...]) -> Policy:
    """The policy of one spec; checked once per set of arguments."""
    values = tuple(tuple(v) if isinstance(v, list) else v for v in values)
    if torch.compiler.is_compiling():
        return build_policy(spec, values, shared)
    try:
        return cached_policy(spec, values, shared)
    except TypeError:
        return build_policy(spec, values, shared)  # an unhashable argument: let its own check speak


def build_policy(spec: Callable[..., FamilySpec], values: tuple[Any, ...], shared: tuple[Any, ...]) -> Policy:
    return Policy(((spec(*values), 1.0),), None, *shared)


cached_policy = lru_cache(maxsize=256, typed=True)(build_policy)


def fused_cutout(
    x: Tensor, y: Tensor | None = None, *, length: Number = 16, n_holes: int = 1, p: Number = 1.0, value: Any = 0.0,
    space: str = "input", **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """Cutout: `n_holes` squares of each image are replaced by `value`; labels stay as they are.

    Args:
        x: uint8, float16, bfloat16 or float32 [B, C, H, W].
        y: labels or None; returned as they came, or as rows where num_classes asks for them.
        length: side of a square in pixels; an odd one loses a pixel, as in the authors' code. 16 for CIFAR-10, 8 for
            CIFAR-100, 20 for SVHN.
        n_holes: 1 to 8 squares, which may overlap and are clipped at the edges.
        p: chance in [0, 1] that an image is cut.
        value: a number or one per channel, in the units of x (`space="input"`), or of the result after mean and std
            (`space="output"`).
        options: mode, num_classes, smoothing, plan, mean, std, out_dtype, memory_format, inplace, out, generator,
            sample_offset, return_plan, as of `fused_mixup`.

    Returns, Raises: as `fused_mixup`.

    Source: arXiv 1708.04552; semantics of uoguelph-mlrg/Cutout, per sample. The authors' zero after normalisation is
    `space="output"`.

    Example:
        >>> import torch, fusedmix
        >>> fusedmix.fused_cutout(torch.ones(2, 3, 8, 8), length=4).min().item()
        0.0
    """
    return family(Cutout, (length, n_holes, p, value, space), x, y, options)


def fused_random_erasing(
    x: Tensor, y: Tensor | None = None, *, p: Number = 0.5, area: tuple[Number, Number] = (0.02, 1 / 3),
    aspect: tuple[Number, Number] = (0.3, 1 / 0.3), aspect_scale: str = "log", fill_mode: str = "const",
    value: Any = 0.0, sigma: Any = 1.0, min_count: int = 1, max_count: int = 1, space: str = "input",
    compat: str | None = None, **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """Random Erasing: rectangles of random size, aspect and place are filled; labels stay as they are.

    Args:
        x, y, p, space, options: as of `fused_cutout`.
        area: (lowest, highest) share of the image, divided by the number of rectangles.
        aspect: (lowest, highest) height over width, drawn uniformly in its logarithm (`aspect_scale="log"`) or as it
            is ("linear", the paper, which favours tall rectangles).
        fill_mode: "const", "rand" (a normal number per channel) or "pixel" (one per pixel): value + sigma * noise.
        value, sigma (>= 0): a number or one per channel, in the units of x or of the result (`space`).
        min_count, max_count: how many rectangles, up to 8. Each has ten tries to fit.
        compat: "paper", "timm" or "torchvision": their defaults for what is left at ours.

    Returns, Raises: as `fused_mixup`.

    Source: arXiv 1708.04896; zhunzhong07/Random-Erasing, timm's `RandomErasing`; per sample.

    Example:
        >>> import torch, fusedmix
        >>> x, plan = fusedmix.fused_random_erasing(torch.ones(4, 3, 16, 16), p=1.0, return_plan=True)
        >>> bool((plan.box[:, 2] > plan.box[:, 0]).all())
        True
    """
    named = dict(
        p=p, area=area, aspect=aspect, aspect_scale=aspect_scale, fill_mode=fill_mode, value=value, sigma=sigma,
        min_count=min_count, max_count=max_count, space=space,
    )  # fmt: skip
    if compat is not None:
        named = with_compat(RandomErasing, compat, named)
    return family(RandomErasing, tuple(named.values()), x, y, options)


def fused_gridmask(
    x: Tensor, y: Tensor | None = None, *, d: tuple[Number, Number] = (96, 224), ratio: Number = 0.6,
    rotate: Number = 360, invert: bool = True, rule: str = "ceil", p: Number = 0.8, value: Any = 0.0,
    space: str = "input", **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """GridMask: a turned grid of squares is replaced by `value`; labels stay as they are.

    Args:
        x, y, p, value, space, options: as of `fused_cutout`.
        d: (lowest, highest exclusive) period of the grid in pixels; (96, 224) is for images of 224.
        ratio: stripes are ceil(d ratio) pixels wide, within [1, d - 1] (`rule="ceil"`), or int(d ratio + 1/2)
            (`rule="round"`, the older code).
        rotate: angle uniform over the whole degrees below this.
        invert: True (the paper's mode 1) keeps the stripes of rows and columns and drops the squares between them;
            False drops the stripes.

    Returns, Raises: as `fused_mixup`.

    Source: arXiv 2001.04086; dvlab-research/GridMask, per sample, the grid turned in exact arithmetic.

    Example:
        >>> import torch, fusedmix
        >>> 0 < fusedmix.fused_gridmask(torch.ones(2, 1, 32, 32), d=(8, 16), p=1.0).mean().item() < 1
        True
    """
    return family(GridMask, (d, ratio, rotate, invert, rule, p, value, space), x, y, options)


def fused_hide_and_seek(
    x: Tensor, y: Tensor | None = None, *, sizes: tuple[int, ...] = (0, 16, 32, 44, 56), hide: Number = 0.5,
    p: Number = 1.0, value: Any = 0.0, space: str = "input", **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """Hide-and-Seek: the image is divided into cells, each hidden by chance; labels stay as they are.

    Args:
        x, y, p, value, space, options: as of `fused_cutout`.
        sizes: 1 to 8 sides of a cell in pixels, one chosen per sample; 0 hides nothing. Cells start at the origin.
        hide: chance in [0, 1] that a cell is hidden.

    Returns, Raises: as `fused_mixup`.

    Source: arXiv 1704.04232; semantics of the authors' code, per sample.

    Example:
        >>> import torch, fusedmix
        >>> hidden = fusedmix.fused_hide_and_seek(torch.ones(2, 1, 8, 8), sizes=(4,), hide=1.0)
        >>> hidden.sum().item()
        0.0
    """
    return family(HideAndSeek, (sizes, hide, p, value, space), x, y, options)


def fused_gridmix(
    x: Tensor, y: Tensor | None = None, *, alpha: Number = 1.0, cells: int = 4, p: Number = 1.0,
    **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """GridMix: random cells of a grid come from the partner, the targets mixed by the exact share of pixels.

    Args:
        x: uint8, float16, bfloat16 or float32 [B, C, H, W].
        y, p, options: as of `fused_mixup`.
        alpha: > 0; a cell is the partner's with chance 1 - lam, lam ~ Beta(alpha, alpha), or as `lam` says.
        cells: 1 to 32 cells a side, of ceil(side / cells) pixels, the last truncated.

    Returns, Raises: as `fused_mixup`.

    Source: Baek et al., GridMix, Pattern Recognition 109 (2021); per sample.

    Example:
        >>> import torch, fusedmix
        >>> x, y = fusedmix.fused_gridmix(torch.rand(4, 3, 8, 8), torch.arange(4), num_classes=4)
        >>> bool(torch.allclose(y.sum(1), torch.ones(4)))
        True
    """
    return family(GridMix, (alpha, cells, p), x, y, options)


def fused_resizemix(
    x: Tensor, y: Tensor | None = None, *, scale: tuple[Number, Number] = (0.1, 0.8), interpolation: str = "nearest",
    p: Number = 1.0, **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """ResizeMix: the whole partner, shrunk, is pasted into a box; the targets mixed by area.

    Args:
        x: uint8, float16, bfloat16 or float32 [B, C, H, W].
        y, p, options: as of `fused_mixup`; `lam` fixes the box's sides as of `fused_cutmix`, `inplace` is refused.
        scale: (lowest, highest) side of the box as a share of the image's, uniform. Centre and edges as CutMix's.
        interpolation: "nearest" (floor(i H / h), the original) or "bilinear" (without antialiasing).

    Returns, Raises: as `fused_mixup`.

    Source: arXiv 2012.11101; OpenMixup's `resizemix`, height and width not swapped; per sample.

    Example:
        >>> import torch, fusedmix
        >>> x, y = fusedmix.fused_resizemix(torch.rand(4, 3, 8, 8), torch.arange(4), num_classes=4)
        >>> bool(torch.allclose(y.sum(1), torch.ones(4)))
        True
    """
    return family(ResizeMix, (scale, interpolation, p), x, y, options)


def fused_smoothmix(
    x: Tensor, y: Tensor | None = None, *, sigma: tuple[Number, Number] = (0.25, 0.5), p: Number = 1.0,
    **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """SmoothMix: the partner shows through a Gaussian bell; the targets mixed by the mean weight.

    Args:
        x: uint8, float16, bfloat16 or float32 [B, C, H, W].
        y, p, options: as of `fused_mixup`, without `lam`.
        sigma: (lowest, highest) standard deviation of the bell as a share of each side, uniform. Its centre, where the
            partner has all the weight, is a uniform pixel.

    Returns, Raises: as `fused_mixup`. lam is the mean weight of the own pixels (OpenMixup returns the partner's).

    Source: Lee et al., SmoothMix, CVPR Workshops 2020; per sample.

    Example:
        >>> import torch, fusedmix
        >>> x, y = fusedmix.fused_smoothmix(torch.rand(4, 3, 8, 8), torch.arange(4), num_classes=4)
        >>> bool(torch.allclose(y.sum(1), torch.ones(4)))
        True
    """
    return family(SmoothMix, (sigma, p), x, y, options)


def fused_fmix(
    x: Tensor, y: Tensor | None = None, *, alpha: Number = 1.0, decay: float = 3.0, spectrum: str = "fixed",
    p: Number = 1.0, **options: 'Unpack[Options]',
) -> Any:  # fmt: skip
    """FMix: a mask thresholded from a random image of low frequencies; the targets mixed by the share of pixels.

    Args:
        x: uint8, float16, bfloat16 or float32 [B, C, H, W].
        y, p, options: as of `fused_mixup`.
        alpha: > 0; lam ~ Beta(alpha, alpha), floor or ceil(lam H W) pixels are kept.
        decay: spectrum of 1 / frequency**decay.
        spectrum: "fixed", or "official", which takes neighbouring frequencies for real and imaginary parts as the
            authors' code does.

    Returns, Raises: as `fused_mixup`. The image comes from torch.fft on the device, a step of its own before the
    launch, and differs between devices; lam and partners do not.

    Source: arXiv 2002.12047; ecs-vlc/FMix with max_soft 0, a mask per sample.

    Example:
        >>> import torch, fusedmix
        >>> x, y = fusedmix.fused_fmix(torch.rand(4, 3, 8, 8), torch.arange(4), num_classes=4)
        >>> bool(torch.allclose(y.sum(1), torch.ones(4)))
        True
    """
    return family(FMix, (alpha, decay, spectrum, p), x, y, options)


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
        if plan.recipe.choices and plan.recipe.has_box and x.dim() != 4:
            raise ValueError(f"plan has regions: x must be [B, C, H, W], got {list(x.shape)}")
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
    policy: Policy | None = None,
    knobs: Tensor | None = None,
) -> Any:
    """Checks everything, then runs one op. All public calls end here."""
    if plan is not None:
        recipe = check_plan(plan, recipe, x, lam, box, partner)
    check_images(x, recipe)
    target = None if y is None else check_target(y, x, recipe)
    if recipe.pairing == ALONE and target is not None and target.dim() == 1 and recipe.num_classes == 0:
        target = None  # labels stay as they are
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
    if not traced and reads_values(x):
        check_values(target, lam, box, partner, recipe, x)

    state, seed, offset = (None, 0, 0) if plan is not None else fresh_seed(x, traced, generator)
    packed = None if plan is None else plan.packed
    fills: tuple[Fill, ...] = ()
    extras = ops.NO_EXTRAS
    if recipe.choices:
        fills = plan.fills if plan is not None else policy.fills if policy is not None else ()
        extras = extras_of(recipe, policy, plan, knobs, fills, norm, x, None if state is not None else seed ^ offset)
    as_classes = target is not None and target.dim() == 1 and recipe.num_classes == 0
    want_plan = plan is None and (return_plan or as_classes or differentiates)
    arguments = (target, norm, packed, lam, box, partner, state, seed, offset, sample_offset)
    if traced or differentiates:
        op = torch.ops.fusedmix
        numbers = (*recipe, want_plan, *extras)
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
        target_out, drawn = ops.call_mix_into(as_dense(x), result, *arguments, recipe, want_plan, extras)

    if plan is None and drawn is not None:
        plan = Plan(drawn, recipe, (x.shape[2], x.shape[3]) if recipe.has_box else None, fills, extras[2])
    if y is None:
        return (result, plan) if return_plan else result
    if target is None:
        target_out = y
    if as_classes:
        assert plan is not None
        assert target_out is not None
        target_out = MixedTarget(y, target_out, plan.lam)
    return (result, target_out, plan) if return_plan else (result, target_out)


def fresh_seed(x: Tensor, traced: bool, generator: torch.Generator | None) -> tuple[Tensor | None, int, int]:
    """(state, seed, offset) of a call: a tensor where each replay of a graph must draw afresh, else two numbers."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
    if traced or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        if generator is not None:
            raise ValueError("generator cannot be used under torch.compile, tracing or CUDA graph capture")
        return rng.graph_state(x.device), 0, 0
    return None, *rng.next_seed(generator)


def extras_of(
    recipe: Recipe, policy: Policy | None, plan: Plan | None, knobs: Tensor | None, fills: tuple[Fill, ...],
    norm: Tensor | None, x: Tensor, seed: int | None,
) -> ops.Extras:  # fmt: skip
    """Knobs, fills and FMix's ranks of a call of the family, on the device of x."""
    field = None if plan is None else plan.field
    if plan is None:
        assert policy is not None
        if knobs is None:
            knobs = knobs_of(policy.knobs(), x.device)
        field = field_of(policy, x, x.shape[2:], seed)
    if recipe.has_fill and norm is None:
        check_fills(fills, x)
    return knobs, fills_of(fills, norm, x) if recipe.has_fill else None, field


def field_of(policy: Policy, x: Tensor, size: Sequence[int], seed: int | None) -> Tensor | None:
    """FMix's ranks for images of `size`, None for a policy without."""
    fmix = policy.fmix
    if fmix is None:
        return None
    return fmix_ranks(x.shape[0], size[0], size[1], fmix.decay, fmix.spectrum == "official", x.device, seed)


def words_for(method: int, slots: list[int], code: int) -> str:
    """A region in words."""
    if boxed(method):
        boxes = [slots[k : k + 4] for k in range(0, 4 * count_of(code), 4)]
        shown = [f"y {y0}..{y1} x {x0}..{x1}" for y0, x0, y1, x1 in boxes if y1 > y0 and x1 > x0]
        return ("box " if len(shown) < 2 else "boxes ") + (", ".join(shown) or "empty")
    if method == METHOD_GRIDMASK:
        d, length, y, x, cosine, sine, inverted = slots[:7]
        angle = round(math.degrees(math.atan2(sine, cosine))) % 360
        kept = "keeps" if inverted else "drops"
        return f"grid of {d} px, {kept} stripes of {length}, offset y {y} x {x}, turned {angle} degrees"
    if method in (METHOD_HIDE, METHOD_GRIDMIX) and slots[3] == 0:
        return "no cells"
    if method in (METHOD_HIDE, METHOD_GRIDMIX):
        return f"cells of {slots[0]} x {slots[1]} px, each with chance {slots[3] / 2**24:.3f}"
    if method == METHOD_SMOOTHMIX:
        return f"bell at y {slots[0]} x {slots[1]}"
    return f"{slots[0]} pixels of its own" if method == METHOD_FMIX else ""


def explain(plan: Plan, row: list[int], i: int) -> str:
    """A row of a packed plan in words."""
    method, partner = row[PLAN_METHOD], row[PLAN_PARTNER]
    lam = struct.unpack("f", struct.pack("i", row[PLAN_LAM]))[0]
    regions = plan.regions(row) if plan.recipe.choices else [(row[PLAN_BOX:], code_of(method))]
    parts = [TITLES[method]]
    if partner != i:
        parts.append(f"partner {partner}")
    if method:
        parts.append(words_for(method, *regions[0]))
    if partner != i:
        parts.append(f"{lam:.3f} own")
    text = ", ".join(part for part in parts if part)
    for slots, code in regions[1:]:
        if code:
            text += f"; then {TITLES[method_of(code)]}, {words_for(method_of(code), slots, code)}"
    return text
