"""The pixels of a source that those of a placed image are made of: read, weighed and put together.

Bytes are weighed in whole 2**-15ths of the way between two pixels (rng.TAP_BITS): until the last step exactly.
"""

import triton
import triton.language as tl

from fusedmix import recipe, rng

from .geometry import folded, held, located
from .pixel import BYTE_BASE, ROUNDER, to_float
from .regions import ROUNDER_BITS, from_bits, small_int

BEYOND_EDGE = tl.constexpr(recipe.BEYOND_EDGE)
BEYOND_FILL = tl.constexpr(recipe.BEYOND_FILL)
TAP_STEPS = tl.constexpr(2.0**rng.TAP_BITS)
TAP_STEPS_INT = tl.constexpr(1 << rng.TAP_BITS)
SECTOR = tl.constexpr(32)  # bytes that memory gives at a time


@triton.jit
def spot(
    x, row, column, limits, C: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr, BEYOND: tl.constexpr
):  # fmt: skip
    """(pointers to the first channel of the source's pixels, whether they are there). The pointers are always valid."""
    row, row_there = folded(row, limits[0], limits[2], BEYOND)
    column, column_there = folded(column, limits[1], limits[3], BEYOND)
    return x + (row * IN_W + column) * (C if IN_LAST else 1), row_there & column_there


@triton.jit
def tap(
    pointers, there, needed, fill_ptr, CHANNEL: tl.constexpr, IN_PIXELS: tl.constexpr, IN_LAST: tl.constexpr,
    BEYOND: tl.constexpr,
):  # fmt: skip
    """One channel of the pixels at a spot, float32. Its distance is a constant, so that it costs no address.

    needed: which pixels, or None for all: a mask costs an instruction a pixel.
    """
    found = to_float(tl.load(pointers + CHANNEL * (1 if IN_LAST else IN_PIXELS), mask=needed))
    if BEYOND == BEYOND_FILL:
        found = tl.where(there, found, tl.load(fill_ptr + CHANNEL))
    return found


@triton.jit
def tapped(
    left, left_there, right, right_there, needed, far, fill_ptr, CHANNEL: tl.constexpr, IN_PIXELS: tl.constexpr,
    IN_LAST: tl.constexpr, BEYOND: tl.constexpr,
):  # fmt: skip
    """One channel between two neighbours in a row, float32."""
    a = tap(left, left_there, needed, fill_ptr, CHANNEL, IN_PIXELS, IN_LAST, BEYOND)
    b = tap(right, right_there, needed, fill_ptr, CHANNEL, IN_PIXELS, IN_LAST, BEYOND)
    return a + far * (b - a)


@triton.jit
def rounded_steps(share):
    """`whole_steps`, plus ROUNDER."""
    return tl.fma(share, TAP_STEPS, ROUNDER)


@triton.jit
def whole_steps(share):
    """A share of the way between two pixels in whole steps, halves to even."""
    return rounded_steps(share) - ROUNDER


@triton.jit
def between_columns(u, IN_W: tl.constexpr, INNER: tl.constexpr = False):
    """(left column, how far right of it in whole steps) of places u from the first column's centre.

    INNER: no place is as far as the last column.
    """
    left = tl.floor(u)
    if not INNER:
        left = tl.minimum(left, IN_W - 2.0)
    return small_int(left), rounded_steps(u - left).to(tl.int32, bitcast=True) - ROUNDER_BITS


@triton.jit
def between_rows(v, IN_H: tl.constexpr, INNER: tl.constexpr = False):
    """(upper row, how far below it in whole steps) of places v from the first row's centre. INNER: as with columns."""
    top = tl.floor(v)
    if not INNER:
        top = tl.minimum(top, IN_H - 2.0)
    return small_int(top), whole_steps(v - top)


@triton.jit
def weighed(spot, right, needed, NEXT: tl.constexpr):
    """Bytes between two neighbours in a row, times TAP_STEPS, plus 2**23: float32.

    Weighed in integers, which float32 holds exactly when they are added to the bits of 2**23.
    """
    a, b = tl.load(spot, mask=needed).to(tl.int32), tl.load(spot + NEXT, mask=needed).to(tl.int32)
    return from_bits(a * (TAP_STEPS_INT - right) + (b * right + BYTE_BASE))


@triton.jit
def unweighed(value):
    """What `weighed` holds, exactly."""
    return tl.fma(value, 1.0 / TAP_STEPS, -8388608.0 / TAP_STEPS)


@triton.jit
def between_bytes(
    x, v, u, needed, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """Byte images between the centres of four pixels, all of which are there: C float32 tensors.

    v, u: places from the first pixel's centre. One address serves all four neighbours: at an edge the outer two get the
    weight 0 or 1. Everything is exact but the last `fma`, which rounds once.
    """
    NEXT: tl.constexpr = C if IN_LAST else 1
    top, low = between_rows(v, IN_H, INNER)
    left, right = between_columns(u, IN_W, INNER)
    here = x + (top * IN_W + left) * NEXT
    value = ()
    for k in tl.static_range(C):
        spot = here + k * (1 if IN_LAST else IN_H * IN_W)
        upper, lower = weighed(spot, right, needed, NEXT), weighed(spot + IN_W * NEXT, right, needed, NEXT)
        value = value + (tl.fma(low * (1.0 / (TAP_STEPS * TAP_STEPS)), lower - upper, unweighed(upper)),)
    return value


@triton.jit
def row_between(
    x, row, left, right, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr
):  # fmt: skip
    """One row of byte images between its columns, exactly: C float32 tensors. row: a scalar."""
    NEXT: tl.constexpr = C if IN_LAST else 1
    here = x + row * (IN_W * NEXT) + (left * NEXT).to(tl.uint32)
    value = ()
    for k in tl.static_range(C):
        value = value + (unweighed(weighed(here + k * (1 if IN_LAST else IN_H * IN_W), right, None, NEXT)),)
    return value


@triton.jit
def places_of_row(left, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr):
    """Places in a row of source, a sector apart, that `row_between` reads of: int32 [32], all channels'."""
    low, high = tl.min(tl.min(left, 1), 0), tl.max(tl.max(left, 1), 0) + 1
    lane = tl.arange(0, 32)
    if IN_LAST:
        return tl.minimum(low * C + lane * SECTOR, high * C + (C - 1))
    EACH: tl.constexpr = max(32 // C, 1)  # lanes of a channel
    return tl.minimum(low + lane % EACH * SECTOR, high) + tl.minimum(lane // EACH, C - 1) * (IN_H * IN_W)


@triton.jit
def fetch_ahead(pointers):
    """Asks for bytes, so that they are in the first cache when they are read. Changes no result."""
    tl.inline_asm_elementwise(
        "prefetch.global.L1 [$1]; mov.b32 $0, 0;", "=r,l", [pointers.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


@triton.jit
def walked(
    at, upper, below, x, v, left, right, places, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr,
    IN_LAST: tl.constexpr,
):  # fmt: skip
    """`between_bytes` of one row, and what the next can go on from: (at, upper, below, value). v: a scalar.

    at: the source's row that `upper` is of, as `row_between` has it; below: what the row below it has more. Goes down a
    row at a time, reading one and asking for the next, until it is there; from afar it takes two. All of it is exact:
    it does not matter which rows `upper` and `below` were of before. places: of `places_of_row`.
    """
    NEXT_ROW: tl.constexpr = IN_W * C if IN_LAST else IN_W
    top, low = between_rows(v, IN_H)
    low *= 1.0 / TAP_STEPS
    at = tl.where((top - at).to(tl.uint32) > 2, top - 2, at)
    while at != top:
        at += 1
        row = row_between(x, at + 1, left, right, C, IN_H, IN_W, IN_LAST)
        start, climb = (), ()
        for k in tl.static_range(C):
            start = start + (upper[k] + below[k],)
        for k in tl.static_range(C):
            climb = climb + (row[k] - start[k],)
        upper, below = start, climb
        if places is not None:
            fetch_ahead(x + (tl.minimum(at + 2, IN_H - 1) * NEXT_ROW + places))
    value = ()
    for k in tl.static_range(C):
        value = value + (tl.fma(low, below[k], upper[k]),)
    return top, upper, below, value


@triton.jit
def between_any(
    x, v, u, limits, needed, fill_ptr, C: tl.constexpr, IN_W: tl.constexpr, IN_PIXELS: tl.constexpr,
    IN_LAST: tl.constexpr, BEYOND: tl.constexpr,
):  # fmt: skip
    """As `between_bytes`, of any images and with whatever lies beyond them."""
    top, left = tl.floor(v), tl.floor(u)
    low, far = v - top, u - left
    BYTES: tl.constexpr = x.dtype.element_ty == tl.uint8
    if BYTES:
        low, far = whole_steps(low) * (1.0 / TAP_STEPS), whole_steps(far) * (1.0 / TAP_STEPS)
    r, c = top.to(tl.int32), left.to(tl.int32)
    spot_a, there_a = spot(x, r, c, limits, C, IN_W, IN_LAST, BEYOND)
    spot_b, there_b = spot(x, r, c + 1, limits, C, IN_W, IN_LAST, BEYOND)
    spot_c, there_c = spot(x, r + 1, c, limits, C, IN_W, IN_LAST, BEYOND)
    spot_d, there_d = spot(x, r + 1, c + 1, limits, C, IN_W, IN_LAST, BEYOND)
    value = ()
    for k in tl.static_range(C):
        upper = tapped(spot_a, there_a, spot_b, there_b, needed, far, fill_ptr, k, IN_PIXELS, IN_LAST, BEYOND)
        lower = tapped(spot_c, there_c, spot_d, there_d, needed, far, fill_ptr, k, IN_PIXELS, IN_LAST, BEYOND)
        value = value + (tl.fma(low, lower - upper, upper) if BYTES else upper + low * (lower - upper),)
    return value


@triton.jit
def nearest_pixels(
    x, v, u, limits, needed, fill_ptr, C: tl.constexpr, IN_W: tl.constexpr, IN_PIXELS: tl.constexpr,
    IN_LAST: tl.constexpr, BEYOND: tl.constexpr,
):  # fmt: skip
    """The pixels that hold the points (v, u): C float32 tensors."""
    here, there = spot(x, tl.floor(v).to(tl.int32), tl.floor(u).to(tl.int32), limits, C, IN_W, IN_LAST, BEYOND)
    value = ()
    for k in tl.static_range(C):
        value = value + (tap(here, there, needed, fill_ptr, k, IN_PIXELS, IN_LAST, BEYOND),)
    return value


@triton.jit
def column_place(map, limits, column):
    """Places of columns in the source, from its first column's centre, within the crop; of a map that does not turn."""
    _, u = located(map, column, column, False)
    place, _ = held(u - 0.5, limits[1], limits[3])
    return place


@triton.jit
def inner_tiles(
    map, limits, first, lot, TILES: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """(the first, how many) of a program's tiles whose pixels all lie between pixels that may be read.

    Tiles of TALL x WIDE pixels below each other, from the row of tiles `first` and column `lot` on. Corners decide:
    what `located` computes rises or falls along rows and columns, however rounded. What is not finite lies outside.
    """
    COUNT: tl.constexpr = triton.next_power_of_2(TILES)
    step = tl.arange(0, COUNT)
    upper = (first + step) * TALL
    left = step * 0 + lot
    inside = step < TILES
    for corner in tl.static_range(4):
        v, u = located(map, upper + corner // 2 * (TALL - 1), left + corner % 2 * (WIDE - 1), True)
        inside = inside & (v - 0.5 >= limits[0].to(tl.float32)) & (v - 0.5 < (limits[2] - 1).to(tl.float32))
        inside = inside & (u - 0.5 >= limits[1].to(tl.float32)) & (u - 0.5 < (limits[3] - 1).to(tl.float32))
    return tl.min(tl.where(inside, step, COUNT), 0), tl.sum(inside.to(tl.int32), 0)


@triton.jit
def faded(
    x, v, u, limits, needed, fill_ptr, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr,
    IN_LAST: tl.constexpr, BEYOND: tl.constexpr,
):  # fmt: skip
    """`between_bytes` of any places: those beyond the edge are held there, or fade into the fill from there on."""
    row, row_cover = held(v, limits[0], limits[2])
    place, column_cover = held(u, limits[1], limits[3])
    if IN_H > 1 and IN_W > 1:
        value = between_bytes(x, row, place, needed, C, IN_H, IN_W, IN_LAST, False)
    else:
        value = between_any(x, row, place, limits, needed, fill_ptr, C, IN_W, IN_H * IN_W, IN_LAST, BEYOND_EDGE)
    if BEYOND == BEYOND_FILL:
        missing = 1.0 - row_cover * column_cover
        inner, value = value, ()
        for k in tl.static_range(C):
            value = value + (inner[k] + missing * (tl.load(fill_ptr + k) - inner[k]),)
    return value


@triton.jit
def sampled(
    x, map, limits, y, column, inner, needed, fill_ptr, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr,
    IN_LAST: tl.constexpr, BEYOND: tl.constexpr, BILINEAR: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    """The pixels (y, column) of an image as it is placed: a tuple of C float32 tensors.

    inner: whether all of them are of `inner_tiles`, a scalar; None where that is not known.
    """
    BYTES: tl.constexpr = x.dtype.element_ty == tl.uint8
    v, u = located(map, y, column, TURNS)
    if BILINEAR and BYTES and (BEYOND == BEYOND_EDGE or BEYOND == BEYOND_FILL):
        v, u = v - 0.5, u - 0.5
        if inner is None:
            value = faded(x, v, u, limits, needed, fill_ptr, C, IN_H, IN_W, IN_LAST, BEYOND)
        elif inner:
            value = between_bytes(x, v, u, needed, C, IN_H, IN_W, IN_LAST, True)
        else:
            value = faded(x, v, u, limits, needed, fill_ptr, C, IN_H, IN_W, IN_LAST, BEYOND)
    elif BILINEAR:
        value = between_any(x, v - 0.5, u - 0.5, limits, needed, fill_ptr, C, IN_W, IN_H * IN_W, IN_LAST, BEYOND)
    else:
        value = nearest_pixels(x, v, u, limits, needed, fill_ptr, C, IN_W, IN_H * IN_W, IN_LAST, BEYOND)
    return value
