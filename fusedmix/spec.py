"""What to do, said in the user's words and checked at birth. A spec knows its `recipe`, the flat numbers of the op."""

import math
import numbers
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any

from .recipe import (
    ALONE,
    FLAG_BILINEAR,
    FLAG_CORRECT,
    FLAG_LINEAR,
    FLAG_MINMAX,
    FLAG_WIDE,
    GIVEN,
    MAX_CELL_SIZES,
    MAX_CELLS,
    MAX_HOLES,
    METHOD_CUTMIX,
    METHOD_CUTOUT,
    METHOD_ERASING,
    METHOD_FMIX,
    METHOD_GRIDMASK,
    METHOD_GRIDMIX,
    METHOD_HIDE,
    METHOD_MIXUP,
    METHOD_RESIZEMIX,
    METHOD_SMOOTHMIX,
    MODES,
    NOISE_CHANNEL,
    NOISE_NONE,
    NOISE_PIXEL,
    PARTNERS,
    WIDE_CELL,
    Recipe,
    code_of,
)
from .schedule import Linear, Number, Until, at, is_scalar

GIVEN_TENSOR = "an int64 tensor"  # stands for partners that the call brings itself


def check_number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuses anything but a real number in [low, high], or in (low, high] with `open_low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number: Any = value
    above = low < number if open_low else low <= number
    if not (above and number <= high and number < math.inf):  # comparisons only, so that torch.compile can trace them
        allowed = (
            f"{'>' if open_low else '>='} {low:g}"
            if math.isinf(high)
            else f"in {'(' if open_low else '['}{low:g}, {high:g}]"
        )
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not low <= int(value) <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")


def check_choice(name: str, value: object, allowed: dict[str, int]) -> None:
    if not isinstance(value, Hashable) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_common(mode: object, partner: object, num_classes: object, smoothing: object) -> None:
    check_choice("mode", mode, MODES)
    if partner != GIVEN_TENSOR:
        check_choice("partner", partner, PARTNERS)
    if mode == "pair" and partner in ("roll", "permute", GIVEN_TENSOR):
        raise ValueError(f'mode="pair" needs a partner that makes pairs ("matching", "exact", "flip"), got {partner!r}')
    if num_classes is not None:
        check_integer("num_classes", num_classes, 1, 2**31 - 1)
    check_number("smoothing", smoothing, 0.0, 1.0)


def check_minmax(minmax: object) -> tuple[float, float]:
    """(lo, hi) of a `minmax` argument; (-1, -1) for None."""
    if minmax is None:
        return -1.0, -1.0
    if not isinstance(minmax, tuple | list) or len(minmax) != 2:
        raise TypeError(f"minmax must be None or a pair (lowest, highest share of a side), got {minmax!r}")
    lo, hi = minmax
    check_number("minmax[0]", lo, 0.0, 1.0)
    check_number("minmax[1]", hi, float(lo), 1.0)
    return float(lo), float(hi)


def partner_code(partner: str) -> int:
    return GIVEN if partner == GIVEN_TENSOR else PARTNERS[partner]


@dataclass(frozen=True)
class Mixup:
    """mixup (arXiv 1710.09412): lam ~ Beta(alpha, alpha), images and targets blended by lam.

    `p` is the chance that a sample (pair, batch) is mixed.
    """

    alpha: Number = 1.0
    p: Number = 1.0
    mode: str = "elem"
    partner: str = "matching"
    num_classes: int | None = None
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_knob("alpha", self.alpha, 0.0, math.inf, open_low=True)
        check_knob("p", self.p, 0.0, 1.0)
        check_common(self.mode, self.partner, self.num_classes, self.smoothing)

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            mixup_alpha=float(self.alpha), p=float(self.p), switch_prob=0.0, mode=MODES[self.mode],
            pairing=partner_code(self.partner), num_classes=self.num_classes or 0, smoothing=float(self.smoothing),
        )  # fmt: skip


@dataclass(frozen=True)
class CutMix:
    """CutMix (arXiv 1905.04899): the partner's pixels inside a box of area about 1 - lam, lam ~ Beta(alpha, alpha).

    With `correct_lam` the target weight is the exact share of pixels kept. `minmax=(lo, hi)` draws the sides of the box
    uniformly between those shares of the image instead, as timm's `cutmix_minmax`; lam is then always corrected.
    """

    alpha: Number = 1.0
    p: Number = 1.0
    mode: str = "elem"
    partner: str = "matching"
    num_classes: int | None = None
    smoothing: float = 0.0
    correct_lam: bool = True
    minmax: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_knob("alpha", self.alpha, 0.0, math.inf, open_low=True)
        check_knob("p", self.p, 0.0, 1.0)
        check_common(self.mode, self.partner, self.num_classes, self.smoothing)
        check_minmax(self.minmax)

    @property
    def recipe(self) -> Recipe:
        lo, hi = check_minmax(self.minmax)
        return Recipe(
            cutmix_alpha=float(self.alpha), p=float(self.p), switch_prob=1.0, mode=MODES[self.mode],
            pairing=partner_code(self.partner), correct_lam=bool(self.correct_lam) or hi >= 0, minmax_lo=lo,
            minmax_hi=hi, num_classes=self.num_classes or 0, smoothing=float(self.smoothing),
        )  # fmt: skip


@dataclass(frozen=True)
class MixupOrCutMix:
    """Per sample (pair, batch): with chance `prob` mix, then CutMix with chance `switch_prob`, else mixup.

    timm's `Mixup` in its words. An alpha of 0 switches its method off, and the other one is always chosen.
    """

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "elem"
    partner: str = "matching"
    num_classes: int | None = None
    smoothing: float = 0.0
    correct_lam: bool = True
    minmax: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_number("mixup_alpha", self.mixup_alpha, 0.0, math.inf)
        check_number("cutmix_alpha", self.cutmix_alpha, 0.0, math.inf)
        if self.mixup_alpha == 0 and self.cutmix_alpha == 0:
            raise ValueError("mixup_alpha and cutmix_alpha are both 0: at least one must be > 0")
        check_number("prob", self.prob, 0.0, 1.0)
        check_number("switch_prob", self.switch_prob, 0.0, 1.0)
        check_common(self.mode, self.partner, self.num_classes, self.smoothing)
        check_minmax(self.minmax)

    @property
    def methods(self) -> tuple[tuple[Any, float], ...]:
        """The same choice as a list."""
        switch = self.recipe.switch_prob
        mix, cut = self.mixup_alpha or 1.0, self.cutmix_alpha or 1.0
        cutmix = CutMix(cut, correct_lam=self.correct_lam, minmax=self.minmax)
        return (cutmix, self.prob * switch), (Mixup(mix), self.prob * (1 - switch))

    @property
    def recipe(self) -> Recipe:
        lo, hi = check_minmax(self.minmax)
        switch = 1.0 if self.mixup_alpha == 0 else 0.0 if self.cutmix_alpha == 0 else float(self.switch_prob)
        return Recipe(
            mixup_alpha=float(self.mixup_alpha) or 1.0, cutmix_alpha=float(self.cutmix_alpha) or 1.0,
            p=float(self.prob), switch_prob=switch, mode=MODES[self.mode], pairing=partner_code(self.partner),
            correct_lam=bool(self.correct_lam) or hi >= 0, minmax_lo=lo, minmax_hi=hi,
            num_classes=self.num_classes or 0, smoothing=float(self.smoothing),
        )  # fmt: skip


# The family. Its specs say which method; mode, partner and targets belong to the call.


def check_knob(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """As `check_number`, for what a schedule or a tensor of one number may stand for too."""
    if is_scalar(value):
        return
    for number in value.extremes if isinstance(value, Linear | Until) else (value,):
        check_number(name, number, low, high, open_low=open_low)


def check_pair(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuses anything but (lowest, highest) within [low, high]."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (lowest, highest), got {value!r}")
    for n, number in enumerate(value):
        check_knob(f"{name}[{n}]", number, low, high, open_low=open_low)
    first, last = value
    if isinstance(first, numbers.Real) and isinstance(last, numbers.Real) and not float(first) <= float(last):
        raise ValueError(f"{name} must be (lowest, highest), got {value!r}")


def check_value(name: str, value: object, low: float = -3.4e38) -> None:
    """A finite number from `low` on, or one per channel."""
    for number in value if isinstance(value, tuple | list) else (value,):
        check_number(name, number, low, 3.4e38)


SPACES = {"input": 0, "output": 1}
NOISES = {"const": NOISE_NONE, "rand": NOISE_CHANNEL, "pixel": NOISE_PIXEL}


@dataclass(frozen=True)
class Fill:
    """What a dropped region is filled with: value + sigma * noise, per channel."""

    value: float | tuple[float, ...] = 0.0
    sigma: float | tuple[float, ...] = 0.0
    space: str = "input"


class FamilySpec:
    """Shared by the specs of the family: p, the code of the op, the knobs and the fill."""

    p: Number

    @property
    def code(self) -> int:
        raise NotImplementedError

    def knobs(self) -> tuple[Number, ...]:
        """The numbers of a row of knobs, after its edge."""
        return ()

    @property
    def fill(self) -> Fill:
        return Fill()


class DropSpec(FamilySpec):
    """Drops a region and fills it; labels stay as they are.

    `value` is what the region is filled with, a number or one per channel, in the units of the input (`space="input"`)
    or of the result, after mean and std (`space="output"`).
    """

    value: Any
    space: str

    def check_fill(self) -> None:
        check_value("value", self.value)
        check_choice("space", self.space, SPACES)

    @property
    def fill(self) -> Fill:
        return Fill(per_channel(self.value), 0.0, self.space)


def per_channel(value: Any) -> float | tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, tuple | list) else float(value)


@dataclass(frozen=True)
class Cutout(DropSpec):
    """Cutout (arXiv 1708.04552): `n_holes` squares of side `length` pixels, centres uniform, clipped at the edges."""

    length: Number = 16
    n_holes: int = 1
    p: Number = 1.0
    value: Any = 0.0
    space: str = "input"

    def __post_init__(self) -> None:
        check_knob("length", self.length, 0, 2**15)
        check_integer("n_holes", self.n_holes, 1, MAX_HOLES)
        check_knob("p", self.p, 0.0, 1.0)
        self.check_fill()

    @property
    def code(self) -> int:
        return code_of(METHOD_CUTOUT, self.n_holes)

    def knobs(self) -> tuple[Number, ...]:
        return (self.length,)


@dataclass(frozen=True)
class RandomErasing(DropSpec):
    """Random Erasing (arXiv 1708.04896): rectangles of a share `area` of the image and an aspect (height / width)."""

    p: Number = 0.5
    area: tuple[Number, Number] = (0.02, 1 / 3)
    aspect: tuple[Number, Number] = (0.3, 1 / 0.3)
    aspect_scale: str = "log"
    fill_mode: str = "const"
    value: Any = 0.0
    sigma: Any = 1.0
    min_count: int = 1
    max_count: int = 1
    space: str = "input"

    def __post_init__(self) -> None:
        check_knob("p", self.p, 0.0, 1.0)
        check_pair("area", self.area, 0.0, 1.0, open_low=True)
        check_pair("aspect", self.aspect, 1e-3, 1e3)
        check_choice("aspect_scale", self.aspect_scale, {"log": 0, "linear": 1})
        check_choice("fill_mode", self.fill_mode, NOISES)
        check_integer("max_count", self.max_count, 1, MAX_HOLES)
        check_integer("min_count", self.min_count, 1, self.max_count)
        check_value("sigma", self.sigma, 0.0)
        self.check_fill()

    @property
    def code(self) -> int:
        flags = FLAG_LINEAR if self.aspect_scale == "linear" else 0
        return code_of(METHOD_ERASING, self.max_count, flags, NOISES[self.fill_mode])

    def knobs(self) -> tuple[Number, ...]:
        return (*self.area, *self.aspect, self.min_count, self.max_count)

    @property
    def fill(self) -> Fill:
        return Fill(per_channel(self.value), per_channel(self.sigma), self.space)


@dataclass(frozen=True)
class GridMask(DropSpec):
    """GridMask (arXiv 2001.04086): a turned grid of period d in [d[0], d[1]) pixels.

    Stripes of l = ceil(d ratio) pixels (`rule="ceil"`, within [1, d - 1]) or int(d ratio + 1/2) (`rule="round"`, the
    older code) run along rows and columns. `invert=True` (the paper's mode 1) keeps the stripes and drops the squares
    between them; False drops the stripes.
    """

    d: tuple[Number, Number] = (96, 224)
    ratio: Number = 0.6
    rotate: Number = 360
    invert: bool = True
    rule: str = "ceil"
    p: Number = 0.8
    value: Any = 0.0
    space: str = "input"

    def __post_init__(self) -> None:
        check_pair("d", self.d, 2, 2**15)
        check_knob("ratio", self.ratio, 0.0, 1.0)
        check_knob("rotate", self.rotate, 0, 360)
        check_choice("rule", self.rule, {"ceil": 0, "round": 1})
        check_knob("p", self.p, 0.0, 1.0)
        self.check_fill()

    @property
    def code(self) -> int:
        return code_of(METHOD_GRIDMASK)

    def knobs(self) -> tuple[Number, ...]:
        return (*self.d, self.ratio, self.rotate, float(bool(self.invert)), float(self.rule == "round"))


@dataclass(frozen=True)
class HideAndSeek(DropSpec):
    """Hide-and-Seek (arXiv 1704.04232): cells of a random size, each hidden with chance `hide`; size 0 hides none."""

    sizes: tuple[int, ...] = (0, 16, 32, 44, 56)
    hide: Number = 0.5
    p: Number = 1.0
    value: Any = 0.0
    space: str = "input"

    def __post_init__(self) -> None:
        if not isinstance(self.sizes, tuple | list) or not 1 <= len(self.sizes) <= MAX_CELL_SIZES:
            raise ValueError(f"sizes must be 1 to {MAX_CELL_SIZES} sides of cells in pixels, got {self.sizes!r}")
        for n, size in enumerate(self.sizes):
            check_integer(f"sizes[{n}]", size, 0, 2**15)
        check_knob("hide", self.hide, 0.0, 1.0)
        check_knob("p", self.p, 0.0, 1.0)
        self.check_fill()

    @property
    def code(self) -> int:
        wide = all(size == 0 or size >= WIDE_CELL for size in self.sizes)
        return code_of(METHOD_HIDE, 1, FLAG_WIDE if wide else 0)

    def knobs(self) -> tuple[Number, ...]:
        return (self.hide, len(self.sizes), *self.sizes)


@dataclass(frozen=True)
class GridMix(FamilySpec):
    """GridMix (Baek et al., Pattern Recognition 109, 2021): random cells of a `cells` x `cells` grid from the partner.

    Each with chance 1 - lam, lam ~ Beta(alpha, alpha); targets by the exact share of pixels.
    """

    alpha: Number = 1.0
    cells: int = 4
    p: Number = 1.0

    def __post_init__(self) -> None:
        check_knob("alpha", self.alpha, 0.0, math.inf, open_low=True)
        check_integer("cells", self.cells, 1, MAX_CELLS)
        check_knob("p", self.p, 0.0, 1.0)

    @property
    def code(self) -> int:
        return code_of(METHOD_GRIDMIX, self.cells)

    def knobs(self) -> tuple[Number, ...]:
        return (self.alpha,)


@dataclass(frozen=True)
class ResizeMix(FamilySpec):
    """ResizeMix (arXiv 2012.11101): the whole partner, shrunk into a box of sides int(S tau), tau ~ U(scale)."""

    scale: tuple[Number, Number] = (0.1, 0.8)
    interpolation: str = "nearest"
    p: Number = 1.0

    def __post_init__(self) -> None:
        check_pair("scale", self.scale, 0.0, 1.0)
        check_choice("interpolation", self.interpolation, {"nearest": 0, "bilinear": 1})
        check_knob("p", self.p, 0.0, 1.0)

    @property
    def code(self) -> int:
        return code_of(METHOD_RESIZEMIX, 1, FLAG_BILINEAR if self.interpolation == "bilinear" else 0)

    def knobs(self) -> tuple[Number, ...]:
        return tuple(self.scale)


@dataclass(frozen=True)
class SmoothMix(FamilySpec):
    """SmoothMix (Lee et al., CVPR Workshops 2020): the partner under a Gaussian bell of random centre.

    The bell has a standard deviation of a share ~ U(sigma) of each side. Targets: the mean weight of the own pixels.
    """

    sigma: tuple[Number, Number] = (0.25, 0.5)
    p: Number = 1.0

    def __post_init__(self) -> None:
        check_pair("sigma", self.sigma, 1e-3, 1e3)
        check_knob("p", self.p, 0.0, 1.0)

    @property
    def code(self) -> int:
        return code_of(METHOD_SMOOTHMIX)

    def knobs(self) -> tuple[Number, ...]:
        return tuple(self.sigma)


@dataclass(frozen=True)
class FMix(FamilySpec):
    """FMix (arXiv 2002.12047): the partner where a random image of low frequencies is low, lam ~ Beta(alpha, alpha).

    `spectrum="official"` keeps a quirk of the authors' code, whose masks vary more across than down.
    """

    alpha: Number = 1.0
    decay: float = 3.0
    spectrum: str = "fixed"
    p: Number = 1.0

    def __post_init__(self) -> None:
        check_knob("alpha", self.alpha, 0.0, math.inf, open_low=True)
        check_number("decay", self.decay, 0.0, 100.0)
        check_choice("spectrum", self.spectrum, {"fixed": 0, "official": 1})
        check_knob("p", self.p, 0.0, 1.0)

    @property
    def code(self) -> int:
        return code_of(METHOD_FMIX)

    def knobs(self) -> tuple[Number, ...]:
        return (self.alpha,)


Spec = Mixup | CutMix | FamilySpec


@dataclass(frozen=True)
class Policy:
    """A method per sample out of `methods` by probability, then `erase`; what is left over stays untouched.

    methods: pairs (spec or None, probability). A spec's own p multiplies its probability.
    """

    methods: tuple[tuple[Any, Number], ...]
    erase: Any = None
    mode: str = "elem"
    partner: str = "matching"
    num_classes: int | None = None
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.methods, tuple | list) or not self.methods:
            raise TypeError(f"methods must be a list of pairs (spec or None, probability), got {self.methods!r}")
        total = 0.0
        for n, entry in enumerate(self.methods):
            if not isinstance(entry, tuple | list) or len(entry) != 2:
                raise TypeError(f"methods[{n}] must be a pair (spec or None, probability), got {entry!r}")
            spec, share = entry
            if spec is not None and not isinstance(spec, Spec):
                raise TypeError(f"methods[{n}] must hold a spec (CutMix(), Cutout(), ...) or None, got {spec!r}")
            check_knob(f"probability of methods[{n}]", share, 0.0, 1.0)
            if isinstance(spec, Mixup | CutMix):
                check_bare(n, spec)
            total += float(share) if isinstance(share, numbers.Real) else 0.0
        if total > 1.0 + 1e-6:
            raise ValueError(f"probabilities of methods must add up to at most 1, got {total:g}")
        if self.erase is not None and not isinstance(self.erase, DropSpec):
            raise TypeError(
                f"erase must be None or a spec that drops a region (RandomErasing(), ...), got {self.erase!r}"
            )
        if sum(isinstance(spec, FMix) for spec in self.specs) > 1:
            raise ValueError("methods holds FMix twice: all FMix samples of a call share one decay and spectrum")
        kinds = {spec.interpolation for spec in self.specs if isinstance(spec, ResizeMix)}
        if len(kinds) > 1:
            raise ValueError("methods holds ResizeMix with two interpolations: use one in a call")
        if not self.specs and self.erase is None:
            raise ValueError("methods holds only None: nothing to do")
        check_common(self.mode, self.partner, self.num_classes, self.smoothing)

    @property
    def specs(self) -> list[Any]:
        return [spec for spec, _ in self.methods if spec is not None]

    @property
    def mixes(self) -> bool:
        """True when labels are mixed too."""
        return any(not isinstance(spec, DropSpec) for spec in self.specs)

    @property
    def recipe(self) -> Recipe:
        codes = tuple(choice_code(spec) for spec in self.specs) or (code_of(METHOD_CUTOUT),)
        return Recipe(
            mode=MODES[self.mode], pairing=partner_code(self.partner) if self.mixes else ALONE, choices=codes,
            erase=0 if self.erase is None else self.erase.code, num_classes=self.num_classes or 0,
            smoothing=float(self.smoothing),
        )  # fmt: skip

    def knobs(self, progress: float = 0.0) -> tuple[tuple[Number, ...], ...]:
        """Rows of knobs: numbers, or tensors of one number. Edges are cumulative."""
        rows: list[tuple[Number, ...]] = []
        edge: Number = 0.0
        for spec, share in self.methods:
            if spec is not None:
                edge = edge + at(share, progress) * at(spec.p, progress)
                rows.append((edge, *(at(number, progress) for number in choice_knobs(spec))))
        if not rows:
            rows.append((0.0,))  # a stand-in that is never chosen
        erase: tuple[Number, ...] = (0.0,)
        if self.erase is not None:
            erase = tuple(at(number, progress) for number in (self.erase.p, *self.erase.knobs()))
        return (*rows, erase)

    @property
    def fills(self) -> tuple[Fill, ...]:
        """One a row of knobs."""
        rows = [spec.fill if isinstance(spec, FamilySpec) else Fill() for spec in self.specs] or [Fill()]
        return (*rows, Fill() if self.erase is None else self.erase.fill)

    @property
    def fmix(self) -> FMix | None:
        return next((spec for spec in self.specs if isinstance(spec, FMix)), None)


def check_bare(n: int, spec: Mixup | CutMix) -> None:
    """In a list, mode, partner and targets are the list's."""
    for field in fields(spec):
        if field.name in ("mode", "partner", "num_classes", "smoothing") and getattr(spec, field.name) != field.default:
            raise ValueError(f"methods[{n}] sets {field.name}: give it to the list as a whole instead")


def choice_code(spec: Any) -> int:
    if isinstance(spec, Mixup):
        return code_of(METHOD_MIXUP)
    if isinstance(spec, CutMix):
        flags = FLAG_CORRECT if spec.correct_lam or spec.minmax else 0
        return code_of(METHOD_CUTMIX, 1, flags | (FLAG_MINMAX if spec.minmax else 0))
    return spec.code


def choice_knobs(spec: Any) -> tuple[Number, ...]:
    if isinstance(spec, Mixup):
        return (spec.alpha,)
    if isinstance(spec, CutMix):
        return (spec.alpha, *(spec.minmax or ()))
    return spec.knobs()


# Defaults of others, where they differ from ours: paper (the authors' code), timm 1.0, torchvision 0.28, kornia 0.9.
# Not reproduced: kornia's CutMix never reaches the last row and column, its Random Erasing draws the aspect from two
# halves; torchvision's Random Erasing gives every image of a batch the same box.
COMPAT: dict[type, dict[str, dict[str, Any]]] = {
    Mixup: {
        "paper": dict(alpha=1.0, mode="batch", partner="permute"),
        "timm": dict(alpha=1.0, mode="batch", partner="flip"),
        "torchvision": dict(alpha=1.0, mode="batch", partner="roll"),
        "kornia": dict(alpha=1.0, mode="elem", partner="permute"),
    },
    CutMix: {
        "paper": dict(alpha=1.0, mode="batch", partner="permute"),
        "timm": dict(alpha=1.0, mode="batch", partner="flip"),
        "torchvision": dict(alpha=1.0, mode="batch", partner="roll"),
        "kornia": dict(alpha=1.0, mode="elem", partner="permute"),
    },
    RandomErasing: {
        "paper": dict(p=0.5, area=(0.02, 0.4), aspect=(0.3, 3.33), aspect_scale="linear"),
        "timm": dict(p=0.5, area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3), aspect_scale="log"),
        "torchvision": dict(p=0.5, area=(0.02, 0.33), aspect=(0.3, 3.3), aspect_scale="log"),
    },
}


def with_compat(spec: type, compat: str, named: dict[str, Any]) -> dict[str, Any]:
    """The arguments `named`, those left at their defaults replaced by another library's."""
    check_choice("compat", compat, dict.fromkeys(COMPAT[spec], 0))
    defaults = {field.name: field.default for field in fields(spec)}
    theirs = COMPAT[spec][compat]
    plain = (int, float, str, tuple)  # a tensor of partners is never a default
    return {
        name: theirs[name] if name in theirs and isinstance(value, plain) and value == defaults[name] else value
        for name, value in named.items()
    }


def describe(spec: Any) -> str:
    """The arguments of a spec that differ from their defaults, the first always."""
    shown = [f for n, f in enumerate(fields(spec)) if n == 0 or getattr(spec, f.name) != f.default]
    return ", ".join(f"{f.name}={getattr(spec, f.name)!r}" for f in shown)
