"""Regions: how each method of the family draws the part of an image that it replaces, and where that part lies.

A region is a tuple of int32 slots, whose meaning depends on the method (floats as their bits). Samplers work on any
shape; masks on the row and column of each element.
"""

import triton
import triton.language as tl

from fusedmix import rng

from .philox import words_of
from .pixel import BYTE_BASE, ROUNDER, advanced, alone
from .sampling import LOG2_E, below, exp, horner, log, sin_half_pi, unit

STREAM_NOISE = tl.constexpr(rng.STREAM_NOISE)
STREAM_STEP = tl.constexpr(rng.STREAM_STEP)
NORMAL_SHIFT = tl.constexpr(rng.NORMAL_SHIFT)
GOLDEN = tl.constexpr(rng.GOLDEN)
MIX_A = tl.constexpr(rng.MIX_A)
MIX_B = tl.constexpr(rng.MIX_B)
TURN_SHIFT = tl.constexpr(rng.TURN_BITS + 1)
TURN_UNIT = tl.constexpr(2 << rng.TURN_BITS)
TURN_SCALE = tl.constexpr(2.0**rng.TURN_BITS)
ROUNDER_BITS = tl.constexpr(rng.ROUNDER_BITS)
ONE_BITS = tl.constexpr(rng.ONE_BITS)
BELL_POLY = tl.constexpr(rng.BELL_POLY)
BELL_DEGREE = tl.constexpr(len(rng.BELL_POLY) - 1)
BELL_SCALE = tl.constexpr(2.0**rng.BELL_BITS)
BELL_ONE = tl.constexpr(rng.ONE_BITS + (rng.BELL_BITS << 23))  # bits of that
BELL_UNIT = tl.constexpr(2.0 ** (-2 * rng.BELL_BITS))
MAX_POWER = tl.constexpr(rng.BETA_MAX_LOG)


@triton.jit
def as_bits(x):
    """The bits of float32 x as an int32 slot."""
    return x.to(tl.int32, bitcast=True)


@triton.jit
def from_bits(slot):
    return slot.to(tl.float32, bitcast=True)


@triton.jit
def between(word, low, high):
    """Uniform float32 in [low, high)."""
    return low + unit(word) * (high - low)


@triton.jit
def hole_side(length, word, SIDE: tl.constexpr):
    """One axis of Cutout's hole: centre uniform, edges length // 2 to either side of it, clipped."""
    centre = below(word, SIDE)
    return tl.maximum(centre - length // 2, 0), tl.minimum(centre + length // 2, SIDE)


@triton.jit
def aspect_of(word, low, high, LINEAR: tl.constexpr):
    """Height over width, uniform in [low, high) or in its logarithm."""
    if LINEAR:
        return between(word, low, high)
    power = between(word, log(low), log(high))
    shrunk = exp(-tl.abs(power))
    return tl.where(power > 0, tl.div_rn(shrunk * 0.0 + 1.0, shrunk), shrunk)


@triton.jit
def erased_box(
    word_area, word_aspect, word_y, word_x, area_low, area_high, aspect_low, aspect_high, count,
    LINEAR: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """One try at Random Erasing's box: (fits, y0, x0, y1, x1)."""
    area = tl.div_rn(between(word_area, area_low, area_high) * (H * W * 1.0), count.to(tl.float32))
    aspect = aspect_of(word_aspect, aspect_low, aspect_high, LINEAR)
    h = tl.floor(tl.sqrt_rn(area * aspect) + 0.5).to(tl.int32)
    w = tl.floor(tl.sqrt_rn(tl.div_rn(area, aspect)) + 0.5).to(tl.int32)
    fits = (h < H) & (w < W)
    y0 = below(word_y, tl.maximum(H - h + 1, 1))
    x0 = below(word_x, tl.maximum(W - w + 1, 1))
    return fits, y0, x0, y0 + h, x0 + w


@triton.jit
def stripe_length(d, ratio, rule):
    """l of GridMask: ceil(d ratio) within [1, d - 1], or, by the older rule, int(d ratio + 1/2)."""
    product = d.to(tl.float32) * ratio
    new = tl.minimum(tl.maximum(tl.ceil(product).to(tl.int32), 1), tl.maximum(d - 1, 1))
    return tl.where(rule > 0, (product + 0.5).to(tl.int32), new)


@triton.jit
def turn(degrees):
    """(cos, sin) of whole degrees in [0, 360)."""
    quadrant, rest = degrees // 90, degrees % 90
    v = tl.div_rn(rest.to(tl.float32), 90.0)
    sine, cosine = sin_half_pi(v), sin_half_pi(1.0 - v)
    odd = quadrant % 2 == 1
    c, s = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return tl.where((quadrant == 1) | (quadrant == 2), -c, c), tl.where(quadrant >= 2, -s, s)


@triton.jit
def inside_grid(slots, magic, y, x, H: tl.constexpr, W: tl.constexpr, CENTRE: tl.constexpr):
    """True where GridMask drops. slots: d, l, offsets of the rows and columns, cos and sin in 2**-14, inverted.

    magic: 2**32 / d rounded up, 0 for d = 1.

    Coordinates are whole half pixels from the image's centre, so that turning them is exact in integers.
    """
    d, cosine, sine = positive(slots[0]), slots[4], slots[5]
    down = 2 * y + 1 - H
    low = cosine * down + CENTRE * TURN_UNIT + (d - slots[2]) * TURN_UNIT
    high = CENTRE * TURN_UNIT - sine * down + (d - slots[3]) * TURN_UNIT
    row = sine * (2 * x + (1 - W)) + low
    column = cosine * (2 * x + (1 - W)) + high
    # Both are below 2**32, though not below 2**31. A rest r of a division by d shows as 2**32 r / d and a little more
    # in the low bits of a product, where sides and d up to 2**15 keep that little below 2**32 / d.
    stripe = tl.where(slots[1] >= d, -1, slots[1] * magic.to(tl.int32, bitcast=True)).to(tl.uint32, bitcast=True)
    row, column = row.to(tl.uint32, bitcast=True) >> TURN_SHIFT, column.to(tl.uint32, bitcast=True) >> TURN_SHIFT
    striped = (row * magic < stripe) | (column * magic < stripe)
    return striped != (slots[6] != 0)


@triton.jit
def fixed(x):
    """A cosine or sine in units of 2**-14, halves to even."""
    return (x * TURN_SCALE + ROUNDER).to(tl.int32, bitcast=True) - ROUNDER_BITS


@triton.jit
def positive(size):
    """A size of a plan's slot, which anything may have written."""
    return tl.maximum(size, 1)


@triton.jit
def magic_of(d):
    """What `quotient` multiplies by: (2**32 - 1) / d rounded down. d: positive int32."""
    return tl.cast(0xFFFFFFFF, tl.uint32) // d.to(tl.uint32, bitcast=True)


@triton.jit
def quotient(n, d, magic):
    """n // d for 0 <= n < 2**31, without a division: the estimate is at most one too small."""
    estimate = tl.umulhi(n.to(tl.uint32, bitcast=True), magic + n.to(tl.uint32, bitcast=True) * 0)
    estimate = estimate.to(tl.int32, bitcast=True)
    return estimate + (n - estimate * d >= d).to(tl.int32)


@triton.jit
def mix32(h):
    """MurmurHash3's finaliser: 32 bits to 32 well-mixed bits."""
    h = h ^ (h >> 16)
    h = h * tl.cast(MIX_A, tl.uint32)
    h = h ^ (h >> 13)
    h = h * tl.cast(MIX_B, tl.uint32)
    return h ^ (h >> 16)


@triton.jit
def cell_taken(cell, key, share):
    """True for the chosen cells. key: int32 bits; share of chosen cells in 2**-24."""
    step = cell.to(tl.uint32, bitcast=True) * tl.cast(GOLDEN, tl.uint32)
    return (mix32(key.to(tl.uint32, bitcast=True) ^ step) >> 8).to(tl.int32) < share


@triton.jit
def inside_cells(slots, magics, y, x, W: tl.constexpr):
    """True in the chosen cells of a grid. slots: height and width of a cell, key, share of chosen cells in 2**-24.

    magics: `magic_of` the height and the width.
    """
    cell_height, cell_width = positive(slots[0]), positive(slots[1])
    across = quotient(W + cell_width - 1, cell_width, magics[1])
    down, right = quotient(y, cell_height, magics[0]), quotient(x, cell_width, magics[1])
    return cell_taken(down * across + right, slots[2], slots[3])


@triton.jit
def inside_wide_cells(slots, magics, element, lane, y, wanted, W: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr):
    """As `inside_cells`, where a run of elements lies in one row and in at most two cells, which are hashed once.

    wanted: whether any cell is.
    """
    cell_height, cell_width = positive(slots[0]), positive(slots[1])
    across = quotient(W + cell_width - 1, cell_width, magics[1])
    right = quotient(element // STEP, cell_width, magics[1])
    cell = quotient(y, cell_height, magics[0]) * across + right
    edge = (right + 1) * cell_width * STEP - element
    first = tl.where(cell_taken(cell, slots[2], slots[3]), 0, edge)
    last = tl.where(cell_taken(cell + 1, slots[2], slots[3]), VEC, edge)
    many = tl.where(wanted, last - first, 0)
    return (lane - first).to(tl.uint32, bitcast=True) < tl.maximum(many, 0).to(tl.uint32, bitcast=True)


@triton.jit
def bell(distance, inverse):
    """Gaussian weight at a whole distance, a float32 integer of 2**-15. inverse: 1 / (2 sigma**2)."""
    power = tl.minimum(distance * distance * inverse, MAX_POWER) * -LOG2_E  # of 2
    n = power + ROUNDER
    scale = ((n.to(tl.int32, bitcast=True) << 23) + BELL_ONE).to(tl.float32, bitcast=True)
    return horner(BELL_POLY, BELL_DEGREE, power - (n - ROUNDER)) * scale + ROUNDER - ROUNDER


@triton.jit
def bell_width(share, SIDE: tl.constexpr):
    """1 / (2 sigma**2) for a sigma that is `share` of the side."""
    sigma = share * (SIDE * 1.0)
    return tl.div_rn(sigma * 0.0 + 0.5, sigma * sigma)


@triton.jit
def soft_share(
    slots, y, element, along, STEP: tl.constexpr, ROW: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr
):  # fmt: skip
    """Weight of the partner under SmoothMix. slots: centre row and column, then bits of 1 / (2 sigma**2) of each axis.

    Where runs lie in one row, lanes are worked out as VEC tensors of R: in a tensor [R, VEC], triton would deal rows to
    threads in another way than the images' tiles, and carry the weights over through shared memory.
    """
    if ROW % VEC == 0:
        first = tl.reshape(element, [R])
        lanes = ()
        for k in tl.static_range(VEC):
            distance = from_centre(first, slots[1]) + k if STEP == 1 else from_centre((first + k) // STEP, slots[1])
            lanes = lanes + (bell(distance, from_bits(slots[3])),)
        across = interleaved(lanes, R, VEC)
        down = bell(from_centre(tl.reshape(y, [R]), slots[0]), from_bits(slots[2]))[:, None]
    else:
        across = bell(from_centre((element + along) // STEP, slots[1]), from_bits(slots[3]))
        down = bell(from_centre(y, slots[0]), from_bits(slots[2]))
    return down * (across * BELL_UNIT)


@triton.jit
def from_centre(place, centre):
    """Distance of whole places on an axis: float32."""
    return small_float(place) - small_float(centre)


@triton.jit
def interleaved(lanes, R: tl.constexpr, VEC: tl.constexpr):
    """[R, VEC] of VEC tensors [R]. VEC: a power of two up to 16."""
    for level in tl.static_range(4):
        if VEC >> level > 1:
            lanes = halved(lanes, VEC >> (level + 1))
    return tl.reshape(lanes[0], [R, VEC])


@triton.jit
def halved(lanes, HALF: tl.constexpr):
    """2 HALF tensors joined into HALF with one more dimension."""
    joined = ()
    for k in tl.static_range(HALF):
        joined = joined + (tl.join(lanes[k], lanes[k + HALF]),)
    return joined


@triton.jit
def small_float(n):
    """float32 of 0 <= n < 2**23 by way of its bits, since conversions are slower than arithmetic."""
    return (n | BYTE_BASE).to(tl.float32, bitcast=True) - 8388608.0


@triton.jit
def small_int(x):
    """int32 of a whole 0 <= x < 2**23, as `small_float` the other way."""
    return (x + 8388608.0).to(tl.int32, bitcast=True) - BYTE_BASE


@triton.jit
def bell_share(weights, SIDE: tl.constexpr):
    """Mean weight along an axis: weights float32 [R, >= SIDE]."""
    return tl.div_rn(tl.sum(weights.to(tl.int32), 1).to(tl.float32), SIDE * BELL_SCALE)


@triton.jit
def nearest(offset, size, magic, SIDE: tl.constexpr):
    """Pixel of an axis of SIDE pixels shown at `offset` when the axis is shrunk to `size`, of that `magic`.

    Whatever a plan holds, a pixel of the axis.
    """
    pixel = quotient(tl.maximum(offset, 0) * SIDE, positive(size), magic).to(tl.uint32, bitcast=True)
    return tl.minimum(pixel, SIDE - 1).to(tl.int32, bitcast=True)


@triton.jit
def shrinks(size, SIDE: tl.constexpr):
    """How often the positive `size` goes into an axis of SIDE pixels: float32."""
    full = size.to(tl.float32)
    return tl.div_rn(full * 0.0 + SIDE, full)


@triton.jit
def bilinear(offset, scale, SIDE: tl.constexpr):
    """(pixel before, weight of the one after) at `offset` of an axis that `shrinks` by scale. At the end, weight 1."""
    at = (offset.to(tl.float32) + 0.5) * scale - 0.5
    at = tl.minimum(tl.maximum(at, 0.0), SIDE - 1.0)
    first = tl.minimum(tl.floor(at), tl.maximum(SIDE - 2.0, 0.0))
    return small_int(first), at - first


@triton.jit
def bell_number(word, table_ptr, PTX: tl.constexpr):
    """A standard normal number by lines of the inverse distribution, as `rng.normal_table` has them; word: uint32."""
    share = word.to(tl.int32, bitcast=True).to(tl.float32)
    number = as_bits(share).to(tl.uint32, bitcast=True) >> NORMAL_SHIFT
    line = advanced(table_ptr.to(tl.pointer_type(tl.int64)), number, 1, 8, PTX)
    both = tl.load(line)  # its two numbers, by one access
    return alone(from_bits((both >> 32).to(tl.int32)), share, from_bits(both.to(tl.int32)), PTX)


@triton.jit
def normals(key, fours, table_ptr, PTX: tl.constexpr):
    """Standard normal noise of numbers 4 n to 4 n + 3 for each n of `fours`: four tensors. key: int32 bits, scalar.

    table_ptr: float32 [2**15, 2], of `rng.normal_table`.
    """
    stream = fours * STREAM_STEP + STREAM_NOISE
    word_a, word_b, word_c, word_d = words_of(key.to(tl.uint32, bitcast=True), stream, PTX)
    return (
        bell_number(word_a, table_ptr, PTX), bell_number(word_b, table_ptr, PTX),
        bell_number(word_c, table_ptr, PTX), bell_number(word_d, table_ptr, PTX),
    )  # fmt: skip


@triton.jit
def normal(key, number, table_ptr, PTX: tl.constexpr):
    """Standard normal noise of each number."""
    a, b, c, d = normals(key, number >> 2, table_ptr, PTX)
    return tl.where(number & 2 == 0, tl.where(number & 1 == 0, a, b), tl.where(number & 1 == 0, c, d))


@triton.jit
def normal_runs(key, first, table_ptr, R: tl.constexpr, VEC: tl.constexpr, PTX: tl.constexpr):
    """`normal` of runs of VEC numbers that begin at first: int32 [R, 1]; both multiples of 4."""
    fours = tl.reshape(first, [R]) >> 2
    lanes = ()
    for k in tl.static_range(VEC // 4):
        lanes = lanes + normals(key, fours + k, table_ptr, PTX)
    return interleaved(lanes, R, VEC)
