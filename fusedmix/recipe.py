"""The flat numbers of one call, and the integer codes in them.

Bottom floor: imported by everything, imports nothing. A `Recipe` is what crosses the op boundary; it is hashable, so
launch caches can be keyed on it, and a spec builds one after it has checked its arguments.
"""

from typing import NamedTuple

# Which method a sample got: column 0 of a plan.
METHOD_NONE, METHOD_MIXUP, METHOD_CUTMIX = 0, 1, 2
METHOD_NAMES = ("none", "mixup", "cutmix")

# Over whom one draw is shared.
MODE_BATCH, MODE_PAIR, MODE_ELEM = 0, 1, 2
MODES = {"batch": MODE_BATCH, "pair": MODE_PAIR, "elem": MODE_ELEM}

# How a sample finds its partner. The first three are involutions: i's partner has i as its partner.
MATCHING, EXACT, FLIP, ROLL, PERMUTE, GIVEN = 0, 1, 2, 3, 4, 5
PARTNERS = {"matching": MATCHING, "exact": EXACT, "flip": FLIP, "roll": ROLL, "permute": PERMUTE}

# Columns of a packed plan, int32 [B, 8].
PLAN_METHOD, PLAN_LAM, PLAN_PARTNER, PLAN_MATE, PLAN_BOX, PLAN_COLUMNS = 0, 1, 2, 3, 4, 8


class Recipe(NamedTuple):
    """What one call does, in numbers.

    `p` is the chance that a sample is mixed at all, `switch_prob` the chance that a mixed sample gets CutMix rather
    than mixup (0: mixup only, 1: CutMix only). `minmax` is (-1.0, -1.0) when unused, `num_classes` 0 when unknown.
    """

    mixup_alpha: float = 1.0
    cutmix_alpha: float = 1.0
    p: float = 1.0
    switch_prob: float = 1.0
    mode: int = MODE_ELEM
    pairing: int = MATCHING
    correct_lam: bool = True
    minmax_lo: float = -1.0
    minmax_hi: float = -1.0
    num_classes: int = 0
    smoothing: float = 0.0
    adjoint: bool = False

    @property
    def has_mixup(self) -> bool:
        return self.switch_prob < 1.0

    @property
    def has_box(self) -> bool:
        return self.switch_prob > 0.0

    @property
    def is_paired(self) -> bool:
        """True when partners form pairs, so that one program can own both samples."""
        return self.pairing <= FLIP


def smoothed_on_off(smoothing: float, num_classes: int) -> tuple[float, float]:
    """Target value of the labelled class and of every other class (timm's label smoothing)."""
    off = smoothing / num_classes if num_classes else 0.0
    return 1.0 - smoothing + off, off


def side_range(minmax_lo: float, minmax_hi: float, side: int) -> tuple[int, int]:
    """Smallest side of a `minmax` box in pixels, and how many different sides there are."""
    lo, hi = int(side * minmax_lo), int(side * minmax_hi)
    return lo, max(hi - lo, 1)
