"""Tiles of FusedAugment that are rectangles, where byte images turn: which need no care for the source's edges."""

from dataclasses import replace

import augment_cases
import cases
import pytest
import torch
import triton
import triton.language as tl
from augment_cases import AFFINE, MIX, Case
from torch import Tensor

from fusedmix.kernels.config import rectangle_for
from fusedmix.kernels.taps import inner_tiles
from fusedmix.placement import Flip, Placement, RandomAffine
from fusedmix.reference.geometry import located
from fusedmix.spec import RandomErasing


@triton.jit
def find_inner(
    map_ptr, limits_ptr, out_ptr, first, lot, TILES: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    across = tl.load(map_ptr), tl.load(map_ptr + 1), tl.load(map_ptr + 2)
    down = tl.load(map_ptr + 3), tl.load(map_ptr + 4), tl.load(map_ptr + 5)
    limits = tl.load(limits_ptr), tl.load(limits_ptr + 1), tl.load(limits_ptr + 2), tl.load(limits_ptr + 3)
    since, many = inner_tiles(across + down, limits, first, lot, TILES, TALL, WIDE)
    tl.store(out_ptr, since)
    tl.store(out_ptr + 1, many)


def inner_of(map: Tensor, limits: Tensor, first: int, lot: int, tiles: int, tall: int, wide: int) -> list[int]:
    """The tiles all of whose pixels lie below a place between the first and, without it, the last pixel's centres."""
    found = []
    for tile in range(tiles):
        y, x = torch.meshgrid((first + tile) * tall + torch.arange(tall), lot + torch.arange(wide), indexing="ij")
        v, u = (place - 0.5 for place in located(tuple(map), y, x))
        y0, x0, y1, x1 = limits.tolist()
        if ((v >= y0) & (v < y1 - 1) & (u >= x0) & (u < x1 - 1)).all():
            found.append(tile)
    return found


def test_inner_tiles_are_those_whose_pixels_all_are() -> None:
    """Of maps that turn, flip, shear and scale, of one whose pixels lie on the source's own, and of no numbers."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(30, 6, generator=generator) * torch.tensor([1.0, 0.2, 9.0, 0.2, 1.0, 9.0])
    maps[:, [2, 5]] += 20.0
    maps[0] = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    maps[1], maps[2] = torch.nan, torch.inf
    seen = set()
    for number, map in enumerate(maps):
        limits = torch.tensor([0, 0, 40, 33] if number % 2 == 0 else [3, 5, 37, 30], dtype=torch.int32)
        first, lot = number % 3, 8 * (number % 2)
        out = torch.empty(2, dtype=torch.int32, device=cases.DEVICE)
        find_inner[(1,)](map.to(out.device), limits.to(out.device), out, first, lot, 11, 4, 8)
        want = inner_of(map, limits, first, lot, 11, 4, 8)
        since, many = out.tolist()
        assert list(range(since, since + many)) == want or (many == 0 and not want)
        seen |= {"none" if not want else "all" if len(want) == 11 else "from the first" if want[0] == 0 else "later"}
    assert {"none", "from the first", "later"} <= seen


SMALL_TURN = RandomAffine(8.0, (0.05, 0.05), (0.7, 1.1), 4.0)
TURNED = {  # of the size of the source that it is made from
    "filled": ((40, 33), Case(Placement((24, 32), None, Flip(), SMALL_TURN), None, 7.0)),
    "held at the edge": ((40, 33), Case(Placement((21, 28), augment_cases.RESIZED, None, SMALL_TURN), MIX)),
    "coloured, mixed, erased": (
        (30, 40),
        Case(
            Placement((18, 36), None, Flip(0.5, 0.5), SMALL_TURN, augment_cases.JITTER),
            replace(MIX, erase=RandomErasing(0.7, (0.1, 0.4), fill_mode="pixel", value=20.0, sigma=9.0)), 5.0,
        ),
    ),
    "permuted": ((30, 40), Case(Placement((18, 36), None, None, SMALL_TURN), replace(MIX, partner="permute"))),
    "odd rows": ((20, 21), Case(Placement((15, 13), None, None, AFFINE), MIX, 3.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNED)
def test_turned_bytes_equal_the_reference(name: str) -> None:
    """Tiles inside, across and beyond the source's edge; of several rows or one, the last of them ragged."""
    augment_cases.check_launches(*TURNED[name], ((64, 32), (32, 2)))


def test_rectangles() -> None:
    """As wide as 32 pixels unless something narrower wastes less beyond the row's end; of one row at the least."""
    assert [256 // rectangle_for(width, 256, 4) for width in (224, 240, 33, 8, 4)] == [32, 16, 8, 8, 8]
    assert rectangle_for(13, 64, 1) == 4  # 16 pixels of 13: two of 8 are as many
    assert rectangle_for(224, 32, 16) == 2
    assert rectangle_for(224, 8, 8) == 1
