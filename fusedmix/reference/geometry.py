"""Where the pixels of a result come from: crops, flips and affine maps, sampled once; and their colour.

A map takes the centre (x + 1/2, y + 1/2) of a result's pixel to a point of the source, u = m0 x + m1 y + m2 and
v = m3 x + m4 y + m5, in pixels from its upper left corner. Float arithmetic is float32, one rounding per step.
"""

import torch
from torch import Tensor

from fusedmix import rng
from fusedmix.recipe import BEYOND_EDGE, BEYOND_FILL

from .pixel import fma
from .regions import aspect_of, between
from .sampling import below, number, sin_half_pi, sqrt


def crop_box(
    word_area: Tensor, word_aspect: Tensor, word_y: Tensor, word_x: Tensor, scale_low: Tensor, scale_high: Tensor,
    ratio_low: Tensor, ratio_high: Tensor, height: int, width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One try at a random resized crop: (fits, y0, x0, h, w). The ratio is width over height, uniform in its log."""
    area = between(word_area, scale_low, scale_high) * float(height * width)
    ratio = aspect_of(word_aspect, ratio_low, ratio_high, False)
    w = torch.floor(sqrt(area * ratio) + 0.5).long()
    h = torch.floor(sqrt(area / ratio) + 0.5).long()
    fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
    y0 = below(word_y, (height - h + 1).clamp(min=1))
    x0 = below(word_x, (width - w + 1).clamp(min=1))
    return fits, y0, x0, h, w


def central_box(
    ratio_low: Tensor, ratio_high: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The central crop where no try fits: the whole image, a side cut so that the ratio is allowed. (y0, x0, h, w)."""
    high, wide = number(float(height), ratio_low), number(float(width), ratio_low)
    whole = wide / high
    h = torch.floor(torch.where(whole < ratio_low, wide / ratio_low, high) + 0.5).clamp(1, height).long()
    w = torch.floor(torch.where(whole > ratio_high, high * ratio_high, wide) + 0.5).clamp(1, width).long()
    return (height - h) // 2, (width - w) // 2, h, w


def turned(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of any degrees."""
    quarter = torch.floor(degrees / number(90.0, degrees))
    v = (degrees - quarter * 90.0) / number(90.0, degrees)
    sine, cosine = sin_half_pi(v), sin_half_pi(1 - v)
    quadrant = quarter.long() & 3
    odd = quadrant % 2 == 1
    c, s = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    return torch.where((quadrant == 1) | (quadrant == 2), -c, c), torch.where(quadrant >= 2, -s, s)


def inverse_affine(
    degrees: Tensor, shear_x: Tensor, shear_y: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inverse of: shear, scale, turn clockwise; all about the centre. Shears in degrees (torchvision's `affine`)."""
    cos_y, _ = turned(shear_y)
    cos_x, sin_x = turned(shear_x)
    cosine, sine = turned(degrees)
    cos_less, sin_less = turned(degrees - shear_y)
    tan_x = sin_x / cos_x
    across, down = cos_less / cos_y, sin_less / cos_y
    a, b = across, -(across * tan_x) - sine
    c, d = down, cosine - down * tan_x
    return d / scale, -b / scale, -c / scale, a / scale


def whole_translation(word: Tensor, share: Tensor, side: int) -> Tensor:
    """A translation uniform in plus or minus that share of a side, in whole pixels."""
    most = share * float(side)
    return torch.floor(between(word, -most, most) + 0.5)


def source_map(
    y0: Tensor, x0: Tensor, h: Tensor, w: Tensor, flip: Tensor, flip_v: Tensor,
    linear: tuple[Tensor, Tensor, Tensor, Tensor], shift: tuple[Tensor, Tensor], height: int, width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The map of a result of height x width: turned back about its centre, flipped back, laid onto the box."""
    i00, i01, i10, i11 = linear
    to_x, to_y = 0.5 * width + shift[0], 0.5 * height + shift[1]
    t_x, t_y = 0.5 * width - (i00 * to_x + i01 * to_y), 0.5 * height - (i10 * to_x + i11 * to_y)
    i00, i01 = torch.where(flip, -i00, i00), torch.where(flip, -i01, i01)
    i10, i11 = torch.where(flip_v, -i10, i10), torch.where(flip_v, -i11, i11)
    t_x, t_y = torch.where(flip, width - t_x, t_x), torch.where(flip_v, height - t_y, t_y)
    step_x, step_y = w.float() / number(float(width), w), h.float() / number(float(height), h)
    return (
        step_x * i00, step_x * i01, x0.float() + step_x * t_x,
        step_y * i10, step_y * i11, y0.float() + step_y * t_y,
    )  # fmt: skip


def located(m: tuple[Tensor, ...], y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The point (v, u) of the source below pixel (y, x) of the result."""
    down, across = y.float() + 0.5, x.float() + 0.5
    return (m[4] * down + m[5]) + m[3] * across, (m[1] * down + m[2]) + m[0] * across


def folded(index: Tensor, low: Tensor, high: Tensor, beyond: int) -> tuple[Tensor, Tensor]:
    """(index within [low, high), whether it was there) of a row or column."""
    there = (index >= low) & (index < high)
    if beyond == BEYOND_FILL:
        return torch.minimum(torch.maximum(index, low), high - 1), there
    if beyond != BEYOND_EDGE:  # mirrored about the outermost pixel
        index = torch.where(index < low, 2 * low - index, index)
        index = torch.where(index >= high, 2 * (high - 1) - index, index)
    return torch.minimum(torch.maximum(index, low), high - 1), torch.ones_like(there)


def held(place: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(place kept between the first and last pixel of [low, high), how much of a pixel's width there is left of it)."""
    inner = torch.minimum(torch.maximum(place, low.float()), (high - 1).float())
    return inner, (1 - (place - inner).abs()).clamp(min=0)


def colored(
    value: list[Tensor], most: float, brightness: Tensor, contrast: Tensor, saturation: Tensor, pivot: Tensor,
    grayscale: Tensor,
) -> list[Tensor]:  # fmt: skip
    """Brightness, contrast about `pivot` and saturation of RGB in [0, most], in shares of `most`, as `pivot` is.

    A contrast above 1 is joined with the brightness, since it leads what is white beyond white; one that cannot lead
    beyond, `step` times what is bright plus `rise`, with the saturation. Where grayscale is true, saturation is 0.
    Kernels have bytes plus `base` in their hands.
    """
    base = rng.BYTE_STEPS if most == 255 else 0.0
    scale, rise, steep = brightness / number(most, brightness), (1 - contrast) * pivot, contrast > 1
    scale = torch.where(steep, scale * contrast, scale)
    shift = torch.where(steep, rise, 0.0) - scale * base
    bright = [fma(channel + base, scale, shift).clamp(0, 1) for channel in value]
    step, rise = torch.where(steep, 1.0, contrast), torch.where(steep, 0.0, rise)
    saturation = torch.where(grayscale, 0.0, saturation)
    own, gray = saturation * step, (1 - saturation) * step
    rest = rise * (saturation + (1 - saturation) * number(rng.WHITE_GRAY, rise))
    for channel, weight in zip(bright[::-1], rng.GRAY[::-1], strict=True):
        rest = fma(channel, gray * number(weight, gray), rest)
    return [fma(channel, own, rest).clamp(0, 1) for channel in bright]
