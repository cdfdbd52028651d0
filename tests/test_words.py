"""Resized crops of byte images, of which programs that walk down rows read two pixels' neighbours by words."""

from dataclasses import replace
from typing import Any

import augment_cases
import pytest
import torch
from augment_cases import MIX, Case
from codegen import shape_of
from codegen_variants import BF16, HOT, RESIZED, Variant

from bench.static import kernel_names
from fusedmix import launch
from fusedmix.kernels.config import Launch
from fusedmix.launch import PAIR_REACH, Shape, prepare_augment
from fusedmix.placement import Flip, Placement, RandomResizedCrop
from fusedmix.spec import RandomErasing

CROP = HOT["augment: resized crop"]


def constants_of(shape: Shape, table: Launch | None = None, arch: int = 90) -> dict[str, int]:
    prepared = prepare_augment(shape, table, arch)
    return dict(zip(kernel_names(prepared), prepared.constants, strict=True))


def of_size(height: int, width: int) -> Shape:
    """The hot crop, of a source of that size."""
    geometry = RESIZED.geometry(height, width)
    return shape_of(replace(CROP, shape=(128, 3, height, width), geometry=geometry))


def test_what_is_read_by_words() -> None:
    """Rows of whole words, at least two, that begin on one; places that are not so far apart as to lie in a third."""
    shape = of_size(256, 256)
    assert constants_of(shape)["PAIRS"]
    assert not constants_of(shape._replace(on_words=False))["PAIRS"]
    assert not constants_of(shape._replace(x_stride=3 * 256 * 256 + 2))["PAIRS"]
    assert not constants_of(shape._replace(x_last=True))["PAIRS"]
    assert not constants_of(shape._replace(x_dtype=BF16))["PAIRS"]
    assert not constants_of(of_size(256, 254))["PAIRS"]
    assert not constants_of(of_size(256, 4))["PAIRS"]
    assert constants_of(of_size(256, 8))["PAIRS"]
    widest = int(224 * PAIR_REACH)
    assert constants_of(of_size(256, widest))["PAIRS"]
    assert not constants_of(of_size(256, widest + 4))["PAIRS"]
    assert not constants_of(shape, Launch(1, 8, 1))["PAIRS"]  # one pixel a thread


def test_dots_are_of_nvidia_alone() -> None:
    shape = of_size(256, 256)
    assert constants_of(shape, arch=0)["PAIRS"]
    assert not constants_of(shape, arch=0)["PTX"]
    assert constants_of(shape, arch=100)["PTX"] == 0  # nor of the interpreter


def resized(height: int, width: int, crop: RandomResizedCrop | None = augment_cases.RESIZED) -> Placement:
    return Placement((height, width), crop, Flip(0.5, 0.3))


NOISE = RandomErasing(0.7, (0.1, 0.4), fill_mode="pixel", value=20.0, sigma=9.0)
CROPS = {  # of the size of the source that it is made from
    "smaller": ((20, 12), Case(resized(8, 12))),
    "as far apart as may be": ((9, 20), Case(resized(6, 8, RandomResizedCrop((0.9, 1.0), (1.8, 2.2))))),
    "the whole, larger": ((4, 8), Case(resized(6, 16, None))),
    "runs of two": ((9, 16), Case(resized(7, 10))),
    "mixed, erased": ((12, 16), Case(resized(6, 12), replace(MIX, erase=NOISE))),
}  # fmt: skip


@pytest.mark.parametrize("name", CROPS)
def test_crops_read_by_words(name: str) -> None:
    """Bit for bit the reference's, in programs of several rows."""
    size, case = CROPS[name]
    some, shape = Launch(16, 4, 1), (3, 3, *size)
    x = augment_cases.images(shape, torch.uint8, False)
    variant = Variant(case.recipe, x.dtype, shape=shape, geometry=case.geometry(x), placement=case.placement)
    assert constants_of(shape_of(variant), some)["PAIRS"]
    augment_cases.check("kernel", case, shape, torch.uint8, launch=some)


def test_programs_of_more_rows_than_a_warp_has_threads() -> None:
    """What is known of 32 rows is found anew for the next; here by a plan."""
    case, table = Case(resized(36, 8), MIX), Launch(8, 36, 1)
    augment_cases.check("kernel", case, (2, 3, 30, 12), torch.uint8, launch=table, replay=True)


def test_images_that_do_not_begin_on_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view into the middle of a batch of bytes is known for one, and read byte by byte."""
    case, plain, seen = CROPS["smaller"][1], augment_cases.images, []

    def shifted(*arguments: Any) -> torch.Tensor:
        x = plain(*arguments)
        return torch.zeros(x.numel() + 1, dtype=torch.uint8)[1:].view(x.shape).copy_(x)

    def prepare(shape: Shape, *rest: Any) -> Any:
        seen.append(shape.on_words)
        return prepare_augment(shape, *rest)

    monkeypatch.setattr(launch, "prepare_augment", prepare)
    for images in (plain, shifted):
        monkeypatch.setattr(augment_cases, "images", images)
        augment_cases.check("kernel", case, (2, 3, 20, 12), torch.uint8)
    assert seen == [True, False]
