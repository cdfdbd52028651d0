"""The kernel of the family: a method per sample out of a list, then what is erased, in one launch.

Programs are split as in `mix.py`, but a program's tiles lie whole rows apart where samples are tall enough
(`launch.tile_stride`): what a method makes of columns alone is then computed once a program. What a method is made of
lies in `regions.py`: a sampler that fills the slots of a region, and a mask over them. `choices.py` chooses between
them, `tiles.py` fills the region with the partner's pixels, the shrunk partner's, or a constant with or without noise.
Methods that a call can't draw are not compiled in.

Traffic: as of `mix.py`; in place only the aligned runs that change are read and written. ResizeMix gathers its box
from the partner on top of that, FMix reads four bytes a pixel of ranks.
"""

import triton
import triton.language as tl

from .choices import drops, family_plan, region_at, write_region
from .masks import origin_of, place_in_row
from .mix import (
    METHOD_NONE,
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
from .pixel import to_float
from .regions import as_bits
from .sampling import EXACT
from .tiles import MOST_HOISTED, clamp_bytes, family_values, ranks_for, touched_by


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
    knobs_ptr, fill_ptr, field_ptr, table_ptr, has_state: tl.int32, seed: tl.int64, offset: tl.int64,
    sample_offset: tl.int32, B: tl.int32, row_programs: tl.int32, sample_programs: tl.int32, x_units: tl.int32,
    out_units: tl.int32, n_units: tl.int32, on, off, keep,
    ALIGN: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr, K: tl.constexpr,
    KIND: tl.constexpr, MODE: tl.constexpr, CHOICES: tl.constexpr, N: tl.constexpr, ERASE: tl.constexpr,
    ERASED: tl.constexpr, SLOTS: tl.constexpr, ERASE_SLOTS: tl.constexpr, COLUMNS: tl.constexpr,
    BLENDS: tl.constexpr, SOFT: tl.constexpr, DROPS: tl.constexpr,
    MIXES: tl.constexpr, CENTRE: tl.constexpr, REPLAY: tl.constexpr, PAIRED: tl.constexpr,
    SKIP: tl.constexpr, TRANSPOSE: tl.constexpr, OUT_LAST: tl.constexpr, TARGET: tl.constexpr,
    BLOCK: tl.constexpr, TILES: tl.constexpr, STRIDE: tl.constexpr, VEC: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr, PTX: tl.constexpr, INTERPRETED: tl.constexpr,
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
    WIDEN: tl.constexpr = PTX if BLENDS or SOFT else 0  # else compilers see that most values stay as they are
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
        fills = fill_ptr, table_ptr
        field_i = field_ptr + i.to(tl.int64) * PIXELS if field_ptr is not None else None
        field_j = field_ptr + j.to(tl.int64) * PIXELS if field_ptr is not None else None
        owned = n_units * ALIGN
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
            ranks_i, ranks_j, store_i = None, None, mask
            if field_ptr is not None:
                ranks_i = (field_i, ranks_for(field_i, y * W + x, method_i, owned, start, N))
            if SKIP or (MIXES and not PAIRED):
                touched_i = touched_by(
                    region_i, erased_i, method_i, lam_i, owned, start, element, along, y, x, ranks_i, CHOICES, N,
                    ERASED, H, W, ROW, STEP, VEC, CENTRE,
                )  # fmt: skip
            if SKIP:  # in place: only the runs that change are read and written
                store_i = touched_i & mask
            if PAIRED:
                if field_ptr is not None:
                    ranks_j = (field_j, ranks_for(field_j, y * W + x, method_j, owned, start, N))
                store_j = start < owned_j
                if SKIP:
                    touched_j = touched_by(
                        region_j, erased_j, method_j, lam_j, owned_j, start, element, along, y, x, ranks_j, CHOICES, N,
                        ERASED, H, W, ROW, STEP, VEC, CENTRE,
                    )  # fmt: skip
                    store_j = touched_j & store_j
                needed = store_i | store_j
                own = to_float(tl.load(x_i + src, mask=needed, other=0), WIDEN)
                other = to_float(tl.load(x_j + src, mask=needed, other=0), WIDEN)
                value_j = family_values(
                    (other,), (own,), x_i, method_j, lam_j, region_j, erased_j, place, None, start, element, along, y,
                    x, ranks_j, (channel,), fills, CHOICES, N, ERASED, BLENDS, SOFT, C, H, W,
                    PIXELS, CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, 1, 1, None, None, PTX,
                )[0]  # fmt: skip
            else:
                own = to_float(tl.load(x_i + src, mask=store_i, other=0), WIDEN)
                other = own
                if MIXES:
                    needs = touched_i & (start < tl.where(drops(method_i), 0, owned))
                    other = to_float(tl.load(x_j + src, mask=needs, other=0), WIDEN)
            value_i = family_values(
                (own,), (other,), x_j, method_i, lam_i, region_i, erased_i, place, None, start, element, along, y, x,
                ranks_i, (channel,), fills, CHOICES, N, ERASED, BLENDS, SOFT, C, H, W, PIXELS,
                CENTRE, IN_LAST, RUNS, ROW, STEP, R, VEC, 1, 1, None, None, PTX,
            )[0]  # fmt: skip
            if PAIRED:
                value_j = clamp_bytes(value_j, DTYPE, FILLS)
                tl.store(out_j + offs, finish(value_j, mean, inverse_std, NORM, DTYPE, INTERPRETED), mask=store_j)
            value_i = clamp_bytes(value_i, DTYPE, FILLS)
            tl.store(out_i + offs, finish(value_i, mean, inverse_std, NORM, DTYPE, INTERPRETED), mask=store_i)
            place = (place + STRIDE * BLOCK) % PLANE
            start += STRIDE * BLOCK
