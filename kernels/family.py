"""The kernel of the family: a method per sample out of a list, then what is erased, in one launch.

Programs are split as in `mix.py`, but a program's tiles lie whole rows apart where samples are tall enough
(`launch.tile_stride`): what a method makes of columns alone is then computed once a program. What a method is made of
lies in `regions.py`: a sampler that fills the slots of a region, and a mask over them; here they are chosen between,
and the region is filled with the partner's pixels, the shrunk partner's, or a constant with or without noise. Methods
that a call can't draw are not compiled in.

Traffic: as of `mix.py`; in place only the aligned runs that change are read and written. ResizeMix gathers its box
from the partner on top of that, FMix reads four bytes a pixel of ranks.
"""

import triton
import triton.language as tl

from fusedmix import recipe, rng

from .masks import inside_row, origin_of, place_in_row
from .mix import (
    MODE_BATCH,
    MODE_PAIR,
    NOT_SPECIALIZED,
    PLAN_BOX,
    PLAN_LAM,
    PLAN_MATE,
    PLAN_PARTNER,
    TARGET_NONE,
    at,
    channel_norm,
    finish,
    mix_target_rows,
    owned_samples,
    sample_mate,
    source,
)
from .philox import words, words_at
from .pixel import to_float
from .regions import (
    as_bits,
    bell,
    bell_share,
    bell_width,
    between,
    bilinear,
    cell_taken,
    erased_box,
    fixed,
    from_bits,
    hole_side,
    inside_cells,
    inside_grid,
    inside_wide_cells,
    magic_of,
    nearest,
    normal,
    normal_runs,
    positive,
    shrinks,
    soft_share,
    stripe_length,
    turn,
)
from .sampling import (
    EXACT,
    STREAM_BOX,
    STREAM_SAMPLE,
    below,
    cut_side,
    kept_fraction,
    symmetric_beta,
    unit,
)

MOST_HOISTED = tl.constexpr(2)  # longer lists compute what the drawn method makes of columns in its tiles only
METHOD_NONE = tl.constexpr(recipe.METHOD_NONE)
METHOD_MIXUP = tl.constexpr(recipe.METHOD_MIXUP)
METHOD_CUTMIX = tl.constexpr(recipe.METHOD_CUTMIX)
METHOD_CUTOUT = tl.constexpr(recipe.METHOD_CUTOUT)
METHOD_ERASING = tl.constexpr(recipe.METHOD_ERASING)
METHOD_GRIDMASK = tl.constexpr(recipe.METHOD_GRIDMASK)
METHOD_HIDE = tl.constexpr(recipe.METHOD_HIDE)
METHOD_GRIDMIX = tl.constexpr(recipe.METHOD_GRIDMIX)
METHOD_RESIZEMIX = tl.constexpr(recipe.METHOD_RESIZEMIX)
METHOD_SMOOTHMIX = tl.constexpr(recipe.METHOD_SMOOTHMIX)
METHOD_FMIX = tl.constexpr(recipe.METHOD_FMIX)
FLAG_CORRECT = tl.constexpr(recipe.FLAG_CORRECT)
FLAG_LINEAR = tl.constexpr(recipe.FLAG_LINEAR)
FLAG_MINMAX = tl.constexpr(recipe.FLAG_MINMAX)
FLAG_WIDE = tl.constexpr(recipe.FLAG_WIDE)
WIDE_CELL = tl.constexpr(recipe.WIDE_CELL)
NOISE_SHIFT = tl.constexpr(recipe.NOISE_SHIFT)
NOISE_NONE = tl.constexpr(recipe.NOISE_NONE)
NOISE_PIXEL = tl.constexpr(recipe.NOISE_PIXEL)
ROW_SHIFT = tl.constexpr(recipe.ROW_SHIFT)
KNOBS = tl.constexpr(recipe.KNOBS)
KNOB_A = tl.constexpr(recipe.KNOB_A)
KNOB_B = tl.constexpr(recipe.KNOB_B)
KNOB_C = tl.constexpr(recipe.KNOB_C)
KNOB_D = tl.constexpr(recipe.KNOB_D)
KNOB_E = tl.constexpr(recipe.KNOB_E)
KNOB_F = tl.constexpr(recipe.KNOB_F)
method_of = triton.constexpr_function(recipe.method_of)
count_of = triton.constexpr_function(recipe.count_of)
has_flag = triton.constexpr_function(recipe.has_flag)
row_code = triton.constexpr_function(recipe.row_code)
divides = triton.constexpr_function(recipe.divides)
any_mixes = triton.constexpr_function(recipe.any_mixes)
any_bilinear = triton.constexpr_function(recipe.any_bilinear)
STREAM_REGION = tl.constexpr(rng.STREAM_REGION)
STREAM_HOLES = tl.constexpr(rng.STREAM_HOLES)
STREAM_ERASE = tl.constexpr(rng.STREAM_ERASE)
STREAM_ERASE_REGION = tl.constexpr(rng.STREAM_ERASE_REGION)
STREAM_ERASE_HOLES = tl.constexpr(rng.STREAM_ERASE_HOLES)
STREAM_STEP = tl.constexpr(rng.STREAM_STEP)
TRY_STEP = tl.constexpr(rng.TRY_STEP)
TRIES = tl.constexpr(rng.TRIES)


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


@triton.jit
def drops(method):
    return (method >= METHOD_CUTOUT) & (method <= METHOD_HIDE)


@triton.jit
def taken_by_one(
    slots, magics, method, element, along, y, x, ranks, CODE: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr, CENTRE: tl.constexpr,
):  # fmt: skip
    """Where the region lies, if the choice CODE has made it."""
    METHOD: tl.constexpr = method_of(CODE)
    everywhere = method + (x + y) * 0  # the interpreter stumbles over a scalar bool in a mask
    if METHOD == METHOD_CUTMIX or METHOD == METHOD_RESIZEMIX or METHOD == METHOD_CUTOUT or METHOD == METHOD_ERASING:
        taken = everywhere < 0
        for hole in tl.static_range(count_of(CODE)):
            y1 = tl.where(method == METHOD, slots[4 * hole + 2], 0)
            taken |= inside_row(y, element, along, slots[4 * hole], slots[4 * hole + 1], y1, slots[4 * hole + 3], STEP)
        return taken
    if METHOD == METHOD_GRIDMASK:
        return inside_grid(slots, magics[0], y, x, H, W, CENTRE) & (everywhere == METHOD)
    if METHOD == METHOD_HIDE or METHOD == METHOD_GRIDMIX:
        WIDE: tl.constexpr = has_flag(CODE, FLAG_WIDE) or (METHOD == METHOD_GRIDMIX and W >= VEC * count_of(CODE))
        if WIDE and ROW % VEC == 0:
            return inside_wide_cells(slots, magics, element, along, y, method == METHOD, W, STEP, VEC)
        return inside_cells(slots, magics, y, x, W) & (everywhere == METHOD)
    if METHOD == METHOD_FMIX:
        return (ranks >= slots[0]) & (everywhere == METHOD)
    return everywhere < 0


@triton.jit
def taken_by(
    region, element, along, y, x, ranks, CODES: tl.constexpr, N: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr, CENTRE: tl.constexpr,
):  # fmt: skip
    """True where a region replaces the image. CODES: the N choices that may have made it."""
    slots, _, code, magics = region
    method = code & 0xFF
    taken = (x + y) * 0 < 0  # nowhere
    for k in tl.static_range(N):
        if method == method_of(CODES[k]):
            taken |= taken_by_one(
                slots, magics, method, element, along, y, x, ranks, CODES[k], H, W, ROW, STEP, VEC, CENTRE
            )
    return taken


@triton.jit
def touches(slots, place, COUNT: tl.constexpr, H: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Whether COUNT boxes have a row in the tile of BLOCK elements from `place` of a plane on."""
    end = place + BLOCK
    touched = place < 0
    for box in tl.static_range(COUNT):
        y0, y1 = slots[4 * box], slots[4 * box + 2]
        first = tl.where(y0 < y1, y0 * ROW, H * ROW)  # of the box's rows; none: the plane's end
        touched |= ((place < y1 * ROW) & (end > first)) | (end > first + H * ROW)
    return touched


@triton.jit
def fill_of(
    region, fill_ptr, first, y, x, channel, C: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr,
    NOISY: tl.constexpr, RUNS: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """What a dropped region is filled with.

    NOISY: the kinds of noise there may be, joined by or. RUNS: elements lie in runs of VEC, a multiple of 4, of one
    channel, numbered in the order of [C, H, W]; first: int32 [R, 1], the number of a run's first.
    """
    _, key, code, _ = region
    row = fill_ptr + (code >> ROW_SHIFT) * (2 * C)
    value = tl.load(row + channel)
    if NOISY:
        kind = code >> NOISE_SHIFT & 3
        value = value + (x * 0).to(tl.float32)
        if kind != NOISE_NONE:
            sigma = tl.load(row + C + channel)
            if RUNS:
                if NOISY == NOISE_PIXEL:
                    value += sigma * normal_runs(key, first, R, VEC)
                elif kind == NOISE_PIXEL:
                    value += sigma * normal_runs(key, first, R, VEC)
                else:
                    value += sigma * normal(key, tl.reshape(first, [R]) // PIXELS)[:, None]
            else:
                number = tl.where(kind == NOISE_PIXEL, channel * PIXELS + y * W + x, channel + x * 0)
                value += sigma * normal(key, number)
    return value


@triton.jit
def shrunk_partner(
    x_other, slots, magics, y, x, channel, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr,
    IN_LAST: tl.constexpr, BILINEAR: tl.constexpr,
):  # fmt: skip
    """The whole partner shrunk into the box of the first four slots; its edge around it, which spares masks."""
    down, across = y - slots[0], x - slots[1]
    tall, wide = slots[2] - slots[0], slots[3] - slots[1]
    if IN_LAST:
        base, step = channel, C
    else:
        base, step = tl.minimum(channel, C - 1) * PIXELS, 1
    if BILINEAR:
        top, low = bilinear(down, from_bits(magics[0]), H)
        left, far = bilinear(across, from_bits(magics[1]), W)
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
    pixel = nearest(down, tall, magics[0], H) * W + nearest(across, wide, magics[1], W)
    return to_float(tl.load(x_other + base + pixel * step))


@triton.jit
def is_near(
    slots, method, place, CODE: tl.constexpr, H: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Whether the choice CODE has made a region, and that may lie in the tile of BLOCK elements from `place` on."""
    METHOD: tl.constexpr = method_of(CODE)
    near = method == METHOD
    if METHOD == METHOD_CUTMIX or METHOD == METHOD_RESIZEMIX or METHOD == METHOD_CUTOUT or METHOD == METHOD_ERASING:
        near = near & touches(slots, place, count_of(CODE), H, ROW, BLOCK)
    if METHOD == METHOD_HIDE:
        near = near & (slots[3] > 0)
    return near


@triton.jit
def replace_region(
    values, other, x_other, region, place, first, element, along, y, x, ranks, channels, fill_ptr,
    CODE: tl.constexpr, BILINEAR: tl.constexpr, NOISY: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    PIXELS: tl.constexpr, CENTRE: tl.constexpr, IN_LAST: tl.constexpr, RUNS: tl.constexpr, ROW: tl.constexpr,
    STEP: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """The values with the region that the choice CODE has made filled, if it has and that lies in the tile."""
    METHOD: tl.constexpr = method_of(CODE)
    slots, _, code, magics = region
    method = code & 0xFF
    if METHOD != METHOD_NONE and METHOD != METHOD_MIXUP and METHOD != METHOD_SMOOTHMIX:  # noqa: SIM102
        if is_near(slots, method, place, CODE, H, ROW, R * VEC):
            taken = taken_by_one(slots, magics, method, element, along, y, x, ranks, CODE, H, W, ROW, STEP, VEC, CENTRE)
            result = ()
            for c in tl.static_range(COUNT):
                filling = other[c]
                if METHOD == METHOD_RESIZEMIX:
                    filling = shrunk_partner(
                        x_other, slots, magics, y, x, channels[c], C, H, W, PIXELS, IN_LAST, BILINEAR
                    )
                elif METHOD >= METHOD_CUTOUT and METHOD <= METHOD_HIDE:
                    filling = fill_of(
                        region, fill_ptr, first + c * PIXELS, y, x, channels[c], C, W, PIXELS, NOISY, RUNS, R, VEC
                    )
                result = result + (tl.where(taken, filling, values[c]),)
            values = result
    return values


@triton.jit
def moved(start, weight, to, away, COUNT: tl.constexpr):
    """start + weight (to - away), tile by tile."""
    result = ()
    for c in tl.static_range(COUNT):
        result = result + (start[c] + weight * (to[c] - away[c]),)
    return result


@triton.jit
def family_values(
    own, other, x_other, method, lam, region, erased, place, first, element, along, y, x, ranks, channels, fill_ptr,
    CHOICES: tl.constexpr, N: tl.constexpr, ERASE: tl.constexpr, BLENDS: tl.constexpr, SOFT: tl.constexpr,
    BILINEAR: tl.constexpr, NOISY: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    PIXELS: tl.constexpr, CENTRE: tl.constexpr, IN_LAST: tl.constexpr, RUNS: tl.constexpr, ROW: tl.constexpr,
    STEP: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """The mixed values of one sample, for COUNT tiles of the same pixels: blended, a region replaced, one erased.

    own, other, channels: tuples with an entry a tile. Which method a sample has and whether a region lies in a tile are
    scalars: a branch each, so that a tile costs what is done to it, however long the list.

    place: where the tile begins in its plane. first, RUNS, R, VEC: see `fill_of`.
    """
    values = own
    if BLENDS:  # noqa: SIM102
        if (method == METHOD_MIXUP) & (lam != 1.0):  # from the side with the larger weight, as `lerp`
            if lam < 0.5:
                values = moved(other, lam, own, other, COUNT)
            else:
                values = moved(own, lam - 1.0, own, other, COUNT)
    if SOFT:  # noqa: SIM102
        if method == METHOD_SMOOTHMIX:
            share = soft_share(region[0], y, element, along, STEP, ROW, R, VEC)
            values = moved(own, share, other, own, COUNT)
    for k in tl.static_range(N):
        values = replace_region(
            values, other, x_other, region, place, first, element, along, y, x, ranks, channels, fill_ptr,
            CHOICES[k], BILINEAR, NOISY, C, H, W, PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, COUNT,
        )  # fmt: skip
    if ERASE != 0:
        values = replace_region(
            values, other, x_other, erased, place, first, element, along, y, x, 0, channels, fill_ptr, ERASE,
            BILINEAR, NOISY, C, H, W, PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, COUNT,
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
def touched_by(
    region, erased, method, lam, owned, start, element, along, y, x, ranks, CHOICES: tl.constexpr, N: tl.constexpr,
    ERASED: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr,
    CENTRE: tl.constexpr,
):  # fmt: skip
    """Whether a run of elements holds any that change: [R, 1]."""
    taken = taken_by(region, element, along, y, x, ranks, CHOICES, N, H, W, ROW, STEP, VEC, CENTRE)
    touched = some_of(taken) | (start < blended(method, lam, owned))
    if ERASED[0] != 0:
        dropped = taken_by(erased, element, along, y, x, 0, ERASED, 1, H, W, ROW, STEP, VEC, CENTRE)
        touched = touched | some_of(dropped)
    return touched


@triton.jit
def some_of(taken):
    """Whether a run of elements holds any: [R, VEC] to [R, 1], so that masked accesses stay wide."""
    return tl.max(taken.to(tl.int32), 1)[:, None] != 0


@triton.jit
def write_rows(
    pid, target_ptr, target_out_ptr, plan_ptr, lam_ptr, box_ptr, partner_ptr, knobs_ptr, seed, offset, sample_offset, B,
    on, off, keep, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, KIND: tl.constexpr, MODE: tl.constexpr,
    CHOICES: tl.constexpr, N: tl.constexpr, ERASE: tl.constexpr, SLOTS: tl.constexpr, ERASE_SLOTS: tl.constexpr,
    COLUMNS: tl.constexpr, REPLAY: tl.constexpr, TARGET: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Writes ROWS rows of the plan, COLUMNS apart, and a [ROWS, BLOCK_K] block of the targets."""
    K_BLOCKS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    r = pid // K_BLOCKS * ROWS + tl.arange(0, ROWS)
    in_batch = r < B
    mate = sample_mate(r, in_batch, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND, REPLAY, COLUMNS)
    method, lam, region, erased = family_plan(
        r, mate, in_batch, plan_ptr, lam_ptr, box_ptr, knobs_ptr, seed, offset, sample_offset, CHOICES, N, ERASE, MODE,
        H, W, SLOTS, ERASE_SLOTS, COLUMNS, REPLAY, True,
    )  # fmt: skip
    partner = tl.where((method == METHOD_NONE) | drops(method), r, mate)
    if plan_ptr is not None and not REPLAY:
        row = plan_ptr + r * COLUMNS
        first = r < tl.where(pid % K_BLOCKS == 0, B, 0)
        tl.store(row, method, mask=first)
        tl.store(row + PLAN_LAM, as_bits(lam), mask=first)
        tl.store(row + PLAN_PARTNER, partner, mask=first)
        tl.store(row + PLAN_MATE, mate, mask=first)
        slots, key, code = region
        write_region(row, first, slots, key, code, PLAN_BOX, SLOTS)
        if ERASE != 0:
            slots, key, code = erased
            write_region(row, first, slots, key, code, PLAN_BOX + SLOTS + 2, ERASE_SLOTS)
    if TARGET != TARGET_NONE:
        mix_target_rows(pid, r, partner, lam, in_batch, target_ptr, target_out_ptr, on, off, keep, K, TARGET, BLOCK_K)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def family_kernel(
    x_ptr, out_ptr, target_ptr, target_out_ptr, plan_ptr, lam_ptr, box_ptr, partner_ptr, norm_ptr, state_ptr,
    knobs_ptr, fill_ptr, field_ptr, has_state: tl.int32, seed: tl.int64, offset: tl.int64, sample_offset: tl.int32,
    B: tl.int32, row_programs: tl.int32, sample_programs: tl.int32, x_units: tl.int32, out_units: tl.int32,
    n_units: tl.int32, on, off, keep,
    ALIGN: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr, K: tl.constexpr,
    KIND: tl.constexpr, MODE: tl.constexpr, CHOICES: tl.constexpr, N: tl.constexpr, ERASE: tl.constexpr,
    ERASED: tl.constexpr, SLOTS: tl.constexpr, ERASE_SLOTS: tl.constexpr, COLUMNS: tl.constexpr,
    BLENDS: tl.constexpr, SOFT: tl.constexpr, BILINEAR: tl.constexpr, DROPS: tl.constexpr,
    NOISY: tl.constexpr, MIXES: tl.constexpr, CENTRE: tl.constexpr, REPLAY: tl.constexpr, PAIRED: tl.constexpr,
    SKIP: tl.constexpr, TRANSPOSE: tl.constexpr, OUT_LAST: tl.constexpr, TARGET: tl.constexpr,
    BLOCK: tl.constexpr, TILES: tl.constexpr, STRIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    seed = tl.load(state_ptr, mask=has_state != 0, other=seed.to(tl.int64))
    offset = tl.load(state_ptr + 1, mask=has_state != 0, other=offset.to(tl.int64))
    NORM: tl.constexpr = norm_ptr is not None
    DTYPE: tl.constexpr = out_ptr.dtype.element_ty
    IN_LAST: tl.constexpr = OUT_LAST != (TRANSPOSE != 0)
    FILLS: tl.constexpr = DROPS or ERASE != 0
    ROW: tl.constexpr = W * C if OUT_LAST else W
    STEP: tl.constexpr = C if OUT_LAST else 1
    R: tl.constexpr = BLOCK // VEC
    RUNS: tl.constexpr = VEC % 4 == 0 and PIXELS % VEC == 0 and not OUT_LAST
    PLANE: tl.constexpr = H * ROW
    BY_SAMPLE: tl.constexpr = not PAIRED or REPLAY or KIND == EXACT  # else by pair: both samples are the program's

    if pid < row_programs:
        write_rows(
            pid, target_ptr, target_out_ptr, plan_ptr, lam_ptr, box_ptr, partner_ptr, knobs_ptr, seed, offset,
            sample_offset, B, on, off, keep, H, W, K, KIND, MODE, CHOICES, N, ERASE, SLOTS, ERASE_SLOTS, COLUMNS,
            REPLAY, TARGET, ROWS, BLOCK_K,
        )  # fmt: skip
    else:
        # This program walks TILES tiles of a sample: PAIRED reads and writes both samples of a pair, else one is
        # written from itself and its partner.
        q = (pid - row_programs) // sample_programs
        tile = (pid - row_programs) % sample_programs
        begin = (tile // STRIDE * (STRIDE * TILES) + tile % STRIDE) * BLOCK
        place = begin % PLANE
        start = begin + tl.arange(0, R)[:, None] * VEC
        lane = tl.arange(0, VEC)[None, :]
        i, j = owned_samples(q, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND, REPLAY, COLUMNS, BY_SAMPLE)
        x_i = x_ptr + i.to(tl.int64) * x_units * ALIGN
        x_j = x_ptr + j.to(tl.int64) * x_units * ALIGN
        out_i = out_ptr + i.to(tl.int64) * out_units * ALIGN
        out_j = out_ptr + j.to(tl.int64) * out_units * ALIGN
        field_i = field_ptr + i.to(tl.int64) * PIXELS if field_ptr is not None else None
        field_j = field_ptr + j.to(tl.int64) * PIXELS if field_ptr is not None else None
        owned = tl.where((j >= i) | (not PAIRED), n_units, 0) * ALIGN if BY_SAMPLE else n_units * ALIGN
        owned_j = tl.where(j != i, owned, 0)

        which = tl.arange(0, 2)  # both samples at once, one per element of a tensor of two
        methods, lams, regions, erasures = family_plan(
            tl.where(which == 0, i, j), tl.where(which == 0, j, i), which < 2, plan_ptr, lam_ptr, box_ptr, knobs_ptr,
            seed, offset, sample_offset, CHOICES, N, ERASE, MODE, H, W, SLOTS, ERASE_SLOTS, COLUMNS, REPLAY, False,
        )  # fmt: skip
        method_i, lam_i, region_i = at(methods, 0), at(lams, 0), region_at(regions, 0, SLOTS, CHOICES, N, H, W)
        erased_i = region_at(erasures, 0, ERASE_SLOTS, ERASED, 1, H, W)
        if PAIRED:
            method_j, lam_j, region_j = at(methods, 1), at(lams, 1), region_at(regions, 1, SLOTS, CHOICES, N, H, W)
            erased_j = region_at(erasures, 1, ERASE_SLOTS, ERASED, 1, H, W)

        for step in range(TILES):
            offs, mask = start + lane, start < owned
            mean, inverse_std = channel_norm(norm_ptr, start, lane, mask, C, PIXELS, OUT_LAST, VEC)
            y = (start // ROW) % H if ROW % VEC == 0 else (offs // ROW) % H
            origin = start
            if N <= MOST_HOISTED:
                origin = origin_of(start, step, STRIDE * BLOCK, ROW)
            element, along = place_in_row(origin, lane, ROW, VEC)
            x = (element + along) // STEP
            channel = offs % C if OUT_LAST else (start if PIXELS % VEC == 0 else offs) // PIXELS
            src = source(offs, C, PIXELS, TRANSPOSE)
            ranks_i, ranks_j = 0, 0
            if field_ptr is not None:
                ranks_i = tl.load(field_i + y * W + x, mask=mask, other=0)
            store_i = mask
            if SKIP or (MIXES and not PAIRED):
                touched_i = touched_by(
                    region_i, erased_i, method_i, lam_i, owned, start, element, along, y, x, ranks_i, CHOICES, N,
                    ERASED, H, W, ROW, STEP, VEC, CENTRE,
                )  # fmt: skip
            if SKIP:  # in place: only the runs that change are read and written
                store_i = touched_i & mask
            if PAIRED:
                if field_ptr is not None:
                    ranks_j = tl.load(field_j + y * W + x, mask=mask, other=0)
                store_j = start < owned_j
                if SKIP:
                    touched_j = touched_by(
                        region_j, erased_j, method_j, lam_j, owned_j, start, element, along, y, x, ranks_j, CHOICES, N,
                        ERASED, H, W, ROW, STEP, VEC, CENTRE,
                    )  # fmt: skip
                    store_j = touched_j & store_j
                needed = store_i | store_j
                own = to_float(tl.load(x_i + src, mask=needed, other=0))
                other = to_float(tl.load(x_j + src, mask=needed, other=0))
                value_j = family_values(
                    (other,), (own,), x_i, method_j, lam_j, region_j, erased_j, place, start, element, along, y, x,
                    ranks_j, (channel,), fill_ptr, CHOICES, N, ERASE, BLENDS, SOFT, BILINEAR, NOISY, C, H, W,
                    PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, 1,
                )[0]  # fmt: skip
            else:
                own = to_float(tl.load(x_i + src, mask=store_i, other=0))
                other = own
                if MIXES:
                    needs = touched_i & (start < tl.where(drops(method_i), 0, owned))
                    other = to_float(tl.load(x_j + src, mask=needs, other=0))
            value_i = family_values(
                (own,), (other,), x_j, method_i, lam_i, region_i, erased_i, place, start, element, along, y, x, ranks_i,
                (channel,), fill_ptr, CHOICES, N, ERASE, BLENDS, SOFT, BILINEAR, NOISY, C, H, W, PIXELS,
                CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, 1,
            )[0]  # fmt: skip
            if PAIRED:
                value_j = clamp_bytes(value_j, DTYPE, FILLS)
                tl.store(out_j + offs, finish(value_j, mean, inverse_std, NORM, DTYPE, INTERPRETED), mask=store_j)
            value_i = clamp_bytes(value_i, DTYPE, FILLS)
            tl.store(out_i + offs, finish(value_i, mean, inverse_std, NORM, DTYPE, INTERPRETED), mask=store_i)
            place = (place + STRIDE * BLOCK) % PLANE
            start += STRIDE * BLOCK
