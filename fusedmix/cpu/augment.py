"""FusedAugment on the CPU: the reference's draws, then chunks of samples that stay in cache from bytes to result."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedmix.recipe import (
    BEYOND_FILL,
    METHOD_CUTMIX,
    METHOD_MIXUP,
    METHOD_NONE,
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

from . import native
from .family import SMALL_SAMPLE, Samples, in_c, is_boxed, rows_of, words
from .family import draw as draw_family
from .mix import as_numpy, mix_targets, normalise_in_place, paired_order, paste_boxes, sample_rows
from .sampling import MASK64, Array

CHUNK_BYTES = 1 << 21  # float32 bytes of the results of a chunk
THREAD_SAMPLES = 8  # that each thread gets of a chunk, in C
SMALL_BATCH = 1 << 23  # float32 bytes of a result of small images that is one chunk
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
        drawn = draw(recipe, geometry, knobs, x, seed, offset, sample_offset, gray, partner)
        if plan is not None:
            plan.copy_(pack_augment(drawn))
    if out.numel():
        fill_images(x.detach(), out.detach(), drawn, recipe, geometry, norm, fill, field)
    if target is not None and target_out is not None:
        mix_targets(target, target_out, as_numpy(drawn.family), recipe)


def draw(
    recipe: Recipe, geometry: Geometry, knobs: Tensor, x: Tensor, seed: int, offset: int, sample_offset: int,
    gray: Tensor | None, partner: Tensor | None,
) -> AugmentDraw:  # fmt: skip
    """The reference's `draw_augment`, in C where there is a compiler."""
    library, most = native.library(), brightest(x.dtype)
    if library is None:
        return draw_augment(
            recipe, geometry, knobs, x.shape, most, seed, offset, sample_offset, gray=gray, partner=partner,
            words=words,
        )  # fmt: skip
    batch, _, height, width = x.shape
    size, rows = (geometry.height, geometry.width), len(recipe.choices) + 1
    family = draw_family(recipe, knobs[:rows], batch, *size, seed, offset, sample_offset, partner=partner)
    placed = native.draw_place(
        library, geometry, knobs[rows:], batch, height, width, seed & MASK64, offset & MASK64, sample_offset, gray, most
    )
    return AugmentDraw(family, *placed)


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
    small = sample_bytes < SMALL_SAMPLE
    alone = not recipe.erase and all(method_of(code) == METHOD_NONE for code in recipe.choices)
    library = native.library()
    each = 0 if library is None else THREAD_SAMPLES * torch.get_num_threads()
    step = max(2, CHUNK_BYTES // sample_bytes, each) // 2 * 2  # pairs stay together
    if small and len(x) * sample_bytes <= SMALL_BATCH:
        step = len(x)
    order, partner = (
        paired_order(drawn.family.mate.numpy()) if step < len(x) else np.arange(len(x)),
        drawn.family.partner.numpy(),
    )
    everyone = np.arange(len(x))
    if alone and library is not None and native.place(library, x, out, norm, everyone, drawn, geometry, beyond):
        return
    source = Source(x, drawn, geometry, beyond)
    scratch = torch.empty((2 * step, *out.shape[1:]), dtype=x.dtype if copies else torch.float32)
    values = torch.empty((step, *out.shape[1:]), dtype=dtype)
    for start in range(0, len(order), step):
        members = order[start : start + step]
        needed, family, ranks = members, drawn.family, field
        if len(members) < len(x):
            needed = np.concatenate([members, np.setdiff1d(partner[members], members)])
            place_of = {n: k for k, n in enumerate(needed.tolist())}
            local = torch.tensor([place_of[n] for n in partner[members].tolist()])
            family = rows_of(family, torch.from_numpy(members))._replace(partner=local)
            ranks = None if field is None else field[torch.from_numpy(members)]
        value = values[: len(members)]
        placed = value if alone else scratch[: len(needed)]
        source.place(needed, placed)
        if in_c(placed, out, norm, family, recipe, fill, ranks, members):
            continue
        if not alone:
            mix_into(value, placed, family, recipe, fill, ranks, small)
        if in_order(members):
            finish(value, norm, out[members[0] : members[-1] + 1])
        elif small:
            finished = torch.empty_like(value, dtype=out.dtype)
            finish(value, norm, finished)
            out[torch.from_numpy(members)] = finished
        else:
            for k, n in enumerate(members.tolist()):
                finish(value[k : k + 1], norm, out[n : n + 1])


def mix_into(
    value: Tensor, placed: Tensor, family: FamilyDraw, recipe: Recipe, fill: Tensor, field: Tensor | None, small: bool
) -> None:
    """Fills `value` with the first images of `placed`, mixed with their partners among all of them, and erased."""
    own, changes = placed[: len(value)], (*recipe.choices, recipe.erase)
    if small and all(method_of(c) in (METHOD_NONE, METHOD_CUTMIX) for c in changes):
        other = placed[family.partner]  # boxes of many samples at once, before they are converted
        rows = sample_rows(other)
        paste_boxes(sample_rows(own), rows, rows, family.region.slots[:, :4].numpy(), other)
        value.copy_(other)
    elif small and not is_boxed(recipe):
        value.copy_(apply_family(own.float(), placed[family.partner].float(), family, recipe, fill, field, words))
    else:
        value.copy_(own)
        Samples(placed, family, recipe, fill, field).change_all(value, 0)


def in_order(members: Array) -> bool:
    return bool((np.diff(members) == 1).all())


def finish(value: Tensor, norm: Tensor | None, out: Tensor) -> None:
    """Writes `value` to `out`, normalised and cast as by the reference's `finished`; changes `value`."""
    if norm is not None:
        normalise_in_place(value, norm)
    if out.dtype == torch.uint8 and value.dtype != out.dtype:
        value.clamp_(0, 255).round_()
    out.copy_(value)


class Source:
    """The batch, and where each result's rows and columns lie in it."""

    def __init__(self, x: Tensor, drawn: AugmentDraw, geometry: Geometry, fill: Tensor):
        self.x, self.drawn, self.geometry, self.fill = x, drawn, geometry, fill
        self.most = brightest(x.dtype)
        self.is_window = not geometry.turns and not geometry.resizes

    @cached_property
    def windows(self) -> list[tuple[int, int, bool, bool]]:
        """Where each image begins, down and across, and whether it is flipped down and across."""
        m, (height, width) = self.drawn.placement.map, (self.geometry.height, self.geometry.width)
        flip_v, flip = m[4] < 0, m[0] < 0
        top, left = m[5] - torch.where(flip_v, height, 0), m[2] - torch.where(flip, width, 0)
        return list(zip(*(c.tolist() for c in (top.int(), left.int(), flip_v, flip)), strict=True))

    @cached_property
    def is_cut_out(self) -> bool:
        """Whether no window shows edges or mirrors."""
        (height, width), geometry = self.x.shape[2:], self.geometry
        return geometry.beyond == BEYOND_FILL or all(
            0 <= top <= height - geometry.height and 0 <= left <= width - geometry.width
            for top, left, _, _ in self.windows
        )

    def place(self, members: Array, out: Tensor) -> None:
        """Writes the images of `members`, placed and coloured, to `out`."""
        geometry, rows, library = self.geometry, torch.from_numpy(members), native.library()
        if library is not None and native.place(library, self.x, out, None, members, self.drawn, geometry, self.fill):
            return
        own = Placement(*(tuple(c[rows] for c in part) for part in self.drawn.placement))
        if self.is_window and self.is_cut_out:
            fill = self.fill.to(out.dtype)[:, None, None]
            if geometry.height * geometry.width < SMALL_IMAGE:
                self.paste_windows(members, bits_of(out), bits_of(fill), out.dtype)
            else:
                for k, n in enumerate(members.tolist()):
                    self.paste_window(n, out[k], fill)
        elif geometry.height * geometry.width < SMALL_IMAGE:
            out.copy_(sampled(self.x[rows], own, geometry, self.fill))
        elif geometry.turns:
            for k, n in enumerate(members.tolist()):
                one = Placement(*(tuple(c[k : k + 1] for c in part) for part in own))
                out[k] = sampled(self.x[n : n + 1], one, geometry, self.fill)[0]
        elif geometry.bilinear and not self.is_window:
            edges = torch.stack(own.limits, 1).tolist()
            flips = torch.stack([own.map[4] < 0, own.map[0] < 0], 1).tolist()
            for k, n in enumerate(members.tolist()):
                resize(self.x[n], edges[k], flips[k], out[k])
        else:
            v, u = points(own.map[4], own.map[5], geometry.height), points(own.map[0], own.map[2], geometry.width)
            y0, x0, y1, x1 = (c[:, None] for c in own.limits)
            for k, n in enumerate(members.tolist()):
                self.pick_lines(self.x[n], v[k], u[k], (y0[k], y1[k]), (x0[k], x1[k]), out[k])
        if self.drawn.coloring is not None:
            self.color(rows, out)

    def color(self, rows: Tensor, out: Tensor) -> None:
        drawn = [c[rows] for c in self.drawn.coloring or ()]
        small = self.geometry.height * self.geometry.width < SMALL_IMAGE
        each = len(out) if small else 1  # images at a time, which then stay in the cache
        for start in range(0, len(out), each):
            part = slice(start, start + each)
            some = list(out[part].unbind(1))
            for k, channel in enumerate(colored(some, self.most, *columns([c[part] for c in drawn]))):
                out[part, k] = channel

    def paste_windows(self, members: Array, target: Array, fill: Array, dtype: torch.dtype) -> None:
        """`paste_window` of many small images, cut out of a padded copy of them."""
        top, left, flip_v, flip = np.array([self.windows[n] for n in members.tolist()]).T
        whole = len(members) == len(self.x) and in_order(members)
        source = bits_of((self.x if whole else self.x[torch.from_numpy(members)]).to(dtype))
        (height, width), (above, before) = source.shape[2:], (max(0, -top.min()), max(0, -left.min()))
        below, after = (
            max(0, int(start.max()) + size - side)
            for start, size, side in ((top, target.shape[2], height), (left, target.shape[3], width))
        )
        padded = np.empty((*source.shape[:2], above + height + below, before + width + after), source.dtype)
        padded[:] = fill
        padded[:, :, above : above + height, before : before + width] = source
        windows = np.lib.stride_tricks.sliding_window_view(padded, target.shape[2:], axis=(2, 3))
        target[:] = windows[np.arange(len(members)), :, top + above, left + before]
        for axis, flips in ((2, flip_v), (3, flip)):
            chosen = np.flatnonzero(flips)
            target[chosen] = np.flip(target[chosen], axis)

    def paste_window(self, n: int, out: Tensor, fill: Tensor) -> None:
        """Copies a window that may reach beyond the image."""
        top, left, *flips = self.windows[n]
        (height, width), (rows, columns) = out.shape[1:], self.x.shape[2:]
        first, last = max(0, -top), min(height, rows - top)
        start, stop = max(0, -left), min(width, columns - left)
        if first > 0 or start > 0 or last < height or stop < width:
            out.copy_(fill.expand_as(out))
        if first >= last or start >= stop:
            return
        window = flipped(self.x[n, :, top + first : top + last, left + start : left + stop], flips)
        if flips[0]:
            first, last = height - last, height - first
        if flips[1]:
            start, stop = width - stop, width - start
        out[:, first:last, start:stop].copy_(window)

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


def resize(image: Tensor, edges: list[int], flips: list[bool], out: Tensor) -> None:
    """A crop, flipped and resized by torch's own kernel, whose coordinates count from the crop instead of the image."""
    y0, x0, y1, x1 = edges
    crop = flipped(image[:, y0:y1, x0:x1], flips)
    out.copy_(F.interpolate(crop[None].float(), size=out.shape[1:], mode="bilinear", align_corners=False)[0])


def flipped(image: Tensor, flips: Sequence[bool]) -> Tensor:
    """[C, H, W], upside down and left to right where asked."""
    axes = [axis for axis, flip in zip((1, 2), flips, strict=True) if flip]
    return image.flip(axes) if axes else image


def points(step: Tensor, start: Tensor, size: int) -> Tensor:
    """Where the pixels of a row or column lie in the source: float32 [B, size]."""
    return step[:, None] * (torch.arange(size).float() + 0.5) + start[:, None]


def bits_of(t: Tensor) -> Array:
    """numpy view of a tensor; bfloat16 as the integers of its bits."""
    return (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy()
