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

from .sampling import Array, Draw, draw

CHUNK_BYTES = 1 << 21  # a chunk and its scratch stay in cache, and one torch call covers many samples
SAMPLE_BYTES = 1 << 16  # from here on one torch call per sample costs less than gathering partners into scratch

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
) -> None:
    """Fills `out`, `target_out` and, unless `replay`, `plan`; see `ops.mix` for the arguments."""
    if recipe.adjoint:
        raise NotImplementedError("on the CPU the adjoint is composed of torch ops (ops.image_adjoint)")
    if x.shape[0] == 0:
        return
    if state is not None:
        seed, offset = state.tolist()
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

    x, written = x.detach(), out.detach()
    if norm is not None or out.dtype != x.dtype or (x.dtype == torch.uint8 and recipe.has_mixup):
        mix_computed(x, written, norm, drawn)
    elif x.data_ptr() == out.data_ptr():
        mix_in_place(x, drawn)
    else:
        mix_copied(x, written, drawn)
    if target is not None and target_out is not None:
        mix_targets(target, target_out, drawn, recipe)


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
    """numpy view of x's bits as [B, planes, H, row], and the elements of a pixel within a row.

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


def mix_copied(x: Tensor, out: Tensor, drawn: Draw) -> None:
    """x to a separate `out` of the same dtype."""
    weight = image_weight(drawn)
    blended = weight != 1
    if not blended.any():
        out.copy_(x)
    elif x[0].nbytes >= SAMPLE_BYTES or x.dtype != torch.float32:
        own, written = x.unbind(0), out.unbind(0)
        for i, (blend, j, lam) in enumerate(
            zip(blended.tolist(), drawn.partner.tolist(), weight.tolist(), strict=True)
        ):
            if blend:
                torch.lerp(own[j], own[i], lam, out=written[i])
            else:
                written[i].copy_(own[i])
    else:
        step = max(1, CHUNK_BYTES // max(x[0].nbytes, 1))
        scratch = torch.empty_like(x[:step])
        partner = torch.from_numpy(drawn.partner)
        lam = torch.from_numpy(weight).view(-1, *[1] * (x.dim() - 1))
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            other = torch.index_select(x, 0, partner[part], out=scratch[: len(x[part])])
            torch.lerp(other, x[part], lam[part], out=out[part])
        source, destination = x.numpy(), out.numpy()
        for i in np.flatnonzero(~blended).tolist():
            destination[i] = source[i]  # a blend with weight 1 is not a copy where the partner is infinite
    if (drawn.method == METHOD_CUTMIX).any():
        last = is_channels_last(x) and is_channels_last(out)
        (source, step), (destination, _) = planes(x, last), planes(out, last)
        for i, (j, (y0, x0, y1, x1)) in enumerate(zip(drawn.partner.tolist(), edges(drawn, step), strict=True)):
            destination[i, :, y0:y1, x0:x1] = source[j, :, y0:y1, x0:x1]


def mix_in_place(x: Tensor, drawn: Draw) -> None:
    """Both samples of a pair at once; only what changes is touched."""
    i = np.arange(len(x))
    first = i[i < drawn.mate]
    second = drawn.mate[first]
    weight = image_weight(drawn)
    small = x.dtype == torch.float32 and x[0].nbytes < SAMPLE_BYTES
    if small and (drawn.method[first] == METHOD_MIXUP).all() and (drawn.method[second] == METHOD_MIXUP).all():
        return blend_pairs(x, first, second, weight)

    samples, scratch, lam = x.unbind(0), torch.empty_like(x[:1])[0], weight.tolist()
    has_box = bool((drawn.method == METHOD_CUTMIX).any())
    if has_box:
        pixels, step = planes(x, is_channels_last(x))
        edge = edges(drawn, step)
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        # What j takes from i is set aside, i is written from j, then j from what was set aside.
        if lam[j] != 1:
            scratch.copy_(samples[i])
        elif has_box:
            v0, u0, v1, u1 = edge[j]
            aside = pixels[i, :, v0:v1, u0:u1].copy()
        if lam[i] != 1:
            torch.lerp(samples[j], samples[i], lam[i], out=samples[i])
        elif has_box:
            y0, x0, y1, x1 = edge[i]
            pixels[i, :, y0:y1, x0:x1] = pixels[j, :, y0:y1, x0:x1]
        if lam[j] != 1:
            torch.lerp(scratch, samples[j], lam[j], out=samples[j])
        elif has_box:
            pixels[j, :, v0:v1, u0:u1] = aside


def blend_pairs(x: Tensor, first: Array, second: Array, weight: Array) -> None:
    """mixup of pairs of small float32 samples in place, a chunk of pairs at a time."""
    step = max(1, CHUNK_BYTES // (2 * max(x[0].nbytes, 1)))
    a, b, mixed = (torch.empty_like(x[:step]) for _ in range(3))
    lam = torch.from_numpy(weight).view(-1, *[1] * (x.dim() - 1))
    first_rows, second_rows = torch.from_numpy(first), torch.from_numpy(second)
    for start in range(0, len(first), step):
        i, j = first_rows[start : start + step], second_rows[start : start + step]
        own, other = a[: len(i)], b[: len(i)]
        torch.index_select(x, 0, i, out=own)
        torch.index_select(x, 0, j, out=other)
        x.index_copy_(0, i, torch.lerp(other, own, lam[i], out=mixed[: len(i)]))
        x.index_copy_(0, j, torch.lerp(own, other, lam[j], out=mixed[: len(i)]))


def mix_computed(x: Tensor, out: Tensor, norm: Tensor | None, drawn: Draw) -> None:
    """Any dtype to any other, normalised if asked: float32 chunks with the reference's own steps, then one rounding."""
    source = x.clone() if x.data_ptr() == out.data_ptr() else x
    weight = image_weight(drawn)
    edge = edges(drawn, 1)
    step = max(1, CHUNK_BYTES // max(4 * x[0].numel(), 1))
    # big + w (small - big) is other + lam (own - other) for lam < 1/2, else own - (1 - lam) (own - other).
    factor = torch.from_numpy(np.where(weight < 0.5, weight, weight - 1)).view(-1, *[1] * (x.dim() - 1))
    partner, blended, swapped = drawn.partner, weight != 1, weight < 0.5
    own_scratch, other_scratch, difference = (torch.empty_like(x[:step], dtype=torch.float32) for _ in range(3))
    for start in range(0, len(x), step):
        stop = min(start + step, len(x))
        own, other = own_scratch[: stop - start], other_scratch[: stop - start]
        own.copy_(source[start:stop])
        if blended[start:stop].any():
            for n in range(stop - start):
                if blended[start + n]:
                    other[n].copy_(source[partner[start + n]])
                else:
                    other[n].copy_(own[n])
            delta = torch.sub(own, other, out=difference[: stop - start]).mul_(factor[start:stop])
            for n in np.flatnonzero(swapped[start:stop]).tolist():
                own[n].copy_(other[n])
            for n in np.flatnonzero(~blended[start:stop]).tolist():
                delta[n].zero_()
            own.add_(delta)
        for n, (y0, x0, y1, x1) in enumerate(edge[start:stop]):
            if y1 > y0 and x1 > x0:
                own[n, :, y0:y1, x0:x1] = source[partner[start + n], :, y0:y1, x0:x1]
        if norm is not None:
            mean, inverse_std = norm.view(2, 1, -1, *[1] * (x.dim() - 2))
            own.sub_(mean).mul_(inverse_std)
        if out.dtype == torch.uint8:
            own.round_()
        out[start:stop].copy_(own)


def mix_targets(target: Tensor, target_out: Tensor, drawn: Draw, recipe: Recipe) -> None:
    """Target rows, or the partners' classes."""
    target, partner = target.detach(), torch.from_numpy(drawn.partner)
    if target_out.dim() == 1:
        target_out.copy_(target[partner])
    elif target.dim() == 2:
        rows = dense_rows(target, target.shape[1], recipe.smoothing)
        target_out.copy_(mix_rows(rows, partner, torch.from_numpy(drawn.lam)))
    else:
        write_one_hot(target.numpy(), target_out.numpy(), drawn, recipe)


def write_one_hot(classes: Array, rows: Array, drawn: Draw, recipe: Recipe) -> None:
    """Rows of `off`, with the two labelled entries on top: lam between on and off, or `on` where both agree."""
    on, off = (np.float32(value) for value in smoothed_on_off(recipe.smoothing, recipe.num_classes))
    lam, other = drawn.lam, classes[drawn.partner]
    swap = lam < 0.5
    weight = np.where(swap, lam, 1 - lam)
    big_on, big_off = on + weight * (off - on), off + weight * (on - off)
    same = classes == other
    rows.fill(off)
    for labels, value in (
        (other, np.where(same, on, np.where(swap, big_on, big_off))),
        (classes, np.where(same, on, np.where(swap, big_off, big_on))),
    ):
        known = np.flatnonzero((labels >= 0) & (labels < recipe.num_classes))
        rows[known, labels[known]] = value[known]
