"""What the family's launch chooses for samples: a method, its lam and a region, then what is erased.

Drawn, or read from a plan; one entry of a tensor a sample. What each method draws lies in `regions.py`; here those are
chosen between, and what no sample at hand has chosen is not drawn.
"""

import triton
import triton.language as tl

from fusedmix import recipe, rng

from .mix import METHOD_CUTMIX, METHOD_NONE, MODE_BATCH, MODE_PAIR, PLAN_BOX, PLAN_LAM, at
from .philox import words, words_at
from .regions import (
    as_bits,
    bell,
    bell_share,
    bell_width,
    between,
    cell_taken,
    erased_box,
    fixed,
    from_bits,
    hole_side,
    magic_of,
    positive,
    shrinks,
    stripe_length,
    turn,
)
from .sampling import STREAM_BOX, STREAM_SAMPLE, below, cut_side, kept_fraction, symmetric_beta, unit

METHOD_CUTOUT = tl.constexpr(recipe.METHOD_CUTOUT)
METHOD_GRIDMASK = tl.constexpr(recipe.METHOD_GRIDMASK)
METHOD_HIDE = tl.constexpr(recipe.METHOD_HIDE)
METHOD_GRIDMIX = tl.constexpr(recipe.METHOD_GRIDMIX)
METHOD_RESIZEMIX = tl.constexpr(recipe.METHOD_RESIZEMIX)
METHOD_SMOOTHMIX = tl.constexpr(recipe.METHOD_SMOOTHMIX)
METHOD_FMIX = tl.constexpr(recipe.METHOD_FMIX)
FLAG_CORRECT = tl.constexpr(recipe.FLAG_CORRECT)
FLAG_LINEAR = tl.constexpr(recipe.FLAG_LINEAR)
FLAG_MINMAX = tl.constexpr(recipe.FLAG_MINMAX)
WIDE_CELL = tl.constexpr(recipe.WIDE_CELL)
KNOBS = tl.constexpr(recipe.KNOBS)
KNOB_A = tl.constexpr(recipe.KNOB_A)
KNOB_B = tl.constexpr(recipe.KNOB_B)
KNOB_C = tl.constexpr(recipe.KNOB_C)
KNOB_D = tl.constexpr(recipe.KNOB_D)
KNOB_E = tl.constexpr(recipe.KNOB_E)
KNOB_F = tl.constexpr(recipe.KNOB_F)
method_of = triton.constexpr_function(recipe.method_of)
kinds_of = triton.constexpr_function(recipe.kinds_of)
count_of = triton.constexpr_function(recipe.count_of)
has_flag = triton.constexpr_function(recipe.has_flag)
row_code = triton.constexpr_function(recipe.row_code)
divides = triton.constexpr_function(recipe.divides)
any_mixes = triton.constexpr_function(recipe.any_mixes)
regional = triton.constexpr_function(recipe.regional)
any_bilinear = triton.constexpr_function(recipe.any_bilinear)
halves = triton.constexpr_function(recipe.halves)
STREAM_REGION = tl.constexpr(rng.STREAM_REGION)
STREAM_HOLES = tl.constexpr(rng.STREAM_HOLES)
STREAM_ERASE = tl.constexpr(rng.STREAM_ERASE)
STREAM_ERASE_REGION = tl.constexpr(rng.STREAM_ERASE_REGION)
STREAM_ERASE_HOLES = tl.constexpr(rng.STREAM_ERASE_HOLES)
STREAM_STEP = tl.constexpr(rng.STREAM_STEP)
TRY_STEP = tl.constexpr(rng.TRY_STEP)
TRIES = tl.constexpr(rng.TRIES)


@triton.jit
def drops(method):
    return (method >= METHOD_CUTOUT) & (method <= METHOD_HIDE)


@triton.jit
def padded(slots, like, FROM: tl.constexpr, SIZE: tl.constexpr):
    """A tuple of FROM slots made SIZE long with zeros."""
    for _ in tl.static_range(FROM, SIZE):
        slots = slots + (like * 0,)
    return slots


@triton.jit
def chosen(here, slots, others, SIZE: tl.constexpr):
    """Slot by slot, the first tuple where `here`, else the second."""
    merged = ()
    for s in tl.static_range(SIZE):
        merged = merged + (tl.where(here, slots[s], others[s]),)
    return merged


@triton.jit
def each_at(slots, N: tl.constexpr, SIZE: tl.constexpr):
    """Element N of every slot, as scalars."""
    picked = ()
    for s in tl.static_range(SIZE):
        picked = picked + (at(slots[s], N),)
    return picked


@triton.jit
def erased_holes(
    knob, seed, offset, index, count, CODE: tl.constexpr, STREAM: tl.constexpr, H: tl.constexpr, W: tl.constexpr
):
    """Random Erasing's boxes for index: int32 [N]: for each the first of ten tries that fits."""
    HOLES: tl.constexpr = count_of(CODE)
    LINEAR: tl.constexpr = has_flag(CODE, FLAG_LINEAR)
    low, high = tl.load(knob + KNOB_A), tl.load(knob + KNOB_B)
    aspect_low, aspect_high = tl.load(knob + KNOB_C), tl.load(knob + KNOB_D)
    attempt = tl.arange(0, TRY_STEP)[None, :]
    slots = ()
    for hole in tl.static_range(HOLES):
        stream = index[:, None] * 0 + ((attempt + TRY_STEP * hole) * STREAM_STEP + STREAM)  # [N, TRY_STEP]
        word_area, word_aspect, word_y, word_x = words_at(seed, offset, index[:, None] + stream * 0, stream)
        fits, y0, x0, y1, x1 = erased_box(
            word_area, word_aspect, word_y, word_x, low, high, aspect_low, aspect_high, count[:, None], LINEAR, H, W
        )
        fits = fits & (attempt < TRIES) & (hole < count)[:, None]
        hit = fits & (attempt == tl.min(tl.where(fits, attempt, TRY_STEP), 1)[:, None])
        slots = slots + (
            tl.sum(tl.where(hit, y0, 0), 1), tl.sum(tl.where(hit, x0, 0), 1), tl.sum(tl.where(hit, y1, 0), 1),
            tl.sum(tl.where(hit, x1, 0), 1),
        )  # fmt: skip
    return slots


@triton.jit
def cutout_holes(knob, seed, offset, index, CODE: tl.constexpr, STREAM: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    HOLES: tl.constexpr = count_of(CODE)
    length = tl.load(knob + KNOB_A).to(tl.int32)
    slots = ()
    for hole in tl.static_range(HOLES):
        _, _, word_y, word_x = words_at(seed, offset, index, index * 0 + (STREAM + STREAM_STEP * TRY_STEP * hole))
        y0, y1 = hole_side(length, word_y, H)
        x0, x1 = hole_side(length, word_x, W)
        slots = slots + (y0, x0, y1, x1)
    return slots


@triton.jit
def dropped_region(
    knob, seed, offset, index, CODE: tl.constexpr, REGION: tl.constexpr, HOLES: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """SIZE slots of a method that drops a region, for index: int32 [N]."""
    METHOD: tl.constexpr = method_of(CODE)
    if METHOD == METHOD_CUTOUT:
        slots = cutout_holes(knob, seed, offset, index, CODE, HOLES, H, W)
        return padded(slots, index, 4 * count_of(CODE), SIZE)
    word_0, word_1, word_2, word_3 = words(seed, offset, index, REGION)
    if METHOD == METHOD_GRIDMASK:
        low, high = tl.load(knob + KNOB_A).to(tl.int32), tl.load(knob + KNOB_B).to(tl.int32)
        d = tl.maximum(low + below(word_0, tl.maximum(high - low, 1)), 1)
        cosine, sine = turn(below(word_3, tl.maximum(tl.load(knob + KNOB_D).to(tl.int32), 1)))
        length = stripe_length(d, tl.load(knob + KNOB_C), tl.load(knob + KNOB_F))
        inverted = tl.load(knob + KNOB_E).to(tl.int32) + index * 0
        slots = (d, length, below(word_1, d), below(word_2, d), fixed(cosine), fixed(sine), inverted)
        return padded(slots, index, 7, SIZE)
    if METHOD == METHOD_HIDE:
        sizes = tl.maximum(tl.load(knob + KNOB_B).to(tl.int32), 1)
        size = tl.load(knob + KNOB_C + below(word_1, sizes)).to(tl.int32)
        share = tl.where(size > 0, (tl.load(knob + KNOB_A) * 16777216.0).to(tl.int32), 0)
        size = tl.where(size > 0, size, WIDE_CELL)
        return padded((size, size, word_0.to(tl.int32, bitcast=True), share), index, 4, SIZE)
    low, high = tl.load(knob + KNOB_E).to(tl.int32), tl.load(knob + KNOB_F).to(tl.int32)
    count = low + below(word_0, tl.maximum(high - low + 1, 1))
    slots = erased_holes(knob, seed, offset, index, count, CODE, HOLES, H, W)
    return padded(slots, index, 4 * count_of(CODE), SIZE)


@triton.jit
def minmax_edges(word_side, word, low, high, SIDE: tl.constexpr):
    """One axis of a box whose side is uniform between two shares of the image's; origin anywhere it fits."""
    first, last = (low * SIDE).to(tl.int32), (high * SIDE).to(tl.int32)
    cut = first + below(word_side, tl.maximum(last - first, 1))
    start = below(word, SIDE - cut + 1)
    return start, start + cut


@triton.jit
def mixed_region(
    knob, box_ptr, i, mask, lam, word_u, word_v, word_y, word_x, seed, offset, index, CODE: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, SIZE: tl.constexpr, GIVEN_LAM: tl.constexpr, WANT_LAM: tl.constexpr,
):  # fmt: skip
    """(SIZE slots of a method that mixes, lam as the region leaves it), for the samples i: int32 [N]."""
    METHOD: tl.constexpr = method_of(CODE)
    if METHOD == METHOD_CUTMIX or METHOD == METHOD_RESIZEMIX:
        if box_ptr is not None:
            y0 = tl.load(box_ptr + 4 * i, mask=mask, other=0)
            x0 = tl.load(box_ptr + 4 * i + 1, mask=mask, other=0)
            y1 = tl.load(box_ptr + 4 * i + 2, mask=mask, other=0)
            x1 = tl.load(box_ptr + 4 * i + 3, mask=mask, other=0)
            y0, x0 = tl.minimum(tl.maximum(y0, 0), H), tl.minimum(tl.maximum(x0, 0), W)
            y1, x1 = tl.maximum(tl.minimum(y1, H), y0), tl.maximum(tl.minimum(x1, W), x0)
        elif METHOD == METHOD_CUTMIX and has_flag(CODE, FLAG_MINMAX):
            low, high = tl.load(knob + KNOB_B), tl.load(knob + KNOB_C)
            y0, y1 = minmax_edges(word_u, word_y, low, high, H)
            x0, x1 = minmax_edges(word_v, word_x, low, high, W)
        else:
            if METHOD == METHOD_RESIZEMIX and not GIVEN_LAM:
                ratio = between(word_u, tl.load(knob + KNOB_A), tl.load(knob + KNOB_B))
            else:
                ratio = tl.sqrt_rn(1.0 - lam)
            y0, y1 = cut_side(ratio, word_y, H)
            x0, x1 = cut_side(ratio, word_x, W)
        if METHOD == METHOD_RESIZEMIX or has_flag(CODE, FLAG_CORRECT):
            lam = kept_fraction(y0, x0, y1, x1, H, W)
        return padded((y0, x0, y1, x1), i, 4, SIZE), lam
    if METHOD == METHOD_GRIDMIX:
        CELLS: tl.constexpr = count_of(CODE)
        HIGH: tl.constexpr = (H + CELLS - 1) // CELLS
        WIDE: tl.constexpr = (W + CELLS - 1) // CELLS
        ACROSS: tl.constexpr = (W + WIDE - 1) // WIDE
        COUNT: tl.constexpr = ACROSS * ((H + HIGH - 1) // HIGH)
        word_key, _, _, _ = words(seed, offset, index, STREAM_REGION)
        key = word_key.to(tl.int32, bitcast=True)
        share = ((1.0 - lam) * 16777216.0).to(tl.int32)
        if WANT_LAM:
            cell = tl.arange(0, triton.next_power_of_2(COUNT))[None, :]
            area = tl.minimum(H - cell // ACROSS * HIGH, HIGH) * tl.minimum(W - cell % ACROSS * WIDE, WIDE)
            taken = cell_taken(cell, key[:, None], share[:, None]) & (cell < COUNT)
            kept = H * W - tl.sum(tl.where(taken, area, 0), 1)
            lam = tl.div_rn(kept.to(tl.float32), H * W * 1.0)
        return padded((i * 0 + HIGH, i * 0 + WIDE, key, share), i, 4, SIZE), lam
    if METHOD == METHOD_SMOOTHMIX:
        word_row, word_column, word_sigma, _ = words(seed, offset, index, STREAM_REGION)
        row, column = below(word_row, H), below(word_column, W)
        sigma = between(word_sigma, tl.load(knob + KNOB_A), tl.load(knob + KNOB_B))
        tall, wide = bell_width(sigma, H), bell_width(sigma, W)
        if WANT_LAM:
            y, x = tl.arange(0, triton.next_power_of_2(H))[None, :], tl.arange(0, triton.next_power_of_2(W))[None, :]
            down = tl.where(y < H, bell((y - row[:, None]).to(tl.float32), tall[:, None]), 0.0)
            across = tl.where(x < W, bell((x - column[:, None]).to(tl.float32), wide[:, None]), 0.0)
            lam = 1.0 - bell_share(down, H) * bell_share(across, W)
        return padded((row, column, as_bits(tall), as_bits(wide)), i, 4, SIZE), lam
    if METHOD == METHOD_FMIX:
        kept = tl.minimum(tl.floor(lam * (H * W * 1.0) + unit(word_x)).to(tl.int32), H * W)
        return padded((kept,), i, 1, SIZE), tl.div_rn(kept.to(tl.float32), H * W * 1.0)
    return padded((), i, 0, SIZE), lam


@triton.jit
def read_region(row, mask, START: tl.constexpr, SIZE: tl.constexpr):
    """(slots, key, code) of a plan, from column START on."""
    slots = ()
    for s in tl.static_range(SIZE):
        slots = slots + (tl.load(row + (START + s), mask=mask, other=0),)
    return (
        slots,
        tl.load(row + (START + SIZE), mask=mask, other=0),
        tl.load(row + (START + SIZE + 1), mask=mask, other=0),
    )


@triton.jit
def write_region(row, mask, slots, key, code, START: tl.constexpr, SIZE: tl.constexpr):
    for s in tl.static_range(SIZE):
        tl.store(row + (START + s), slots[s], mask=mask)
    tl.store(row + (START + SIZE), key, mask=mask)
    tl.store(row + (START + SIZE + 1), code, mask=mask)


@triton.jit
def drawn_choice(
    i, mate, mask, index, lam, word_u, word_v, word_y, word_x, knob, box_ptr, seed, offset, CODE: tl.constexpr,
    ROW: tl.constexpr, H: tl.constexpr, W: tl.constexpr, SLOTS: tl.constexpr, GIVEN_LAM: tl.constexpr,
    WANT_LAM: tl.constexpr,
):  # fmt: skip
    """(method, code, lam, slots) of one choice, for the samples i: int32 [N]. lam: as drawn or given."""
    METHOD: tl.constexpr = method_of(CODE)
    if METHOD >= METHOD_CUTOUT and METHOD <= METHOD_HIDE:
        applied = i >= 0
        lam = (i * 0).to(tl.float32) + 1.0
        slots = dropped_region(knob, seed, offset, index, CODE, STREAM_REGION, STREAM_HOLES, H, W, SLOTS)
    else:
        applied = mate != i  # a sample left alone is not mixed
        slots, lam = mixed_region(
            knob, box_ptr, i, mask, lam, word_u, word_v, word_y, word_x, seed, offset, index, CODE, H, W, SLOTS,
            GIVEN_LAM, WANT_LAM,
        )  # fmt: skip
    slots = chosen(applied, slots, padded((), i, 0, SLOTS), SLOTS)
    method = tl.where(applied, METHOD, METHOD_NONE)
    return method, tl.where(applied, row_code(CODE, ROW), 0), tl.where(applied, lam, 1.0), slots


@triton.jit
def family_plan(
    i, mate, mask, plan_ptr, lam_ptr, box_ptr, knobs_ptr, seed, offset, sample_offset, CHOICES: tl.constexpr,
    N: tl.constexpr, ERASE: tl.constexpr, MODE: tl.constexpr, H: tl.constexpr, W: tl.constexpr, SLOTS: tl.constexpr,
    ERASE_SLOTS: tl.constexpr, COLUMNS: tl.constexpr, REPLAY: tl.constexpr, WANT_LAM: tl.constexpr,
):  # fmt: skip
    """(method, lam, region, erased) of the samples i: int32 [N], read from the plan or drawn.

    A region is (slots, key, code). Without WANT_LAM, lam is right for mixup only. What no sample has chosen is left
    out by a branch.
    """
    if REPLAY:
        row = plan_ptr + i * COLUMNS
        method = tl.load(row, mask=mask, other=0)
        lam = from_bits(tl.load(row + PLAN_LAM, mask=mask, other=0))
        region = read_region(row, mask, PLAN_BOX, SLOTS)
        if ERASE != 0:
            erased = read_region(row, mask, PLAN_BOX + SLOTS + 2, ERASE_SLOTS)
        else:
            erased = ((), i * 0, i * 0)
        return method, lam, region, erased

    if MODE == MODE_BATCH:
        index = i * 0
    elif MODE == MODE_PAIR:
        index = sample_offset + tl.minimum(i, mate)
    else:
        index = sample_offset + i
    apply, noise, word_u, word_v = words(seed, offset, index, STREAM_SAMPLE)
    word_y, word_x, _, _ = words(seed, offset, index, STREAM_BOX)
    choice = i * 0 + N
    for back in tl.static_range(N):  # the first edge above the word is written last
        choice = tl.where(unit(apply) < tl.load(knobs_ptr + (N - 1 - back) * KNOBS), N - 1 - back, choice)

    method, code, lam = i * 0, i * 0, (i * 0).to(tl.float32) + 1.0
    slots = padded((), i, 0, SLOTS)
    drawn_lam = lam
    if lam_ptr is not None:
        drawn_lam = tl.minimum(tl.maximum(tl.load(lam_ptr + i, mask=mask, other=1.0), 0.0), 1.0)
    elif any_mixes(CHOICES):  # the alpha of whichever choice it is
        alpha = tl.load(knobs_ptr + tl.minimum(choice, N - 1) * KNOBS + KNOB_A)
        drawn_lam = symmetric_beta(word_u, word_v, alpha)
    for k in tl.static_range(N):
        here = choice == k
        if some(here):
            this_method, this_code, this_lam, this_slots = drawn_choice(
                i, mate, mask, index, drawn_lam, word_u, word_v, word_y, word_x, knobs_ptr + k * KNOBS, box_ptr, seed,
                offset, CHOICES[k], k, H, W, SLOTS, lam_ptr is not None, WANT_LAM,
            )  # fmt: skip
            method, code = tl.where(here, this_method, method), tl.where(here, this_code, code)
            lam, slots = tl.where(here, this_lam, lam), chosen(here, this_slots, slots, SLOTS)
    region = (slots, tl.where(method == METHOD_NONE, 0, noise.to(tl.int32, bitcast=True)), code)

    key, code = i * 0, i * 0
    slots = padded((), i, 0, ERASE_SLOTS)
    if ERASE != 0:
        own_index = sample_offset + i
        knob = knobs_ptr + N * KNOBS
        apply, noise, _, _ = words(seed, offset, own_index, STREAM_ERASE)
        here = unit(apply) < tl.load(knob)
        if some(here):
            new_slots = dropped_region(
                knob, seed, offset, own_index, ERASE, STREAM_ERASE_REGION, STREAM_ERASE_HOLES, H, W, ERASE_SLOTS
            )
            slots = chosen(here, new_slots, slots, ERASE_SLOTS)
        key, code = tl.where(here, noise.to(tl.int32, bitcast=True), 0), tl.where(here, row_code(ERASE, N), 0)
    return method, lam, region, (slots, key, code)


@triton.jit
def some(flags):
    """Whether any of flags [N] is true: a scalar."""
    return tl.max(flags.to(tl.int32), 0) != 0


@triton.jit
def region_at(
    region, N: tl.constexpr, SIZE: tl.constexpr, CODES: tl.constexpr, CHOICES: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """Region of sample N of a tensor of two (or one), as scalars, with the divisors that its CHOICES CODES need.

    Those, two numbers of `divisors_of`, are made here, since no compiler moves a division that a branch may leave out
    to where it is made once.
    """
    slots, key, code = each_at(region[0], N, SIZE), at(region[1], N), at(region[2], N)
    first, second = tl.cast(0, tl.uint32), tl.cast(0, tl.uint32)
    for k in tl.static_range(CHOICES):
        if divides(CODES[k]):  # noqa: SIM102
            if code & 0xFF == method_of(CODES[k]):
                first, second = divisors_of(slots, CODES[k], H, W, any_bilinear(CODES))
    return slots, key, code, (first, second)


@triton.jit
def divisors_of(slots, CODE: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BILINEAR: tl.constexpr):
    """Two uint32 that stand for the sizes of a region: `magic_of` its cells or its box, or bits of `shrinks` its box.

    For a grid, `magic_of` rounded up.
    """
    if method_of(CODE) == METHOD_RESIZEMIX:
        tall, wide = positive(slots[2] - slots[0]), positive(slots[3] - slots[1])
        if BILINEAR:
            return shrinks(tall, H).to(tl.uint32, bitcast=True), shrinks(wide, W).to(tl.uint32, bitcast=True)
        return magic_of(tall), magic_of(wide)
    if method_of(CODE) == METHOD_GRIDMASK:
        return magic_of(positive(slots[0])) + 1, tl.cast(0, tl.uint32)
    return magic_of(positive(slots[0])), magic_of(positive(slots[1]))
