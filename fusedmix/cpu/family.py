"""The family on the CPU: the reference's draws with numpy's Philox; boxes by slices, all else in chunks of a batch."""

import numpy as np
import torch
from torch import Tensor

from fusedmix import recipe as codes
from fusedmix.recipe import METHOD_NONE, METHOD_RESIZEMIX, ROW_SHIFT, Recipe, method_of
from fusedmix.reference.family import (
    FamilyDraw,
    Region,
    apply_family,
    clamp_bytes,
    draw_family,
    noise_of,
    pack,
    unpack,
)
from fusedmix.reference.pixel import normalise, round_to

from .sampling import words as numpy_words

CHUNK_BYTES = 1 << 22  # float32 bytes of a chunk: with its masks it stays near the cache


def words(seed: int, offset: int, index: Tensor, stream: int | Tensor) -> tuple[Tensor, ...]:
    """The reference's `words`, by numpy."""
    flat = index.reshape(-1).numpy()
    streams = stream.reshape(-1).numpy() if isinstance(stream, Tensor) else stream
    drawn = numpy_words(int(seed), offset, flat, streams)
    return tuple(torch.from_numpy(word.astype(np.int64)).view(index.shape) for word in drawn)


def family_into(
    out: Tensor, plan: Tensor | None, x: Tensor, norm: Tensor | None, lam: Tensor | None, box: Tensor | None,
    partner: Tensor | None, seed: int, offset: int, sample_offset: int, recipe: Recipe, replay: bool,
    extras: tuple[Tensor | None, ...],
) -> FamilyDraw:  # fmt: skip
    """Fills `out` and, unless `replay`, `plan`; returns the draw."""
    knobs, fill, field = extras
    height, width = (x.shape[2], x.shape[3]) if recipe.has_box else (1, 1)
    if replay:
        assert plan is not None
        drawn = unpack(plan, recipe)
    else:
        assert knobs is not None
        drawn = draw_family(
            recipe, knobs, len(x), height, width, seed, offset, sample_offset, lam=lam, box=box, partner=partner,
            words=words,
        )  # fmt: skip
        if plan is not None:
            plan.copy_(pack(drawn))

    x, written = x.detach(), out.detach()
    in_place = x.data_ptr() == out.data_ptr()
    source = x.clone() if in_place and bool((drawn.partner != torch.arange(len(x))).any()) else x
    if norm is None and out.dtype == x.dtype and is_boxed(drawn):
        if not in_place:
            written.copy_(x)
        paste(source, written, drawn.region, drawn.partner, fill)
        if drawn.erased is not None:
            paste(written, written, drawn.erased, None, fill)
    else:
        compute(source, written, drawn, recipe, norm, fill, field)
    return drawn


def is_boxed(drawn: FamilyDraw) -> bool:
    """True where every region drawn is made of boxes that are filled or copied as they are."""
    present = set(drawn.region.code.unique().tolist())
    present |= set() if drawn.erased is None else set(drawn.erased.code.unique().tolist())
    methods = {method_of(code) for code in present} - {METHOD_NONE}
    return all(codes.boxed(method) and method != METHOD_RESIZEMIX for method in methods)


def paste(source: Tensor, out: Tensor, region: Region, partner: Tensor | None, fill: Tensor | None) -> None:
    """Replaces the boxes of a region: by the partner's pixels, or by what they are filled with."""
    partners = None if partner is None else partner.tolist()
    for n, (code, slots, key) in enumerate(
        zip(region.code.tolist(), region.slots.tolist(), region.key.tolist(), strict=True)
    ):
        for k in range(0, 4 * codes.count_of(code) if code else 0, 4):
            y0, x0, y1, x1 = slots[k : k + 4]
            if y1 <= y0 or x1 <= x0:
                continue
            if not codes.drops(method_of(code)):
                assert partners is not None
                out[n, :, y0:y1, x0:x1] = source[partners[n], :, y0:y1, x0:x1]
                continue
            assert fill is not None
            value, sigma = fill[code >> ROW_SHIFT, :, :, None, None]
            if code >> codes.NOISE_SHIFT & 3:
                value = value + sigma * noise_of(code, key, out.shape[1:], words)[:, y0:y1, x0:x1]
            out[n, :, y0:y1, x0:x1] = round_to(clamp_bytes(value, out.dtype), out.dtype)


def compute(
    source: Tensor, out: Tensor, drawn: FamilyDraw, recipe: Recipe, norm: Tensor | None, fill: Tensor | None,
    field: Tensor | None,
) -> None:  # fmt: skip
    """The reference's own steps, a chunk of samples at a time."""
    step = max(1, CHUNK_BYTES // max(4 * source[0].numel(), 1))
    for start in range(0, len(source), step):
        part = slice(start, min(start + step, len(source)))
        own, other = source[part].float(), source[drawn.partner[part]].float()
        ranks = None if field is None else field[part]
        value = apply_family(own, other, rows_of(drawn, part), recipe, fill, ranks, words)
        if norm is not None:
            value = normalise(value, norm)
        out[part] = round_to(clamp_bytes(value, out.dtype), out.dtype)


def rows_of(drawn: FamilyDraw, part: slice) -> FamilyDraw:
    """Some samples of a draw."""
    region, erased = (
        None if r is None else Region(*(column[part] for column in r)) for r in (drawn.region, drawn.erased)
    )
    assert region is not None
    method, lam, partner, mate = (column[part] for column in drawn[:4])
    return FamilyDraw(method, lam, partner, mate, region, erased)
