"""The kernel: one launch that draws the parameters, mixes or pastes the images and writes the target rows.

The first `row_programs` programs each write one block of target (and plan) rows; the others each walk TILES tiles of
BLOCK elements of one sample pair ("paired" partners) or of one sample (any partner). Every program draws the
parameters of its own samples, so nothing passes between programs.

Traffic: paired, each input byte is read once and each output byte written once; in place, a CutMix sample moves only
the aligned runs that its box touches. Gathered, CutMix reads each pixel from one of the two samples, mixup from both.
"""

import triton
import triton.language as tl

from fusedmix import recipe

from .labels import one_hot, smooth
from .masks import inside, inside_bytes, run_inside
from .philox import words
from .pixel import blend_adjoint, bytes_of, lerp, normalise, round_to, to_float
from .sampling import (
    EXACT,
    MATCHING,
    STREAM_BOX,
    STREAM_SAMPLE,
    beside,
    cut_side,
    draw_h,
    drawn_mate,
    kept_fraction,
    matching_pair,
    minmax_side,
    symmetric_beta,
    unit,
)

METHOD_NONE = tl.constexpr(recipe.METHOD_NONE)
METHOD_MIXUP = tl.constexpr(recipe.METHOD_MIXUP)
METHOD_CUTMIX = tl.constexpr(recipe.METHOD_CUTMIX)
MODE_BATCH = tl.constexpr(recipe.MODE_BATCH)
MODE_PAIR = tl.constexpr(recipe.MODE_PAIR)
GIVEN = tl.constexpr(recipe.GIVEN)
PLAN_LAM = tl.constexpr(recipe.PLAN_LAM)
PLAN_PARTNER = tl.constexpr(recipe.PLAN_PARTNER)
PLAN_MATE = tl.constexpr(recipe.PLAN_MATE)
PLAN_BOX = tl.constexpr(recipe.PLAN_BOX)
PLAN_COLUMNS = tl.constexpr(recipe.PLAN_COLUMNS)

# What the row programs write.
TARGET_NONE, TARGET_ONE_HOT, TARGET_SOFT, TARGET_CLASS = (tl.constexpr(form) for form in range(4))


@triton.jit
def sample_mate(
    i, mask, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND: tl.constexpr, REPLAY: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Partner of i before p is applied, for i: int32 [R]; out-of-range partners become the sample itself."""
    if REPLAY:
        mate = tl.load(plan_ptr + i * COLUMNS + PLAN_MATE, mask=mask, other=0)
    elif KIND == GIVEN:
        given = tl.load(partner_ptr + i, mask=mask, other=0)
        mate = tl.where((given >= 0) & (given < B), given, i).to(tl.int32)
    else:
        mate = drawn_mate(seed, offset, sample_offset, i, B, KIND)
    return tl.where((mate >= 0) & (mate < B), mate, i)


@triton.jit
def owned_samples(
    q, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND: tl.constexpr, REPLAY: tl.constexpr,
    COLUMNS: tl.constexpr, PAIRED: tl.constexpr, BY_SAMPLE: tl.constexpr,
):  # fmt: skip
    """The samples (i, j) of pair number q, or sample q and its partner, and whether the pair is the partner's."""
    not_mine = False
    if not BY_SAMPLE and KIND == MATCHING:
        i, j = matching_pair(draw_h(seed, offset, sample_offset, B), q, B)
    elif not BY_SAMPLE:
        i, j = q, B - 1 - q
    elif PAIRED and KIND == EXACT and not REPLAY:  # of the one with the lower key, so that no other is sought
        rank, upper, _ = beside(seed, offset, sample_offset, q + tl.arange(0, 1), B, True, False)
        i, j = q, tl.max(upper, 0)
        not_mine = tl.max(rank, 0) % 2 == 1
    else:
        block = q + tl.arange(0, 1)
        mate = sample_mate(
            block, block < B, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND, REPLAY, COLUMNS
        )
        i, j = q, tl.max(mate, 0)
        if PAIRED:
            not_mine = j < i
    return i, j, not_mine


@triton.jit
def sample_plan(
    i, mate, mask, plan_ptr, lam_ptr, box_ptr, seed, offset, sample_offset, mixup_alpha, cutmix_alpha, p, switch_prob,
    MODE: tl.constexpr, H: tl.constexpr, W: tl.constexpr, HAS_MIXUP: tl.constexpr, HAS_BOX: tl.constexpr,
    CORRECT_LAM: tl.constexpr, HAS_MINMAX: tl.constexpr, LO_H: tl.constexpr, COUNT_H: tl.constexpr,
    LO_W: tl.constexpr, COUNT_W: tl.constexpr, REPLAY: tl.constexpr,
):  # fmt: skip
    """(method, lam, y0, x0, y1, x1) of the samples i, scalar or [R]: read from the plan, or drawn."""
    y0, x0, y1, x1 = i * 0, i * 0, i * 0, i * 0
    if REPLAY:
        row = plan_ptr + i * PLAN_COLUMNS
        method = tl.load(row, mask=mask, other=0)
        lam = tl.load(row + PLAN_LAM, mask=mask, other=0).to(tl.float32, bitcast=True)
        if HAS_BOX:
            y0 = tl.load(row + PLAN_BOX, mask=mask, other=0)
            x0 = tl.load(row + (PLAN_BOX + 1), mask=mask, other=0)
            y1 = tl.load(row + (PLAN_BOX + 2), mask=mask, other=0)
            x1 = tl.load(row + (PLAN_BOX + 3), mask=mask, other=0)
        return method, lam, y0, x0, y1, x1

    if MODE == MODE_BATCH:
        index = i * 0
    elif MODE == MODE_PAIR:
        index = sample_offset + tl.minimum(i, mate)
    else:
        index = sample_offset + i
    apply, switch, word_u, word_v = words(seed, offset, index, STREAM_SAMPLE)
    mixed = (unit(apply) < p) & (mate != i)  # a sample left alone is not mixed
    if HAS_MIXUP and HAS_BOX:
        cut = unit(switch) < switch_prob
        alpha = tl.where(cut, cutmix_alpha, mixup_alpha)
    elif HAS_BOX:
        cut = mixed | True
        alpha = cutmix_alpha
    else:
        cut = mixed & False
        alpha = mixup_alpha

    if lam_ptr is not None:
        lam = tl.load(lam_ptr + i, mask=mask, other=1.0)
        lam = tl.minimum(tl.maximum(lam, 0.0), 1.0)
    else:
        lam = symmetric_beta(word_u, word_v, alpha)

    if HAS_BOX:
        if box_ptr is not None:
            y0 = tl.load(box_ptr + 4 * i, mask=mask, other=0)
            x0 = tl.load(box_ptr + 4 * i + 1, mask=mask, other=0)
            y1 = tl.load(box_ptr + 4 * i + 2, mask=mask, other=0)
            x1 = tl.load(box_ptr + 4 * i + 3, mask=mask, other=0)
            y0, x0 = tl.minimum(tl.maximum(y0, 0), H), tl.minimum(tl.maximum(x0, 0), W)
            y1, x1 = tl.maximum(tl.minimum(y1, H), y0), tl.maximum(tl.minimum(x1, W), x0)
        else:
            word_y, word_x, _, _ = words(seed, offset, index, STREAM_BOX)
            if HAS_MINMAX:
                y0, y1 = minmax_side(word_u, word_y, LO_H, COUNT_H, H)
                x0, x1 = minmax_side(word_v, word_x, LO_W, COUNT_W, W)
            else:
                ratio = tl.sqrt_rn(1.0 - lam)
                y0, y1 = cut_side(ratio, word_y, H)
                x0, x1 = cut_side(ratio, word_x, W)
        if CORRECT_LAM:
            lam = tl.where(cut, kept_fraction(y0, x0, y1, x1, H, W), lam)

    boxed = mixed & cut
    method = tl.where(mixed, tl.where(cut, METHOD_CUTMIX, METHOD_MIXUP), METHOD_NONE)
    lam = tl.where(mixed, lam, 1.0)
    return method, lam, tl.where(boxed, y0, 0), tl.where(boxed, x0, 0), tl.where(boxed, y1, 0), tl.where(boxed, x1, 0)


@triton.jit
def pixel_lam(method, lam, HAS_BOX: tl.constexpr):
    """Weight of the own pixels outside the box: lam for mixup, 1 for the others."""
    if HAS_BOX:
        return tl.where(method == METHOD_MIXUP, lam, 1.0)
    return lam


@triton.jit
def at(pair, N: tl.constexpr):
    """Element N of a tensor of two, as a scalar.

    By a sum over a whole warp of bits of which one lane has some: one instruction on NVIDIA's GPUs, after which the
    compiler knows that all threads have the same, keeps it once for all, and lets them branch without meeting again.
    """
    bits = pair.to(tl.int32, bitcast=True)
    here = (tl.arange(0, 2) == N)[:, None] & (tl.arange(0, 16) == 0)[None, :]
    return tl.sum(tl.where(here, bits[:, None], 0)).to(pair.dtype, bitcast=True)


@triton.jit
def source(offs, C: tl.constexpr, PIXELS: tl.constexpr, TRANSPOSE: tl.constexpr):
    """Where the input element of output element `offs` lies, when one is contiguous and the other channels_last."""
    if TRANSPOSE == 1:  # contiguous in, channels_last out
        return (offs % C) * PIXELS + offs // C
    if TRANSPOSE == 2:  # channels_last in, contiguous out
        return (offs % PIXELS) * C + offs // PIXELS
    return offs


@triton.jit
def channel_norm(
    norm_ptr, start, lane, mask, C: tl.constexpr, PIXELS: tl.constexpr, OUT_LAST: tl.constexpr, VEC: tl.constexpr
):  # fmt: skip
    """(mean, inverse std) of each element's channel; unused numbers without a norm."""
    mean, inverse_std = 0.0, 1.0
    if norm_ptr is not None:
        if OUT_LAST:
            channel = (start + lane) % C
        elif PIXELS % VEC == 0:
            channel = start // PIXELS
        else:
            channel = (start + lane) // PIXELS
        mean = tl.load(norm_ptr + channel, mask=mask, other=0.0)
        inverse_std = tl.load(norm_ptr + C + channel, mask=mask, other=1.0)
    return mean, inverse_std


@triton.jit
def finish(value, mean, inverse_std, NORM: tl.constexpr, DTYPE: tl.constexpr, INTERPRETED: tl.constexpr):
    """Mixed value to stored value: normalised per channel if asked, rounded once."""
    if NORM:
        value = normalise(value, mean, inverse_std)
    if value.dtype == DTYPE:
        return value
    return round_to(value.to(tl.float32), DTYPE, INTERPRETED)


@triton.jit
def put(
    ptr, value, mask, mean, inverse_std, NORM: tl.constexpr, INTERPRETED: tl.constexpr
):  # fmt: skip
    tl.store(ptr, finish(value, mean, inverse_std, NORM, ptr.dtype.element_ty, INTERPRETED), mask=mask)


@triton.jit
def word_ptr(ptr, start, VEC: tl.constexpr):
    """Where the words of a tile of bytes lie."""
    return ptr.to(tl.pointer_type(tl.int32)) + start // 4 + tl.arange(0, VEC // 4)[None, :]


@triton.jit
def tile_of(ptr, offs, start, mask, PACKED: tl.constexpr, VEC: tl.constexpr):
    """A tile of a sample; of bytes, four to a word."""
    if PACKED:
        tile = tl.load(word_ptr(ptr, start, VEC), mask=mask)
    else:
        tile = tl.load(ptr + offs, mask=mask)
    return tile


@triton.jit
def values_of(tile, FLOAT: tl.constexpr, PACKED: tl.constexpr, R: tl.constexpr, VEC: tl.constexpr):
    if PACKED:
        value = bytes_of(tile, R, VEC)
    elif FLOAT:
        value = to_float(tile)
    else:
        value = tile
    return value


@triton.jit
def put_pasted(
    ptr, own, other, start, lane, y0, x0, y1, x1, mask, mean, inverse_std, H: tl.constexpr, ROW: tl.constexpr,
    STEP: tl.constexpr, VEC: tl.constexpr, HAS_BOX: tl.constexpr, PACKED: tl.constexpr, NORM: tl.constexpr,
    INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Writes a tile of a sample to `ptr`, the partner's inside the box."""
    COMPUTES: tl.constexpr = NORM or own.dtype != ptr.dtype.element_ty
    if PACKED:
        tile = own ^ ((own ^ other) & inside_bytes(start, y0, x0, y1, x1, H, ROW, STEP, VEC))
        if ptr.dtype.element_ty == tl.uint8 and not NORM:
            tl.store(word_ptr(ptr, start, VEC), tile, mask=mask)
        else:
            value = bytes_of(tile, start.shape[0], VEC)
            put(ptr + (start + lane), value, mask, mean, inverse_std, NORM, INTERPRETED)
    else:
        tile = own
        if HAS_BOX:
            tile = tl.where(inside(start, lane, y0, x0, y1, x1, H, ROW, STEP, VEC), other, own)
        value = values_of(tile, COMPUTES, False, start.shape[0], VEC)
        put(ptr + (start + lane), value, mask, mean, inverse_std, NORM, INTERPRETED)


@triton.jit
def put_mixed(
    ptr, own, other, own_value, other_value, lam, start, lane, y0, x0, y1, x1, mask, mean, inverse_std,
    H: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr, VEC: tl.constexpr, HAS_MIXUP: tl.constexpr,
    HAS_BOX: tl.constexpr, PACKED: tl.constexpr, NORM: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """As `put_pasted`, or where lam is not 1, blended as by `lerp`. own_value, other_value: float32 of the tiles.

    lam is the sample's, a scalar: a branch around the whole step costs less than choices by element. Where tiles are
    also pasted as they are, their values are made in the branch, which saves registers (and for bytes to bytes work).
    """
    LATE: tl.constexpr = HAS_BOX and ptr.dtype.element_ty != tl.uint8
    if not HAS_MIXUP:
        put_pasted(
            ptr, own, other, start, lane, y0, x0, y1, x1, mask, mean, inverse_std, H, ROW, STEP, VEC, HAS_BOX, PACKED,
            NORM, INTERPRETED,
        )  # fmt: skip
    elif lam == 1.0:
        put_pasted(
            ptr, own, other, start, lane, y0, x0, y1, x1, mask, mean, inverse_std, H, ROW, STEP, VEC, HAS_BOX, PACKED,
            NORM, INTERPRETED,
        )  # fmt: skip
    elif lam < 0.5:
        if LATE:
            own_value = values_of(own, True, PACKED, start.shape[0], VEC)
            other_value = values_of(other, True, PACKED, start.shape[0], VEC)
        value = tl.fma(own_value - other_value, lam, other_value)
        put(ptr + (start + lane), value, mask, mean, inverse_std, NORM, INTERPRETED)
    else:
        if LATE:
            own_value = values_of(own, True, PACKED, start.shape[0], VEC)
            other_value = values_of(other, True, PACKED, start.shape[0], VEC)
        value = tl.fma(own_value - other_value, lam - 1.0, own_value)
        put(ptr + (start + lane), value, mask, mean, inverse_std, NORM, INTERPRETED)


@triton.jit
def mix_target_rows(
    pid, r, partner, lam, in_batch, target_ptr, target_out_ptr, on, off, keep, K: tl.constexpr, TARGET: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Writes the partners' classes, or a block of BLOCK_K columns of the target rows r."""
    K_BLOCKS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    if TARGET == TARGET_CLASS:
        tl.store(target_out_ptr + r, tl.load(target_ptr + partner, mask=in_batch), mask=in_batch)
    else:
        k = pid % K_BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
        in_rows = in_batch[:, None] & (k < K)[None, :]
        own_row = r.to(tl.int64)[:, None] * K + k[None, :]
        other_row = partner.to(tl.int64)[:, None] * K + k[None, :]
        if TARGET == TARGET_ONE_HOT:
            own = one_hot(tl.load(target_ptr + r, mask=in_batch, other=-1), k, on, off)
            other = one_hot(tl.load(target_ptr + partner, mask=in_batch, other=-1), k, on, off)
        else:
            own = tl.load(target_ptr + own_row, mask=in_rows).to(tl.float32)
            other = tl.load(target_ptr + other_row, mask=in_rows).to(tl.float32)
            if off != 0.0:
                own, other = smooth(own, keep, off), smooth(other, keep, off)
        tl.store(target_out_ptr + own_row, lerp(own, other, lam[:, None]), mask=in_rows)


NOT_SPECIALIZED = (
    "has_state", "seed", "offset", "sample_offset", "B", "row_programs", "sample_programs", "x_units", "out_units",
    "n_units",
)  # fmt: skip


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def mix_kernel(
    x_ptr, out_ptr, target_ptr, target_out_ptr, plan_ptr, lam_ptr, box_ptr, partner_ptr, norm_ptr, state_ptr,
    has_state: tl.int32, seed: tl.int64, offset: tl.int64, sample_offset: tl.int32, B: tl.int32,
    row_programs: tl.int32, sample_programs: tl.int32, x_units: tl.int32, out_units: tl.int32, n_units: tl.int32,
    mixup_alpha, cutmix_alpha, p, switch_prob, on, off, keep,
    ALIGN: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr, K: tl.constexpr,
    KIND: tl.constexpr, MODE: tl.constexpr, HAS_MIXUP: tl.constexpr, HAS_BOX: tl.constexpr, CORRECT_LAM: tl.constexpr,
    HAS_MINMAX: tl.constexpr, LO_H: tl.constexpr, COUNT_H: tl.constexpr, LO_W: tl.constexpr, COUNT_W: tl.constexpr,
    REPLAY: tl.constexpr, PAIRED: tl.constexpr, SKIP: tl.constexpr, ADJOINT: tl.constexpr, TRANSPOSE: tl.constexpr,
    ON_WORDS: tl.constexpr, OUT_LAST: tl.constexpr, TARGET: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
    VEC: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    seed = tl.load(state_ptr, mask=has_state != 0, other=seed.to(tl.int64))
    offset = tl.load(state_ptr + 1, mask=has_state != 0, other=offset.to(tl.int64))
    NORM: tl.constexpr = norm_ptr is not None
    FLOAT: tl.constexpr = HAS_MIXUP or ADJOINT or NORM or x_ptr.dtype != out_ptr.dtype
    ROW: tl.constexpr = W * C if OUT_LAST else W
    STEP: tl.constexpr = C if OUT_LAST else 1
    # Bytes are kept four to a word where boxes are cut out of them.
    PACKED: tl.constexpr = (
        x_ptr.dtype.element_ty == tl.uint8
        and ON_WORDS
        and HAS_BOX
        and ROW % VEC == 0
        and VEC % 4 == 0
        and not TRANSPOSE
    )
    R: tl.constexpr = BLOCK // VEC
    BY_SAMPLE: tl.constexpr = not PAIRED or REPLAY or KIND == EXACT  # else by pair: both samples are the program's

    if pid < row_programs:
        # This program writes ROWS rows of the plan and a [ROWS, BLOCK_K] block of the targets.
        K_BLOCKS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
        r = pid // K_BLOCKS * ROWS + tl.arange(0, ROWS)
        in_batch = r < B
        mate = sample_mate(
            r, in_batch, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND, REPLAY, PLAN_COLUMNS
        )
        method, lam, y0, x0, y1, x1 = sample_plan(
            r, mate, in_batch, plan_ptr, lam_ptr, box_ptr, seed, offset, sample_offset, mixup_alpha, cutmix_alpha, p,
            switch_prob, MODE, H, W, HAS_MIXUP, HAS_BOX, CORRECT_LAM, HAS_MINMAX, LO_H, COUNT_H, LO_W, COUNT_W, REPLAY,
        )  # fmt: skip
        partner = tl.where(method == METHOD_NONE, r, mate)
        if plan_ptr is not None and not REPLAY:
            row = plan_ptr + r * PLAN_COLUMNS
            first = r < tl.where(pid % K_BLOCKS == 0, B, 0)
            tl.store(row, method, mask=first)
            tl.store(row + PLAN_LAM, lam.to(tl.int32, bitcast=True), mask=first)
            tl.store(row + PLAN_PARTNER, partner, mask=first)
            tl.store(row + PLAN_MATE, mate, mask=first)
            tl.store(row + PLAN_BOX, y0, mask=first)
            tl.store(row + (PLAN_BOX + 1), x0, mask=first)
            tl.store(row + (PLAN_BOX + 2), y1, mask=first)
            tl.store(row + (PLAN_BOX + 3), x1, mask=first)
        if TARGET != TARGET_NONE:
            mix_target_rows(
                pid, r, partner, lam, in_batch, target_ptr, target_out_ptr, on, off, keep, K, TARGET, BLOCK_K
            )
    else:
        # This program walks TILES tiles of a sample: PAIRED reads and writes both samples of a pair, else one is
        # written from itself and its partner.
        q = (pid - row_programs) // sample_programs
        tile = (pid - row_programs) % sample_programs
        start = tile * (TILES * BLOCK) + tl.arange(0, BLOCK // VEC)[:, None] * VEC
        lane = tl.arange(0, VEC)[None, :]
        i, j, not_mine = owned_samples(
            q, plan_ptr, partner_ptr, seed, offset, sample_offset, B, KIND, REPLAY, PLAN_COLUMNS, PAIRED, BY_SAMPLE
        )
        if PAIRED and BY_SAMPLE:  # noqa: SIM102, a branch of constants: compiled in or not
            if not_mine:
                return
        x_i = x_ptr + i.to(tl.int64) * x_units * ALIGN
        x_j = x_ptr + j.to(tl.int64) * x_units * ALIGN
        out_i = out_ptr + i.to(tl.int64) * out_units * ALIGN
        out_j = out_ptr + j.to(tl.int64) * out_units * ALIGN
        # The end of the runs of elements to walk. A multiple of ALIGN keeps masked accesses wide.
        owned = n_units * ALIGN

        if PAIRED and not SKIP:  # the first tile is on its way while the parameters are drawn
            src = source(start + lane, C, PIXELS, TRANSPOSE)
            mask = start < owned
            a = tile_of(x_i, src, start, mask, PACKED, VEC)
            b = tile_of(x_j, src, start, mask, PACKED, VEC)

        if PAIRED:  # both samples at once, one per element of a tensor of two
            which = tl.arange(0, 2)
            methods, lams, tops, lefts, bottoms, rights = sample_plan(
                tl.where(which == 0, i, j), tl.where(which == 0, j, i), which < 2, plan_ptr, lam_ptr, box_ptr, seed,
                offset, sample_offset, mixup_alpha, cutmix_alpha, p, switch_prob, MODE, H, W, HAS_MIXUP, HAS_BOX,
                CORRECT_LAM, HAS_MINMAX, LO_H, COUNT_H, LO_W, COUNT_W, REPLAY,
            )  # fmt: skip
            lams = pixel_lam(methods, lams, HAS_BOX)
            lam_i, y0_i, x0_i, y1_i, x1_i = at(lams, 0), at(tops, 0), at(lefts, 0), at(bottoms, 0), at(rights, 0)
            lam_j, y0_j, x0_j, y1_j, x1_j = at(lams, 1), at(tops, 1), at(lefts, 1), at(bottoms, 1), at(rights, 1)
            owned_j = tl.where(j != i, owned, 0)
        else:
            method_i, lam_i, y0_i, x0_i, y1_i, x1_i = sample_plan(
                i, j, True, plan_ptr, lam_ptr, box_ptr, seed, offset, sample_offset, mixup_alpha, cutmix_alpha, p,
                switch_prob, MODE, H, W, HAS_MIXUP, HAS_BOX, CORRECT_LAM, HAS_MINMAX, LO_H, COUNT_H, LO_W, COUNT_W,
                REPLAY,
            )  # fmt: skip
            lam_i = pixel_lam(method_i, lam_i, HAS_BOX)

        for step in range(TILES):
            offs, mask = start + lane, start < owned
            mean, inverse_std = channel_norm(norm_ptr, start, lane, mask, C, PIXELS, OUT_LAST, VEC)
            store_i = mask
            if PAIRED:
                store_j = start < owned_j
                if SKIP:  # in place: only the runs that change are read and written
                    store_i = start < tl.where(lam_i != 1.0, owned, 0)
                    store_j = start < tl.where(lam_j != 1.0, owned_j, 0)
                    if HAS_BOX:
                        some_i, _ = run_inside(start, lane, y0_i, x0_i, y1_i, x1_i, H, ROW, STEP, VEC)
                        some_j, _ = run_inside(start, lane, y0_j, x0_j, y1_j, x1_j, H, ROW, STEP, VEC)
                        store_i = store_i | (some_i & mask)
                        store_j = store_j | (some_j & (start < owned_j))
                    a = tile_of(x_i, offs, start, store_i | store_j, PACKED, VEC)
                    b = tile_of(x_j, offs, start, store_i | store_j, PACKED, VEC)
                own, other = values_of(a, FLOAT, PACKED, R, VEC), values_of(b, FLOAT, PACKED, R, VEC)
                if ADJOINT:
                    inside_i = inside(start, lane, y0_i, x0_i, y1_i, x1_i, H, ROW, STEP, VEC) if HAS_BOX else False
                    inside_j = inside(start, lane, y0_j, x0_j, y1_j, x1_j, H, ROW, STEP, VEC) if HAS_BOX else False
                    value_i = blend_adjoint(own, other, lam_i, lam_j, inside_i, inside_j, HAS_MIXUP, HAS_BOX)
                    value_j = blend_adjoint(other, own, lam_j, lam_i, inside_j, inside_i, HAS_MIXUP, HAS_BOX)
                    put(out_j + offs, value_j, store_j, mean, inverse_std, NORM, INTERPRETED)
                    put(out_i + offs, value_i, store_i, mean, inverse_std, NORM, INTERPRETED)
                else:
                    put_mixed(
                        out_j, b, a, other, own, lam_j, start, lane, y0_j, x0_j, y1_j, x1_j, store_j, mean, inverse_std,
                        H, ROW, STEP, VEC, HAS_MIXUP, HAS_BOX, PACKED, NORM, INTERPRETED,
                    )  # fmt: skip
                    put_mixed(
                        out_i, a, b, own, other, lam_i, start, lane, y0_i, x0_i, y1_i, x1_i, store_i, mean, inverse_std,
                        H, ROW, STEP, VEC, HAS_MIXUP, HAS_BOX, PACKED, NORM, INTERPRETED,
                    )  # fmt: skip
            else:
                src = source(offs, C, PIXELS, TRANSPOSE)
                needs_own, needs_other = mask, start < tl.where(lam_i != 1.0, owned, 0)
                if HAS_BOX:
                    some, every = run_inside(start, lane, y0_i, x0_i, y1_i, x1_i, H, ROW, STEP, VEC)
                    needs_own, needs_other = mask & ~every, needs_other | (some & mask)
                a = tile_of(x_i, src, start, needs_own, PACKED, VEC)
                b = tile_of(x_j, src, start, needs_other, PACKED, VEC)
                own, other = values_of(a, FLOAT, PACKED, R, VEC), values_of(b, FLOAT, PACKED, R, VEC)
                put_mixed(
                    out_i, a, b, own, other, lam_i, start, lane, y0_i, x0_i, y1_i, x1_i, store_i, mean, inverse_std, H,
                    ROW, STEP, VEC, HAS_MIXUP, HAS_BOX, PACKED, NORM, INTERPRETED,
                )  # fmt: skip
            start += BLOCK
            if PAIRED and not SKIP:
                src = source(start + lane, C, PIXELS, TRANSPOSE)
                mask = start < tl.where(step + 1 < TILES, owned, 0)
                a = tile_of(x_i, src, start, mask, PACKED, VEC)
                b = tile_of(x_j, src, start, mask, PACKED, VEC)
