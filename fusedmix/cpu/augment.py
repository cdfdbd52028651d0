"""FusedAugment on the CPU: the reference's draws, then chunks of samples that stay in cache from bytes to result."""

import numpy as np
import torch
from torch import Tensor

from fusedmix.recipe import (
    BEYOND_FILL,
    CROP_CENTER,
    CROP_WINDOW,
    METHOD_MIXUP,
    METHOD_SMOOTHMIX,
    Geometry,
    Recipe,
    method_of,
)
from fusedmix.reference.augment import (
    AugmentDraw,
    Placement,
    brightest,
    draw_augment,
    pack_augment,
    sampled,
    unpack_augment,
)
from fusedmix.reference.family import FamilyDraw, apply_family, columns
from fusedmix.reference.geometry import colored, folded
from fusedmix.reference.mix import finished

from .family import SMALL_SAMPLE, Samples, is_boxed, rows_of, words
from .mix import as_numpy, mix_targets
from .sampling import Array

CHUNK_BYTES = 1 << 21  # float32 bytes of the results of a chunk
SMALL_IMAGE = 1 << 13  # pixels of a result below which one gather over many samples beats a loop over them


def augment_into(
    out: Tensor,
    target_out: Tensor | None,
    plan: Tensor | None,
    x: Tensor,
    target: Tensor | None,
    norm: Tensor | None,
    gray: Tensor | None,
    partner: Tensor | None,
    state: Tensor | None,
    seed: int,
    offset: int,
    sample_offset: int,
    recipe: Recipe,
    geometry: Geometry,
    replay: bool,
    extras: tuple[Tensor | None, ...],
) -> None:
    """Fills `out`, `target_out` and, unless `replay`, `plan`; see `ops.augment` for the arguments."""
    if x.shape[0] == 0:
        return
    if state is not None:
        seed, offset = state.tolist()
    knobs, fill, field = extras
    assert fill is not None
    if replay:
        assert plan is not None
        drawn = unpack_augment(plan, recipe, geometry)
    else:
        assert knobs is not None
        drawn = draw_augment(
            recipe, geometry, knobs, x.shape, brightest(x.dtype), seed, offset, sample_offset, gray=gray,
            partner=partner, words=words,
        )  # fmt: skip
        if plan is not None:
            plan.copy_(pack_augment(drawn))
    if out.numel():
        fill_images(x.detach(), out.detach(), drawn, recipe, geometry, norm, fill, field)
    if target is not None and target_out is not None:
        mix_targets(target, target_out, as_numpy(drawn.family), recipe)


def fill_images(
    x: Tensor, out: Tensor, drawn: AugmentDraw, recipe: Recipe, geometry: Geometry, norm: Tensor | None, fill: Tensor,
    field: Tensor | None,
) -> None:  # fmt: skip
    """A chunk at a time: its images placed and coloured, with partners from outside it, then mixed and finished."""
    beyond = fill[-1, 0]
    exact = bool((beyond.to(x.dtype).float() == beyond).all())  # what lies beyond is a value of x's dtype
    copies = exact and not geometry.bilinear and not geometry.color  # pixels that are only copied keep their dtype
    blends = any(method_of(code) in (METHOD_MIXUP, METHOD_SMOOTHMIX) for code in recipe.choices)
    computes = norm is not None or out.dtype != x.dtype or not copies or blends or recipe.has_fill
    dtype = torch.float32 if computes else x.dtype
    sample_bytes = 4 * out[0].numel()
    by_steps = sample_bytes < SMALL_SAMPLE and not is_boxed(recipe)
    order, partner = paired_order(drawn.family), drawn.family.partner.numpy()
    step = max(2, CHUNK_BYTES // sample_bytes)
    source = Source(x, drawn, geometry, beyond)
    scratch = torch.empty((2 * step, *out.shape[1:]), dtype=x.dtype if copies else torch.float32)
    for start in range(0, len(order), step):
        members = order[start : start + step]
        needed = np.concatenate([members, np.setdiff1d(partner[members], members)])
        placed = scratch[: len(needed)]
        source.place(needed, placed)
        rows, place_of = torch.from_numpy(members), {n: k for k, n in enumerate(needed.tolist())}
        local = torch.tensor([place_of[n] for n in partner[members].tolist()])
        family = rows_of(drawn.family, rows)._replace(partner=local)
        ranks = None if field is None else field[rows]
        if by_steps:
            value = apply_family(
                placed[: len(members)].float(), placed[local].float(), family, recipe, fill, ranks, words
            )
        else:
            value = placed[: len(members)].to(dtype, copy=True)
            samples = Samples(placed, family, recipe, fill, ranks)
            for k in samples.changed:
                samples.change(k, value[k])
        if computes:
            value = finished(value, norm, out.dtype)
        first, last = int(members[0]), int(members[-1])
        if last - first == len(members) - 1 and bool((np.diff(members) == 1).all()):
            out[first : last + 1] = value
        else:
            out[rows] = value


def paired_order(family: FamilyDraw) -> Array:
    """All samples, mates next to each other."""
    mate, i = family.mate.numpy(), np.arange(len(family.mate))
    if (mate == i).all() or (mate[mate] != i).any():
        return i
    first = i[i < mate]
    return np.concatenate([np.stack([first, mate[first]], 1).reshape(-1), i[mate == i]])


class Source:
    """The batch, and where each result's rows and columns lie in it."""

    def __init__(self, x: Tensor, drawn: AugmentDraw, geometry: Geometry, fill: Tensor):
        self.x, self.drawn, self.geometry, self.fill = x, drawn, geometry, fill
        self.most = brightest(x.dtype)
        m, size = drawn.placement.map, (geometry.height, geometry.width)
        self.is_window = not geometry.turns and (
            geometry.crop == CROP_WINDOW
            or (geometry.crop == CROP_CENTER and (geometry.box_height, geometry.box_width) == size)
        )
        if self.is_window:  # where it begins, and whether it is flipped
            flip_v, flip = m[4] < 0, m[0] < 0
            top, left = m[5] - torch.where(flip_v, size[0], 0), m[2] - torch.where(flip, size[1], 0)
            self.windows = list(zip(*(c.tolist() for c in (top.int(), left.int(), flip_v, flip)), strict=True))

    def place(self, members: Array, out: Tensor) -> None:
        """Writes the images of `members`, placed and coloured, to `out`."""
        geometry, rows = self.geometry, torch.from_numpy(members)
        own = Placement(*(tuple(c[rows] for c in part) for part in self.drawn.placement))
        if self.is_window and geometry.beyond == BEYOND_FILL:
            target, fill = bits_of(out), bits_of(self.fill.to(out.dtype))[:, None, None]
            for k, n in enumerate(members.tolist()):
                self.paste_window(n, target[k], fill, out.dtype)
        elif geometry.height * geometry.width < SMALL_IMAGE:
            out.copy_(sampled(self.x[rows].float(), own, geometry, self.fill))
        elif geometry.turns:
            for k, n in enumerate(members.tolist()):
                one = Placement(*(tuple(c[k : k + 1] for c in part) for part in own))
                out[k] = sampled(self.x[n : n + 1].float(), one, geometry, self.fill)[0]
        else:
            v, u = points(own.map[4], own.map[5], geometry.height), points(own.map[0], own.map[2], geometry.width)
            y0, x0, y1, x1 = (c[:, None] for c in own.limits)
            resample = self.blend_lines if geometry.bilinear else self.pick_lines
            for k, n in enumerate(members.tolist()):
                resample(self.x[n], v[k], u[k], (y0[k], y1[k]), (x0[k], x1[k]), out[k])
        if self.drawn.coloring is not None:
            factors = columns([c[rows] for c in self.drawn.coloring])
            for k, channel in enumerate(colored(list(out.unbind(1)), self.most, *factors)):
                out[:, k] = channel

    def paste_window(self, n: int, target: Array, fill: Array, dtype: torch.dtype) -> None:
        """Copies a window that may reach beyond the image; bits only."""
        top, left, flip_v, flip = self.windows[n]
        source = bits_of(self.x[n].to(dtype))
        height, width = target.shape[1:]
        target = target[:, :: -1 if flip_v else 1, :: -1 if flip else 1]
        first, last = max(0, -top), min(height, source.shape[1] - top)
        start, stop = max(0, -left), min(width, source.shape[2] - left)
        if first > 0 or start > 0 or last < height or stop < width:
            target[:] = fill
        if first < last and start < stop:
            target[:, first:last, start:stop] = source[:, top + first : top + last, left + start : left + stop]

    def pick_lines(
        self, image: Tensor, v: Tensor, u: Tensor, rows: tuple[Tensor, Tensor], across: tuple[Tensor, Tensor],
        out: Tensor,
    ) -> None:  # fmt: skip
        """Nearest pixels, of an image that does not turn: whole rows, then columns."""
        row, row_there = folded(torch.floor(v).long(), *rows, self.geometry.beyond)
        column, column_there = folded(torch.floor(u).long(), *across, self.geometry.beyond)
        out.copy_(image.index_select(1, row).index_select(2, column))
        if self.geometry.beyond == BEYOND_FILL:
            out.copy_(torch.where(row_there[:, None] & column_there, out, self.fill[:, None, None].to(out.dtype)))

    def blend_lines(
        self, image: Tensor, v: Tensor, u: Tensor, rows: tuple[Tensor, Tensor], across: tuple[Tensor, Tensor],
        out: Tensor,
    ) -> None:  # fmt: skip
        """Bilinear, of a crop that does not turn: the rows it needs blended across, then these blended down."""
        assert self.geometry.limited
        v, u = v - 0.5, u - 0.5
        top, left = torch.floor(v), torch.floor(u)
        low, far = (v - top)[:, None], u - left
        upper, _ = folded(top.long(), *rows, self.geometry.beyond)
        lower, _ = folded(top.long() + 1, *rows, self.geometry.beyond)
        near, _ = folded(left.long(), *across, self.geometry.beyond)
        next_one, _ = folded(left.long() + 1, *across, self.geometry.beyond)
        first, last = int(torch.minimum(upper, lower).min()), int(torch.maximum(upper, lower).max())
        if last - first + 1 <= 2 * len(v):
            image, upper, lower = image[:, first : last + 1], upper - first, lower - first
        else:  # shrunk to less than half: most rows are not needed
            image = torch.cat([image.index_select(1, upper), image.index_select(1, lower)], 1)
            upper, lower = torch.arange(len(v)), torch.arange(len(v)) + len(v)
        a, b = (image.index_select(2, column).float() for column in (near, next_one))
        blended = b.sub_(a).mul_(far).add_(a)
        a, b = blended.index_select(1, upper), blended.index_select(1, lower)
        torch.add(b.sub_(a).mul_(low), a, out=out)


def points(step: Tensor, start: Tensor, size: int) -> Tensor:
    """Where the pixels of a row or column lie in the source: float32 [B, size]."""
    return step[:, None] * (torch.arange(size).float() + 0.5) + start[:, None]


def bits_of(t: Tensor) -> Array:
    """numpy view of a tensor; bfloat16 as the integers of its bits."""
    return (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy()
