"""What FusedAugment does to each image before it is mixed, said in the user's words and checked at birth."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

from .recipe import (
    ALONE,
    BEYOND_EDGE,
    BEYOND_FILL,
    BEYOND_REFLECT,
    CROP_CENTER,
    CROP_RESIZED,
    CROP_WINDOW,
    METHOD_NONE,
    Geometry,
    Recipe,
    code_of,
)
from .schedule import Number, at
from .spec import check_choice, check_integer, check_knob, check_number, check_pair

MAX_PADDING = 2**14
MAX_SIZE = 2**15
PADDING_MODES = {"constant": BEYOND_FILL, "edge": BEYOND_EDGE, "reflect": BEYOND_REFLECT}
INTERPOLATIONS = {"nearest": 0, "bilinear": 1}
MAX_SHEAR = 80.0  # degrees
NOTHING = Recipe(pairing=ALONE, choices=(code_of(METHOD_NONE),))  # the family's part of a call that does not mix
NO_KNOBS: tuple[tuple[Number, ...], ...] = ((0.0, 1.0), (0.0,))  # never chosen, alpha 1; nothing erased


@dataclass(frozen=True)
class RandomCrop:
    """A window of the result's size, placed uniformly over the image padded by `padding` pixels on each side.

    Pixels are copied bit for bit. `padding_mode`: "constant" (FusedAugment's `fill`), "reflect" or "edge". CIFAR's
    recipe is `RandomCrop(4)`.
    """

    padding: int = 0
    padding_mode: str = "constant"

    def __post_init__(self) -> None:
        check_integer("padding", self.padding, 0, MAX_PADDING)
        check_choice("padding_mode", self.padding_mode, PADDING_MODES)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A box of a share `scale` of the image and a `ratio` of width to height (uniform in its log), resized to the size.

    Ten tries, then the central crop (torchvision's rule). Resizing reads the pixel below (nearest) or the four around
    (bilinear, without antialiasing) and does not look beyond the box.
    """

    scale: tuple[Number, Number] = (0.08, 1.0)
    ratio: tuple[Number, Number] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_pair("scale", self.scale, 0.0, 1.0, open_low=True)
        check_pair("ratio", self.ratio, 1e-2, 1e2)


@dataclass(frozen=True)
class CenterCrop:
    """The middle of the image: a window of the result's size, or with `share` that share of the largest box, resized.

    `CenterCrop(0.875)` is the usual Resize(256), CenterCrop(224) for images of any size.
    """

    share: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None:
            check_number("share", self.share, 0.0, 1.0, open_low=True)


Crop = RandomCrop | RandomResizedCrop | CenterCrop


@dataclass(frozen=True)
class Flip:
    """Chances in [0, 1] that an image is flipped left to right (`horizontal`) and upside down (`vertical`)."""

    horizontal: Number = 0.5
    vertical: Number = 0.0

    def __post_init__(self) -> None:
        check_knob("horizontal", self.horizontal, 0.0, 1.0)
        check_knob("vertical", self.vertical, 0.0, 1.0)


def check_is_pair(name: str, value: object) -> None:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a number or a pair (lowest, highest), got {value!r}")


def symmetric(name: str, value: Any, most: float) -> tuple[Number, Number]:
    """(-v, v) of a number, or the pair itself."""
    if isinstance(value, numbers.Real):
        check_number(name, value, 0.0, most)
        return -float(value), float(value)
    check_is_pair(name, value)
    check_pair(name, value, -most, most)
    low, high = value
    return low, high


@dataclass(frozen=True)
class RandomAffine:
    """Shear, scale and turn about the centre, then a translation, as torchvision's RandomAffine.

    degrees: a number (-v to v) or a pair; positive turns clockwise. translate: largest shift across and down as shares
    of the result's sides, in whole pixels. scale: pair > 0. shear: a number (-v to v, across), a pair across, or four
    numbers, across and down, in degrees up to 80. p: chance in [0, 1] that an image is moved at all.

    The image is sampled once, by the map of crop, flip and affine together: what a turned crop shows at its corners is
    the rest of the image, and `fill` only beyond the image. So it is for images that `p` leaves alone, too: beside an
    affine map, resized ones blend with what lies beyond their box, at the rim of the image with `fill`. Windows with
    another padding mode reflect once; what lies further out is the edge.
    """

    degrees: Any = 0.0
    translate: tuple[Number, Number] = (0.0, 0.0)
    scale: tuple[Number, Number] = (1.0, 1.0)
    shear: Any = 0.0
    p: Number = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.translate, tuple | list) or len(self.translate) != 2:
            raise TypeError(f"translate must be a pair (share across, share down), got {self.translate!r}")
        for n, share in enumerate(self.translate):
            check_knob(f"translate[{n}]", share, 0.0, 1.0)
        check_pair("scale", self.scale, 1e-2, 1e2)
        check_knob("p", self.p, 0.0, 1.0)
        self.knobs()

    def knobs(self) -> tuple[Number, ...]:
        shear = self.shear
        if isinstance(shear, tuple | list) and len(shear) == 4:
            pairs = (*symmetric("shear", shear[:2], MAX_SHEAR), *symmetric("shear", shear[2:], MAX_SHEAR))
        else:
            pairs = (*symmetric("shear", shear, MAX_SHEAR), 0.0, 0.0)
        return (self.p, *symmetric("degrees", self.degrees, 360.0), *self.translate, *self.scale, *pairs)


def around_one(name: str, value: Any) -> tuple[Number, Number]:
    """(max(0, 1 - v), 1 + v) of a number, or the pair itself."""
    if isinstance(value, numbers.Real):
        check_number(name, value, 0.0, math.inf)
        return max(0.0, 1.0 - float(value)), 1.0 + float(value)
    check_is_pair(name, value)
    check_pair(name, value, 0.0, 1e3)
    low, high = value
    return low, high


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation by random factors, in this order; gray with chance `grayscale`.

    brightness, contrast, saturation: a number v (factors from max(0, 1 - v) to 1 + v) or a pair of factors. p: chance
    in [0, 1] that an image's factors are drawn at all. Images are RGB; floats lie in [0, 1]. Each step is clamped, as
    torchvision's; bytes are not rounded in between. Gray is saturation 0.

    Contrast changes about the image's mean gray where the call brings it (`gray=`), as torchvision's does, else about
    the middle gray (127.5 or 0.5), which needs no second pass; the same as torchvision's where that mean is the mean of
    the crop and brightness clamps nothing. torchvision draws the order of the steps.
    """

    brightness: Any = 0.0
    contrast: Any = 0.0
    saturation: Any = 0.0
    grayscale: Number = 0.0
    p: Number = 1.0

    def __post_init__(self) -> None:
        check_knob("grayscale", self.grayscale, 0.0, 1.0)
        check_knob("p", self.p, 0.0, 1.0)
        self.knobs()

    def knobs(self) -> tuple[Number, ...]:
        factors = (
            number
            for name in ("brightness", "contrast", "saturation")
            for number in around_one(name, getattr(self, name))
        )
        return (self.p, *factors, self.grayscale)


@dataclass(frozen=True)
class Placement:
    """Everything that FusedAugment does to an image by itself."""

    size: tuple[int, int] | None = None
    crop: Crop | None = None
    flip: Flip | None = None
    affine: RandomAffine | None = None
    color: ColorJitter | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.size is not None:
            if not isinstance(self.size, tuple) or len(self.size) != 2:
                raise TypeError(f"size must be an int, a pair (height, width) or None, got {self.size!r}")
            for side in self.size:
                check_integer("size", side, 1, MAX_SIZE - 1)
        if self.crop is not None and not isinstance(self.crop, Crop):
            allowed = "RandomCrop, RandomResizedCrop or CenterCrop"
            raise TypeError(f"crop must be None or a {allowed}, got {self.crop!r}")
        for name, kind in (("flip", Flip), ("affine", RandomAffine), ("color", ColorJitter)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} must be None or a {kind.__name__}, got {value!r}")
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def geometry(self, height: int, width: int) -> Geometry:
        """The numbers of a call on images of height x width. Raises ValueError where the crop does not fit."""
        size = self.size or (height, width)
        turns, flips = self.affine is not None, self.flip is not None
        common = {"flips": flips, "turns": turns, "color": self.color is not None}
        bilinear = self.interpolation == "bilinear"
        if isinstance(self.crop, RandomCrop):
            padding = self.crop.padding
            for name, side, wanted in (("H", height, size[0]), ("W", width, size[1])):
                if wanted > side + 2 * padding:
                    room = f"{name} of x is {side}, and {side + 2 * padding} with a padding of {padding}"
                    raise ValueError(f"size {list(size)} does not fit: {room}")
                if self.crop.padding_mode == "reflect" and padding >= side:
                    raise ValueError(f"padding must be below {name} of x ({side}) to reflect, got {padding}")
            beyond = PADDING_MODES[self.crop.padding_mode]
            if padding == 0 and not turns:
                beyond = BEYOND_EDGE  # never seen, and the cheapest
            return Geometry(*size, CROP_WINDOW, beyond, bilinear=bilinear and turns, **common)
        if isinstance(self.crop, RandomResizedCrop):
            box, crop, resized = (0, 0, 0, 0), CROP_RESIZED, True
        else:
            box, crop = central(self.crop, height, width, *size), CROP_CENTER
            resized = box[2:] != size
        window = isinstance(self.crop, CenterCrop) and self.crop.share is None
        limited = not turns and not window
        seen = turns or min(box[:2]) < 0  # what lies beyond
        return Geometry(
            *size, crop, BEYOND_FILL if seen else BEYOND_EDGE, *box, limited=limited,
            bilinear=bilinear and (resized or turns), **common,
        )  # fmt: skip

    def knobs(self, progress: float = 0.0) -> tuple[tuple[Number, ...], ...]:
        """The rows of geometry, affine and colour."""
        flips = (self.flip.horizontal, self.flip.vertical) if self.flip is not None else (0.0, 0.0)
        crop: tuple[Number, ...] = ()
        if isinstance(self.crop, RandomCrop):
            crop = (self.crop.padding,)
        elif isinstance(self.crop, RandomResizedCrop):
            crop = (*self.crop.scale, *self.crop.ratio)
        affine = (0.0,) if self.affine is None else self.affine.knobs()
        color = (0.0,) if self.color is None else self.color.knobs()
        rows: tuple[tuple[Number, ...], ...] = ((*flips, *crop), affine, color)
        return tuple(tuple(at(number, progress) for number in row) for row in rows)

    @property
    def evaluation(self) -> "Placement":
        """The same without chance: the middle of the image."""
        crop: Crop | None = self.crop
        if isinstance(crop, RandomCrop):
            crop = CenterCrop()
        elif isinstance(crop, RandomResizedCrop):
            crop = CenterCrop(EVALUATION_SHARE)
        return Placement(self.size, crop, interpolation=self.interpolation)


EVALUATION_SHARE = 0.875  # of 256 pixels 224


def central(
    crop: CenterCrop | None, height: int, width: int, out_height: int, out_width: int
) -> tuple[int, int, int, int]:
    """(y0, x0, h, w) of the middle: of all of the image for None."""
    h, w = height, width
    if crop is not None and crop.share is None:
        h, w = out_height, out_width
    elif crop is not None and crop.share is not None:
        step = min(height / out_height, width / out_width) * crop.share
        h, w = max(1, round(out_height * step)), max(1, round(out_width * step))
    return middle(height, h), middle(width, w), h, w


def middle(side: int, cut: int) -> int:
    """Where a central cut begins, as torchvision rounds it; below 0 where it is the larger."""
    return round((side - cut) / 2) if cut <= side else -((cut - side) // 2)
