"""Regions: how each method of the family draws the part of an image that it replaces, and where that part lies.

A region is a row of int32 slots, whose meaning depends on the method (floats as their bits). Float arithmetic is
float32, one rounding per step, as in `sampling`.
"""

import math

import torch
from torch import Tensor

from fusedmix import rng

from .philox import MASK32, Words, multiply
from .philox import words as philox_words
from .pixel import fma
from .sampling import below, exp, horner, log, number, sin_half_pi, sqrt, unit


def as_bits(x: Tensor) -> Tensor:
    """The bits of float32 x as an int64 slot."""
    return x.contiguous().view(torch.int32).long()


def from_bits(slot: Tensor) -> Tensor:
    return slot.int().view(torch.float32)


def between(word: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Uniform float32 in [low, high)."""
    return low + unit(word) * (high - low)


def cut_side(ratio: Tensor, word: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """One axis of a box as CutMix cuts it: side int(S ratio), centre uniform, edges clipped."""
    half = (ratio * side).long() // 2
    centre = below(word, side)
    return (centre - half).clamp(0, side), (centre + half).clamp(0, side)


def hole_side(length: Tensor, word: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """One axis of Cutout's hole: centre uniform, edges length // 2 to either side of it, clipped."""
    centre = below(word, side)
    return (centre - length // 2).clamp(0, side), (centre + length // 2).clamp(0, side)


def aspect_of(word: Tensor, low: Tensor, high: Tensor, linear: bool) -> Tensor:
    """Height over width, uniform in [low, high) or in its logarithm."""
    if linear:
        return between(word, low, high)
    power = between(word, log(low), log(high))
    shrunk = exp(-power.abs())
    return torch.where(power > 0, number(1.0, shrunk) / shrunk, shrunk)


def erased_box(
    word_area: Tensor, word_aspect: Tensor, word_y: Tensor, word_x: Tensor, area_low: Tensor, area_high: Tensor,
    aspect_low: Tensor, aspect_high: Tensor, count: Tensor, linear: bool, height: int, width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One try at Random Erasing's box: (fits, y0, x0, y1, x1)."""
    area = between(word_area, area_low, area_high) * float(height * width) / count.float()
    aspect = aspect_of(word_aspect, aspect_low, aspect_high, linear)
    h = torch.floor(sqrt(area * aspect) + 0.5).long()
    w = torch.floor(sqrt(area / aspect) + 0.5).long()
    fits = (h < height) & (w < width)
    y0 = below(word_y, (height - h + 1).clamp(min=1))
    x0 = below(word_x, (width - w + 1).clamp(min=1))
    return fits, y0, x0, y0 + h, x0 + w


def stripe_length(d: Tensor, ratio: Tensor, rule: Tensor) -> Tensor:
    """l of GridMask: ceil(d ratio) within [1, d - 1], or, by the older rule, int(d ratio + 1/2)."""
    product = d.float() * ratio
    new = torch.minimum(torch.ceil(product).long().clamp(min=1), (d - 1).clamp(min=1))
    return torch.where(rule > 0, (product + 0.5).long(), new)


def turn(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of whole degrees in [0, 360)."""
    quadrant, rest = degrees // 90, degrees % 90
    v = rest.float() / number(90.0, degrees)
    sine, cosine = sin_half_pi(v), sin_half_pi(1 - v)
    odd = quadrant % 2 == 1
    c, s = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    return torch.where((quadrant == 1) | (quadrant == 2), -c, c), torch.where(quadrant >= 2, -s, s)


def inside_grid(slots: list[Tensor], y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """True where GridMask drops. slots: d, l, offsets of the rows and columns, cos and sin in 2**-14, inverted.

    Coordinates are whole half pixels from the image's centre, so that turning them is exact in integers.
    """
    d, length, shift_y, shift_x, cosine, sine, inverted = slots
    d = d.clamp(min=1)
    across, down = 2 * x + 1 - width, 2 * y + 1 - height
    centre = grid_centre(height, width) << (rng.TURN_BITS + 1)
    row = (sine * across + cosine * down + centre) >> (rng.TURN_BITS + 1)
    column = (cosine * across - sine * down + centre) >> (rng.TURN_BITS + 1)
    striped = ((row + d - shift_y) % d < length) | ((column + d - shift_x) % d < length)
    return striped != (inverted != 0)


def grid_centre(height: int, width: int) -> int:
    """Half the side of the square in which the grid turns, a little more than half the image's diagonal."""
    return math.ceil(math.hypot(height, width)) // 2 + 2


def fixed(x: Tensor) -> Tensor:
    """A cosine or sine in units of 2**-14, halves to even."""
    return torch.round(x * 2.0**rng.TURN_BITS).long()


def mix32(h: Tensor) -> Tensor:
    """MurmurHash3's finaliser: 32 bits to 32 well-mixed bits."""
    h = h ^ (h >> 16)
    h = multiply(rng.MIX_A, h)[1]
    h = h ^ (h >> 13)
    h = multiply(rng.MIX_B, h)[1]
    return h ^ (h >> 16)


def inside_cells(slots: list[Tensor], y: Tensor, x: Tensor, width: int) -> Tensor:
    """True in the chosen cells of a grid. slots: height and width of a cell, key, share of chosen cells in 2**-24."""
    cell_height, cell_width, key, share = slots
    cell_height, cell_width = cell_height.clamp(min=1), cell_width.clamp(min=1)
    across = (width + cell_width - 1) // cell_width
    cell = y // cell_height * across + x // cell_width
    step = multiply(rng.GOLDEN, cell & MASK32)[1]
    return mix32((key & MASK32) ^ step) >> 8 < share


def bell(distance: Tensor, inverse: Tensor) -> Tensor:
    """Gaussian weight at a whole distance, a float32 integer of 2**-15. inverse: 1 / (2 sigma**2)."""
    distance = distance.float()
    power = (distance * distance * inverse).clamp(max=rng.BETA_MAX_LOG)
    power = power * number(-rng.LOG2_E, power)  # of 2
    n = torch.round(power)  # halves to even
    scale = ((n.to(torch.int32) + (127 + rng.BELL_BITS)) << 23).view(torch.float32)
    return torch.round(horner(rng.BELL_POLY, power - n) * scale)


def bell_width(share: Tensor, side: int) -> Tensor:
    """1 / (2 sigma**2) for a sigma that is `share` of the side."""
    sigma = share * float(side)
    return number(0.5, share) / (sigma * sigma)


def soft_share(slots: list[Tensor], y: Tensor, x: Tensor) -> Tensor:
    """The partner's weight under SmoothMix. slots: centre row, column, then bits of 1 / (2 sigma**2) of each axis."""
    row, column, inverse_y, inverse_x = slots
    weight = bell(y - row, from_bits(inverse_y)) * bell(x - column, from_bits(inverse_x))
    return weight * 2.0 ** (-2 * rng.BELL_BITS)


def bell_share(weights: Tensor, side: int) -> Tensor:
    """Mean weight along an axis: weights float32 integers [B, side]."""
    total = weights.long().sum(1).float()
    return total / number(side * 2.0**rng.BELL_BITS, total)


def nearest(offset: Tensor, size: Tensor, side: int) -> Tensor:
    """Pixel of an axis of `side` pixels shown at `offset` when the axis is shrunk to `size`."""
    return (offset * side // size.clamp(min=1)).clamp(0, side - 1)


def bilinear(offset: Tensor, size: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """(pixel before, pixel after, weight of the one after) at `offset` when the axis is shrunk to `size`.

    The last pixel of the axis is one after, of weight 1.
    """
    scale = number(side, offset) / size.clamp(min=1).float()
    at = ((offset.float() + 0.5) * scale - 0.5).clamp(min=0.0, max=side - 1.0)
    first = torch.floor(at).clamp(max=max(side - 2.0, 0.0))
    return first.long(), (first.long() + 1).clamp(max=side - 1), at - first


def normals(key: int, fours: Tensor, words: Words = philox_words) -> Tensor:
    """Standard normal noise of numbers 4 n to 4 n + 3 for each n of `fours`, along a new last dimension.

    By the inverse of the distribution, a word each, see `rng.normal_table`.
    """
    stream = rng.STREAM_NOISE + rng.STREAM_STEP * fours
    word = torch.stack(words(key & MASK32, 0, torch.zeros_like(fours), stream, rng.NOISE_ROUNDS), -1)
    share = torch.where(word >> 31 == 1, word - 2**32, word).float()
    line = rng.normal_table()[(as_bits(share) & MASK32) >> rng.NORMAL_SHIFT]
    return fma(line[..., 1], share, line[..., 0])


def normal(key: int, number: Tensor, words: Words = philox_words) -> Tensor:
    """Standard normal noise of each number."""
    return normals(key, number >> 2, words).gather(-1, number[..., None] & 3)[..., 0]
