"""The whole call of FusedAugment, step by step: placed, coloured, mixed, erased, normalised."""

from typing import NamedTuple

import torch
from torch import Tensor

from fusedmix import recipe as codes
from fusedmix import rng
from fusedmix.recipe import BEYOND_EDGE, BEYOND_FILL, CROP_RESIZED, CROP_WINDOW, Geometry, Recipe

from .family import FamilyDraw, apply_family, columns, draw_family, pack, pixels, unpack
from .geometry import (
    central_box,
    colored,
    crop_box,
    folded,
    held,
    inverse_affine,
    located,
    source_map,
    whole_translation,
)
from .mix import finished, mixed_target
from .philox import Words
from .philox import words as philox_words
from .regions import as_bits, between, from_bits
from .sampling import below, number, unit


class Placement(NamedTuple):
    """Where each image comes from: the map (six float32 [B]) and the rows and columns that may be read (int64 [B])."""

    map: tuple[Tensor, ...]
    limits: tuple[Tensor, ...]  # y0, x0, y1, x1; half-open


class Coloring(NamedTuple):
    """Factors of brightness, contrast and saturation, pivot of contrast (a share of white): float32 [B]; bool [B]."""

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    pivot: Tensor
    grayscale: Tensor


class AugmentDraw(NamedTuple):
    family: FamilyDraw
    placement: Placement
    coloring: Coloring | None


def draw_box(
    geometry: Geometry, knob: Tensor, seed: int, offset: int, index: Tensor, height: int, width: int, words: Words
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y0, x0, h, w) of what is cut out of each image."""
    like = torch.zeros_like(index)
    if geometry.crop == CROP_WINDOW:
        _, _, word_y, word_x = words(seed, offset, index, rng.STREAM_CROP)
        padding = knob[codes.PLACE_A].long()
        y0 = below(word_y, (height + 2 * padding - geometry.height + 1).clamp(min=1)) - padding
        x0 = below(word_x, (width + 2 * padding - geometry.width + 1).clamp(min=1)) - padding
        return y0, x0, like + geometry.height, like + geometry.width
    if geometry.crop != CROP_RESIZED:
        top, left = like + geometry.box_y, like + geometry.box_x
        return top, left, like + geometry.box_height, like + geometry.box_width
    low, high, ratio_low, ratio_high = (knob[k] for k in (codes.PLACE_A, codes.PLACE_B, codes.PLACE_C, codes.PLACE_D))
    tries = torch.arange(rng.TRIES)[:, None].expand(-1, len(index))  # [TRIES, B]
    stream = rng.STREAM_CROP + rng.STREAM_STEP * tries
    word_area, word_aspect, word_y, word_x = words(seed, offset, index.expand_as(tries), stream)
    a, b, c, d = (k.expand_as(tries) for k in (low, high, ratio_low, ratio_high))
    fits, *box = crop_box(word_area, word_aspect, word_y, word_x, a, b, c, d, height, width)
    first = fits.long().argmax(0)[None]  # the first that fits
    central = central_box(ratio_low.expand_as(index), ratio_high.expand_as(index), height, width)
    found = fits.any(0)
    y0, x0, h, w = (
        torch.where(found, edge.gather(0, first)[0], whole) for edge, whole in zip(box, central, strict=True)
    )
    return y0, x0, h, w


def draw_placement(
    geometry: Geometry, knobs: Tensor, seed: int, offset: int, index: Tensor, height: int, width: int, words: Words
) -> Placement:
    """knobs: the three rows of geometry, affine and colour; index: int64 [B], global."""
    place, affine = knobs[0], knobs[1]
    box = draw_box(geometry, place, seed, offset, index, height, width, words)
    one, zero = torch.ones(len(index)), torch.zeros(len(index))
    flip = flip_v = turn = torch.zeros_like(index, dtype=torch.bool)
    if geometry.flips or geometry.turns:
        word_h, word_v, word_turn, _ = words(seed, offset, index, rng.STREAM_FLIP)
        flip, flip_v = unit(word_h) < place[codes.PLACE_FLIP], unit(word_v) < place[codes.PLACE_FLIP_V]
        turn = unit(word_turn) < affine[codes.AFFINE_P]
    linear, shift = (one, zero, zero, one), (zero, zero)
    if geometry.turns:
        word_angle, word_scale, word_x, word_y = words(seed, offset, index, rng.STREAM_AFFINE)
        word_sx, word_sy, _, _ = words(seed, offset, index, rng.STREAM_SHEAR)
        a = affine
        drawn = inverse_affine(
            between(word_angle, a[codes.AFFINE_DEGREES], a[codes.AFFINE_DEGREES + 1]),
            between(word_sx, a[codes.AFFINE_SHEAR], a[codes.AFFINE_SHEAR + 1]),
            between(word_sy, a[codes.AFFINE_SHEAR + 2], a[codes.AFFINE_SHEAR + 3]),
            between(word_scale, a[codes.AFFINE_SCALE], a[codes.AFFINE_SCALE + 1]),
        )
        linear = tuple(torch.where(turn, *pair) for pair in zip(drawn, linear, strict=True))  # type: ignore[assignment]
        shift = (
            torch.where(turn, whole_translation(word_x, a[codes.AFFINE_TRANSLATE], geometry.width), 0.0),
            torch.where(turn, whole_translation(word_y, a[codes.AFFINE_TRANSLATE + 1], geometry.height), 0.0),
        )
    y0, x0, h, w = box
    limits = (y0, x0, y0 + h, x0 + w)
    if not geometry.limited:
        limits = (y0 * 0, y0 * 0, y0 * 0 + height, y0 * 0 + width)
    return Placement(source_map(*box, flip, flip_v, linear, shift, geometry.height, geometry.width), limits)


def draw_coloring(
    knob: Tensor, seed: int, offset: int, index: Tensor, given_mean: Tensor | None, most: float, words: Words
) -> Coloring:
    """given_mean: float32 [B], the mean gray of each image, about which contrast changes; else the middle gray."""
    _, _, _, apply = words(seed, offset, index, rng.STREAM_FLIP)
    word_b, word_c, word_s, word_gray = words(seed, offset, index, rng.STREAM_COLOR)
    here = unit(apply) < knob[codes.COLOR_P]
    brightness, contrast, saturation = (
        torch.where(here, between(word, knob[first], knob[first + 1]), 1.0)
        for word, first in (
            (word_b, codes.COLOR_BRIGHTNESS), (word_c, codes.COLOR_CONTRAST), (word_s, codes.COLOR_SATURATION)
        )
    )  # fmt: skip
    pivot = number(0.5, brightness)
    if given_mean is not None:
        pivot = (given_mean * brightness).clamp(0, most) / number(most, brightness)
    return Coloring(brightness, contrast, saturation, pivot, unit(word_gray) < knob[codes.COLOR_GRAYSCALE])


def sampled(x: Tensor, placement: Placement, geometry: Geometry, fill: Tensor) -> Tensor:
    """x: [B, C, H, W], each image as its map places it: float32 [B, C, H', W']. fill: float32 [C].

    Between the pixels of byte images places lie whole steps apart, so that the value is exact (float64 holds it) until
    it is rounded, to such steps as well. Where `fill` begins, the image's edge fades into it: the value of the edge,
    weighed with what is left of its pixel, which is what pixels of the value `fill` beyond the edge come to.
    """
    in_steps, x = x.dtype == torch.uint8, x.float()
    y, across = pixels(geometry.height, geometry.width, x)
    v, u = located(tuple(columns(list(placement.map))), y, across)
    y0, x0, y1, x1 = columns(list(placement.limits))
    fades = in_steps and geometry.bilinear and geometry.beyond == BEYOND_FILL
    beyond = BEYOND_EDGE if fades else geometry.beyond

    def tap(row: Tensor, column: Tensor) -> Tensor:
        row, row_there = folded(row, y0, y1, beyond)
        column, column_there = folded(column, x0, x1, beyond)
        index = (row * x.shape[3] + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)
        found = x.flatten(2).gather(2, index).view(*x.shape[:2], geometry.height, geometry.width)
        return torch.where((row_there & column_there)[:, None], found, fill[:, None, None])

    if not geometry.bilinear:
        return tap(torch.floor(v).long(), torch.floor(u).long())
    v, u, cover = v - 0.5, u - 0.5, torch.ones(())
    if fades:
        (v, row_cover), (u, column_cover) = held(v, y0, y1), held(u, x0, x1)
        cover = (row_cover * column_cover)[:, None]
    top, left = torch.floor(v), torch.floor(u)
    low, far = (v - top)[:, None], (u - left)[:, None]
    if in_steps:
        low, far = ((share * 2.0**rng.TAP_BITS).round() / 2.0**rng.TAP_BITS for share in (low, far))
    row, column = top.long(), left.long()
    a, b, c, d = tap(row, column), tap(row, column + 1), tap(row + 1, column), tap(row + 1, column + 1)
    upper, lower = a + far * (b - a), c + far * (d - c)
    value = upper + low * (lower - upper)
    if in_steps:
        exact = upper.double() + low.double() * (lower - upper).double()
        value = ((exact * 2.0**rng.TAP_BITS).round() / 2.0**rng.TAP_BITS).float()
    return value + (1 - cover) * (fill[:, None, None] - value) if fades else value


def pictures(x: Tensor, draw: AugmentDraw, geometry: Geometry, fill: Tensor, most: float) -> Tensor:
    """The images placed and coloured, before they are mixed: float32, coloured ones in shares of `most`."""
    value = sampled(x, draw.placement, geometry, fill)
    if draw.coloring is None:
        return value
    channels = list(value.unbind(1))
    return torch.stack(colored(channels, most, *columns(list(draw.coloring))), 1)


def brightest(dtype: torch.dtype) -> float:
    """The value of white: 255 for bytes, 1 for floats."""
    return 255.0 if dtype == torch.uint8 else 1.0


def white_of(dtype: torch.dtype, geometry: Geometry) -> float:
    """In shares of which images are mixed and erased: white where there is colour, else 1, their own units."""
    return brightest(dtype) if geometry.color else 1.0


def draw_augment(
    recipe: Recipe, geometry: Geometry, knobs: Tensor, shape: torch.Size, most: float, seed: int, offset: int,
    sample_offset: int = 0, *, gray: Tensor | None = None, partner: Tensor | None = None,
    words: Words = philox_words,
) -> AugmentDraw:  # fmt: skip
    """Draws everything, on the CPU. knobs: the family's rows, then the three of FusedAugment. shape: of the input."""
    rows = len(recipe.choices) + 1
    knobs = knobs.cpu()
    batch, _, height, width = shape
    index = sample_offset + torch.arange(batch)
    family = draw_family(
        recipe, knobs[:rows], batch, geometry.height, geometry.width, seed, offset, sample_offset, partner=partner,
        words=words,
    )  # fmt: skip
    placement = draw_placement(geometry, knobs[rows:], seed, offset, index, height, width, words)
    coloring = None
    if geometry.color:
        gray = None if gray is None else gray.cpu().float()
        coloring = draw_coloring(knobs[rows + 2], seed, offset, index, gray, most, words)
    return AugmentDraw(family, placement, coloring)


def augment(
    x: Tensor,
    target: Tensor | None,
    recipe: Recipe,
    geometry: Geometry,
    knobs: Tensor,
    fill: Tensor,
    seed: int = 0,
    offset: int = 0,
    sample_offset: int = 0,
    *,
    field: Tensor | None = None,
    norm: Tensor | None = None,
    plan: AugmentDraw | None = None,
    gray: Tensor | None = None,
    partner: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None, AugmentDraw]:
    """Draws a plan unless one is given, then places, colours, mixes, erases and normalises by it.

    x: uint8 or float [B, C, H, W]. fill: float32 [rows, 2, C], the last row that of what lies beyond an image. Where
    there is colour, norm and the other rows of fill are in shares of white. Returns the images [B, C, H', W'], the
    targets and the plan.
    """
    most = brightest(x.dtype)
    if plan is None:
        plan = draw_augment(
            recipe, geometry, knobs, x.shape, most, seed, offset, sample_offset, gray=gray, partner=partner
        )
    own = pictures(x, plan, geometry, fill[-1, 0], most)
    value = apply_family(own, own[plan.family.partner], plan.family, recipe, fill, field)
    out = finished(value, norm, out_dtype or x.dtype)
    return out, mixed_target(target, recipe, plan.family.partner, plan.family.lam), plan


def pack_augment(plan: AugmentDraw) -> Tensor:
    """The plan as one int32 tensor, as kernels write it."""
    parts = [as_bits(m) for m in plan.placement.map] + list(plan.placement.limits)
    if plan.coloring is not None:
        *factors, grayscale = plan.coloring
        parts += [as_bits(factor) for factor in factors] + [grayscale.long()]
    return torch.cat([pack(plan.family), torch.stack(parts, 1).int()], 1)


def unpack_augment(packed: Tensor, recipe: Recipe, geometry: Geometry) -> AugmentDraw:
    start = recipe.columns
    columns = list(packed[:, start : start + geometry.columns].unbind(1))
    placement = Placement(tuple(from_bits(c) for c in columns[:6]), tuple(c.long() for c in columns[6:10]))
    coloring = None
    if geometry.color:
        brightness, contrast, saturation, pivot = (from_bits(c) for c in columns[10:14])
        coloring = Coloring(brightness, contrast, saturation, pivot, columns[14] != 0)
    return AugmentDraw(unpack(packed[:, :start], recipe), placement, coloring)
