"""The flat numbers of one call, and the integer codes in them.

Bottom floor: imported by everything, imports nothing. A `Recipe` is what crosses the op boundary; it is hashable, so
launch caches can be keyed on it, and a spec builds one after it has checked its arguments.
"""

from collections.abc import Sequence
from typing import NamedTuple

# Which method a sample got: column 0 of a plan. Those from CUTOUT to HIDE drop a region, the others mix with a partner.
METHOD_NONE, METHOD_MIXUP, METHOD_CUTMIX = 0, 1, 2
METHOD_CUTOUT, METHOD_ERASING, METHOD_GRIDMASK, METHOD_HIDE = 3, 4, 5, 6
METHOD_GRIDMIX, METHOD_RESIZEMIX, METHOD_SMOOTHMIX, METHOD_FMIX = 7, 8, 9, 10
METHOD_NAMES = (
    "none", "mixup", "cutmix", "cutout", "random_erasing", "gridmask", "hide_and_seek", "gridmix", "resizemix",
    "smoothmix", "fmix",
)  # fmt: skip

TITLES = (
    "untouched", "mixup", "CutMix", "Cutout", "Random Erasing", "GridMask", "Hide-and-Seek", "GridMix", "ResizeMix",
    "SmoothMix", "FMix",
)  # fmt: skip

# Over whom one draw is shared.
MODE_BATCH, MODE_PAIR, MODE_ELEM = 0, 1, 2
MODES = {"batch": MODE_BATCH, "pair": MODE_PAIR, "elem": MODE_ELEM}

# How a sample finds its partner. The first three are involutions: i's partner has i as its partner. ALONE: it has none.
MATCHING, EXACT, FLIP, ROLL, PERMUTE, GIVEN, ALONE = 0, 1, 2, 3, 4, 5, 6
PARTNERS = {"matching": MATCHING, "exact": EXACT, "flip": FLIP, "roll": ROLL, "permute": PERMUTE}

# Columns of a packed plan, int32 [B, 8].
PLAN_METHOD, PLAN_LAM, PLAN_PARTNER, PLAN_MATE, PLAN_BOX, PLAN_COLUMNS = 0, 1, 2, 3, 4, 8

# A choice of the family in one int: its method, a count (holes of a region, cells a side of GridMix) and flags.
COUNT_SHIFT, FLAG_SHIFT = 8, 16
FLAG_CORRECT, FLAG_LINEAR, FLAG_BILINEAR, FLAG_MINMAX = 1, 2, 4, 8  # exact lam; linear aspect; resizing; minmax sides
FLAG_WIDE, WIDE_CELL = 1 << 6, 16  # every cell at least so wide: a run of elements lies in at most two
NOISE_SHIFT = FLAG_SHIFT + 4  # how a dropped region is filled
NOISE_NONE, NOISE_CHANNEL, NOISE_PIXEL = 0, 1, 2
ROW_SHIFT = 24  # in a plan: which row of the fills
MAX_HOLES, MAX_CELLS = 8, 32

# Columns of a row of knobs, the numbers of one choice. EDGE: the choice is taken below this share of the draws.
KNOBS = 12
KNOB_EDGE, KNOB_A, KNOB_B, KNOB_C, KNOB_D, KNOB_E, KNOB_F = 0, 1, 2, 3, 4, 5, 6
MAX_CELL_SIZES = 8  # of Hide-and-Seek, from KNOB_C on


# What FusedAugment cuts out of an image, and what it finds beyond the edges.
CROP_CENTER, CROP_WINDOW, CROP_RESIZED = 0, 1, 2
BEYOND_FILL, BEYOND_EDGE, BEYOND_REFLECT = 0, 1, 2
# Its rows of knobs come after those of the family: geometry, affine, colour.
PLACE_FLIP, PLACE_FLIP_V, PLACE_A, PLACE_B, PLACE_C, PLACE_D = 0, 1, 2, 3, 4, 5
AFFINE_P, AFFINE_DEGREES, AFFINE_TRANSLATE, AFFINE_SCALE, AFFINE_SHEAR = 0, 1, 3, 5, 7  # pairs; two pairs of shear
COLOR_P, COLOR_BRIGHTNESS, COLOR_CONTRAST, COLOR_SATURATION, COLOR_GRAYSCALE = 0, 1, 3, 5, 7
# Its columns of a plan, after those of the family: the map to the source, its limits, then the colour.
PLACE_COLUMNS, COLOR_COLUMNS = 10, 5
MAX_CHANNELS = 16  # a program holds a pixel of every channel


class Geometry(NamedTuple):
    """How a call of FusedAugment places and colours its images, in numbers; Python numbers only, hashable.

    The result is `height` x `width`. CROP_CENTER cuts out `box_height` x `box_width` at `box_y`, `box_x`. With
    `limited`, what is found beyond the crop is its edge; else `beyond` says what is found beyond the image.
    """

    height: int
    width: int
    crop: int = CROP_CENTER
    beyond: int = BEYOND_FILL
    box_y: int = 0
    box_x: int = 0
    box_height: int = 0
    box_width: int = 0
    limited: bool = False
    bilinear: bool = False
    flips: bool = False
    turns: bool = False
    color: bool = False

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Geometry":
        """From ints, as they cross the op boundary."""
        h, w, crop, beyond, y0, x0, box_height, box_width = numbers[:8]
        limited, bilinear, flips, turns, color = (bool(flag) for flag in numbers[8:])
        return cls(h, w, crop, beyond, y0, x0, box_height, box_width, limited, bilinear, flips, turns, color)

    @property
    def resizes(self) -> bool:
        """Whether pixels of the result may lie between pixels of the source, affine maps aside."""
        size = self.height, self.width
        return self.crop == CROP_RESIZED or (self.crop == CROP_CENTER and (self.box_height, self.box_width) != size)

    @property
    def columns(self) -> int:
        return PLACE_COLUMNS + (COLOR_COLUMNS if self.color else 0)


class Recipe(NamedTuple):
    """What one call does, in numbers.

    `p` is the chance that a sample is mixed at all, `switch_prob` the chance that a mixed sample gets CutMix rather
    than mixup (0: mixup only, 1: CutMix only). `minmax` is (-1.0, -1.0) when unused, `num_classes` 0 when unknown.

    With `choices` (codes, see `code_of`) the call is one of the whole family: their numbers come as a tensor of knobs,
    and `mixup_alpha` to `switch_prob`, `correct_lam` and `minmax` play no part. `erase` is the code of what is dropped
    after mixing, 0 for nothing.
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
    choices: tuple[int, ...] = ()
    erase: int = 0

    @property
    def has_mixup(self) -> bool:
        return self.switch_prob < 1.0 and not self.choices

    @property
    def has_box(self) -> bool:
        """True where boxes (or any other region) are cut, so that images have H and W."""
        if self.choices:
            return self.erase != 0 or any(method_of(code) != METHOD_MIXUP for code in self.choices)
        return self.switch_prob > 0.0

    @property
    def resizes(self) -> bool:
        return any(method_of(code) == METHOD_RESIZEMIX for code in self.choices)

    @property
    def has_field(self) -> bool:
        return any(method_of(code) == METHOD_FMIX for code in self.choices)

    @property
    def has_fill(self) -> bool:
        return any(drops(method_of(code)) for code in (*self.choices, self.erase))

    @property
    def slots(self) -> int:
        """Columns of a plan that hold the region of the choice."""
        return max([slots_of(code) for code in self.choices]) if self.choices else PLAN_COLUMNS - PLAN_BOX

    @property
    def erase_slots(self) -> int:
        return slots_of(self.erase) if self.erase else 0

    @property
    def columns(self) -> int:
        """Columns of a plan: four of the sample, then for the choice and for what is erased: region, key, code."""
        if not self.choices:
            return PLAN_COLUMNS
        return PLAN_BOX + self.slots + 2 + (self.erase_slots + 2 if self.erase else 0)

    @property
    def is_paired(self) -> bool:
        """True when partners form pairs, so that one program can own both samples."""
        return self.pairing <= FLIP


def code_of(method: int, count: int = 1, flags: int = 0, noise: int = NOISE_NONE) -> int:
    return method | count << COUNT_SHIFT | flags << FLAG_SHIFT | noise << NOISE_SHIFT


def method_of(code: int) -> int:
    return code & 0xFF


def noise_kind(code: int) -> int:
    """NOISE_NONE, or what a dropped region is filled with."""
    return code >> NOISE_SHIFT & 3


def count_of(code: int) -> int:
    return code >> COUNT_SHIFT & 0xFF


def has_flag(code: int, flag: int) -> bool:
    return code >> FLAG_SHIFT & flag != 0


def row_code(code: int, row: int) -> int:
    """The code of a choice as a plan holds it: with its row of the fills."""
    return code | row << ROW_SHIFT


def drops(method: int) -> bool:
    return METHOD_CUTOUT <= method <= METHOD_HIDE


def halves(codes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Choices of the lower methods, of the higher ones, and the lowest of those (a kernel calls it: no calls in it).

    As nearly as many of both as keeping those of one method together allows: of one alone, all are among the higher.
    """
    methods = sorted([code & 0xFF for code in codes])
    above = [method for method in methods if method > methods[0]]
    middle = max([methods[len(methods) // 2], *above[:1]])
    return tuple([c for c in codes if c & 0xFF < middle]), tuple([c for c in codes if c & 0xFF >= middle]), middle


def boxed(method: int) -> bool:
    """True for methods whose region is made of boxes."""
    return method in (METHOD_CUTMIX, METHOD_RESIZEMIX, METHOD_CUTOUT, METHOD_ERASING)


def regional(codes: Sequence[int]) -> int:
    """How many of the codes have a region that is replaced (a kernel calls it: no calls in it)."""
    return len([code for code in codes if code & 0xFF not in (METHOD_NONE, METHOD_MIXUP, METHOD_SMOOTHMIX)])


def any_mixes(codes: Sequence[int]) -> bool:
    """True if a method among codes mixes with a partner (a kernel calls it: no calls in it)."""
    mixing = METHOD_MIXUP, METHOD_CUTMIX, METHOD_GRIDMIX, METHOD_RESIZEMIX, METHOD_SMOOTHMIX, METHOD_FMIX
    return any(code & 0xFF in mixing for code in codes)


def any_bilinear(codes: Sequence[int]) -> bool:
    """True if a ResizeMix among codes samples between pixels (a kernel calls it: no calls in it)."""
    return any(code >> FLAG_SHIFT & FLAG_BILINEAR != 0 for code in codes)


def kinds_of(codes: Sequence[int], code: int) -> tuple[int, ...]:
    """The kinds of noise of the codes that have the method of `code` (a kernel calls it: no calls in it)."""
    return tuple(sorted({other >> NOISE_SHIFT & 3 for other in codes if (other ^ code) & 0xFF == 0}))


def divides(code: int) -> bool:
    """True for methods whose region is found by dividing by sizes of its own (a kernel calls it: no calls in it)."""
    return code & 0xFF in (METHOD_GRIDMASK, METHOD_HIDE, METHOD_GRIDMIX, METHOD_RESIZEMIX)


def slots_of(code: int) -> int:
    """Numbers that describe the region of a choice: four a box, seven of GridMask's grid, four of cells or a bell."""
    method = method_of(code)
    if method == METHOD_GRIDMASK:
        return 7
    return 4 * count_of(code) if boxed(method) else 4


def smoothed_on_off(smoothing: float, num_classes: int) -> tuple[float, float]:
    """Target value of the labelled class and of every other class (timm's label smoothing)."""
    off = smoothing / num_classes if num_classes else 0.0
    return 1.0 - smoothing + off, off


def side_range(minmax_lo: float, minmax_hi: float, side: int) -> tuple[int, int]:
    """Smallest side of a `minmax` box in pixels, and how many different sides there are."""
    lo, hi = int(side * minmax_lo), int(side * minmax_hi)
    return lo, max(hi - lo, 1)
