"""The pixels of a source that those of a placed image are made of: read, weighed and put together.

Bytes are weighed in whole 2**-15ths of the way between two pixels (rng.TAP_BITS): until the last step exactly.
"""

import triton
import triton.language as tl

from fusedmix import recipe, rng

from .geometry import TAP_STEPS, folded, held, lit_between, located
from .pixel import BYTE_BASE, ROUNDER, advanced, fused, less, to_float
from .regions import ROUNDER_BITS, from_bits, interleaved, small_int

BEYOND_EDGE = tl.constexpr(recipe.BEYOND_EDGE)
BEYOND_FILL = tl.constexpr(recipe.BEYOND_FILL)
TAP_STEPS_INT = tl.constexpr(1 << rng.TAP_BITS)
SECTOR = tl.constexpr(32)  # bytes that memory gives at a time
NEAR = tl.constexpr(0.98)  # columns of the source, from a pixel's place to the next one's: with rounding, 3 are not 4
KNOWN_ROWS = tl.constexpr(32)  # of a program that walks: one a thread of a warp


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
    weight 0 or 1. Everything is exact but the `fma` down, which rounds once, to a whole TAP_STEPS-th.
    """
    NEXT: tl.constexpr = C if IN_LAST else 1
    top, low = between_rows(v, IN_H, INNER)
    left, right = between_columns(u, IN_W, INNER)
    here = x + (top * IN_W + left) * NEXT
    value = ()
    for k in tl.static_range(C):
        spot = here + k * (1 if IN_LAST else IN_H * IN_W)
        upper, lower = weighed(spot, right, needed, NEXT), weighed(spot + IN_W * NEXT, right, needed, NEXT)
        value = value + (unweighed(tl.fma(low * (1.0 / TAP_STEPS), lower - upper, upper)),)
    return value


@triton.jit
def weighed_words(spots, bits, weights, PLANE: tl.constexpr, EACH: tl.constexpr, PTX: tl.constexpr):
    """`weighed` of bytes, by `columns_of`: EACH pixels of two words. PLANE: words beyond `spots`."""
    R: tl.constexpr = bits.shape[0]
    VEC: tl.constexpr = bits.shape[1]
    words = ()
    for k in tl.static_range(VEC):
        if k % EACH == 0:
            low = tl.load(spots[k // 2] + PLANE).to(tl.uint32, bitcast=True)
            high = tl.load(spots[k // 2] + (PLANE + 1)).to(tl.uint32, bitcast=True)
        words = words + (high.to(tl.uint64) << 32 | low.to(tl.uint64),)
    pair = (interleaved(words, R, VEC) >> bits.to(tl.uint64)).to(tl.uint32)
    if PTX:
        value = tl.inline_asm_elementwise(
            "dp2a.lo.u32.u32 $0, $1, $2, $3;", "=r,r,r,r", [weights, pair, pair * 0 + BYTE_BASE], tl.int32, True, 1
        )
    else:
        shares = weights.to(tl.uint32, bitcast=True)
        value = (pair & 255) * (shares & 65535) + ((pair >> 8 & 255) * (shares >> 16) + BYTE_BASE)
    return from_bits(value.to(tl.int32, bitcast=True))


@triton.jit
def channels_of_words(
    spots, row, bits, weights, C: tl.constexpr, WIDE: tl.constexpr, PLANE: tl.constexpr, EACH: tl.constexpr,
    PTX: tl.constexpr,
):  # fmt: skip
    """`weighed_words` of each channel, `row` rows of WIDE words beyond `spots`. PLANE: words of a channel."""
    here = ()
    for k in tl.static_range(len(spots)):
        here = here + (advanced(spots[k], row, WIDE, 4, PTX),)
    value = ()
    for k in tl.static_range(C):
        value = value + (weighed_words(here, bits, weights, k * PLANE, EACH, PTX),)
    return value


@triton.jit
def row_between(
    row, columns, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr,
    PAIRS: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """One row of byte images between its columns, as by `weighed`: C float32 tensors. row: int32 [R], all the same."""
    row = row.to(tl.uint32, bitcast=True)
    if PAIRS:
        WIDE: tl.constexpr = IN_W // 4
        PLANE: tl.constexpr = IN_H * WIDE
        spots, bits, weights, near = columns
        if bits.shape[1] < 4:
            value = channels_of_words(spots, row, bits, weights, C, WIDE, PLANE, 2, PTX)
        elif near:
            value = channels_of_words(spots, row, bits, weights, C, WIDE, PLANE, 4, PTX)
        else:
            value = channels_of_words(spots, row, bits, weights, C, WIDE, PLANE, 2, PTX)
    else:
        spots, right = columns
        NEXT: tl.constexpr = C if IN_LAST else 1
        here = advanced(spots, row[:, None], IN_W * NEXT, 1, PTX)
        value = ()
        for k in tl.static_range(C):
            value = value + (weighed(here + k * (1 if IN_LAST else IN_H * IN_W), right, None, NEXT),)
    return value


@triton.jit
def columns_of(
    x, map, limits, lot, C: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr,
    PAIRS: tl.constexpr,
):  # fmt: skip
    """What `row_between` must know of R * VEC columns of a result from `lot` on; of a map that does not turn.

    (spots, right): pointers to the left neighbours in the first row of x; how far right of them, [R, VEC]. With PAIRS,
    where neighbours are so near each other in the source that two words hold all four bytes between which they lie,
    (spots, bits, weights, near): pointers to the first words, VEC // 2 tensors [R]; where in both words a pixel's bytes
    begin, [R, VEC]; their weights, the left one's in the lower half; whether two words even hold the bytes of four.
    """
    lefts, rights = (), ()
    for k in tl.static_range(VEC):
        left, right = between_columns(place_along(map, limits, lot + tl.arange(0, R) * VEC + k, False), IN_W)
        lefts, rights = lefts + (left,), rights + (right,)
    if PAIRS:
        near = tl.abs(map[0]) <= NEAR
        spots, bits, weights = (), (), ()
        for k in tl.static_range(VEC):
            first = tl.minimum(lefts[k], lefts[k ^ 1])
            if VEC >= 4:
                first = tl.where(near, tl.minimum(first, tl.minimum(lefts[k ^ 2], lefts[k ^ 3])), first)
            word = tl.minimum(first // 4, IN_W // 4 - 2)
            if k % 2 == 0:
                spots = spots + (x.to(tl.pointer_type(tl.int32)) + word,)
            bits = bits + ((lefts[k] - word * 4) * 8,)
            weights = weights + (rights[k] * 65535 + TAP_STEPS_INT,)
        found = spots, interleaved(bits, R, VEC), interleaved(weights, R, VEC), near
    else:
        found = x + interleaved(lefts, R, VEC) * (C if IN_LAST else 1), interleaved(rights, R, VEC)
    return found


@triton.jit
def place_along(map, limits, index, DOWN: tl.constexpr):
    """Places of columns, or DOWN of rows, in the source, from its first one's centre, within the crop.

    Of a map that does not turn.
    """
    AXIS: tl.constexpr = 0 if DOWN else 1
    place, _ = held(located(map, index, index, False)[AXIS] - 0.5, limits[AXIS], limits[AXIS + 2])
    return place


@triton.jit
def places_of_row(
    x, map, limits, lot, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Pointers [32] into the first row of x, a sector apart, to what `row_between` reads of it for WIDE columns."""
    one, _ = between_columns(place_along(map, limits, lot, False), IN_W)
    other, _ = between_columns(place_along(map, limits, lot + (WIDE - 1), False), IN_W)
    low, high = tl.minimum(one, other), tl.maximum(one, other) + 1
    lane = tl.arange(0, 32)
    if IN_LAST:
        return x + tl.minimum(low * C + lane * SECTOR, high * C + (C - 1))
    EACH: tl.constexpr = max(32 // C, 1)  # lanes of a channel
    return x + (tl.minimum(low + lane % EACH * SECTOR, high) + tl.minimum(lane // EACH, C - 1) * (IN_H * IN_W))


@triton.jit
def fetch_ahead(pointers):
    """Asks for bytes, so that they are in the first cache when they are read. Changes no result."""
    tl.inline_asm_elementwise(
        "prefetch.global.L1 [$1]; mov.b32 $0, 0;", "=r,l", [pointers.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


@triton.jit
def rows_of(map, limits, row, light, IN_H: tl.constexpr, FIRST: tl.constexpr):
    """What `walked` must know of KNOWN_ROWS rows of a result from `row` on: (reads, lines, weight), tensors of them.

    reads: 1 if of the two rows of source that a row lies between the even one is to be read, plus 2 if the odd one is;
    read is what the row before, unless this is the program's FIRST, did not lie between. lines: the even and the odd
    one, and the first to fetch ahead. weight: the odd one's, times light[0] unless light is None.
    """
    step = tl.arange(0, KNOWN_ROWS)
    top, low = between_rows(place_along(map, limits, row + step, True), IN_H)
    before, _ = between_rows(place_along(map, limits, row + step - 1, True), IN_H)
    is_odd = top % 2  # then the even one is the lower
    new = top - before  # below 0 where the result is upside down
    reads = tl.where(new == 0, 0, tl.where(new == 1, 2 - is_odd, tl.where(new == -1, 1 + is_odd, 3)))
    if FIRST:
        reads = tl.where(step == 0, 3, reads)
    weight = tl.where(is_odd == 0, low, TAP_STEPS - low) * (1.0 / TAP_STEPS)
    even = top + is_odd
    if light is not None:
        weight *= light[0]
    return reads, (even, top | 1, tl.minimum(even + 1, IN_H - 2)), weight


@triton.jit
def of_row(known, numbers, R: tl.constexpr):
    """What is known of a row, [R] of one entry. By a shuffle, which costs less than a sum: nothing branches on it."""
    return tl.gather(numbers, tl.zeros([R], tl.int32) + known, 0)


@triton.jit
def walked(
    even, odd, reads, known, way, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr,
    PAIRS: tl.constexpr, light, PTX: tl.constexpr,
):  # fmt: skip
    """`between_bytes` of one row, still as by `weighed`, and what the next can go on from: (even, odd, value).

    light: None, or what to make of it, see `lit_between`.

    even, odd: the two rows of source that the row before lay between, as `row_between` gives them. Each stays in its
    place while it is needed, since moves cost as much as weighing. reads: the bits of `rows_of`, a scalar; known: which
    it is of the rows; way: what `rows_of`, `columns_of` and, unless it is None, `places_of_row` found.
    """
    rows, columns, places = way
    _, lines, weight_of = rows
    R: tl.constexpr = even[0].shape[0]
    if reads & 1 != 0:
        even = row_between(of_row(known, lines[0], R), columns, C, IN_H, IN_W, IN_LAST, PAIRS, PTX)
        if places is not None:  # for the next two rows
            STEP: tl.constexpr = IN_W * C if IN_LAST else IN_W
            next_row = of_row(known, lines[2], places.shape[0]).to(tl.uint32, bitcast=True)
            ahead = advanced(places, next_row, STEP, 1, PTX)
            fetch_ahead(ahead)
            fetch_ahead(ahead + STEP)
    if reads & 2 != 0:
        odd = row_between(of_row(known, lines[1], R), columns, C, IN_H, IN_W, IN_LAST, PAIRS, PTX)
    weight = of_row(known, weight_of, R)[:, None]
    value = ()
    for k in tl.static_range(C):
        if light is None:
            between = fused(weight, less(odd[k], even[k], PTX), even[k], PTX)
        else:
            between = lit_between(even[k], odd[k], weight, light, PTX)
        value = value + (between,)
    return even, odd, value


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
        if BYTES:  # in [256, 512) float32 holds whole TAP_STEPS-ths, to which it rounds
            value = value + (tl.fma(low, lower - upper, upper + 256.0) - 256.0,)
        else:
            value = value + (upper + low * (lower - upper),)
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
