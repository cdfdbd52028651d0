"""The family on the CPU: in C, or the reference's draws with numpy's Philox, then a copy changed sample by sample."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fusedmix import recipe as codes
from fusedmix import rng
from fusedmix.recipe import (
    METHOD_FMIX,
    METHOD_GRIDMASK,
    METHOD_GRIDMIX,
    METHOD_HIDE,
    METHOD_MIXUP,
    METHOD_NONE,
    METHOD_RESIZEMIX,
    METHOD_SMOOTHMIX,
    NOISE_NONE,
    NOISE_PIXEL,
    ROW_SHIFT,
    Recipe,
    method_of,
    noise_kind,
)
from fusedmix.reference.family import (
    FamilyDraw,
    Region,
    apply_family,
    chosen_cells,
    draw_family,
    pack,
    pixels,
    resized,
    unpack,
)
from fusedmix.reference.mix import finished
from fusedmix.reference.pixel import fma, lerp, round_to
from fusedmix.reference.regions import grid_centre, nearest, normal, normals, soft_share

from . import native
from .native import Draw
from .sampling import MASK64, NO_BOX, Array, mates
from .sampling import words as numpy_words

SMALL_SAMPLE = 1 << 16  # float32 bytes below which passes over many samples beat a loop over them
MIXUP = Recipe(switch_prob=0.0)
CHUNK_BYTES = 1 << 22  # float32 bytes of a chunk: with its masks it stays near the cache


def words(seed: int, offset: int, index: Tensor, stream: int | Tensor, rounds: int = rng.ROUNDS) -> tuple[Tensor, ...]:
    """The reference's `words`, by numpy."""
    flat = index.reshape(-1).numpy()
    streams = stream.reshape(-1).numpy() if isinstance(stream, Tensor) else stream
    drawn = numpy_words(int(seed), offset, flat, streams, rounds)
    return tuple(torch.from_numpy(word.astype(np.int64)).view(index.shape) for word in drawn)


def draw(
    recipe: Recipe, knobs: Tensor, batch: int, height: int, width: int, seed: int, offset: int, sample_offset: int = 0,
    *, lam: Tensor | None = None, box: Tensor | None = None, partner: Tensor | None = None,
) -> FamilyDraw:  # fmt: skip
    """The reference's `draw_family`, in C where there is a compiler."""
    library = native.library()
    if library is None:
        return draw_family(
            recipe, knobs, batch, height, width, seed, offset, sample_offset, lam=lam, box=box, partner=partner,
            words=words,
        )  # fmt: skip
    mate = mates(recipe, seed, offset, sample_offset, batch, None if partner is None else partner.numpy())
    given = None if lam is None else lam.float().expand(batch).clamp(0, 1).numpy()
    method, drawn_lam, drawn_partner, columns = native.draw_family(
        library, recipe, knobs.numpy(), height, width, seed & MASK64, offset & MASK64, sample_offset, mate, given,
        None if box is None else box.numpy(),
    )  # fmt: skip
    region, erased = (Region(*map(torch.from_numpy, part)) for part in columns)
    return FamilyDraw(
        torch.from_numpy(method), torch.from_numpy(drawn_lam), torch.from_numpy(drawn_partner), torch.from_numpy(mate),
        region, erased if recipe.erase else None,
    )  # fmt: skip


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
        drawn = draw(
            recipe, knobs, len(x), height, width, seed, offset, sample_offset, lam=lam, box=box, partner=partner
        )
        if plan is not None:
            plan.copy_(pack(drawn))

    x, written = x.detach(), out.detach()
    in_place = x.data_ptr() == out.data_ptr()
    if in_c(x, written, norm, drawn, recipe, fill, field):
        return drawn
    source = x
    if in_place and recipe.pairing != codes.ALONE and bool((drawn.partner != torch.arange(len(x))).any()):
        source = x.clone()
        if in_c(source, written, norm, drawn, recipe, fill, field):
            return drawn
    if recipe.has_box and x.numel() and 4 * x[0].numel() < SMALL_SAMPLE and not is_boxed(recipe):
        compute_small(source, written, drawn, recipe, norm, fill, field)
        return drawn
    samples = Samples(source, drawn, recipe, fill, field)
    if norm is None and out.dtype == x.dtype:
        if not in_place:
            written.copy_(x)
        samples.change_all(written, 0)
        return drawn
    step = max(1, CHUNK_BYTES // max(4 * x[0].numel(), 1)) if len(x) else 1
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        value = source[part].to(torch.float32, copy=True)
        samples.change_all(value, start)
        written[part] = finished(value, norm, out.dtype)
    return drawn


def in_c(
    x: Tensor, out: Tensor, norm: Tensor | None, drawn: FamilyDraw, recipe: Recipe, fill: Tensor | None,
    field: Tensor | None, order: Array | None = None,
) -> bool:  # fmt: skip
    """Makes `out`, or its samples `order`, of the first samples of x, by loops in C. False, and nothing written, for
    what they do not know.
    """
    library = native.library()
    if library is None:
        return False
    if recipe.has_box or order is not None:
        return native.family(library, x, out, norm, drawn, recipe, fill, field, order)
    return native.mix(library, x, out, norm, as_numpy(drawn), MIXUP)


def as_numpy(family: FamilyDraw) -> Draw:
    """What a draw of the family says of partners and weights."""
    method, lam, partner, mate = (column.numpy() for column in family[:4])
    return Draw(method, lam, partner, mate, NO_BOX)


def is_boxed(recipe: Recipe) -> bool:
    """True where every method that can be drawn is mixup or replaces boxes, without resizing."""
    drawable = (*recipe.choices, recipe.erase)
    return all(
        method_of(code) in (METHOD_NONE, METHOD_MIXUP)
        or (codes.boxed(method_of(code)) and method_of(code) != METHOD_RESIZEMIX)
        for code in drawable
    )


def compute_small(
    source: Tensor, out: Tensor, drawn: FamilyDraw, recipe: Recipe, norm: Tensor | None, fill: Tensor | None,
    field: Tensor | None,
) -> None:  # fmt: skip
    """Many small samples at once, by the reference's own steps."""
    step = max(1, CHUNK_BYTES // (4 * source[0].numel()))
    for start in range(0, len(source), step):
        part = slice(start, min(start + step, len(source)))
        own, other = source[part].float(), source[drawn.partner[part]].float()
        value = apply_family(
            own, other, rows_of(drawn, part), recipe, fill, None if field is None else field[part], words
        )
        out[part] = finished(value, norm, out.dtype)


def rows_of(drawn: FamilyDraw, part: slice | Tensor) -> FamilyDraw:
    """Some samples of a draw."""
    region, erased = (
        None if r is None else Region(*(column[part] for column in r)) for r in (drawn.region, drawn.erased)
    )
    assert region is not None
    method, lam, partner, mate = (column[part] for column in drawn[:4])
    return FamilyDraw(method, lam, partner, mate, region, erased)


Lists = tuple[list[list[int]], list[int], list[int]]


class Samples:
    """The samples of a batch: what each had replaced, and with what."""

    def __init__(self, source: Tensor, drawn: FamilyDraw, recipe: Recipe, fill: Tensor | None, field: Tensor | None):
        self.source, self.recipe, self.fill, self.field = source, recipe, fill, field
        self.method, self.lam, self.partner = drawn.method.numpy(), drawn.lam, drawn.partner
        self.stages = [region for region in (drawn.region, drawn.erased) if region is not None]
        self.constants: dict[tuple[int, torch.dtype], Tensor] = {}  # what codes without noise are filled with

    @cached_property
    def regions(self) -> list[Lists]:
        return [lists_of(region) for region in self.stages]

    @cached_property
    def cells(self) -> dict[tuple[int, int], Tensor]:
        return cell_masks(self.regions, self.source.shape)

    def change_all(self, target: Tensor, first: int) -> None:
        """Does to `target`, a copy of the samples from `first` on in any dtype, what was drawn for them."""
        part = slice(first, first + len(target))
        for stage, region in enumerate(self.stages):
            for n in np.flatnonzero(region.code[part].numpy()).tolist():
                self.change(first + n, stage, target[n])

    def constant(self, code: int, dtype: torch.dtype) -> Tensor:
        """What a code without noise is filled with: [C or 1, 1, 1]."""
        if (code, dtype) not in self.constants:
            assert self.fill is not None
            self.constants[code, dtype] = finished(self.fill[code >> ROW_SHIFT, 0, :, None, None], None, dtype)
        return self.constants[code, dtype]

    def change(self, n: int, stage: int, target: Tensor) -> None:
        """Does to `target`, a copy of sample n in any dtype, what was drawn for it in a stage."""
        method = int(self.method[n])
        if stage > 0 or method not in (METHOD_MIXUP, METHOD_SMOOTHMIX):
            self.replace(n, stage, target)
            return
        own, other = self.source[n].float(), self.source[self.partner[n]].float()
        if method == METHOD_SMOOTHMIX:
            height, width = target.shape[1:]
            slots = [torch.tensor(v) for v in self.regions[0][0][n][:4]]
            value = fma(other - own, soft_share(slots, *pixels(height, width, slots[0])), own)
        else:
            value = lerp(own, other, self.lam[n])
        target.copy_(round_to(value, target.dtype))

    def replace(self, n: int, stage: int, target: Tensor) -> None:
        """Replaces the region of one stage."""
        slots, code = self.regions[stage][0][n], self.regions[stage][2][n]
        method = method_of(code)
        if not codes.boxed(method):
            mask = self.mask_of(n, stage, method, slots)
            torch.where(mask, self.filling(n, stage, slots, target), target, out=target)
            return
        for k in range(0, 4 * codes.count_of(code), 4):
            y0, x0, y1, x1 = slots[k : k + 4]
            if y1 > y0 and x1 > x0:
                target[:, y0:y1, x0:x1] = self.filling(n, stage, [y0, x0, y1, x1], target)

    def filling(self, n: int, stage: int, box: list[int], target: Tensor) -> Tensor:
        """What a region is filled with, in target's dtype: of the size of the box where the method has boxes."""
        code, key = self.regions[stage][2][n], self.regions[stage][1][n]
        method = method_of(code)
        inside = np.s_[:, box[0] : box[2], box[1] : box[3]] if codes.boxed(method) else np.s_[:]
        if method == METHOD_RESIZEMIX:
            region = Region(torch.tensor([box]), torch.tensor([key]), torch.tensor([code]))
            other = self.source[self.partner[n]]
            if not codes.has_flag(code, codes.FLAG_BILINEAR):
                (y0, x0, y1, x1), (height, width) = box, other.shape[1:]
                rows = nearest(torch.arange(y1 - y0), torch.tensor(y1 - y0), height)
                columns = nearest(torch.arange(x1 - x0), torch.tensor(x1 - x0), width)
                return other[:, rows[:, None], columns]
            return round_to(resized(other[None].float(), region, True)[0][inside], target.dtype)
        if not codes.drops(method):
            return self.source[self.partner[n]][inside].to(target.dtype)
        if noise_kind(code) == NOISE_NONE:
            return self.constant(code, target.dtype)
        assert self.fill is not None
        value, sigma = self.fill[code >> ROW_SHIFT, :, :, None, None]
        value = fma(self.noise(code, key, target.shape, box), sigma, value)
        return finished(value, None, target.dtype)

    def noise(self, code: int, key: int, shape: torch.Size, box: list[int]) -> Tensor:
        """Normal noise of one sample, only where its box lies."""
        channels, height, width = shape
        if noise_kind(code) != NOISE_PIXEL:
            return normal(key, torch.arange(channels), words)[:, None, None]
        y0, x0, y1, x1 = box
        rows = torch.arange(channels)[:, None] * (height * width) + torch.arange(y0, y1) * width  # [C, h]
        if width % 4:
            return normal(key, rows[:, :, None] + torch.arange(x0, x1), words)
        fours = rows[:, :, None] // 4 + torch.arange(x0 // 4, -(-x1 // 4))  # which lie in rows
        return normals(key, fours, words).flatten(2)[:, :, x0 % 4 :][:, :, : x1 - x0]

    def mask_of(self, n: int, stage: int, method: int, slots: list[int]) -> Tensor:
        """Where a region lies that is not made of boxes: bool [H, W]."""
        height, width = self.source.shape[2:]
        if method == METHOD_GRIDMASK:
            return grid_mask(slots, height, width)
        if method == METHOD_FMIX:
            assert self.field is not None
            return self.field[n] >= slots[0]
        return self.cells[stage, n]


def lists_of(region: Region) -> Lists:
    return region.slots.tolist(), region.key.tolist(), region.code.tolist()


def cell_masks(regions: list[Lists], shape: torch.Size) -> dict[tuple[int, int], Tensor]:
    """Masks of all samples with cells, [H, W] each by (stage, sample): hashed a cell, then spread over its pixels."""
    height, width = shape[2:]
    groups: dict[tuple[int, int], list[tuple[int, int, list[int]]]] = {}
    for stage, (slots, _, code) in enumerate(regions):
        for n, row in enumerate(slots):
            if method_of(code[n]) in (METHOD_HIDE, METHOD_GRIDMIX):
                groups.setdefault((row[0], row[1]), []).append((stage, n, row[2:4]))
    masks: dict[tuple[int, int], Tensor] = {}
    for (cell_height, cell_width), members in groups.items():
        key, share = torch.tensor([row for _, _, row in members]).unbind(1)
        sizes = [torch.full_like(key, size) for size in (cell_height, cell_width)]
        taken, _ = chosen_cells([*sizes, key, share], height, width)
        taken = taken.repeat_interleave(int(sizes[0][0]), 1)[:, :height]
        taken = taken.repeat_interleave(int(sizes[1][0]), 2)[:, :, :width]
        masks |= {(stage, n): mask for (stage, n, _), mask in zip(members, taken, strict=True)}
    return masks


def grid_mask(slots: list[int], height: int, width: int) -> Tensor:
    """The reference's `inside_grid` of one sample: stripes are looked up instead of divided out."""
    d, length, shift_y, shift_x, cosine, sine, inverted = slots[:7]
    centre, shift = grid_centre(height, width), rng.TURN_BITS + 1
    across, down = 2 * np.arange(width, dtype=np.int32) + 1 - width, 2 * np.arange(height, dtype=np.int32) + 1 - height
    row = ((cosine * down + (centre << shift)).astype(np.int32)[:, None] + (sine * across).astype(np.int32)) >> shift
    column = (((centre << shift) - sine * down).astype(np.int32)[:, None] + (cosine * across).astype(np.int32)) >> shift
    line = np.arange(2 * centre + 1) + d
    striped = (((line - shift_y) % d) < length)[row] | (((line - shift_x) % d) < length)[column]
    return torch.from_numpy(striped != bool(inverted))
