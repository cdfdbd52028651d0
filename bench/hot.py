"""The hot variants (tests/codegen_variants.py) as launches on any device, and the reference's answer to each."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from augment_cases import Case
from codegen_variants import HOT as HOT
from codegen_variants import POLICIES, Variant
from family_cases import extras_for

from fusedmix import launch, reference
from fusedmix.checks import build_norm
from fusedmix.kernels.taps import SECTOR
from fusedmix.ops import NO_EXTRAS, Extras, allocate_image, allocate_target
from fusedmix.recipe import METHOD_MIXUP, Geometry, Recipe
from fusedmix.reference.augment import augment, draw_box, white_of
from fusedmix.reference.family import mix_family
from fusedmix.reference.philox import words
from fusedmix.reference.sampling import Draw, draw, pack

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 55.0, 50.0)


def bytes_of_crops(
    geometry: Geometry, knob: Tensor, seed: int, batch: int, size: Sequence[int], itemsize: int
) -> Tensor:  # fmt: skip
    """Bytes of a channel that each crop reads of its image, in the whole sectors that rows lie in: int64 [batch].

    knob: the geometry's row of knobs; size: height and width of the images.
    """
    height, width = size
    top, left, tall, wide = draw_box(geometry, knob, seed, 0, torch.arange(batch), height, width, words)
    rows = (top + tall).clamp(max=height) - top.clamp(min=0)
    first, end = left.clamp(min=0) * itemsize, (left + wide).clamp(max=width) * itemsize
    return rows * (-(-end // SECTOR.value) - first // SECTOR.value) * SECTOR.value


class Hot(NamedTuple):
    """A variant's tensors."""

    variant: Variant
    x: Tensor
    out: Tensor
    y: Tensor | None
    rows: Tensor | None
    plan: Tensor | None  # given, where the variant replays one
    norm: Tensor | None
    extras: Extras  # on the images' device

    @property
    def recipe(self) -> Recipe:
        return self.variant.recipe

    def bytes_moved(self, seed: int) -> int:
        """What must be read once and written once: images, FMix's ranks, labels. In place: of what changes."""
        others = sum(t.nbytes for t in (self.y, self.rows, self.extras[2]) if t is not None)
        if self.variant.in_place:
            return 2 * self.changed(seed) * self.x.shape[1] * self.x.itemsize + others
        return self.bytes_read(seed) + self.out.nbytes + others

    def changed(self, seed: int) -> int:
        """Pixels of the batch that mixup or CutMix changes."""
        height, width = self.x.shape[2:]
        drawn = draw(self.recipe, len(self.x), height, width, seed, 0)
        y0, x0, y1, x1 = drawn.box.unbind(1)
        return int(torch.where(drawn.method == METHOD_MIXUP, height * width, (y1 - y0) * (x1 - x0)).sum())

    def bytes_read(self, seed: int) -> int:
        """Of the images; of those that are placed, see `bytes_of_crops`."""
        geometry, knobs = self.variant.geometry, self.extras[0]
        if geometry is None:
            return self.x.nbytes
        assert knobs is not None
        batch, channels, *size = self.x.shape
        knob = knobs[len(self.recipe.choices) + 1].cpu()
        return int(bytes_of_crops(geometry, knob, seed, batch, size, self.x.itemsize).sum()) * channels

    def again(self) -> "Hot":
        """The same with other memory for the images."""
        x = self.x.clone()
        return self._replace(x=x, out=x if self.variant.in_place else torch.empty_like(self.out))

    def launch(self, seed: int) -> None:
        """One launch of the kernel. Fills `out` and `rows`."""
        given = self.out, self.rows, self.plan, self.x, self.y, self.norm
        drawn_by, geometry, replay = (seed, 0, 0), self.variant.geometry, self.variant.replay
        if geometry is None:
            launch.mix_into(*given, None, None, None, None, *drawn_by, self.recipe, replay, self.extras)
        else:
            launch.augment_into(*given, None, None, None, *drawn_by, self.recipe, geometry, replay, self.extras)

    def expected(self, seed: int) -> tuple[Tensor, Tensor | None]:
        """What `launch` must make of `out` and `rows`, by the reference, on the CPU. x as it was before."""
        x, y, norm = (None if t is None else t.cpu() for t in (self.x, self.y, self.norm))
        knobs, fill, field = (None if t is None else t.cpu() for t in self.extras)
        assert x is not None
        options: dict[str, Any] = {"norm": norm, "out_dtype": self.out.dtype}
        if self.variant.geometry is not None:
            geometry = self.variant.geometry
            return augment(x, y, self.recipe, geometry, knobs, fill, seed, field=field, **options)[:2]
        if self.recipe.choices:
            return mix_family(x, y, self.recipe, knobs, seed, fill=fill, field=field, **options)[:2]
        if not self.variant.replay:
            return reference.mix(x, y, self.recipe, seed, **options)[:2]
        images, drawn = torch.zeros_like(x, requires_grad=self.recipe.adjoint), drawn_for(self.variant, len(x))
        if not self.recipe.adjoint:
            return reference.mix(x, y, self.recipe, plan=drawn, **options)[:2]
        mixed = reference.mix(images, None, self.recipe._replace(adjoint=False), plan=drawn)[0]
        return torch.autograd.grad(mixed, images, x)[0], None


def drawn_for(variant: Variant, batch: int) -> Draw:
    """The plan that a variant replays."""
    recipe = variant.recipe._replace(adjoint=False)
    return draw(recipe, batch, *(variant.shape[2:] if recipe.has_box else (1, 1)), 1, 0)


def hot(variant: Variant, batch: int, device: str, with_targets: bool = True) -> Hot:
    """Random tensors for so many samples of a variant."""
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    shape = batch, *variant.shape[1:]
    x = (torch.rand(shape, device=device) * 255).to(variant.x_dtype).contiguous(memory_format=layout)
    y = None
    if variant.target_shape is not None and with_targets:
        y = torch.rand((batch, *variant.target_shape[1:]), device=device)
        if not variant.target_dtype.is_floating_point:
            y = (y * (variant.recipe.num_classes or 10)).to(variant.target_dtype)
    extras, policy, geometry = NO_EXTRAS, POLICIES.get(variant.recipe), variant.geometry
    white = 1.0 if geometry is None else white_of(x.dtype, geometry)
    norm = build_norm(MEAN, STD, shape[1], x.device, white) if variant.has_norm else None
    host, host_norm = x.cpu(), None if norm is None else norm.cpu()
    size = None if geometry is None else (geometry.height, geometry.width)
    if geometry is not None:
        assert variant.placement is not None
        extras = Case(variant.placement, policy).extras(host, host_norm)
    elif policy is not None:
        extras = extras_for(policy, host, host_norm)
    plan = pack(drawn_for(variant, batch)).to(device) if variant.replay else None
    out = x if variant.in_place else allocate_image(x, variant.out_dtype, variant.out_last, size)
    knobs, fill, field = (None if t is None else t.to(device) for t in extras)
    return Hot(variant, x, out, y, allocate_target(y, variant.recipe), plan, norm, (knobs, fill, field))


def small(variant: Variant) -> Variant:
    """The variant with images of a few pixels, for a CPU."""
    placement, geometry = variant.placement, variant.geometry
    if placement is not None:
        placement = replace(placement, size=None if placement.size is None else (8, 8))
        geometry = placement.geometry(12, 12)
    return replace(variant, shape=(4, variant.shape[1], 12, 12), placement=placement, geometry=geometry)


@contextmanager
def kernels_of(batch: int, few: int) -> Iterator[None]:
    """Launches of `few` images are of the kernels that `batch` images get, whose programs have as many tiles."""
    known = launch.programs_at_once
    with patch.multiple(launch, programs_at_once=lambda *of: known(*of) * few / batch, _prepared={}):
        yield
