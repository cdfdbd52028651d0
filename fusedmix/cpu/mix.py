"""Moves the pixels: whole copies and box pastes for CutMix, chunks that stay in cache for everything computed."""

import numpy as np
import torch
from torch import Tensor

from fusedmix.layout import is_channels_last
from fusedmix.recipe import (
    METHOD_CUTMIX,
    METHOD_MIXUP,
    PLAN_BOX,
    PLAN_LAM,
    PLAN_MATE,
    PLAN_METHOD,
    PLAN_PARTNER,
    Recipe,
    smoothed_on_off,
)
from fusedmix.reference.labels import dense_rows, mix_rows
from fusedmix.reference.pixel import HAS_FMA, lerp, normalise

from . import native
from .family import as_numpy, family_into
from .native import Draw
from .sampling import Array, draw

CHUNK_BYTES = 1 << 21  # a chunk and its scratch stay in cache, and one torch call covers many samples
# Bytes of a sample below which passes over gathered partners cost less than a call per sample, without and with boxes.
SMALL_SAMPLE, SMALL_BOXED = 1 << 16, 3 << 13
LARGE_SAMPLE = 1 << 18  # bytes of a sample worth a call of its own
SMALL_BATCH = 1 << 23  # bytes of such passes: cache, and threads that are worth waking

INTEGER_VIEW = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def mix_into(
    out: Tensor,
    target_out: Tensor | None,
    plan: Tensor | None,
    x: Tensor,
    target: Tensor | None,
    norm: Tensor | None,
    lam: Tensor | None,
    box: Tensor | None,
    partner: Tensor | None,
    state: Tensor | None,
    seed: int,
    offset: int,
    sample_offset: int,
    recipe: Recipe,
    replay: bool,
    extras: tuple[Tensor | None, ...] = (),
) -> None:
    """Fills `out`, `target_out` and, unless `replay`, `plan`; see `ops.mix` for the arguments."""
    if recipe.adjoint:
        raise NotImplementedError("on the CPU the adjoint is composed of torch ops (ops.image_adjoint)")
    if x.shape[0] == 0:
        return
    if state is not None:
        seed, offset = state.tolist()
    if recipe.choices:
        family = family_into(out, plan, x, norm, lam, box, partner, seed, offset, sample_offset, recipe, replay, extras)
        if target is not None and target_out is not None:
            mix_targets(target, target_out, as_numpy(family), recipe)
        return
    if replay:
        assert plan is not None
        drawn = unpack(plan)
    else:
        height, width = (x.shape[2], x.shape[3]) if recipe.has_box else (1, 1)
        given = (None if t is None else t.numpy() for t in (lam, box, partner))
        drawn = draw(
            recipe, x.shape[0], height, width, seed, offset, sample_offset,
            **dict(zip(("lam", "box", "partner"), given, strict=True)),
        )  # fmt: skip
        if plan is not None:
            pack(drawn, plan)

    library = native.library()
    if library is None or not native.mix(library, x, out, norm, drawn, recipe):
        mix_by_torch(x.detach(), out.detach(), norm, drawn, recipe)
    if target is not None and target_out is not None:
        mix_targets(target, target_out, drawn, recipe)


def mix_by_torch(x: Tensor, out: Tensor, norm: Tensor | None, drawn: Draw, recipe: Recipe) -> None:
    """What `native.mix` does, and what it does not know."""
    in_place = x.data_ptr() == out.data_ptr()
    if norm is not None or out.dtype != x.dtype or (x.dtype == torch.uint8 and recipe.has_mixup):
        mix_computed(x, out, norm, drawn, in_place)
    elif is_small(x, out, drawn, in_place):
        mix_small(x, out, drawn, in_place)
    elif in_place:
        mix_in_place(x, drawn)
    else:
        mix_copied(x, out, drawn)


def pack(drawn: Draw, plan: Tensor) -> None:
    rows = plan.numpy()
    rows[:, PLAN_METHOD], rows[:, PLAN_PARTNER], rows[:, PLAN_MATE] = drawn.method, drawn.partner, drawn.mate
    rows[:, PLAN_LAM] = drawn.lam.view(np.int32)
    rows[:, PLAN_BOX:] = drawn.box


def unpack(plan: Tensor) -> Draw:
    rows = plan.contiguous().numpy()
    return Draw(
        method=rows[:, PLAN_METHOD],
        lam=np.ascontiguousarray(rows[:, PLAN_LAM]).view(np.float32),
        partner=rows[:, PLAN_PARTNER].astype(np.int64),
        mate=rows[:, PLAN_MATE].astype(np.int64),
        box=rows[:, PLAN_BOX:],
    )


def image_weight(drawn: Draw) -> Array:
    """Weight of the own pixels outside the box: lam for mixup, 1 for the others."""
    return np.where(drawn.method == METHOD_MIXUP, drawn.lam, np.float32(1.0))


def planes(x: Tensor, channels_last: bool) -> tuple[Array, int]:
    """numpy view of x's bits as integers [B, planes, H, row], and the elements of a pixel within a row.

    Rows of all channels lie together in channels_last: one plane of W * C elements a row.
    """
    bits = x.view(INTEGER_VIEW[x.element_size()])
    if not channels_last:
        return bits.numpy(), 1
    batch, channels, height, width = x.shape
    return bits.permute(0, 2, 3, 1).numpy().reshape(batch, 1, height, width * channels), channels


def edges(drawn: Draw, step: int) -> list[list[int]]:
    """(y0, x0, y1, x1) of every sample's box, x in elements of a row."""
    return (drawn.box * np.array([1, step, 1, step])).tolist()


def is_small(x: Tensor, out: Tensor, drawn: Draw, in_place: bool) -> bool:
    """True where passes over many samples at once beat a loop over samples."""
    blends, boxed = ((drawn.method == method).any() for method in (METHOD_MIXUP, METHOD_CUTMIX))
    return bool(
        (blends or boxed)
        and 0 < x[0].nbytes < (SMALL_BOXED if boxed else SMALL_SAMPLE)
        and (x.nbytes <= 4 * SMALL_BATCH or not in_place)
        and is_channels_last(x) == is_channels_last(out)
        and (x.dtype == torch.float32 or not blends)
    )


def mix_small(x: Tensor, out: Tensor, drawn: Draw, in_place: bool) -> None:
    """Small samples, copied or in place: partners gathered, then whole batches or large chunks mixed with them."""
    step = len(x) if in_place else max(1, SMALL_BATCH // x[0].nbytes)
    blends, pastes = bool((drawn.method == METHOD_MIXUP).any()), bool((drawn.method == METHOD_CUTMIX).any())
    apart = in_place or (blends and pastes)  # else partners are gathered straight into the result
    weight, partner = image_weight(drawn), torch.from_numpy(drawn.partner)
    x_rows, out_rows = sample_rows(x), sample_rows(out)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        source, result = x_rows[part], out_rows[part]
        other = torch.index_select(x_rows, 0, partner[part], out=None if apart else result)
        if blends:
            lam = weight[part]
            untouched = np.flatnonzero(lam == 1)  # x - 0 * (x - other) is not x where it meets an infinity
            kept = source[untouched] if len(untouched) else None
            torch.lerp(other, source, torch.from_numpy(lam)[:, None], out=result)
            if kept is not None:
                result[untouched] = kept
            source = result
        if pastes:
            paste_boxes(source, other, result, drawn.box[part], x)


def sample_rows(x: Tensor) -> Tensor:
    """View of x as [B, elements of a sample], in the order of memory."""
    return x.as_strided((len(x), x[0].numel()), (x.stride(0), 1))


def paste_boxes(x_rows: Tensor, other: Tensor, out_rows: Tensor, box: Array, x: Tensor) -> None:
    """out = x + inside * (other - x) in integers, where it wraps round and so copies every bit; for rows as x's."""
    dtype = INTEGER_VIEW[x.element_size()]
    channels, height, width = x.shape[1:]
    step = channels if is_channels_last(x) else 1
    y0, x0, y1, x1 = box.T
    lines, columns = run_masks(height, dtype, y0, y1), run_masks(width * step, dtype, x0 * step, x1 * step)
    inside = (lines[:, :, None] * columns[:, None]).view(len(box), 1, -1)
    x_bits, other_bits, out_bits = (
        t.view(dtype).view(len(box), channels // step, -1) for t in (x_rows, other, out_rows)
    )
    difference = torch.sub(other_bits, x_bits, out=other_bits)
    torch.addcmul(x_bits, difference, inside, out=out_bits)


def run_masks(size: int, dtype: torch.dtype, start: Array, stop: Array) -> Tensor:
    """[n, size]: ones from start to stop."""
    index = np.arange(size)
    return torch.from_numpy((index >= start[:, None]) & (index < stop[:, None])).to(dtype)


def mix_copied(x: Tensor, out: Tensor, drawn: Draw) -> None:
    """x to a separate `out` of the same dtype; large samples beside their mates, while caches hold what both read."""
    last = is_channels_last(x) and is_channels_last(out)
    (source, step), (destination, _) = planes(x, last), planes(out, last)
    own, written = x.unbind(0), out.unbind(0)
    weight, partner, edge = image_weight(drawn).tolist(), drawn.partner.tolist(), edges(drawn, step)
    one_by_one = x[0].nbytes >= LARGE_SAMPLE
    if not one_by_one and not all(lam != 1 for lam in weight):
        out.copy_(x)
    for i in paired_order(drawn.mate).tolist():
        j, (y0, x0, y1, x1) = partner[i], edge[i]
        if weight[i] != 1:
            torch.lerp(own[j], own[i], weight[i], out=written[i])
        elif one_by_one:
            written[i].copy_(own[i])
        if y1 > y0 and x1 > x0:
            destination[i, :, y0:y1, x0:x1] = source[j, :, y0:y1, x0:x1]


def paired_order(mate: Array) -> Array:
    """All samples, mates next to each other."""
    i = np.arange(len(mate))
    if (mate == i).all() or (mate[mate] != i).any():
        return i
    first = i[i < mate]
    return np.concatenate([np.stack([first, mate[first]], 1).reshape(-1), i[mate == i]])


def mix_in_place(x: Tensor, drawn: Draw) -> None:
    """Both samples of a pair at once; only what changes is touched."""
    i = np.arange(len(x))
    first = i[i < drawn.mate]
    second = drawn.mate[first]
    samples, scratch, lam = x.unbind(0), torch.empty_like(x[:1])[0], image_weight(drawn).tolist()
    has_box = bool((drawn.method == METHOD_CUTMIX).any())
    if has_box:
        pixels, step = planes(x, is_channels_last(x))
        edge, spare = edges(drawn, step), np.empty_like(pixels[0])
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        # What j takes from i is set aside, i is written from j, then j from what was set aside.
        if lam[j] != 1:
            scratch.copy_(samples[i])
        elif has_box:
            v0, u0, v1, u1 = edge[j]
            aside = spare[:, : v1 - v0, : u1 - u0]
            aside[:] = pixels[i, :, v0:v1, u0:u1]
        if lam[i] != 1:
            torch.lerp(samples[j], samples[i], lam[i], out=samples[i])
        elif has_box:
            y0, x0, y1, x1 = edge[i]
            pixels[i, :, y0:y1, x0:x1] = pixels[j, :, y0:y1, x0:x1]
        if lam[j] != 1:
            torch.lerp(scratch, samples[j], lam[j], out=samples[j])
        elif has_box:
            pixels[j, :, v0:v1, u0:u1] = aside


def mix_computed(x: Tensor, out: Tensor, norm: Tensor | None, drawn: Draw, in_place: bool) -> None:
    """Any dtype to any other, normalised if asked: float32 chunks with the reference's own steps, then one rounding."""
    source = x.clone() if in_place else x
    weight = image_weight(drawn)
    edge = edges(drawn, 1)
    step = max(1, CHUNK_BYTES // max(4 * x[0].numel(), 1))
    lam, partner, blended = weight.tolist(), drawn.partner, weight != 1
    scratch, other = (torch.empty_like(x[:n], dtype=torch.float32) for n in (step, 1))
    for start in range(0, len(x), step):
        stop = min(start + step, len(x))
        own = scratch[: stop - start].copy_(source[start:stop])
        for n in np.flatnonzero(blended[start:stop]).tolist():
            blend(own[n], other[0].copy_(source[partner[start + n]]), lam[start + n])
        for n, (y0, x0, y1, x1) in enumerate(edge[start:stop]):
            if y1 > y0 and x1 > x0:
                own[n, :, y0:y1, x0:x1] = source[partner[start + n], :, y0:y1, x0:x1]
        if norm is not None:
            normalise_in_place(own, norm)
        if out.dtype == torch.uint8:
            own.round_()
        out[start:stop].copy_(own)


def blend(own: Tensor, other: Tensor, lam: float) -> None:
    """The reference's lerp, in place: torch's own, where that is fused."""
    if HAS_FMA:
        torch.lerp(other, own, lam, out=own)
    else:
        own.copy_(lerp(own, other, torch.tensor(lam)))


def normalise_in_place(value: Tensor, norm: Tensor) -> None:
    if HAS_FMA:
        mean, inverse_std = norm.view(2, 1, -1, *[1] * (value.dim() - 2))
        torch.addcmul(-(mean * inverse_std), value, inverse_std, out=value)
    else:
        value.copy_(normalise(value, norm))


def mix_targets(target: Tensor, target_out: Tensor, drawn: Draw, recipe: Recipe) -> None:
    """Target rows, or the partners' classes."""
    target = target.detach()
    if target_out.dim() == 1:
        target_out.copy_(target[torch.from_numpy(drawn.partner)])
    elif target.dim() == 2:
        rows = dense_rows(target, target.shape[1], recipe.smoothing)
        target_out.copy_(mix_rows(rows, torch.from_numpy(drawn.partner), torch.from_numpy(drawn.lam)))
    else:
        on, off = smoothed_on_off(recipe.smoothing, recipe.num_classes)
        library = native.library()
        if library is None or not native.one_hot(library, target, target_out, drawn, on, off):
            write_one_hot(target.numpy(), target_out.numpy(), drawn, recipe)


def write_one_hot(classes: Array, rows: Array, drawn: Draw, recipe: Recipe) -> None:
    """Rows of `off`, with the two labelled entries on top: lam between on and off, or `on` where both agree."""
    lam, other = drawn.lam, classes[drawn.partner]
    own_value, other_value, on = lam, 1 - lam, np.float32(1.0)
    rows.fill(0.0)
    if recipe.smoothing:
        on, off = (np.float32(value) for value in smoothed_on_off(recipe.smoothing, recipe.num_classes))
        labelled, rest, own_share = (torch.as_tensor(value) for value in (on, off, lam))
        own_value, other_value = lerp(labelled, rest, own_share).numpy(), lerp(rest, labelled, own_share).numpy()
        rows.fill(off)
    first = np.arange(0, rows.size, recipe.num_classes)
    flat = rows.reshape(-1)
    for labels, value in ((other, other_value), (classes, own_value)):
        if labels.min() < 0 or labels.max() >= recipe.num_classes:
            known = np.flatnonzero((labels >= 0) & (labels < recipe.num_classes))
            flat[first[known] + labels[known]] = value[known]
        else:
            flat[first + labels] = value
    same = np.flatnonzero((classes == other) & (classes >= 0) & (classes < recipe.num_classes))
    flat[first[same] + classes[same]] = on
