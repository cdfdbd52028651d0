"""Where the pixels of a result come from: crops, flips and affine maps, sampled once; and their colour.

A map takes the centre (x + 1/2, y + 1/2) of a result's pixel to a point of the source, u = m0 x + m1 y + m2 and
v = m3 x + m4 y + m5, in pixels from its upper left corner. Values in, values out; float32, no fused multiply-add.
Minus is written -1.0 *, since triton 3.6 makes 0 - 0 of -0, which has another sign.
"""

import triton
import triton.language as tl

from fusedmix import recipe, rng

from .pixel import fused
from .regions import aspect_of, between
from .sampling import below, sin_half_pi

BEYOND_FILL = tl.constexpr(recipe.BEYOND_FILL)
BEYOND_EDGE = tl.constexpr(recipe.BEYOND_EDGE)
TAP_STEPS = tl.constexpr(2.0**rng.TAP_BITS)
BYTE_STEPS = tl.constexpr(rng.BYTE_STEPS)
RED, GREEN, BLUE = (tl.constexpr(weight) for weight in rng.GRAY)
WHITE_GRAY = tl.constexpr(rng.WHITE_GRAY)


@triton.jit
def crop_box(
    word_area, word_aspect, word_y, word_x, scale_low, scale_high, ratio_low, ratio_high, H: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """One try at a random resized crop: (fits, y0, x0, h, w). The ratio is width over height, uniform in its log."""
    area = between(word_area, scale_low, scale_high) * (H * W * 1.0)
    ratio = aspect_of(word_aspect, ratio_low, ratio_high, False)
    w = tl.floor(tl.sqrt_rn(area * ratio) + 0.5).to(tl.int32)
    h = tl.floor(tl.sqrt_rn(tl.div_rn(area, ratio)) + 0.5).to(tl.int32)
    fits = (h > 0) & (h <= H) & (w > 0) & (w <= W)
    y0 = below(word_y, tl.maximum(H - h + 1, 1))
    x0 = below(word_x, tl.maximum(W - w + 1, 1))
    return fits, y0, x0, h, w


@triton.jit
def central_box(ratio_low, ratio_high, H: tl.constexpr, W: tl.constexpr):
    """The central crop where no try fits: the whole image, a side cut so that the ratio is allowed. (y0, x0, h, w)."""
    high, wide = ratio_low * 0.0 + H, ratio_low * 0.0 + W
    whole = tl.div_rn(wide, high)
    h = tl.floor(tl.where(whole < ratio_low, tl.div_rn(wide, ratio_low), high) + 0.5)
    w = tl.floor(tl.where(whole > ratio_high, high * ratio_high, wide) + 0.5)
    h, w = tl.minimum(tl.maximum(h, 1.0), H).to(tl.int32), tl.minimum(tl.maximum(w, 1.0), W).to(tl.int32)
    return (H - h) // 2, (W - w) // 2, h, w


@triton.jit
def turned(degrees):
    """(cos, sin) of any degrees."""
    ninety = degrees * 0.0 + 90.0
    quarter = tl.floor(tl.div_rn(degrees, ninety))
    v = tl.div_rn(degrees - quarter * 90.0, ninety)
    sine, cosine = sin_half_pi(v), sin_half_pi(1.0 - v)
    quadrant = quarter.to(tl.int32) & 3
    odd = quadrant % 2 == 1
    c, s = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return tl.where((quadrant == 1) | (quadrant == 2), -1.0, 1.0) * c, tl.where(quadrant >= 2, -1.0, 1.0) * s


@triton.jit
def inverse_affine(degrees, shear_x, shear_y, scale):
    """Inverse of: shear, scale, turn clockwise; all about the centre. Shears in degrees (torchvision's `affine`)."""
    cos_y, _ = turned(shear_y)
    cos_x, sin_x = turned(shear_x)
    cosine, sine = turned(degrees)
    cos_less, sin_less = turned(degrees - shear_y)
    tan_x = tl.div_rn(sin_x, cos_x)
    across, down = tl.div_rn(cos_less, cos_y), tl.div_rn(sin_less, cos_y)
    a, b = across, -1.0 * (across * tan_x) - sine
    c, d = down, cosine - down * tan_x
    return tl.div_rn(d, scale), tl.div_rn(-1.0 * b, scale), tl.div_rn(-1.0 * c, scale), tl.div_rn(a, scale)


@triton.jit
def whole_translation(word, share, SIDE: tl.constexpr):
    """A translation uniform in plus or minus that share of a side, in whole pixels."""
    most = share * (SIDE * 1.0)
    return tl.floor(between(word, -most, most) + 0.5)


@triton.jit
def source_map(y0, x0, h, w, flip, flip_v, linear, shift, H: tl.constexpr, W: tl.constexpr):
    """The map of a result of H x W: turned back about its centre, flipped back, laid onto the box."""
    i00, i01, i10, i11 = linear
    shift_x, shift_y = shift
    to_x, to_y = 0.5 * W + shift_x, 0.5 * H + shift_y
    t_x, t_y = 0.5 * W - (i00 * to_x + i01 * to_y), 0.5 * H - (i10 * to_x + i11 * to_y)
    sign, sign_v = tl.where(flip, -1.0, 1.0), tl.where(flip_v, -1.0, 1.0)
    i00, i01, i10, i11 = sign * i00, sign * i01, sign_v * i10, sign_v * i11
    t_x, t_y = tl.where(flip, W - t_x, t_x), tl.where(flip_v, H - t_y, t_y)
    step_x, step_y = tl.div_rn(w.to(tl.float32), W * 1.0), tl.div_rn(h.to(tl.float32), H * 1.0)
    return (
        step_x * i00, step_x * i01, x0.to(tl.float32) + step_x * t_x,
        step_y * i10, step_y * i11, y0.to(tl.float32) + step_y * t_y,
    )  # fmt: skip


@triton.jit
def located(m, y, x, TURNS: tl.constexpr):
    """The point (v, u) of the source below pixel (y, x) of the result; v a row's where nothing turns."""
    down, across = y.to(tl.float32) + 0.5, x.to(tl.float32) + 0.5
    v, u = m[4] * down + m[5], m[0] * across + m[2]
    if TURNS:  # terms that are zeros else
        v, u = v + m[3] * across, (m[1] * down + m[2]) + m[0] * across
    return v, u


@triton.jit
def folded(index, low, high, BEYOND: tl.constexpr):
    """(index within [low, high), whether it was there) of a row or column."""
    there = (index >= low) & (index < high)
    if BEYOND != BEYOND_FILL:
        if BEYOND != BEYOND_EDGE:  # mirrored about the outermost pixel
            index = tl.where(index < low, 2 * low - index, index)
            index = tl.where(index >= high, 2 * (high - 1) - index, index)
        there = there | (index == index)
    return tl.minimum(tl.maximum(index, low), high - 1), there


@triton.jit
def held(place, low, high):
    """(place kept between the first and last pixel of [low, high), how much of a pixel's width there is left of it)."""
    inner = tl.minimum(tl.maximum(place, low.to(tl.float32)), (high - 1).to(tl.float32))
    return inner, tl.maximum(1.0 - tl.abs(place - inner), 0.0)


@triton.jit
def saturated(a, b, c, PTX: tl.constexpr):
    """a * b + c, rounded once, then clamped to [0, 1]: one instruction, where LLVM would pair products of sm_100."""
    if PTX:
        return tl.inline_asm_elementwise(
            "fma.rn.sat.f32 $0, $1, $2, $3;", "=f,f,f,f", [a, b, c], tl.float32, True, 1
        )  # fmt: skip
    return tl.minimum(tl.maximum(tl.fma(a, b, c), 0.0), 1.0)


@triton.jit
def lighting(brightness, contrast, pivot, MOST: tl.constexpr, WEIGHED: tl.constexpr):
    """(scale, shift) that make shares of white of values in [0, MOST], brighter and steeper: see `colored`."""
    scale, steep = tl.div_rn(brightness, brightness * 0.0 + MOST), contrast > 1.0
    scale = tl.where(steep, scale * contrast, scale)
    shift = tl.where(steep, (1.0 - contrast) * pivot, 0.0)
    if MOST == 255:
        shift -= scale * BYTE_STEPS
    if WEIGHED:
        scale *= 1.0 / TAP_STEPS
    return scale, shift


@triton.jit
def lit(value, light, MOST: tl.constexpr, WEIGHED: tl.constexpr, PTX: tl.constexpr):
    """The first step of `colored`. light: as `lighting` gives it."""
    bright = ()
    for c in tl.static_range(3):
        start = value[c] + BYTE_STEPS if MOST == 255 and not WEIGHED else value[c]
        bright = bright + (saturated(start, light[0], light[1], PTX),)
    return bright


@triton.jit
def lit_between(even, odd, share, light, PTX: tl.constexpr):
    """`lit` of what lies between two rows, as by taps.weighed, without a step for that, whose rounding is left out.

    share: the weight of the odd row times light[0].
    """
    return saturated(odd, share, fused(even, light[0] - share, light[1], PTX), PTX)


@triton.jit
def colored(bright, contrast, saturation, pivot, grayscale, PTX: tl.constexpr):
    """Brightness, contrast about `pivot` and saturation of RGB, in shares of white, as `pivot` is.

    A contrast above 1 is joined with the brightness (`lit`, whose result `bright` is), since it leads what is white
    beyond white; one that cannot lead beyond, `step` times what is bright plus `rise`, with the saturation. Where
    grayscale is not 0, saturation is 0. PTX: see `arch_of` in launch.py.
    """
    steep = contrast > 1.0
    step, rise = tl.where(steep, 1.0, contrast), tl.where(steep, 0.0, (1.0 - contrast) * pivot)
    saturation = tl.where(grayscale != 0, 0.0, saturation)
    own, gray = saturation * step, (1.0 - saturation) * step
    rest = fused(bright[2], gray * BLUE, rise * (saturation + (1.0 - saturation) * WHITE_GRAY), PTX)
    rest = fused(bright[0], gray * RED, fused(bright[1], gray * GREEN, rest, PTX), PTX)
    vivid = ()
    for c in tl.static_range(3):
        vivid = vivid + (saturated(bright[c], own, rest, PTX),)
    return vivid
