"""Recipes of FusedAugment, and the harness that holds an implementation to the reference."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import cases
import torch
from cases import DEVICE, EXACT, Result, assert_equal, images, poison, targets, without_native
from torch import Tensor

from fusedmix import cpu
from fusedmix.checks import fills_of, knobs_of, norm_of
from fusedmix.kernels.config import Launch
from fusedmix.launch import augment_into as launch_augment_into
from fusedmix.ops import allocate_image, allocate_plan, allocate_target
from fusedmix.placement import (
    NO_KNOBS,
    NOTHING,
    CenterCrop,
    ColorJitter,
    Flip,
    Placement,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
)
from fusedmix.recipe import Geometry, Recipe
from fusedmix.reference.augment import augment, pack_augment, white_of
from fusedmix.spec import CutMix, Cutout, Fill, FMix, GridMask, Mixup, Policy, RandomErasing, SmoothMix

MIX = Policy(((CutMix(1.0), 0.5), (Mixup(0.4), 0.4)))
JITTER = ColorJitter(0.4, 0.4, 0.4, 0.3, 0.9)
AFFINE = RandomAffine(30.0, (0.1, 0.2), (0.7, 1.4), (-10.0, 20.0, -5.0, 5.0), 0.8)


@dataclass(frozen=True)
class Case:
    """What a call does, in the words of the specs."""

    placement: Placement
    policy: Policy | None = None
    fill: Any = 0.0

    @property
    def recipe(self) -> Recipe:
        return NOTHING if self.policy is None else self.policy.recipe

    def geometry(self, x: Tensor) -> Geometry:
        return self.placement.geometry(*x.shape[2:])

    def extras(self, x: Tensor, norm: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        rows = NO_KNOBS if self.policy is None else self.policy.knobs()
        fills = (Fill(), Fill()) if self.policy is None else self.policy.fills
        field = None
        if self.recipe.has_field:
            geometry, generator = self.geometry(x), torch.Generator().manual_seed(3)
            count = geometry.height * geometry.width
            ranks = [torch.randperm(count, generator=generator) for _ in range(len(x))]
            field = torch.stack(ranks).view(len(x), geometry.height, geometry.width).int()
        knobs = knobs_of((*rows, *self.placement.knobs()), torch.device("cpu"))
        return knobs, fills_of((*fills, Fill(self.fill)), norm, x, white_of(x.dtype, self.geometry(x))), field


CROP = RandomCrop(2)
RESIZED = RandomResizedCrop((0.2, 1.0))
CASES = {
    "nothing": Case(Placement()),
    "flips": Case(Placement(flip=Flip(0.5, 0.5))),
    "crop and flip": Case(Placement(None, CROP, Flip())),
    "smaller crop": Case(Placement((5, 6), RandomCrop(), Flip())),
    "smaller crop, reflect": Case(Placement((5, 6), RandomCrop(1, "reflect"), Flip())),
    "crop, edge, mixed": Case(Placement(None, RandomCrop(3, "edge"), Flip()), MIX),
    "crop, cutout": Case(Placement(None, CROP, Flip()), Policy(((Cutout(4), 1.0),)), (9.0, 8.0, 7.0)),
    "resized crop": Case(Placement((6, 7), RESIZED)),
    "resized crop, nearest, mixed": Case(Placement((6, 7), RESIZED, Flip(), interpolation="nearest"), MIX),
    "resized crop, mixed, erased": Case(
        Placement((6, 8), RESIZED, Flip(0.5, 0.2)),
        replace(MIX, erase=RandomErasing(0.5, (0.1, 0.4), fill_mode="pixel", value=20.0, sigma=9.0)),
    ),
    "centre": Case(Placement((4, 9), CenterCrop())),
    "centre, share": Case(Placement((4, 6), CenterCrop(0.7))),
    "whole": Case(Placement((9, 5))),
    "affine": Case(Placement(None, None, Flip(), AFFINE), None, 3.0),
    "affine, nearest, reflect": Case(Placement(None, RandomCrop(2, "reflect"), None, AFFINE, None, "nearest"), MIX),
    "affine of a crop, mixed": Case(Placement((5, 8), RESIZED, Flip(), AFFINE), MIX, (1.0, 2.0, 3.0)),
    "colour": Case(Placement(color=JITTER)),
    "everything": Case(
        Placement((6, 8), RESIZED, Flip(), AFFINE, JITTER),
        Policy(((CutMix(), 0.3), (Mixup(), 0.2), (SmoothMix(), 0.2), (FMix(), 0.2)), GridMask((3, 6), p=0.6)), 0.5,
    ),
}  # fmt: skip


def check(
    implementation: str,
    case: Case,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    channels_last: bool = False,
    *,
    form: str | None = "one_hot",
    norm: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    out_last: bool | None = None,
    replay: bool = False,
    gray: Tensor | None = None,
    partner: Tensor | None = None,
    seed: int = 0,
    offset: int = 0,
    sample_offset: int = 0,
    launch: Launch | None = None,
    by_table: bool = False,
    tolerance: tuple[float, float] = EXACT,
) -> Result:
    """Runs one call and holds it to the reference: plan, rows and every pixel, bit for bit unless told otherwise.

    by_table: the launch is that of kernels/config.py.
    """
    x, y = images(shape, dtype, channels_last), targets(form, shape[0])
    if dtype.is_floating_point and case.placement.color is not None:
        x = x / 255
    recipe, geometry = case.recipe, case.geometry(x)
    white = white_of(dtype, geometry)
    if norm is None and white != 1.0:
        norm = norm_of(None, None, x, white)
    extras = case.extras(x, norm)
    if form == "one_hot":
        recipe = recipe._replace(num_classes=cases.K)
    knobs, fill, field = extras
    drawn = {"gray": gray, "partner": partner}
    seeded = (seed, offset, sample_offset)
    out, rows, plan = augment(
        x, y, recipe, geometry, knobs, fill, *seeded, field=field, norm=norm, out_dtype=out_dtype, **drawn
    )
    want = Result(out, rows, pack_augment(plan))

    device = DEVICE if implementation == "kernel" else "cpu"
    x, y, norm, gray, partner = (None if t is None else t.to(device) for t in (x, y, norm, gray, partner))
    out = poison(allocate_image(x, out_dtype, out_last, (geometry.height, geometry.width)))
    rows = allocate_target(y, recipe)
    if rows is not None:
        poison(rows)
    packed = want.plan.to(device) if replay else poison(allocate_plan(x, recipe, geometry))
    given = (None, None) if replay else (gray, partner)
    arguments = (
        out, rows, packed, x, y, norm, *given, None, *seeded, recipe, geometry, replay,
        tuple(None if t is None else t.to(device) for t in extras),
    )  # fmt: skip
    if implementation == "kernel":
        launch_augment_into(*arguments, launch=None if by_table else launch or Launch(128, 1, 4))
    else:
        with without_native() if implementation == "numpy" else nullcontext():
            cpu.augment_into(*arguments)
    got = Result(out.cpu(), None if rows is None else rows.cpu(), packed.cpu())
    assert_equal(got, want, tolerance, (implementation, case, shape, dtype))
    return got


def check_launches(size: tuple[int, int], case: Case, launches: tuple[tuple[int, int], ...]) -> None:
    """Byte images of that size in tiles of so many pixels, so many a program; each time another layout, a plan last."""
    for number, (block, tiles) in enumerate(launches):
        options: dict[str, Any] = dict(channels_last=number == 1, out_last=number == 0, replay=number == 1, seed=number)
        check("kernel", case, (3 - number, 3, *size), torch.uint8, launch=Launch(block, tiles, 1), **options)
