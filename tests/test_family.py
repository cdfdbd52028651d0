"""Every method of the family, alone and in lists, kernel and CPU path against the reference."""

import cases
import pytest
import torch
from cases import DTYPES, SHAPES, TARGETS, images
from family_cases import DROPS, MIXES, SPECS, check, everything, expect, extras_for, partners_of, single

from fusedmix.cpu import family as cpu_family
from fusedmix.kernels.config import Launch
from fusedmix.launch import tile_stride
from fusedmix.ops import image_adjoint
from fusedmix.recipe import (
    METHOD_CUTMIX,
    METHOD_FMIX,
    METHOD_RESIZEMIX,
    MODES,
    NOISE_CHANNEL,
    NOISE_NONE,
    NOISE_PIXEL,
    PLAN_BOX,
    halves,
    noise_kind,
)
from fusedmix.reference.family import apply_family, unpack
from fusedmix.spec import Cutout, GridMask, Policy, RandomErasing

IMPLEMENTATIONS = ["kernel", "cpu"]
NORM = torch.tensor([[123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_product(implementation: str, name: str, dtype: torch.dtype) -> None:
    """Partners, modes, target forms and layouts go round over odd, even and one-pixel sizes."""
    modes, partners = list(MODES), partners_of(name)
    few = implementation == "kernel" and dtype in (torch.float16, torch.bfloat16)  # the interpreter is slow
    for n in range(1 if few else max(3, len(partners))):
        partner, number = partners[n % len(partners)], n + DTYPES.index(dtype) + list(SPECS).index(name)
        mode = modes[number % 3]
        if mode == "pair" and partner in ("roll", "permute"):
            mode = "batch"
        size = SHAPES[number % len(SHAPES)]
        policy = single(name, mode=mode, partner=partner)
        check(
            implementation, policy, (size[0], 3, *size[2:]), dtype, number % 2 == 1, form=TARGETS[number % 4],
            seed=2**40 + number, offset=number, sample_offset=number,
        )  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_cpu_routes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop over samples that large ones take, and casts of several chunks."""
    monkeypatch.setattr(cpu_family, "SMALL_SAMPLE", 0)
    monkeypatch.setattr(cpu_family, "CHUNK_BYTES", 1500)
    for dtype in (torch.float32, torch.uint8):
        test_product("cpu", name, dtype)
    test_in_place_and_replay("cpu", name)
    test_normalise_cast_and_layout("cpu", name)
    for erase in (None, "cutout", "erasing pixel", "gridmask", "hide and seek"):
        check("cpu", everything(erase), (8, 3, 9, 12), torch.float32, seed=1)
        check("cpu", everything(erase), (8, 3, 9, 12), torch.uint8, seed=1, norm=NORM, out_dtype=torch.float16)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_in_place_and_replay(implementation: str, name: str) -> None:
    for channels_last, dtype in ((False, torch.float32), (True, torch.uint8)):
        check(implementation, single(name), (4, 3, 6, 8), dtype, channels_last, seed=5, replay=True)
        if "resizemix" not in name:
            check(implementation, single(name), (5, 3, 6, 8), dtype, not channels_last, seed=5, in_place=True)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_normalise_cast_and_layout(implementation: str, name: str) -> None:
    bytes_to_half, float_to_half = (torch.uint8, torch.bfloat16), (torch.float32, torch.float16)
    for layouts, dtypes in (
        ((False, None), bytes_to_half),
        ((True, False), float_to_half),
        ((False, True), bytes_to_half),
    ):
        check(
            implementation, single(name), (4, 3, 6, 8), dtypes[0], layouts[0], norm=NORM, out_dtype=dtypes[1],
            out_last=layouts[1], seed=8,
        )  # fmt: skip


BY_COLUMN = (
    "cutmix", "erasing pixel", "gridmask", "hide and seek", "hide and seek, wide", "gridmix", "resizemix",
    "resizemix bilinear", "smoothmix",
)  # fmt: skip


@pytest.mark.parametrize("name", BY_COLUMN)
def test_tiles_of_the_same_columns(name: str) -> None:
    """What columns decide is computed once where a program's tiles lie whole rows apart."""
    # Three tiles of 16 elements are 4 rows of 12, nine are 4 rows of 36.
    for shape, row, stride in (((2, 3, 6, 12), 12, 3), ((2, 3, 16, 12), 36, 9)):
        assert tile_stride(row, 16, shape[1] * shape[2] * shape[3] // 16) == stride
        check("kernel", single(name), shape, torch.uint8, row == 36, seed=row, launch=Launch(16, 8, 4))


def test_tiles_of_other_columns() -> None:
    """Tiles follow each other where there are too few for a stride of whole rows, rows don't matter, or 31 bits end."""
    assert tile_stride(7, 16, 100) == 7
    for row, block, tiles in ((7, 16, 27), (1001, 512, 1000), (32, 512, 6), (0, 8, 9), (3001, 1024, 2**21 - 64)):
        assert tile_stride(row, block, tiles) == 1


@pytest.mark.parametrize("erase", [None, "cutout", "erasing pixel", "gridmask", "hide and seek"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_all_methods_at_once(implementation: str, erase: str | None) -> None:
    """A method per sample, then what is erased; also gathered partners, and replayed."""
    got = check(implementation, everything(erase), (8, 3, 9, 12), torch.float32, seed=32)
    assert {METHOD_CUTMIX, METHOD_RESIZEMIX, METHOD_FMIX} < set(got.plan[:, 0].tolist())
    if implementation == "kernel" and erase is not None:
        return  # the interpreter is slow
    check(implementation, everything(erase, partner="permute"), (4, 3, 9, 8), torch.uint8, True, seed=25)
    check(implementation, everything(erase, partner="exact"), (5, 3, 7, 8), torch.bfloat16, seed=40, replay=True)


def test_long_lists() -> None:
    """A sample's method is compared with one half of a list of more than FEW; choices of one method stay together."""
    assert halves(tuple(range(1, 11))) == ((1, 2, 3, 4, 5), (6, 7, 8, 9, 10), 6)
    assert halves((3, 2, 3, 2, 3, 3)) == ((2, 2), (3, 3, 3, 3), 3)
    assert halves((2, 2, 2, 2, 3)) == ((2, 2, 2, 2), (3,), 3)
    assert halves((2, 2, 2, 2, 2)) == ((), (2, 2, 2, 2, 2), 2)
    specs = [RandomErasing(1.0, (0.1, 0.5), value=float(n)) for n in range(4)] + [Cutout(3, value=9.0)]
    for some in (specs, [*specs[:4], RandomErasing(1.0, (0.2, 0.6), value=5.0)]):
        got = check("kernel", Policy(tuple((spec, 0.18) for spec in some)), (8, 3, 8, 8), torch.float32, seed=4)
        assert len(set(got.plan[:, PLAN_BOX + 5].tolist())) > 3  # codes, with the rows of their fills
    three = Policy(tuple((SPECS[name], 0.3) for name in ("fmix", "cutmix", "gridmask")))  # ranks are looked up late
    got = check("kernel", three, (6, 3, 6, 8), torch.float32, seed=3, in_place=True)
    assert {METHOD_CUTMIX, METHOD_FMIX} < set(got.plan[:, 0].tolist())


@pytest.mark.parametrize("columns", [8, 9], ids=["runs", "any width"])
def test_kinds_of_noise_of_one_method(columns: int) -> None:
    """Which one fills is a matter of the choice that was drawn, not of the method."""
    kinds = [
        RandomErasing(1.0, (0.2, 0.6), fill_mode=kind, value=50.0, sigma=20.0) for kind in ("const", "rand", "pixel")
    ]
    got = check("kernel", Policy(tuple((spec, 0.33) for spec in kinds)), (6, 3, 8, columns), torch.float32, seed=2)
    assert {noise_kind(code) for code in got.plan[:, PLAN_BOX + 5].tolist()} >= {NOISE_NONE, NOISE_CHANNEL, NOISE_PIXEL}


@pytest.mark.parametrize("name", ["cutmix", "cutout", "erasing", "resizemix"])
def test_boxes_in_tiles_of_one_plane(name: str) -> None:
    """Where a plane is whole tiles; a box may begin and end with any of them."""
    for launch in (Launch(16, 2, 4), Launch(32, 4, 4), Launch(128, 1, 4)):
        check("kernel", single(name), (6, 3, 8, 16), torch.float32, seed=launch.block, launch=launch)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["hide and seek, wide", "gridmix, wide", "gridmask", "smoothmix"])
def test_wide_rows(name: str, channels_last: bool) -> None:
    """Rows of whole runs of elements, several cells wide."""
    for dtype in (torch.float32, torch.uint8):
        check("kernel", single(name), (3, 3, 5, 48), dtype, channels_last, seed=6)


@pytest.mark.parametrize("spec", [GridMask((2**14, 2**15), p=1.0), GridMask((2, 9), 0.3, p=1.0, invert=False)], ids=str)
def test_grids_of_the_longest_rows(spec: GridMask) -> None:
    """The stripes' arithmetic at the ends of its range."""
    launch = Launch(2**14, 1, 4)
    check("kernel", Policy(((spec, 1.0),)), (3, 1, 3, 2**15 - 1), torch.uint8, seed=1, launch=launch, form=None)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_given_parameters(implementation: str) -> None:
    lam = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0])
    partner = torch.tensor([4, -1, 0, 99, 2])
    for name in ("mixup", "gridmix", "resizemix", "fmix", "cutmix"):
        check(implementation, single(name), (5, 3, 9, 11), torch.float32, seed=3, lam=lam)
        given = Policy(((SPECS[name], 1.0),), partner="an int64 tensor")
        check(implementation, given, (5, 3, 9, 11), torch.float32, seed=3, partner=partner)
    box = torch.tensor([[0, 0, 9, 11], [2, 3, 2, 8], [1, 0, 5, 4], [-3, -2, 40, 5], [7, 7, 3, 9]]).int()
    for name in ("cutmix", "resizemix", "resizemix bilinear"):
        clipped = box.clone().clamp(min=0)
        clipped[:, 2::4].clamp_(max=9)
        clipped[:, 3::4].clamp_(max=11)
        clipped[:, 2:] = torch.maximum(clipped[:, 2:], clipped[:, :2])
        check(implementation, single(name), (5, 3, 9, 11), torch.float32, seed=3, box=clipped)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_edges(implementation: str) -> None:
    """No samples, one sample, one pixel; images of no more than two dimensions for mixup in a list."""
    for name in SPECS:
        check(implementation, single(name), (1, 3, 5, 4), torch.float32, seed=1)
        check(implementation, single(name), (2, 3, 1, 1), torch.float32, seed=1)
    for name in ("cutmix", "cutout", "gridmask"):
        check(implementation, single(name), (0, 3, 5, 4), torch.float32, seed=1)


@pytest.mark.parametrize("name", SPECS)
def test_gradient(name: str) -> None:
    """The adjoint of a plan is the gradient that autograd takes through the reference."""
    for partner in ("matching", "permute"):
        policy = single(name, partner=partner)
        policy = Policy(policy.methods, Cutout(3, p=0.5), partner=partner)
        x = images((5, 3, 6, 8), torch.float32)
        want = expect(x, None, policy, seed=4)
        _, fill, field = extras_for(policy, x, None)
        plan = unpack(want.plan, policy.recipe)
        own = x.clone().requires_grad_()
        out = apply_family(own, own[plan.partner], plan, policy.recipe, fill, field)
        grad = torch.rand(out.shape)
        out.backward(grad)
        got = image_adjoint(grad, want.plan, None, policy.recipe, torch.float32, False, field)
        torch.testing.assert_close(got, own.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DROPS)
def test_labels_of_dropped_images_stay(name: str) -> None:
    want = expect(images((8, 3, 6, 8), torch.float32), torch.arange(8), single(name, num_classes=8), seed=1)
    assert torch.equal(want.target, torch.eye(8))


@pytest.mark.parametrize("name", MIXES)
def test_labels_match_the_pixels(name: str) -> None:
    """Own images are 1, partners' 0: the mean of a mixed image is the weight of its label."""
    if name in ("mixup", "cutmix drawn lam", "resizemix bilinear"):
        pytest.skip("lam is drawn, or pixels lie between")
    x = torch.zeros(2, 1, 13, 17)
    x[0] = 1.0
    for seed in range(20):
        got = expect(x, torch.tensor([0, 1]), single(name, num_classes=2), seed=seed)
        assert abs(float(got.out[0].mean()) - float(got.target[0, 0])) < 2e-5, (name, seed)
        assert abs(1 - float(got.out[1].mean()) - float(got.target[1, 1])) < 2e-5, (name, seed)


def test_cases_cover_every_method() -> None:
    drawn = {code & 0xFF for name in SPECS for code in single(name).recipe.choices}
    assert drawn == set(range(1, 11))
    assert cases.K == 5
