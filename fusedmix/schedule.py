"""Numbers that change in the course of training: what `FusedMix.set_progress` moves."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import torch


def is_scalar(value: object) -> bool:
    """True for a tensor of one number: a device scalar that the caller changes at will."""
    return isinstance(value, torch.Tensor) and value.dim() == 0


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` while progress goes from 0 to `until`, then `end`.

    GridMask's ramp of `p` over 80 % of the epochs is `p=Linear(0.0, 0.8, until=0.8)`.
    """

    start: float
    end: float
    until: float = 1.0

    def __post_init__(self) -> None:
        check_finite("start", self.start)
        check_finite("end", self.end)
        check_finite("until", self.until)
        if not 0 < self.until <= 1:
            raise ValueError(f"until must be in (0, 1], got {self.until!r}")

    def at(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(1.0, progress / self.until)

    @property
    def extremes(self) -> tuple[float, float]:
        return self.start, self.end


@dataclass(frozen=True)
class Until:
    """`value` while progress is below `until`, then `after`: mixing off for the last tenth is `p=Until(0.9, 1.0)`."""

    until: float
    value: float
    after: float = 0.0

    def __post_init__(self) -> None:
        for name in ("until", "value", "after"):
            check_finite(name, getattr(self, name))

    def at(self, progress: float) -> float:
        return self.value if progress < self.until else self.after

    @property
    def extremes(self) -> tuple[float, float]:
        return self.value, self.after


Schedule = Linear | Until
Number = Any  # a number, a Schedule, or a tensor of one number


def check_finite(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(float(value)):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def at(value: Number, progress: float) -> Any:
    """The number at a share of the training done; a tensor stays itself."""
    return value.at(progress) if isinstance(value, Linear | Until) else value
