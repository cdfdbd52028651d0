"""The kernel of FusedAugment: images placed (cropped, flipped, turned), coloured, mixed, erased, normalised and cast.

The first `row_programs` programs write the rows of the targets and of the plan, as in `family.py`; the others walk
TILES tiles of BLOCK pixels of a sample pair, or of one sample, with all their channels. Each image is sampled once, by
its own map, for itself and for its partner. Where byte images are resized but not turned (WALKS), a tile is a row's or
a part of one, and the next is of the row below: it goes on from the two rows of the source that the last lay between,
and reads rows by words, two for the neighbours of two pixels (PAIRS). What a row must read and which boxes have it is
found for KNOWN_ROWS at a time. Where images turn, tiles are rectangles of TALL rows, most of which lie inside the
source and need no care for its edges.

Traffic: every byte of the result is written once; of the input, what the crops hold is read once from memory (pixels
of a tile lie close together, taps of neighbours meet in the cache).
"""

import triton
import triton.language as tl

from fusedmix import recipe, rng

from .choices import KNOBS, drops, each_at, family_plan, padded, region_at
from .family import write_rows
from .geometry import (
    central_box,
    colored,
    crop_box,
    inverse_affine,
    lighting,
    lit,
    source_map,
    whole_translation,
)
from .masks import origin_of, place_in_row
from .mix import METHOD_MIXUP, NOT_SPECIALIZED, at, owned_samples
from .philox import words, words_at
from .pixel import normalise, round_to
from .regions import as_bits, between, from_bits
from .sampling import EXACT, below, unit
from .taps import KNOWN_ROWS, columns_of, inner_tiles, places_of_row, rows_of, sampled, unweighed, walked
from .tiles import differences, family_values, mixed, near_rows, ranks_for, touched_by

CROP_WINDOW = tl.constexpr(recipe.CROP_WINDOW)
CROP_RESIZED = tl.constexpr(recipe.CROP_RESIZED)
PLACE_FLIP = tl.constexpr(recipe.PLACE_FLIP)
PLACE_FLIP_V = tl.constexpr(recipe.PLACE_FLIP_V)
PLACE_A = tl.constexpr(recipe.PLACE_A)
PLACE_B = tl.constexpr(recipe.PLACE_B)
PLACE_C = tl.constexpr(recipe.PLACE_C)
PLACE_D = tl.constexpr(recipe.PLACE_D)
AFFINE_P = tl.constexpr(recipe.AFFINE_P)
AFFINE_DEGREES = tl.constexpr(recipe.AFFINE_DEGREES)
AFFINE_TRANSLATE = tl.constexpr(recipe.AFFINE_TRANSLATE)
AFFINE_SCALE = tl.constexpr(recipe.AFFINE_SCALE)
AFFINE_SHEAR = tl.constexpr(recipe.AFFINE_SHEAR)
COLOR_P = tl.constexpr(recipe.COLOR_P)
COLOR_BRIGHTNESS = tl.constexpr(recipe.COLOR_BRIGHTNESS)
COLOR_CONTRAST = tl.constexpr(recipe.COLOR_CONTRAST)
COLOR_SATURATION = tl.constexpr(recipe.COLOR_SATURATION)
COLOR_GRAYSCALE = tl.constexpr(recipe.COLOR_GRAYSCALE)
PLACE_COLUMNS = tl.constexpr(recipe.PLACE_COLUMNS)
COLOR_COLUMNS = tl.constexpr(recipe.COLOR_COLUMNS)
FLAG_BITS = tl.constexpr(4)  # of `rows_of` and `near_rows`, for an image
STREAM_CROP = tl.constexpr(rng.STREAM_CROP)
STREAM_FLIP = tl.constexpr(rng.STREAM_FLIP)
STREAM_AFFINE = tl.constexpr(rng.STREAM_AFFINE)
STREAM_SHEAR = tl.constexpr(rng.STREAM_SHEAR)
STREAM_COLOR = tl.constexpr(rng.STREAM_COLOR)
STREAM_STEP = tl.constexpr(rng.STREAM_STEP)
TRIES = tl.constexpr(rng.TRIES)
TRY_STEP = tl.constexpr(rng.TRY_STEP)


@triton.jit
def uniform(word, knob, FIRST: tl.constexpr):
    """Uniform between a pair of knobs."""
    return between(word, tl.load(knob + FIRST), tl.load(knob + (FIRST + 1)))


@triton.jit
def picked(hit, edge):
    return tl.sum(tl.where(hit, edge, 0), 1)


@triton.jit
def draw_box(
    knob, seed, offset, index, CROP: tl.constexpr, BOX: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """(y0, x0, h, w) of what is cut out of each image; index: int32 [N], global."""
    if CROP == CROP_WINDOW:
        _, _, word_y, word_x = words(seed, offset, index, STREAM_CROP)
        padding = tl.load(knob + PLACE_A).to(tl.int32)
        y0 = below(word_y, tl.maximum(IN_H + 2 * padding - H + 1, 1)) - padding
        x0 = below(word_x, tl.maximum(IN_W + 2 * padding - W + 1, 1)) - padding
        return y0, x0, index * 0 + H, index * 0 + W
    low, high = tl.load(knob + PLACE_A), tl.load(knob + PLACE_B)
    ratio_low, ratio_high = tl.load(knob + PLACE_C), tl.load(knob + PLACE_D)
    if CROP == CROP_RESIZED:
        attempt = tl.arange(0, TRY_STEP)[None, :]
        stream = index[:, None] * 0 + (attempt * STREAM_STEP + STREAM_CROP)  # [N, TRY_STEP]
        word_area, word_aspect, word_y, word_x = words_at(seed, offset, index[:, None] + stream * 0, stream)
        fits, y0, x0, h, w = crop_box(
            word_area, word_aspect, word_y, word_x, low, high, ratio_low, ratio_high, IN_H, IN_W
        )
        fits = fits & (attempt < TRIES)
        first = tl.min(tl.where(fits, attempt, TRY_STEP), 1)
        hit = attempt == first[:, None]
        found = first < TRIES
        central_y0, central_x0, central_h, central_w = central_box(ratio_low, ratio_high, IN_H, IN_W)
        return (
            tl.where(found, picked(hit, y0), central_y0), tl.where(found, picked(hit, x0), central_x0),
            tl.where(found, picked(hit, h), central_h), tl.where(found, picked(hit, w), central_w),
        )  # fmt: skip
    zero = index * 0
    return zero + BOX[0], zero + BOX[1], zero + BOX[2], zero + BOX[3]


@triton.jit
def draw_placement(
    knobs, seed, offset, index, CROP: tl.constexpr, BOX: tl.constexpr, LIMITED: tl.constexpr, FLIPS: tl.constexpr,
    TURNS: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """(map, limits) of the samples index: int32 [N]. knobs: the rows of geometry, affine and colour."""
    affine = knobs + KNOBS
    y0, x0, h, w = draw_box(knobs, seed, offset, index, CROP, BOX, IN_H, IN_W, H, W)
    zero = (index * 0).to(tl.float32)
    flip = index < 0
    flip_v = flip
    linear, shift = (zero + 1.0, zero, zero, zero + 1.0), (zero, zero)
    if FLIPS or TURNS:
        word_h, word_v, word_turn, _ = words(seed, offset, index, STREAM_FLIP)
        flip, flip_v = unit(word_h) < tl.load(knobs + PLACE_FLIP), unit(word_v) < tl.load(knobs + PLACE_FLIP_V)
    if TURNS:
        turn = unit(word_turn) < tl.load(affine + AFFINE_P)
        word_angle, word_scale, word_x, word_y = words(seed, offset, index, STREAM_AFFINE)
        word_sx, word_sy, _, _ = words(seed, offset, index, STREAM_SHEAR)
        i00, i01, i10, i11 = inverse_affine(
            uniform(word_angle, affine, AFFINE_DEGREES), uniform(word_sx, affine, AFFINE_SHEAR),
            uniform(word_sy, affine, AFFINE_SHEAR + 2), uniform(word_scale, affine, AFFINE_SCALE),
        )  # fmt: skip
        linear = (
            tl.where(turn, i00, 1.0), tl.where(turn, i01, 0.0), tl.where(turn, i10, 0.0), tl.where(turn, i11, 1.0)
        )  # fmt: skip
        across = whole_translation(word_x, tl.load(affine + AFFINE_TRANSLATE), W)
        down = whole_translation(word_y, tl.load(affine + (AFFINE_TRANSLATE + 1)), H)
        shift = (tl.where(turn, across, 0.0), tl.where(turn, down, 0.0))
    limits = (y0, x0, y0 + h, x0 + w)
    if not LIMITED:
        none = index * 0
        limits = (none, none, none + IN_H, none + IN_W)
    return source_map(y0, x0, h, w, flip, flip_v, linear, shift, H, W), limits


@triton.jit
def draw_coloring(knob, gray_ptr, seed, offset, i, index, mask, MOST: tl.constexpr):
    """(brightness, contrast, saturation, pivot, grayscale) of the samples i: int32 [N]."""
    _, _, _, apply = words(seed, offset, index, STREAM_FLIP)
    word_b, word_c, word_s, word_gray = words(seed, offset, index, STREAM_COLOR)
    here = unit(apply) < tl.load(knob + COLOR_P)
    brightness = tl.where(here, uniform(word_b, knob, COLOR_BRIGHTNESS), 1.0)
    contrast = tl.where(here, uniform(word_c, knob, COLOR_CONTRAST), 1.0)
    saturation = tl.where(here, uniform(word_s, knob, COLOR_SATURATION), 1.0)
    pivot = brightness * 0.0 + 0.5
    if gray_ptr is not None:
        mean = tl.load(gray_ptr + i, mask=mask, other=0.0)
        pivot = tl.div_rn(tl.minimum(tl.maximum(mean * brightness, 0.0), MOST), brightness * 0.0 + MOST)
    grayscale = (unit(word_gray) < tl.load(knob + COLOR_GRAYSCALE)).to(tl.int32)
    return brightness, contrast, saturation, pivot, grayscale


@triton.jit
def augment_plan(
    i, mask, plan_ptr, gray_ptr, knobs, seed, offset, sample_offset, COLUMNS: tl.constexpr, START: tl.constexpr,
    REPLAY: tl.constexpr, CROP: tl.constexpr, BOX: tl.constexpr, LIMITED: tl.constexpr, FLIPS: tl.constexpr,
    TURNS: tl.constexpr, COLOR: tl.constexpr, MOST: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """(map, limits, coloring) of the samples i: int32 [N], read from the plan or drawn. START: its first column."""
    if REPLAY:
        row = plan_ptr + i * COLUMNS + START
        map = ()
        for c in tl.static_range(6):
            map = map + (from_bits(tl.load(row + c, mask=mask, other=0)),)
        limits = ()
        for c in tl.static_range(6, PLACE_COLUMNS):
            limits = limits + (tl.load(row + c, mask=mask, other=0),)
        coloring = ()
        if COLOR:
            for c in tl.static_range(PLACE_COLUMNS, PLACE_COLUMNS + COLOR_COLUMNS - 1):
                coloring = coloring + (from_bits(tl.load(row + c, mask=mask, other=0)),)
            coloring = coloring + (tl.load(row + (PLACE_COLUMNS + COLOR_COLUMNS - 1), mask=mask, other=0),)
        return map, limits, coloring
    index = sample_offset + i
    map, limits = draw_placement(knobs, seed, offset, index, CROP, BOX, LIMITED, FLIPS, TURNS, IN_H, IN_W, H, W)
    coloring = ()
    if COLOR:
        coloring = draw_coloring(knobs + 2 * KNOBS, gray_ptr, seed, offset, i, index, mask, MOST)
    return map, limits, coloring


@triton.jit
def write_augment_plan(row, mask, map, limits, coloring, COLOR: tl.constexpr):
    for c in tl.static_range(6):
        tl.store(row + c, as_bits(map[c]), mask=mask)
    for c in tl.static_range(4):
        tl.store(row + (6 + c), limits[c], mask=mask)
    if COLOR:
        for c in tl.static_range(COLOR_COLUMNS - 1):
            tl.store(row + (PLACE_COLUMNS + c), as_bits(coloring[c]), mask=mask)
        tl.store(row + (PLACE_COLUMNS + COLOR_COLUMNS - 1), coloring[COLOR_COLUMNS - 1], mask=mask)


@triton.jit
def picture(
    even, odd, x, map, limits, coloring, light, y, column, reads, known, way, inner, needed, fill_ptr, C: tl.constexpr,
    IN_H: tl.constexpr, IN_W: tl.constexpr, IN_LAST: tl.constexpr, BEYOND: tl.constexpr, BILINEAR: tl.constexpr,
    TURNS: tl.constexpr, COLOR: tl.constexpr, MOST: tl.constexpr, WALKS: tl.constexpr, PAIRS: tl.constexpr,
    JOINT: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """The pixels (y, column) of an image as it is placed and coloured: C float32 tensors, behind those of `walked`.

    light: of `lighting`; reads, known, way: where WALKS, see `walked`; inner: see `sampled`. JOINT: between two rows
    and brighter in one step, whose last places differ from those of two.
    """
    if WALKS:
        even, odd, value = walked(
            even, odd, reads, known, way, C, IN_H, IN_W, IN_LAST, PAIRS, light if JOINT else None, PTX
        )  # fmt: skip
    else:
        value = sampled(
            x, map, limits, y, column, inner, needed, fill_ptr, C, IN_H, IN_W, IN_LAST, BEYOND, BILINEAR, TURNS
        )  # fmt: skip
    if COLOR and not (WALKS and JOINT):
        value = lit(value, light, MOST, WALKS, PTX)
    if COLOR:
        value = colored(value, coloring[1], coloring[2], coloring[3], coloring[4], PTX)
    elif WALKS:
        weighed, value = value, ()
        for k in tl.static_range(C):
            value = value + (unweighed(weighed[k]),)
    return even, odd, value


@triton.jit
def flags_of(
    rows_i, rows_j, region_i, region_j, erased_i, erased_j, row, lot, CHOICES: tl.constexpr, N: tl.constexpr,
    ERASED: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """What `rows_of` and `near_rows` say of KNOWN_ROWS rows from `row` on; the second image's are FLAG_BITS higher.

    In one number, since it costs a sum to know it of a row.
    """
    rows = row + tl.arange(0, KNOWN_ROWS)
    flags = rows_i[0] | near_rows(region_i, erased_i, rows, lot, CHOICES, N, ERASED, H, W, BLOCK, PTX)
    if rows_j is not None:
        near = near_rows(region_j, erased_j, rows, lot, CHOICES, N, ERASED, H, W, BLOCK, PTX)
        flags |= (rows_j[0] | near) << FLAG_BITS
    return flags


@triton.jit
def store_channel(
    out, value, pixel, mask, norm, CHANNEL: tl.constexpr, C: tl.constexpr, PIXELS: tl.constexpr,
    OUT_LAST: tl.constexpr, DTYPE: tl.constexpr, NORM: tl.constexpr, PTX: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Normalises, rounds and writes one channel of a tile."""
    if NORM:
        value = normalise(value, norm[CHANNEL], norm[C + CHANNEL], PTX)
    if DTYPE == tl.uint8:
        value = tl.minimum(tl.maximum(value, 0.0), 255.0)
    value = round_to(value, DTYPE, INTERPRETED)
    here = out + (pixel * C if OUT_LAST else pixel)  # channels lie constants from there, which cost no address
    tl.store(here + CHANNEL * (1 if OUT_LAST else PIXELS), value, mask=mask)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def augment_kernel(
    x_ptr, out_ptr, target_ptr, target_out_ptr, plan_ptr, gray_ptr, partner_ptr, norm_ptr, state_ptr, knobs_ptr,
    fill_ptr, field_ptr, table_ptr, has_state: tl.int32, seed: tl.int64, offset: tl.int64, sample_offset: tl.int32,
    B: tl.int32, row_programs: tl.int32, sample_programs: tl.int32, x_units: tl.int32, out_units: tl.int32,
    n_units: tl.int32, on, off, keep,
    ALIGN: tl.constexpr, C: tl.constexpr, IN_H: tl.constexpr, IN_W: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    K: tl.constexpr, KIND: tl.constexpr, MODE: tl.constexpr, CHOICES: tl.constexpr, N: tl.constexpr,
    ERASE: tl.constexpr, ERASED: tl.constexpr, SLOTS: tl.constexpr, ERASE_SLOTS: tl.constexpr,
    FAMILY_COLUMNS: tl.constexpr, COLUMNS: tl.constexpr, BLENDS: tl.constexpr, SOFT: tl.constexpr, MIXES: tl.constexpr,
    CENTRE: tl.constexpr, CROP: tl.constexpr, BOX: tl.constexpr, BEYOND: tl.constexpr, LIMITED: tl.constexpr,
    BILINEAR: tl.constexpr, FLIPS: tl.constexpr, TURNS: tl.constexpr, COLOR: tl.constexpr, MOST: tl.constexpr,
    REPLAY: tl.constexpr, PAIRED: tl.constexpr, IN_LAST: tl.constexpr, OUT_LAST: tl.constexpr, WALKS: tl.constexpr,
    PAIRS: tl.constexpr, PTX: tl.constexpr, PREFETCHES: tl.constexpr, TARGET: tl.constexpr, BLOCK: tl.constexpr,
    TALL: tl.constexpr, TILES: tl.constexpr, STRIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    seed = tl.load(state_ptr, mask=has_state != 0, other=seed.to(tl.int64))
    offset = tl.load(state_ptr + 1, mask=has_state != 0, other=offset.to(tl.int64))
    NORM: tl.constexpr = norm_ptr is not None
    DTYPE: tl.constexpr = out_ptr.dtype.element_ty
    PIXELS: tl.constexpr = H * W
    R: tl.constexpr = BLOCK // VEC
    BY_SAMPLE: tl.constexpr = not PAIRED or REPLAY or KIND == EXACT
    NEXT_TILE: tl.constexpr = TALL * W if TALL else STRIDE * BLOCK
    WIDE: tl.constexpr = BLOCK // max(TALL, 1)  # a rectangle's columns
    RUNS: tl.constexpr = WIDE // VEC  # in a row of it
    # Of short lists every sample of bytes is blended, if with lam = 1: less than a branch and the moves around it.
    ALWAYS: tl.constexpr = BLENDS and WALKS and PAIRED and N <= 2
    # Steps joined, with other last places, which bytes would show where they lie halfway.
    JOINT: tl.constexpr = WALKS and DTYPE != tl.uint8
    AT_ONCE: tl.constexpr = ALWAYS and NORM and JOINT and not SOFT  # blended and normalised
    LATER: tl.constexpr = NORM and not AT_ONCE
    places = knobs_ptr + (N + 1) * KNOBS
    beyond = fill_ptr + (N + 1) * (2 * C)
    fills = fill_ptr, table_ptr

    if pid < row_programs:
        write_rows(
            pid, target_ptr, target_out_ptr, plan_ptr, None, None, partner_ptr, knobs_ptr, seed, offset, sample_offset,
            B, on, off, keep, H, W, K, KIND, MODE, CHOICES, N, ERASE, SLOTS, ERASE_SLOTS, COLUMNS, REPLAY, TARGET, ROWS,
            BLOCK_K,
        )  # fmt: skip
        if plan_ptr is not None and not REPLAY:
            K_BLOCKS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
            r = pid // K_BLOCKS * ROWS + tl.arange(0, ROWS)
            map, limits, coloring = augment_plan(
                r, r < B, plan_ptr, gray_ptr, places, seed, offset, sample_offset, COLUMNS, FAMILY_COLUMNS, REPLAY,
                CROP, BOX, LIMITED, FLIPS, TURNS, COLOR, MOST, IN_H, IN_W, H, W,
            )  # fmt: skip
            written = r < tl.where(pid % K_BLOCKS == 0, B, 0)
            write_augment_plan(plan_ptr + r * COLUMNS + FAMILY_COLUMNS, written, map, limits, coloring, COLOR)
    else:
        # This program walks TILES tiles of a result: PAIRED writes both samples of a pair, else one is written from
        # itself and its partner.
        q = (pid - row_programs) // sample_programs
        tile = (pid - row_programs) % sample_programs
        first, lot = tile // STRIDE * TILES, tile % STRIDE * WIDE  # of tiles; an element, a column of a rectangle
        begin = first * NEXT_TILE + lot
        corner = lot if TALL else None
        run, lane = tl.arange(0, R)[:, None], tl.arange(0, VEC)[None, :]
        line = run * 0  # of the run, in a rectangle
        if TALL > 1:
            run, line = run % RUNS, run // RUNS
        run *= VEC
        start = begin + (line * W + run if TALL > 1 else run)
        i, j, not_mine = owned_samples(
            q, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND, REPLAY, COLUMNS, PAIRED, BY_SAMPLE
        )
        if PAIRED and BY_SAMPLE:  # noqa: SIM102, a branch of constants: compiled in or not
            if not_mine:
                return
        x_i = x_ptr + i.to(tl.int64) * x_units * ALIGN
        x_j = x_ptr + j.to(tl.int64) * x_units * ALIGN
        out_i = out_ptr + i.to(tl.int64) * out_units * ALIGN
        out_j = out_ptr + j.to(tl.int64) * out_units * ALIGN
        field_i = field_ptr + i.to(tl.int64) * PIXELS if field_ptr is not None else None
        field_j = field_ptr + j.to(tl.int64) * PIXELS if field_ptr is not None else None
        owned = n_units * ALIGN
        owned_j = tl.where(j != i, owned, 0)

        which = tl.arange(0, 2)  # both samples at once, one per element of a tensor of two
        both = tl.where(which == 0, i, j)
        methods, lams, regions, erasures = family_plan(
            both, tl.where(which == 0, j, i), which < 2, plan_ptr, None, None, knobs_ptr, seed, offset, sample_offset,
            CHOICES, N, ERASE, MODE, H, W, SLOTS, ERASE_SLOTS, COLUMNS, REPLAY, False,
        )  # fmt: skip
        maps, bounds, colorings = augment_plan(
            both, which < 2, plan_ptr, gray_ptr, places, seed, offset, sample_offset, COLUMNS, FAMILY_COLUMNS, REPLAY,
            CROP, BOX, LIMITED, FLIPS, TURNS, COLOR, MOST, IN_H, IN_W, H, W,
        )  # fmt: skip
        method_i, lam_i, region_i = at(methods, 0), at(lams, 0), region_at(regions, 0, SLOTS, CHOICES, N, H, W)
        erased_i = region_at(erasures, 0, ERASE_SLOTS, ERASED, 1, H, W)
        map_i, limits_i = each_at(maps, 0, 6), each_at(bounds, 0, 4)
        coloring_i = each_at(colorings, 0, COLOR_COLUMNS if COLOR else 0)
        if MIXES:
            map_j, limits_j = each_at(maps, 1, 6), each_at(bounds, 1, 4)
            coloring_j = each_at(colorings, 1, COLOR_COLUMNS if COLOR else 0)
        region_j, erased_j = None, None
        if PAIRED:
            method_j, lam_j, region_j = at(methods, 1), at(lams, 1), region_at(regions, 1, SLOTS, CHOICES, N, H, W)
            erased_j = region_at(erasures, 1, ERASE_SLOTS, ERASED, 1, H, W)

        if ALWAYS:
            share_i = tl.where(method_i == METHOD_MIXUP, lam_i, 1.0)
            share_j = tl.where(method_j == METHOD_MIXUP, lam_j, 1.0)
        norm = ()
        if NORM:
            for c in tl.static_range(2 * C):
                norm = norm + (tl.load(norm_ptr + c),)
        even_i, odd_i, even_j, odd_j, columns_i, columns_j = (), (), (), (), (), ()
        rows_i, rows_j, places_i, places_j = (), None, None, None
        light_i, light_j = None, None
        if COLOR:
            light_i = lighting(coloring_i[0], coloring_i[1], coloring_i[3], MOST, WALKS)
            if MIXES:
                light_j = lighting(coloring_j[0], coloring_j[1], coloring_j[3], MOST, WALKS and PAIRED)
        if TALL:
            column = lot + run
            end_i, end_j = tl.where(column < W, owned, 0), tl.where(column < W, owned_j, 0)
        if TALL > 1:
            since_i, many_i = inner_tiles(map_i, limits_i, first, lot, TILES, TALL, WIDE)
            if MIXES:
                since_j, many_j = inner_tiles(map_j, limits_j, first, lot, TILES, TALL, WIDE)
        if WALKS:
            rows_i = rows_of(map_i, limits_i, first, light_i if JOINT else None, IN_H, True)
            columns_i = columns_of(x_i, map_i, limits_i, lot, C, IN_W, IN_LAST, R, VEC, PAIRS)
            even_i = padded((), tl.zeros([R, VEC], tl.float32), 0, C)
            odd_i = even_i
            if PREFETCHES:
                places_i = places_of_row(x_i, map_i, limits_i, lot, C, IN_H, IN_W, IN_LAST, BLOCK)
            if MIXES and PAIRED:
                rows_j = rows_of(map_j, limits_j, first, light_j if JOINT else None, IN_H, True)
                columns_j = columns_of(x_j, map_j, limits_j, lot, C, IN_W, IN_LAST, R, VEC, PAIRS)
                even_j, odd_j = even_i, even_i
                if PREFETCHES:
                    places_j = places_of_row(x_j, map_j, limits_j, lot, C, IN_H, IN_W, IN_LAST, BLOCK)
            all_flags = flags_of(
                rows_i, rows_j, region_i, region_j, erased_i, erased_j, first, lot, CHOICES, N, ERASED, H, W, BLOCK, PTX
            )  # fmt: skip
        if TALL:
            todo = (H + (TALL - 1)) // TALL - first
        else:
            todo = (tl.maximum(owned - begin, 0) + (NEXT_TILE - 1)) // NEXT_TILE
        for step in range(tl.minimum(todo, TILES)):
            pixel = start + lane
            row = (first + step) * TALL
            known = (row - first) % KNOWN_ROWS
            inner_i, inner_j, flags_i, flags_j = None, None, None, None
            if WALKS:
                flags = tl.sum(tl.where(tl.arange(0, KNOWN_ROWS) == known, all_flags, 0), 0)
                flags_i, flags_j = flags, flags >> FLAG_BITS
            if TALL:
                mask, store_j = end_i > 0, end_j > 0
                if H % TALL != 0:
                    mask, store_j = start < end_i, start < end_j
                place, y, element, along = row, row + line, column, lane
                if TALL > 1:
                    inner_i = (step - since_i).to(tl.uint32) < many_i.to(tl.uint32)
                    if MIXES:
                        inner_j = (step - since_j).to(tl.uint32) < many_j.to(tl.uint32)
            else:
                mask, store_j = start < owned, start < owned_j
                place, y = begin, (start // W) if W % VEC == 0 else (pixel // W)
                element, along = place_in_row(origin_of(start, step, NEXT_TILE, W), lane, W, VEC)
            x = element + along
            ranks_i, ranks_j = None, None
            if field_ptr is not None:
                ranks_i = (field_i, ranks_for(field_i, pixel, method_i, owned, start, N))
            even_i, odd_i, own = picture(
                even_i, odd_i, x_i, map_i, limits_i, coloring_i, light_i, y, x, flags_i, known,
                (rows_i, columns_i, places_i), inner_i, None, beyond, C, IN_H, IN_W, IN_LAST, BEYOND, BILINEAR, TURNS,
                COLOR, MOST, WALKS, PAIRS, JOINT, PTX,
            )  # fmt: skip
            other = own
            if MIXES:
                needed = None
                if not PAIRED:
                    touched = touched_by(
                        region_i, erased_i, method_i, lam_i, owned, start, element, along, y, x, ranks_i, CHOICES, N,
                        ERASED, H, W, W, 1, VEC, CENTRE,
                    )  # fmt: skip
                    needed = mask & touched & (start < tl.where(drops(method_i), 0, owned))
                even_j, odd_j, other = picture(
                    even_j, odd_j, x_j, map_j, limits_j, coloring_j, light_j, y, x, flags_j, known,
                    (rows_j, columns_j, places_j), inner_j, needed, beyond, C, IN_H, IN_W, IN_LAST, BEYOND, BILINEAR,
                    TURNS, COLOR, MOST, WALKS and PAIRED, PAIRS, JOINT, PTX,
                )  # fmt: skip
            mixed_i, mixed_j = own, other
            if ALWAYS and not AT_ONCE:
                apart = differences(own, other, C, PTX)
                mixed_i = mixed(own, other, apart, 1, share_i, C, PTX)
                mixed_j = mixed(other, own, apart, -1, share_j, C, PTX)
            channels = ()
            for c in tl.static_range(C):
                channels = channels + (x * 0 + c,)
            if PAIRED:
                if field_ptr is not None:
                    ranks_j = (field_j, ranks_for(field_j, pixel, method_j, owned, start, N))
                values = family_values(
                    mixed_j, own, None, method_j, lam_j, region_j, erased_j, place, corner, start, element, along, y, x,
                    ranks_j, channels, fills, CHOICES, N, ERASED, BLENDS and not ALWAYS, SOFT, C, H, W, PIXELS, CENTRE,
                    False, VEC % 4 == 0, W, 1, R, VEC, TALL, C, flags_j, (share_j, norm) if AT_ONCE else None, PTX,
                )  # fmt: skip
                for c in tl.static_range(C):
                    store_channel(
                        out_j, values[c], pixel, store_j, norm, c, C, PIXELS, OUT_LAST, DTYPE, LATER, PTX, INTERPRETED
                    )
            values = family_values(
                mixed_i, other, None, method_i, lam_i, region_i, erased_i, place, corner, start, element, along, y, x,
                ranks_i, channels, fills, CHOICES, N, ERASED, BLENDS and not ALWAYS, SOFT, C, H, W, PIXELS, CENTRE,
                False, VEC % 4 == 0, W, 1, R, VEC, TALL, C, flags_i, (share_i, norm) if AT_ONCE else None, PTX,
            )  # fmt: skip
            for c in tl.static_range(C):
                store_channel(
                    out_i, values[c], pixel, mask, norm, c, C, PIXELS, OUT_LAST, DTYPE, LATER, PTX, INTERPRETED
                )
            begin += NEXT_TILE
            start += NEXT_TILE
            if WALKS and TILES > KNOWN_ROWS:  # noqa: SIM102, a branch of constants: compiled in or not
                if known == KNOWN_ROWS - 1:
                    rows_i = rows_of(map_i, limits_i, row + 1, light_i if JOINT else None, IN_H, False)
                    if MIXES and PAIRED:
                        rows_j = rows_of(map_j, limits_j, row + 1, light_j if JOINT else None, IN_H, False)
                    all_flags = flags_of(
                        rows_i, rows_j, region_i, region_j, erased_i, erased_j, row + 1, lot, CHOICES, N, ERASED, H, W,
                        BLOCK, PTX,
                    )  # fmt: skip
