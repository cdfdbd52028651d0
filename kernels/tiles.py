"""What becomes of a tile's values: blended, a region of them filled, one erased.

A sample's method and region are scalars here, masks and fills are computed over the elements of a tile.
"""

import triton
import triton.language as tl

from fusedmix import recipe

from .choices import (
    METHOD_CUTOUT,
    METHOD_FMIX,
    METHOD_GRIDMASK,
    METHOD_GRIDMIX,
    METHOD_HIDE,
    METHOD_RESIZEMIX,
    METHOD_SMOOTHMIX,
    any_bilinear,
    count_of,
    halves,
    has_flag,
    kinds_of,
    method_of,
    regional,
)
from .masks import inside_row
from .mix import METHOD_CUTMIX, METHOD_MIXUP
from .pixel import alone, fused, less, normalise, to_float
from .regions import (
    bilinear,
    from_bits,
    inside_cells,
    inside_grid,
    inside_wide_cells,
    nearest,
    normal,
    normal_runs,
    soft_share,
)

METHOD_ERASING = tl.constexpr(recipe.METHOD_ERASING)
FLAG_WIDE = tl.constexpr(recipe.FLAG_WIDE)
NOISE_SHIFT = tl.constexpr(recipe.NOISE_SHIFT)
NOISE_NONE = tl.constexpr(recipe.NOISE_NONE)
NOISE_PIXEL = tl.constexpr(recipe.NOISE_PIXEL)
ROW_SHIFT = tl.constexpr(recipe.ROW_SHIFT)
MOST_HOISTED = tl.constexpr(2)  # longer lists find what the drawn method needs in its tiles only
NEAR_REGION, NEAR_ERASED = tl.constexpr(4), tl.constexpr(8)  # bits, above those of taps.rows_of
FEW = tl.constexpr(4)  # choices that a sample's method is compared with one by one


@triton.jit
def taken_by_one(
    slots, divisors, method, element, along, y, x, ranks, CODE: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr, CENTRE: tl.constexpr, ROW_NEAR: tl.constexpr = False,
):  # fmt: skip
    """Where the region lies, if the choice CODE has made it. ranks: None, or (pointer to the image's, `ranks_for`).

    ROW_NEAR: whether all y are known to be of one row, that one of its boxes has.
    """
    METHOD: tl.constexpr = method_of(CODE)
    everywhere = method + (x + y) * 0  # the interpreter stumbles over a scalar bool in a mask
    if METHOD == METHOD_CUTMIX or METHOD == METHOD_RESIZEMIX or METHOD == METHOD_CUTOUT or METHOD == METHOD_ERASING:
        taken = everywhere < 0
        for hole in tl.static_range(count_of(CODE)):
            y1 = tl.where(method == METHOD, slots[4 * hole + 2], 0)
            rows = None if ROW_NEAR and count_of(CODE) == 1 else y
            taken |= inside_row(
                rows, element, along, slots[4 * hole], slots[4 * hole + 1], y1, slots[4 * hole + 3], STEP
            )
        return taken
    if METHOD == METHOD_GRIDMASK:
        return inside_grid(slots, divisors[0], y, x, H, W, CENTRE) & (everywhere == METHOD)
    if METHOD == METHOD_HIDE or METHOD == METHOD_GRIDMIX:
        WIDE: tl.constexpr = has_flag(CODE, FLAG_WIDE) or (METHOD == METHOD_GRIDMIX and W >= VEC * count_of(CODE))
        if WIDE and ROW % VEC == 0:
            return inside_wide_cells(slots, divisors, element, along, y, method == METHOD, W, STEP, VEC)
        return inside_cells(slots, divisors, y, x, W) & (everywhere == METHOD)
    if METHOD == METHOD_FMIX:
        field, found = ranks
        if found.dtype == tl.int1:
            found = tl.load(field + (y * W + x), mask=found)
        return (found >= slots[0]) & (everywhere == METHOD)
    return everywhere < 0


@triton.jit
def taken_by(
    region, element, along, y, x, ranks, CODES: tl.constexpr, N: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr, CENTRE: tl.constexpr,
):  # fmt: skip
    """True where a region replaces the image. CODES: the N choices that may have made it."""
    slots, _, code, divisors = region
    method = code & 0xFF
    taken = (x + y) * 0 < 0  # nowhere
    for k in tl.static_range(N):
        if method == method_of(CODES[k]):
            taken |= taken_by_one(
                slots, divisors, method, element, along, y, x, ranks, CODES[k], H, W, ROW, STEP, VEC, CENTRE
            )
    return taken


@triton.jit
def opaque(x, MOVES: tl.constexpr, PTX: tl.constexpr):
    """x, of which compilers do not know where it is from, nor unless it MOVES that a loop leaves it as it is."""
    if PTX:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], tl.int32, MOVES, 1)
    return x


@triton.jit
def touches(
    slots, exist, place, lot, COUNT: tl.constexpr, H: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr,
    TALL: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Whether COUNT boxes, if they exist, have a row in the tile of BLOCK elements from `place` of a plane on.

    lot: None, or the first column of a tile that is a rectangle of TALL rows, the first of which `place` then is; other
    columns count as well, and sizes are made `opaque`, or each tile would ask whether boxes exist.
    """
    touched = tl.cast(0, tl.int1)
    for box in tl.static_range(COUNT):
        y0, x0, y1, x1 = slots[4 * box], slots[4 * box + 1], slots[4 * box + 2], slots[4 * box + 3]
        if lot is not None:
            here = exist & (lot < x1) & (lot + BLOCK // TALL > x0)
            rows = opaque(tl.where(here, tl.maximum(y1 - y0, 0) + (TALL - 1), 0), True, PTX)
            touched |= (place + (TALL - 1) - y0).to(tl.uint32, bitcast=True) < rows.to(tl.uint32, bitcast=True)
        elif H * ROW % BLOCK == 0:  # tiles lie in one plane
            length = tl.where(exist & (y0 < y1), (y1 - y0) * ROW + (BLOCK - 1), 0)
            touched |= (place + (BLOCK - 1 - y0 * ROW)).to(tl.uint32, bitcast=True) < length.to(tl.uint32, bitcast=True)
        else:
            end = place + BLOCK
            first = tl.where(y0 < y1, y0 * ROW, H * ROW)  # of the box's rows; none: the plane's end
            touched |= exist & (((place < y1 * ROW) & (end > first)) | (end > first + H * ROW))
    return touched


@triton.jit
def fill_of(
    region, fills, first, y, x, channel, KINDS: tl.constexpr, C: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr,
    RUNS: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """What a dropped region is filled with. fills: pointers to values and sigmas, and to the lines of `normals`.

    KINDS: of noise that there may be. RUNS: elements lie in runs of VEC, a multiple of 4, of one channel, numbered in
    the order of [C, H, W]; first: int32 [R, 1], the number of a run's first.
    """
    _, key, code, _ = region
    fill_ptr, table_ptr = fills
    row = fill_ptr + (code >> ROW_SHIFT) * (2 * C) + tl.minimum(channel, C - 1)  # a tile may reach beyond its sample
    value = tl.load(row)
    if len(KINDS) == 1:
        if KINDS[0] != NOISE_NONE:
            noise = noise_of(key, first, y, x, channel, table_ptr, KINDS[0], W, PIXELS, RUNS, R, VEC, PTX)
            value = alone(noise, tl.load(row + C), value, PTX)
    else:
        kind, noise = code >> NOISE_SHIFT & 3, (x * 0).to(tl.float32)
        for k in tl.static_range(len(KINDS)):
            if KINDS[k] != NOISE_NONE:  # noqa: SIM102
                if kind == KINDS[k]:
                    noise += noise_of(key, first, y, x, channel, table_ptr, KINDS[k], W, PIXELS, RUNS, R, VEC, PTX)
        value = alone(noise, tl.load(row + C), value, PTX)
    return value


@triton.jit
def noise_of(
    key, first, y, x, channel, table_ptr, KIND: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr,
    RUNS: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Standard normal noise: the same in a channel, or of each pixel's own."""
    if KIND == NOISE_PIXEL:
        if RUNS:
            noise = normal_runs(key, first, table_ptr, R, VEC, PTX)
        else:
            noise = normal(key, channel * PIXELS + y * W + x, table_ptr, PTX)
    elif RUNS:
        noise = normal(key, tl.reshape(first, [R]) // PIXELS, table_ptr, PTX)[:, None]
    else:
        noise = normal(key, channel + x * 0, table_ptr, PTX)
    return noise


@triton.jit
def shrunk_partner(
    x_other, slots, divisors, y, x, channel, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr,
    IN_LAST: tl.constexpr, BILINEAR: tl.constexpr,
):  # fmt: skip
    """The whole partner shrunk into the box of the first four slots; its edge around it, which spares masks."""
    down, across = y - slots[0], x - slots[1]
    tall, wide = slots[2] - slots[0], slots[3] - slots[1]
    if IN_LAST:
        base, step = tl.minimum(channel, C - 1), C
    else:
        base, step = tl.minimum(channel, C - 1) * PIXELS, 1
    if BILINEAR:
        top, low = bilinear(down, from_bits(divisors[0]), H)
        left, far = bilinear(across, from_bits(divisors[1]), W)
        here = x_other + base + (top * W + left) * step  # one address for all four: the others are constants away
        RIGHT: tl.constexpr = (C if IN_LAST else 1) if W > 1 else 0
        BELOW: tl.constexpr = (W * C if IN_LAST else W) if H > 1 else 0
        upper = to_float(tl.load(here))
        upper_right = to_float(tl.load(here + RIGHT))
        lower = to_float(tl.load(here + BELOW))
        lower_right = to_float(tl.load(here + (BELOW + RIGHT)))
        upper = upper + far * (upper_right - upper)
        lower = lower + far * (lower_right - lower)
        return upper + low * (lower - upper)
    pixel = nearest(down, tall, divisors[0], H) * W + nearest(across, wide, divisors[1], W)
    return to_float(tl.load(x_other + base + pixel * step))


@triton.jit
def is_near(
    slots, method, place, lot, CODE: tl.constexpr, H: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr,
    TALL: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Whether the choice CODE has made a region, and that may lie in the tile of BLOCK elements from `place` on."""
    METHOD: tl.constexpr = method_of(CODE)
    near = method == METHOD
    if METHOD == METHOD_CUTMIX or METHOD == METHOD_RESIZEMIX or METHOD == METHOD_CUTOUT or METHOD == METHOD_ERASING:
        near = touches(slots, near, place, lot, count_of(CODE), H, ROW, BLOCK, TALL, PTX)
    if METHOD == METHOD_HIDE:
        near = near & (slots[3] > 0)
    return near


@triton.jit
def near_rows(
    region, erased, rows, lot, CHOICES: tl.constexpr, N: tl.constexpr, ERASED: tl.constexpr, H: tl.constexpr,
    ROW: tl.constexpr, BLOCK: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """NEAR_REGION where a choice's region may lie in a tile from column `lot` of one of the rows on, int32 tensor [n].

    NEAR_ERASED where what is erased may.
    """
    flags = rows * 0
    for k in tl.static_range(N):
        if regional((CHOICES[k],)):
            near = is_near(region[0], region[2] & 0xFF, rows, lot, CHOICES[k], H, ROW, BLOCK, 1, PTX)
            flags |= tl.where(near, NEAR_REGION, 0)
    if ERASED[0] != 0:
        near = is_near(erased[0], erased[2] & 0xFF, rows, lot, ERASED[0], H, ROW, BLOCK, 1, PTX)
        flags |= tl.where(near, NEAR_ERASED, 0)
    return flags


@triton.jit
def normalised(value, norm, CHANNEL: tl.constexpr, C: tl.constexpr, PTX: tl.constexpr):
    """A tile of a channel, of C, by norm as for `joined`; as it is where that is None."""
    return value if norm is None else normalise(value, norm[CHANNEL], norm[C + CHANNEL], PTX)


@triton.jit
def each_normalised(values, norm, C: tl.constexpr, PTX: tl.constexpr):
    """Tiles of C channels by `normalised`."""
    result = ()
    for c in tl.static_range(C):
        result = result + (normalised(values[c], norm, c, C, PTX),)
    return result


@triton.jit
def replace_region(
    values, other, x_other, region, place, lot, first, element, along, y, x, ranks, channels, fills,
    CODE: tl.constexpr, KINDS: tl.constexpr, BILINEAR: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    PIXELS: tl.constexpr, CENTRE: tl.constexpr, IN_LAST: tl.constexpr, RUNS: tl.constexpr, ROW: tl.constexpr,
    STEP: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr, TALL: tl.constexpr, COUNT: tl.constexpr, norm, near,
    PTX: tl.constexpr,
):  # fmt: skip
    """The values with the region that the choice CODE has made filled, if it has and that lies in the tile.

    near: whether it may, if that is known, or None.
    """
    METHOD: tl.constexpr = method_of(CODE)
    slots, _, code, divisors = region
    method = code & 0xFF
    if regional((CODE,)):
        if near is None:
            near = is_near(slots, method, place, lot, CODE, H, ROW, R * VEC, TALL, PTX)
        if near:
            taken = taken_by_one(
                slots, divisors, method, element, along, y, x, ranks, CODE, H, W, ROW, STEP, VEC, CENTRE,
                lot is not None and TALL == 1,
            )  # fmt: skip
            if METHOD >= METHOD_CUTOUT and METHOD <= METHOD_HIDE and COUNT > 1:  # all channels, which take registers
                region, first = (slots, opaque(region[1], False, PTX), code, divisors), opaque(first, False, PTX)
            result = ()
            for c in tl.static_range(COUNT):
                filling = other[c]
                if METHOD == METHOD_RESIZEMIX:
                    filling = shrunk_partner(
                        x_other, slots, divisors, y, x, channels[c], C, H, W, PIXELS, IN_LAST, BILINEAR
                    )
                elif METHOD >= METHOD_CUTOUT and METHOD <= METHOD_HIDE:
                    filling = fill_of(
                        region, fills, first + c * PIXELS, y, x, channels[c], KINDS, C, W, PIXELS, RUNS, R, VEC, PTX
                    )
                result = result + (tl.where(taken, normalised(filling, norm, c, COUNT, PTX), values[c]),)
            values = result
    return values


@triton.jit
def differences(own, other, COUNT: tl.constexpr, PTX: tl.constexpr):
    """own - other, tile by tile."""
    result = ()
    for c in tl.static_range(COUNT):
        result = result + (less(own[c], other[c], PTX),)
    return result


@triton.jit
def moved(start, weight, apart, COUNT: tl.constexpr, PTX: tl.constexpr):
    """start + weight * apart, tile by tile."""
    result = ()
    for c in tl.static_range(COUNT):
        result = result + (alone(apart[c], weight, start[c], PTX),)
    return result


@triton.jit
def mixed(own, other, apart, SIGN: tl.constexpr, lam, COUNT: tl.constexpr, PTX: tl.constexpr):
    """`lerp` of tiles that are finite. apart: SIGN times their `differences`; lam: a scalar."""
    if lam < 0.5:
        values = moved(other, lam * SIGN, apart, COUNT, PTX)
    else:
        values = moved(own, (lam - 1.0) * SIGN, apart, COUNT, PTX)
    return values


@triton.jit
def joined(own, other, lam, norm, C: tl.constexpr, PTX: tl.constexpr):
    """`mixed` tiles of C channels, that are finite, and normalised. norm: means, then inverse deviations, scalars."""
    values = ()
    for c in tl.static_range(C):
        rest = fused(other[c], (1.0 - lam) * norm[C + c], -(norm[c] * norm[C + c]), PTX)
        values = values + (fused(own[c], lam * norm[C + c], rest, PTX),)
    return values


@triton.jit
def family_values(
    own, other, x_other, method, lam, region, erased, place, lot, first, element, along, y, x, ranks, channels, fills,
    CHOICES: tl.constexpr, N: tl.constexpr, ERASED: tl.constexpr, BLENDS: tl.constexpr, SOFT: tl.constexpr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr, CENTRE: tl.constexpr,
    IN_LAST: tl.constexpr, RUNS: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr,
    VEC: tl.constexpr, TALL: tl.constexpr, COUNT: tl.constexpr, near, join, PTX: tl.constexpr,
):  # fmt: skip
    """The mixed values of one sample, for COUNT tiles of the same pixels: blended, a region replaced, one erased.

    own, other, channels: tuples with an entry a tile. Which method a sample has and whether a region lies in a tile are
    scalars: a branch each, so that a tile costs what is done to it, however long the list.

    place, lot, TALL: where the tile begins in its plane, see `touches`. first, RUNS, R, VEC: see `fill_of`. near: None,
    or what `near_rows` says of the tile. join: None, or (share of `own`, 1 where the method is not to blend; norm of
    `joined`), by which the values, of finite tiles, are blended instead of by BLENDS, and normalised.
    """
    values, norm = own, None if join is None else join[1]
    if BLENDS:  # noqa: SIM102, a branch of constants: compiled in or not
        if (method == METHOD_MIXUP) & (lam != 1.0):
            values = mixed(own, other, differences(own, other, COUNT, PTX), 1, lam, COUNT, PTX)
    if SOFT:  # noqa: SIM102, as above
        if method == METHOD_SMOOTHMIX:
            share = soft_share(region[0], y, element, along, STEP, ROW, R, VEC)
            values = ()
            for c in tl.static_range(COUNT):
                values = values + (fused(share, less(other[c], own[c], PTX), own[c], PTX),)
    if near is None:
        values = replaced(
            values, other, x_other, method, region, place, lot, first, element, along, y, x, ranks, channels, fills,
            CHOICES, N, C, H, W, PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, TALL, COUNT, None, PTX,
        )  # fmt: skip
    elif near & NEAR_REGION != 0:
        values = replaced(
            values, other, x_other, method, region, place, lot, first, element, along, y, x, ranks, channels, fills,
            CHOICES, N, C, H, W, PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, TALL, COUNT, True, PTX,
        )  # fmt: skip
        if join is not None:
            values = each_normalised(values, norm, COUNT, PTX)
    elif join is not None:  # in a branch of its own, which spares moves
        values = joined(own, other, join[0], norm, COUNT, PTX)
    if ERASED[0] != 0:
        values = replace_region(
            values, other, x_other, erased, place, lot, first, element, along, y, x, None, channels, fills, ERASED[0],
            kinds_of(ERASED, ERASED[0]), False, C, H, W, PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, TALL, COUNT,
            norm, None if near is None else near & NEAR_ERASED != 0, PTX,
        )  # fmt: skip
    return values


@triton.jit
def replaced(
    values, other, x_other, method, region, place, lot, first, element, along, y, x, ranks, channels, fills,
    CHOICES: tl.constexpr, N: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr,
    CENTRE: tl.constexpr, IN_LAST: tl.constexpr, RUNS: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr,
    R: tl.constexpr, VEC: tl.constexpr, TALL: tl.constexpr, COUNT: tl.constexpr, near, PTX: tl.constexpr,
):  # fmt: skip
    """The step of `family_values` that replaces regions. near: True if one may lie in the tile, or None."""
    ONLY: tl.constexpr = near if regional(CHOICES) == 1 else None
    for half in tl.static_range(2):  # of a long list; a sample's method is compared with those of one
        if N <= FEW or (method >= halves(CHOICES)[2]) == (half == 1):
            for k in tl.static_range(len(halves(CHOICES)[half])):
                values = replace_region(
                    values, other, x_other, region, place, lot, first, element, along, y, x, ranks, channels, fills,
                    halves(CHOICES)[half][k], kinds_of(CHOICES, halves(CHOICES)[half][k]), any_bilinear(CHOICES), C,
                    H, W, PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, TALL, COUNT, None, ONLY, PTX,
                )  # fmt: skip
    return values


@triton.jit
def clamp_bytes(value, DTYPE: tl.constexpr, FILLS: tl.constexpr):
    """Fills may leave the range of bytes."""
    if FILLS and DTYPE == tl.uint8:
        return tl.minimum(tl.maximum(value, 0.0), 255.0)
    return value


@triton.jit
def blended(method, lam, owned):
    """End of the elements that are blended: all or none."""
    return tl.where(((method == METHOD_MIXUP) & (lam != 1.0)) | (method == METHOD_SMOOTHMIX), owned, 0)


@triton.jit
def ranks_for(field, index, method, owned, start, N: tl.constexpr):
    """Ranks of FMix's pixels or, of long lists, which seldom need them, a mask of those to be looked up."""
    if N <= MOST_HOISTED:
        found = tl.load(field + index, mask=start < tl.where(method == METHOD_FMIX, owned, 0))
    else:
        found = start < owned
    return found


@triton.jit
def touched_by(
    region, erased, method, lam, owned, start, element, along, y, x, ranks, CHOICES: tl.constexpr, N: tl.constexpr,
    ERASED: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr,
    CENTRE: tl.constexpr,
):  # fmt: skip
    """Whether a run of elements holds any that change: [R, 1]."""
    taken = taken_by(region, element, along, y, x, ranks, CHOICES, N, H, W, ROW, STEP, VEC, CENTRE)
    touched = some_of(taken) | (start < blended(method, lam, owned))
    if ERASED[0] != 0:
        dropped = taken_by(erased, element, along, y, x, None, ERASED, 1, H, W, ROW, STEP, VEC, CENTRE)
        touched = touched | some_of(dropped)
    return touched


@triton.jit
def some_of(taken):
    """Whether a run of elements holds any: [R, VEC] to [R, 1], so that masked accesses stay wide."""
    return tl.max(taken.to(tl.int32), 1)[:, None] != 0
