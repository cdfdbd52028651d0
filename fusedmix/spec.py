"""What to do, said in the user's words and checked at birth. A spec knows its `recipe`, the flat numbers of the op."""

import math
import numbers
from dataclasses import dataclass, fields

from .recipe import GIVEN, MODES, PARTNERS, Recipe

GIVEN_TENSOR = "an int64 tensor"  # stands for partners that the call brings itself


def check_number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuses anything but a real number in [low, high], or in (low, high] with `open_low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number = float(value)
    if not (low < number if open_low else low <= number) or not number <= high or not math.isfinite(number):
        allowed = f"> {low:g}" if math.isinf(high) else f"in {'(' if open_low else '['}{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not low <= int(value) <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")


def check_choice(name: str, value: object, allowed: dict[str, int]) -> None:
    if value not in allowed:
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

    alpha: float = 1.0
    p: float = 1.0
    mode: str = "elem"
    partner: str = "matching"
    num_classes: int | None = None
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, math.inf, open_low=True)
        check_number("p", self.p, 0.0, 1.0)
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

    alpha: float = 1.0
    p: float = 1.0
    mode: str = "elem"
    partner: str = "matching"
    num_classes: int | None = None
    smoothing: float = 0.0
    correct_lam: bool = True
    minmax: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, math.inf, open_low=True)
        check_number("p", self.p, 0.0, 1.0)
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
    def recipe(self) -> Recipe:
        lo, hi = check_minmax(self.minmax)
        switch = 1.0 if self.mixup_alpha == 0 else 0.0 if self.cutmix_alpha == 0 else float(self.switch_prob)
        return Recipe(
            mixup_alpha=float(self.mixup_alpha) or 1.0, cutmix_alpha=float(self.cutmix_alpha) or 1.0,
            p=float(self.prob), switch_prob=switch, mode=MODES[self.mode], pairing=partner_code(self.partner),
            correct_lam=bool(self.correct_lam) or hi >= 0, minmax_lo=lo, minmax_hi=hi,
            num_classes=self.num_classes or 0, smoothing=float(self.smoothing),
        )  # fmt: skip


def describe(spec: Mixup | CutMix | MixupOrCutMix) -> str:
    """The arguments of a spec that differ from their defaults, the first always."""
    shown = [f for n, f in enumerate(fields(spec)) if n == 0 or getattr(spec, f.name) != f.default]
    return ", ".join(f"{f.name}={getattr(spec, f.name)!r}" for f in shown)
