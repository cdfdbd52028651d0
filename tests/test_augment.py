"""FusedAugment: kernel and CPU path against the reference, the reference against torch's own functions, and its use."""

from dataclasses import replace

import augment_cases
import pytest
import torch
import torch.nn.functional as F
from augment_cases import CASES, MIX, Case, check
from cases import DTYPES, EXACT, images
from family_cases import everything
from torch import Tensor

import fusedmix
from fusedmix.cpu import augment as cpu_augment
from fusedmix.kernels.config import walk_for
from fusedmix.kernels.taps import KNOWN_ROWS
from fusedmix.launch import tile_stride
from fusedmix.placement import CenterCrop, ColorJitter, Flip, Placement, RandomAffine, RandomCrop, RandomResizedCrop
from fusedmix.recipe import MODES, PARTNERS
from fusedmix.rng import TAP_BITS
from fusedmix.spec import Cutout, FMix, Mixup, Policy, RandomErasing, ResizeMix, SmoothMix

IMPLEMENTATIONS = ["kernel", "cpu", "numpy"]
NORM = torch.tensor([[123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]])
JOINED_STEPS = 3e-6  # the most that joined steps change of normalised values, at factors of colour up to 1.8
SHAPES = [(5, 3, 8, 9), (4, 3, 9, 8), (2, 3, 12, 16)]


def photographs(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """uint8 [B, 3, H, W]."""
    return images((batch, 3, height, width), torch.uint8, seed=seed)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_the_reference(implementation: str, name: str) -> None:
    """Bit for bit, in every dtype and both layouts."""
    number = list(CASES).index(name)
    dtypes = DTYPES if implementation != "kernel" else [DTYPES[number % 3], torch.uint8]  # the interpreter is slow
    for dtype in dtypes:
        number += 1
        check(
            implementation, CASES[name], SHAPES[number % 3], dtype, number % 2 == 1, seed=2**40 + number, offset=number,
            sample_offset=number,
        )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_normalise_cast_layout_and_replay(implementation: str, name: str) -> None:
    number = list(CASES).index(name)
    check(
        implementation, CASES[name], (4, 3, 8, 9), torch.uint8, number % 2 == 0, norm=NORM, out_dtype=torch.bfloat16,
        out_last=number % 4 < 2, form="classes", seed=number,
    )  # fmt: skip
    check(implementation, CASES[name], (3, 3, 8, 9), torch.float16, replay=True, form="soft", seed=number)


@pytest.mark.parametrize("route", ["loops, one chunk", "loops, chunks of two", "passes, chunks of two"])
@pytest.mark.parametrize("name", CASES)
def test_cpu_routes(name: str, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops as for large images and passes as for large batches of small ones; partners that lie in other chunks."""
    if "loops" in route:
        monkeypatch.setattr(cpu_augment, "SMALL_IMAGE", 0)
        monkeypatch.setattr(cpu_augment, "SMALL_SAMPLE", 0)
    if "two" in route:
        monkeypatch.setattr(cpu_augment, "SMALL_BATCH", 0)
        monkeypatch.setattr(cpu_augment, "CHUNK_BYTES", 1)
        monkeypatch.setattr(cpu_augment, "THREAD_SAMPLES", 0)
    # torch's own resize measures from the crop and we from the image: points differ by the rounding of float32, which
    # moves a value of 255 by less than 1e-3, and by one step of the dtype of the result where it is a tie.
    case = CASES[name]
    geometry = case.placement.geometry(8, 9)
    resizes = "loops" in route and geometry.bilinear and not geometry.turns
    outside = case if case.policy is None else replace(case, policy=replace(case.policy, partner="permute"))
    for dtype in DTYPES:
        step = (1.0, 0.0) if dtype == torch.uint8 else (1e-3, torch.finfo(dtype).eps)
        for implementation in ("cpu", "numpy"):
            inexact = resizes and implementation == "numpy"
            first, second = (step, (1e-3, 0.0)) if inexact else (EXACT, EXACT)
            check(implementation, case, (5, 3, 8, 9), dtype, dtype == torch.float32, seed=3, tolerance=first)
            check(implementation, outside, (7, 3, 8, 9), dtype, seed=5, tolerance=first)
            check(
                implementation, case, (4, 3, 40, 9), dtype, seed=4, norm=NORM, out_dtype=torch.float32,
                tolerance=second,
            )  # fmt: skip


def test_large_batches_of_small_images_are_rounded() -> None:
    """More than one chunk at the sizes that are in use: bytes are rounded and not cut."""
    x = photographs(1024, 32, 32)
    augment = fusedmix.FusedAugment(mix=fusedmix.Mixup())
    out, plan = augment(x, return_plan=True)
    assert out.dtype == torch.uint8
    lam = plan.lam.view(-1, 1, 1, 1)
    want = lam * x.float() + (1 - lam) * x[plan.partner].float()
    assert float((out.float() - want).abs().max()) < 0.51


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_partners_modes_and_given_means(implementation: str) -> None:
    place = CASES["everything"].placement
    for number, partner in enumerate(PARTNERS):
        mode = list(MODES)[number % 3]
        mode = "batch" if mode == "pair" and partner in ("roll", "permute") else mode
        case = Case(place, Policy(MIX.methods, mode=mode, partner=partner))
        gray = torch.linspace(10, 200, 5) if number % 2 else None
        check(implementation, case, (5, 3, 8, 9), torch.uint8, seed=number, gray=gray)
    for shape in ((1, 3, 4, 5), (0, 3, 4, 5), (2, 3, 1, 1)):
        check(implementation, Case(Placement(flip=Flip()), MIX), shape, torch.float32, seed=1)
    check(implementation, Case(Placement((3, 3), RandomResizedCrop(), Flip()), MIX), (3, 5, 6, 7), torch.uint8, seed=1)


def test_tiles_of_the_launch_table() -> None:
    """Several programs a sample, several tiles a program, a ragged last one; a plan wider than a block of columns."""
    for tiles in (1, 2):
        launch = augment_cases.Launch(32, tiles, 4)
        check("kernel", CASES["crop, edge, mixed"], (3, 3, 9, 11), torch.uint8, seed=5, launch=launch)


@pytest.mark.parametrize("name", ["crop, edge, mixed", "resized crop, mixed, erased", "everything"])
def test_tiles_of_the_same_columns(name: str) -> None:
    """What columns decide is computed once where a program's tiles lie whole rows apart."""
    case = CASES[name]
    case = replace(case, placement=replace(case.placement, size=(16, 12)))
    launch = augment_cases.Launch(16, 2, 4)
    assert tile_stride(12, launch.block, 12) == 3
    check("kernel", case, (2, 3, 16, 12), torch.uint8, seed=5, launch=launch)


ERASED = replace(MIX, erase=RandomErasing(0.7, (0.1, 0.4), fill_mode="pixel", value=20.0, sigma=9.0))
LIST = everything("erasing pixel")
LIST = replace(LIST, methods=tuple(entry for entry in LIST.methods if not isinstance(entry[0], ResizeMix)))
WALKS = {  # of the size of the source that it is made from
    "alone": ((20, 9), Case(Placement((8, 12), augment_cases.RESIZED, Flip(0.5, 0.5)))),
    "coloured": ((5, 12), Case(Placement((8, 9), augment_cases.RESIZED, Flip(), None, augment_cases.JITTER))),
    "mixed, erased": (
        (12, 9),
        Case(
            Placement((7, 12), augment_cases.RESIZED, Flip(0.5, 0.5)),
            ERASED,
        ),
    ),
    "permuted": ((9, 14), Case(Placement((6, 10), augment_cases.RESIZED, Flip()), replace(MIX, partner="permute"))),
    "many methods": ((12, 9), Case(Placement((8, 12), augment_cases.RESIZED, Flip(0.5, 0.5)), LIST)),
    "whole": ((2, 2), Case(Placement((9, 13)))),
    "by words, near": ((9, 16), Case(Placement((7, 32), augment_cases.RESIZED, Flip()), MIX)),
    "by words, far": ((9, 40), Case(Placement((7, 16), RandomResizedCrop((0.9, 1.0), (4.0, 4.5)), Flip()), MIX)),
    "by words, near or far": ((12, 16), Case(Placement((7, 16), RandomResizedCrop((0.5, 1.0)), Flip()))),
}  # fmt: skip


@pytest.mark.parametrize("name", WALKS)
def test_programs_that_walk_down_rows(name: str) -> None:
    """Resized crops of bytes go on from the source's rows that the row above was made of, up or down, none or several.

    Rows in one program or several, of one tile or several, the last of them ragged.
    """
    augment_cases.check_launches(*WALKS[name], ((16, 32), (8, 5)))


JITTERED = Placement((17, 12), augment_cases.RESIZED, Flip(), None, augment_cases.JITTER)
JOINED = {
    "coloured": Case(JITTERED),
    "coloured, mixed": Case(JITTERED, MIX),
    "coloured, permuted": Case(JITTERED, replace(MIX, partner="permute")),
    "coloured, mixed, erased": Case(JITTERED, ERASED),
    "mixed, erased": Case(replace(JITTERED, color=None), ERASED),
    "many boxes": Case(
        JITTERED,
        Policy(((Cutout(5, 3), 0.5), (Mixup(), 0.5)), RandomErasing(0.7, (0.1, 0.4), min_count=2, max_count=3)),
    ),
    "blended, also softly": Case(JITTERED, Policy(((Mixup(), 0.5), (SmoothMix(), 0.5)))),
    "blended, or by ranks": Case(JITTERED, Policy(((FMix(), 0.5), (Mixup(), 0.5)))),
}
NORMS = NORM, NORM * torch.tensor([[1 / 255], [255.0]])  # in shares of white, where there is colour


@pytest.mark.parametrize("width", [256, 192, 8])
def test_walks_by_words_as_the_table_has_them(width: int) -> None:
    """Eight pixels a thread, or two; images of two words."""
    case = Case(Placement((3, 256), RandomResizedCrop((0.3, 1.0)), Flip()))
    check("kernel", case, (3, 3, 8, width), torch.uint8, by_table=True, seed=width)


def test_programs_that_walk_further_than_they_know_rows() -> None:
    """Coloured images, whose programs walk down as many rows as they have, mixed and erased."""
    case = Case(
        Placement((KNOWN_ROWS.value + 9, 8), augment_cases.RESIZED, Flip(0.5), None, augment_cases.JITTER), ERASED
    )
    augment_cases.check_launches((30, 9), case, ((16, 2 * KNOWN_ROWS.value), (8, 2 * KNOWN_ROWS.value)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", JOINED)
def test_programs_that_walk_join_steps(name: str, dtype: torch.dtype) -> None:
    """They blend and normalise at once, and go between rows and to another brightness at once, with no step's rounding.

    They may lead another way where that is rounded to the dtype.
    """
    case = JOINED[name]
    for seed in range(3):
        check(
            "kernel", case, (4, 3, 20, 16), torch.uint8, norm=NORMS[case.placement.color is not None], out_dtype=dtype,
            seed=seed, launch=augment_cases.Launch(16, 8, 1),
            tolerance=(JOINED_STEPS, 0.0 if dtype == torch.float32 else 2**-7),
        )  # fmt: skip


def test_launch_of_programs_that_walk() -> None:
    """As many pixels a thread as waste few threads, at the least four for noise; rows by the pixels of all images."""
    assert walk_for(224, images=1) == (augment_cases.Launch(256, 32, 1), 8)
    assert walk_for(224) == (augment_cases.Launch(128, 32, 1), 4)
    assert walk_for(192) == (augment_cases.Launch(64, 64, 1), 2)
    assert walk_for(192, least=4) == (augment_cases.Launch(128, 32, 1), 4)
    assert walk_for(224, colored=True) == (augment_cases.Launch(128, 256, 1, fewest=32), 4)
    assert walk_for(224, images=1, itemsize=4) == (augment_cases.Launch(128, 64, 1), 4)
    assert walk_for(33, images=1) == (augment_cases.Launch(32, 256, 1), 1)


# The reference against what torch itself does with the boxes and flips that were drawn.


def window_of(plan: fusedmix.AugmentPlan, i: int) -> tuple[float, float, float, float, bool, bool]:
    """(y0, x0, h, w, flipped upside down, flipped) of a plan that does not turn."""
    m = plan.map[i].tolist()
    height, width = plan.size
    y0, x0 = min(m[5], m[5] + m[4] * height), min(m[2], m[2] + m[0] * width)
    return round(y0), round(x0), round(abs(m[4]) * height), round(abs(m[0]) * width), m[4] < 0, m[0] < 0


def flipped(image: Tensor, flip_v: bool, flip: bool) -> Tensor:
    return image.flip([d for d, on in ((1, flip_v), (2, flip)) if on])


@pytest.mark.parametrize("padding_mode", ["constant", "reflect", "edge"])
def test_crops_are_pad_and_slice(padding_mode: str) -> None:
    """Bit for bit, as F.pad, a slice and a flip."""
    x = torch.randn(16, 3, 10, 12)
    augment = fusedmix.FusedAugment((9, 11), RandomCrop(3, padding_mode), Flip(0.5, 0.5))
    out, plan = augment(x, return_plan=True)
    mode = "replicate" if padding_mode == "edge" else padding_mode
    padded = F.pad(x, (3, 3, 3, 3), mode=mode)
    seen = set()
    for i in range(16):
        y0, x0, h, w, flip_v, flip = window_of(plan, i)
        assert (h, w) == (9, 11)
        want = flipped(padded[i, :, y0 + 3 : y0 + 12, x0 + 3 : x0 + 14], flip_v, flip)
        assert torch.equal(out[i], want)
        seen |= {(flip_v, flip)}
    assert len(seen) > 2


def weights_between(scale: Tensor, start: Tensor, size: int, low: int, high: int, side: int) -> Tensor:
    """float64 [size, side]: what each pixel of an axis takes from the source's, at places rounded to whole steps."""
    place = (scale * (torch.arange(size) + 0.5) + start - 0.5).clamp(low, high - 1)
    first = place.floor().long()
    share = ((place - first) * 2.0**TAP_BITS).round().double() / 2.0**TAP_BITS
    pixel = torch.eye(side).double()
    return (1 - share)[:, None] * pixel[first] + share[:, None] * pixel[(first + 1).clamp(max=side - 1)]


def test_resized_crops_are_interpolate() -> None:
    """F.interpolate of the crop without antialiasing, but for half a step along each axis; exact at whole steps."""
    x = photographs(16, 40, 50)
    half_steps = 2 * 2.0 ** -(TAP_BITS + 1)
    augment = fusedmix.FusedAugment((17, 23), RandomResizedCrop(), Flip(0.5, 0.5), dtype=torch.float32)
    out, plan = augment(x, return_plan=True)
    for i in range(16):
        y0, x0, h, w, flip_v, flip = window_of(plan, i)
        crop = x[i : i + 1, :, y0 : y0 + h, x0 : x0 + w].float()
        want = F.interpolate(crop, size=(17, 23), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(out[i], flipped(want, flip_v, flip), rtol=0, atol=255 * (2e-5 + half_steps))
        m = plan.map[i]
        down, across = weights_between(m[4], m[5], 17, y0, y0 + h, 40), weights_between(m[0], m[2], 23, x0, x0 + w, 50)
        torch.testing.assert_close(out[i].double(), down @ x[i].double() @ across.T, rtol=0, atol=255 * 1e-6)


def test_affine_maps_are_grid_sample() -> None:
    x = torch.rand(8, 3, 24, 20)
    affine = RandomAffine(45.0, (0.2, 0.1), (0.6, 1.5), (-20.0, 20.0, -10.0, 10.0))
    augment = fusedmix.FusedAugment(None, None, Flip(0.5), affine)
    out, plan = augment(x, return_plan=True)
    height, width = 24, 20
    y, across = torch.meshgrid(torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij")
    for i in range(8):
        m = plan.map[i].double()
        u, v = m[0] * across + m[1] * y + m[2], m[3] * across + m[4] * y + m[5]
        grid = torch.stack([2 * u / width - 1, 2 * v / height - 1], -1)[None]
        want = F.grid_sample(x[i : i + 1].double(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        torch.testing.assert_close(out[i].double(), want[0], rtol=0, atol=2e-5)


def test_affine_turns_clockwise_about_the_centre() -> None:
    """A quarter turn of a square image is rot90, exactly placed."""
    x = torch.rand(1, 3, 7, 7)
    turned = fusedmix.FusedAugment(affine=RandomAffine((90.0, 90.0)), interpolation="nearest")(x)
    assert torch.equal(turned, x.rot90(-1, (2, 3)))
    x = torch.rand(1, 3, 6, 6)
    larger = fusedmix.FusedAugment(affine=RandomAffine(scale=(2.0, 2.0)), interpolation="nearest")(x)
    line = torch.tensor([1, 2, 2, 3, 3, 4])
    assert torch.equal(larger, x[:, :, line][:, :, :, line])


def test_colour_in_literal_numbers() -> None:
    x = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    bright = fusedmix.FusedAugment(color=ColorJitter(brightness=(2.0, 2.0)))(x)
    torch.testing.assert_close(bright.flatten(), torch.tensor([0.4, 0.8, 1.0]))
    contrast = fusedmix.FusedAugment(color=ColorJitter(contrast=(2.0, 2.0)))
    torch.testing.assert_close(contrast(x).flatten(), torch.tensor([0.0, 0.3, 0.7]))
    torch.testing.assert_close(contrast(x, gray=torch.tensor([0.4])).flatten(), torch.tensor([0.0, 0.4, 0.8]))
    gray = 0.2989 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    none = fusedmix.FusedAugment(color=ColorJitter(saturation=(0.0, 0.0)))(x)
    torch.testing.assert_close(none.flatten(), torch.full((3,), gray))
    all_gray = fusedmix.FusedAugment(color=ColorJitter(grayscale=1.0))(x)
    torch.testing.assert_close(all_gray.flatten(), torch.full((3,), gray))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5])
def test_contrast_then_saturation(factor: float) -> None:
    """Below 1, contrast needs no clamp and is one step with saturation: the steps one by one come to the same."""
    x = photographs(2, 8, 8).float() / 255
    sharp = ((x - 0.3) * factor + 0.3).clamp(0, 1)
    gray = (sharp * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    pivot = torch.full((2,), 0.3)
    for saturation in (0.0, 0.5, 1.5):
        expected = (gray + (sharp - gray) * saturation).clamp(0, 1)
        jitter = ColorJitter(contrast=(factor, factor), saturation=(saturation, saturation))
        out = fusedmix.FusedAugment(color=jitter)(x, gray=pivot)
        torch.testing.assert_close(out, expected, rtol=0, atol=3e-7)
        assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_coloured_bytes_are_bytes_again() -> None:
    """They are mixed and erased as shares of white, of which nothing is left outside."""
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16).contiguous()
    plain, twice = ColorJitter((1.0, 1.0)), ColorJitter((2.0, 2.0))
    assert torch.equal(fusedmix.FusedAugment(color=plain)(x), x)
    bright = (2 * x.float()).clamp(max=255)
    assert torch.equal(fusedmix.FusedAugment(color=twice)(x), bright.to(torch.uint8))
    floats = fusedmix.FusedAugment(color=twice, dtype=torch.float32)(x)
    torch.testing.assert_close(floats, bright, rtol=2e-7, atol=0)
    options = {"color": twice, "crop": RandomCrop(4), "fill": 3.5, "erase": fusedmix.Cutout(8, value=31.0)}
    out, plan = fusedmix.FusedAugment(**options)(x, return_plan=True)
    assert {7, 31} < set(out.unique().tolist()) <= {7, 31, 255, *range(0, 255, 2)}
    assert torch.equal(plan.apply(x), out)
    scaled = fusedmix.FusedAugment(**options, mean=100.0, std=50.0)(x, plan=plan)
    torch.testing.assert_close(scaled, (out.float() - 100) / 50, rtol=1e-5, atol=1e-6)


def test_draws_follow_their_distributions() -> None:
    batch = 4000
    x = torch.zeros(batch, 3, 64, 64, dtype=torch.uint8)
    augment = fusedmix.FusedAugment(
        (8, 8), RandomResizedCrop(), Flip(0.3, 0.6), color=ColorJitter((0.5, 1.5), grayscale=0.25)
    )
    _, plan = augment(x, generator=torch.Generator().manual_seed(1), return_plan=True)
    rate = 4 * (0.25 / batch) ** 0.5
    assert abs(float((plan.map[:, 0] < 0).float().mean()) - 0.3) < rate
    assert abs(float((plan.map[:, 4] < 0).float().mean()) - 0.6) < rate
    assert abs(float(plan.grayscale.float().mean()) - 0.25) < rate
    assert abs(float(plan.color[:, 0].mean()) - 1.0) < 4 * (1 / 12 / batch) ** 0.5
    h, w = 8 * plan.map[:, 4].abs(), 8 * plan.map[:, 0].abs()
    share, ratio = h * w / 4096, w / h
    # Tries that do not fit are drawn again, which favours small boxes: the mean lies below that of the uniform.
    assert 0.45 < float(share.mean()) < 0.54
    assert float(share.min()) > 0.07
    assert float(ratio.min()) > 0.7
    assert float(ratio.max()) < 1.45
    assert abs(float(ratio.log().mean())) < 0.02


def test_fallback_is_the_central_crop() -> None:
    """No box of such a ratio fits an image three times as wide as high."""
    x = photographs(4, 10, 30)
    augment = fusedmix.FusedAugment((10, 10), RandomResizedCrop((1.0, 1.0), (1.0, 1.0)), dtype=torch.uint8)
    assert torch.equal(augment(x), x[:, :, :, 10:20])


# What the call promises.


def test_partners_bring_their_own_place() -> None:
    """Mixing what was placed is placing, then mixing: the same plan applied to one image at a time."""
    x = photographs(6, 12, 12)
    augment = fusedmix.FusedAugment(8, RandomCrop(0), 0.5, mix=fusedmix.CutMix(), dtype=torch.float32)
    out, plan = augment(x, return_plan=True)
    alone = []
    for i in range(6):
        y0, x0, _, _, flip_v, flip = window_of(plan, i)
        alone.append(flipped(x[i, :, y0 : y0 + 8, x0 : x0 + 8].float(), flip_v, flip))
    for i in range(6):
        y0, x0, y1, x1 = plan.box[i].tolist()
        want = alone[i].clone()
        want[:, y0:y1, x0:x1] = alone[int(plan.partner[i])][:, y0:y1, x0:x1]
        assert torch.equal(out[i], want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_normalise_then_mix(dtype: torch.dtype) -> None:
    """Mixed in input units and rounded once; normalising first differs by float32 steps, then one rounding."""
    x, y = photographs(8, 16, 16), torch.arange(8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    augment = fusedmix.FusedAugment(mix=fusedmix.Mixup(0.4), mean=mean, std=std, dtype=dtype, num_classes=8)
    out, target, plan = augment(x, y, return_plan=True)
    shaped = [torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std)]
    normalised = (x.float() - shaped[0]) / shaped[1]
    lam = plan.lam.view(-1, 1, 1, 1)
    want = lam * normalised + (1 - lam) * normalised[plan.partner]
    torch.testing.assert_close(out.float(), want, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=2e-6)
    torch.testing.assert_close(target.sum(1), torch.ones(8))


def test_whole_batch_and_shards_draw_alike() -> None:
    x = photographs(8, 12, 12)
    augment = fusedmix.FusedAugment(
        8, RandomResizedCrop(), 0.5, RandomAffine(10.0), ColorJitter(0.4, 0.4, 0.4, 0.2), dtype=torch.float32
    )
    whole = augment(x, generator=torch.Generator().manual_seed(5))
    parts = [augment(x[k : k + 4], generator=torch.Generator().manual_seed(5), sample_offset=k) for k in range(0, 8, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, augment(x, generator=torch.Generator().manual_seed(6)))


def test_channels_last_input_goes_in_as_it_is() -> None:
    """[B, H, W, C], as NumPy gives it, is the same call as [B, C, H, W]; also for the methods alone."""
    x, y = photographs(6, 12, 12), torch.arange(6)
    last = x.permute(0, 2, 3, 1).contiguous()
    options = dict(size=8, crop=RandomResizedCrop(), flip=0.5, mix=fusedmix.CutMix(), mean=127.5, num_classes=6)
    first = fusedmix.FusedAugment(**options)
    nhwc = fusedmix.FusedAugment(**options, channels="last", memory_format=torch.contiguous_format)
    torch.manual_seed(1)
    want = first(x, y)
    torch.manual_seed(1)
    got = nhwc(last, y)
    assert got[0].is_contiguous()
    assert torch.equal(got[0], want[0])
    torch.manual_seed(1)
    want = fusedmix.fused_cutmix(x, y, mean=127.5, num_classes=6)
    torch.manual_seed(1)
    got = fusedmix.fused_cutmix(
        last.permute(0, 3, 1, 2), y, mean=127.5, num_classes=6, memory_format=torch.contiguous_format
    )
    assert torch.equal(got[0], want[0])


def test_evaluation_is_the_middle_normalised() -> None:
    x, y = photographs(4, 32, 32), torch.arange(4)
    augment = fusedmix.recipes.cifar10(mix=fusedmix.CutMix()).eval()
    out, same = augment(x, y)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (augment.mean, augment.std))
    torch.testing.assert_close(out, (x.float() - mean) / std, rtol=1e-6, atol=1e-6)
    assert same is y
    assert torch.equal(augment(x), augment(x))
    big = photographs(2, 64, 80)
    out = fusedmix.FusedAugment(28, RandomResizedCrop(), dtype=torch.float32).eval()(big)
    want = F.interpolate(big[:, :, 4:60, 12:68].float(), size=(28, 28), mode="bilinear")
    torch.testing.assert_close(out, want, rtol=0, atol=1e-3)
    window = fusedmix.FusedAugment(28, CenterCrop())
    assert torch.equal(window(big), big[:, :, 18:46, 26:54])
    with pytest.raises(ValueError, match="train"):
        window.eval()(big, return_plan=True)


def test_plan_replays_on_images_and_masks() -> None:
    x, y = photographs(6, 20, 20), torch.arange(6)
    augment = fusedmix.recipes.deit(10, size=16)
    out, target, plan = augment(x, y, return_plan=True)
    options = dict(mean=augment.mean, std=augment.std, num_classes=10, smoothing=0.1)
    again, rows = plan.apply(x, y, **options)
    assert torch.equal(again, out)
    assert torch.equal(rows, target)
    assert torch.equal(augment(x, y, plan=plan)[0], out)


def test_plan_moves_masks_with_their_images() -> None:
    """Rows and columns as masks: each pixel of the result holds where the map says it came from."""
    x = photographs(8, 20, 24)
    augment = fusedmix.FusedAugment(
        (14, 16), RandomResizedCrop(), 0.5, color=ColorJitter(0.4, 0.4, 0.4), mix=[(fusedmix.CutMix(), 0.6)],
        erase=fusedmix.RandomErasing(p=0.5, fill_mode="pixel", value=90.0, sigma=50.0), fill=(1.0, 2.0, 3.0),
    )  # fmt: skip
    _, plan = augment(x, return_plan=True)
    assert 0 < int(plan.erased.sum()) < 8
    rows = torch.arange(20, dtype=torch.uint8).view(1, 1, 20, 1).expand(8, 1, 20, 24).contiguous()
    moved = plan.apply(rows, interpolation="nearest", fill=255)[:, 0]
    columns = torch.arange(24, dtype=torch.uint8).expand(8, 1, 20, 24).contiguous()
    across = plan.apply(columns, interpolation="nearest", fill=255)[:, 0]
    y, x_ = torch.arange(14) + 0.5, torch.arange(16) + 0.5
    for i in range(8):
        y0, x0, y1, x1 = plan.box[i].tolist()
        inside = torch.zeros(14, 16, dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        kept = moved[i] != 255
        assert bool(kept.all()) == (not bool(plan.erased[i]))
        for source, where in ((i, kept & ~inside), (int(plan.partner[i]), kept & inside)):
            m = plan.map[source]
            v, u = torch.floor(m[4] * y + m[5])[:, None].expand(14, 16), torch.floor(m[0] * x_ + m[2]).expand(14, 16)
            assert torch.equal(moved[i][where].float(), v[where])
            assert torch.equal(across[i][where].float(), u[where])


@pytest.mark.parametrize("padding_mode", ["constant", "reflect", "edge"])
def test_plan_of_a_window_copies_large_images_under_any_interpolation(padding_mode: str) -> None:
    x = photographs(2, 110, 120)
    out, plan = fusedmix.FusedAugment((100, 104), RandomCrop(5, padding_mode), 0.5)(x, return_plan=True)
    for interpolation in ("nearest", "bilinear"):
        assert torch.equal(plan.apply(x, interpolation=interpolation), out)


def test_plan_of_colours_fits_bytes_and_floats() -> None:
    x = photographs(6, 12, 12)
    jitter = fusedmix.FusedAugment(color=ColorJitter(0.4, 0.6, 0.4), dtype=torch.float32)
    for gray in (None, torch.linspace(20, 200, 6)):
        out, plan = jitter(x, gray=gray, return_plan=True)
        torch.testing.assert_close(plan.apply(x.float() / 255) * 255, out, rtol=0, atol=1e-3)


def test_out_must_lie_apart() -> None:
    x = photographs(8, 12, 12)
    with pytest.raises(ValueError, match="out overlaps x"):
        fusedmix.FusedAugment(flip=0.5)(x, out=x)
    with pytest.raises(ValueError, match="out overlaps x"):
        fusedmix.FusedAugment(flip=0.5)(x[:4], out=x[1:5])


def test_knobs_keep_their_precision() -> None:
    """Chances do not change with the dtype that a model is cast to; nor does the progress get lost."""
    x = photographs(2000, 1, 2)
    flips = []
    for cast in ("float", "half", "bfloat16", "double"):
        augment = fusedmix.FusedAugment(flip=Flip(fusedmix.Linear(0.0, 0.602)))
        augment.set_progress(0.5)
        augment = getattr(augment, cast)()
        assert augment.knobs.dtype == torch.float32
        _, plan = augment(x, generator=torch.Generator().manual_seed(0), return_plan=True)
        flips.append(plan.map[:, 0] < 0)
    assert all(torch.equal(flips[0], other) for other in flips[1:])


def test_evaluation_draws_nothing() -> None:
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    fusedmix.FusedAugment(flip=0.5).eval()(photographs(2, 4, 4))
    assert torch.equal(torch.rand(3), want)


def test_debug_looks_at_the_range_of_coloured_floats() -> None:
    augment = fusedmix.FusedAugment(color=ColorJitter(0.4))
    augment(torch.full((2, 3, 4, 4), 200.0))
    fusedmix.debug()
    try:
        with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]"):
            augment(torch.full((2, 3, 4, 4), 200.0))
        augment(torch.rand(2, 3, 4, 4))
    finally:
        fusedmix.debug(False)


def test_no_gradient_is_asked_for_without_grad() -> None:
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    with torch.no_grad():
        assert fusedmix.FusedAugment(flip=1.0)(x).equal(x.flip(3))


def test_out_is_filled_and_returned() -> None:
    x = photographs(4, 12, 12)
    augment = fusedmix.FusedAugment(8, RandomCrop(0), mean=1.0)
    out = torch.full((4, 3, 8, 8), float("nan"))
    assert augment(x, out=out) is out
    assert not out.isnan().any()


def test_labels_follow_the_mix() -> None:
    x, y = photographs(6, 12, 12), torch.arange(6)
    assert fusedmix.FusedAugment(flip=0.5)(x, y)[1] is y
    rows = fusedmix.FusedAugment(flip=0.5, num_classes=6)(x, y)[1]
    assert torch.equal(rows, torch.eye(6))
    mixed = fusedmix.FusedAugment(flip=0.5, mix=fusedmix.Mixup())(x, y)[1]
    assert isinstance(mixed, fusedmix.MixedTarget)
    timm = fusedmix.FusedAugment(mix=fusedmix.MixupOrCutMix(), num_classes=6)(x, y)[1]
    torch.testing.assert_close(timm.sum(1), torch.ones(6))


def test_progress_moves_flips_without_a_new_graph() -> None:
    x = photographs(16, 8, 8)
    augment = fusedmix.FusedAugment(
        flip=Flip(fusedmix.Linear(0.0, 1.0)), mix=[(fusedmix.CutMix(), fusedmix.Until(0.5, 1.0))], dtype=torch.float32
    )
    torch._dynamo.reset()
    compiled = torch.compile(augment, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        augment.set_progress(0.0)
        compiled(x)
        augment.set_progress(1.0)
        assert torch.equal(compiled(x), x.flip(3).float())


def test_compiles_whole_with_its_plan() -> None:
    x, y = photographs(4, 10, 10), torch.arange(4)
    augment = fusedmix.FusedAugment(6, RandomResizedCrop(), 0.5, color=ColorJitter(0.2), mix=MIX.methods, num_classes=4)
    torch._dynamo.reset()
    step = torch.compile(lambda x, y: augment(x, y, return_plan=True), fullgraph=True, backend="aot_eager")
    out, rows, plan = step(x, y)
    again, same = plan.apply(x, y, num_classes=4)
    assert torch.equal(out, again)
    assert torch.equal(rows, same)


def test_op_passes_opcheck() -> None:
    x, y = photographs(4, 10, 10), torch.arange(4)
    case = Case(Placement((6, 8), RandomResizedCrop(), Flip()), MIX)
    recipe = case.recipe._replace(num_classes=4)
    geometry, extras = case.geometry(x), case.extras(x, None)
    numbers = (*recipe, [int(n) for n in geometry], True, *extras)
    arguments = (y, None, None, None, None, None, 1, 2, 3)
    torch.library.opcheck(torch.ops.fusedmix.augment.default, (x, *arguments, *numbers, torch.float32, None))
    out = torch.empty(4, 3, 6, 8)
    torch.library.opcheck(torch.ops.fusedmix.augment_out.default, (x, out, *arguments, *numbers))


def test_explain_says_what_happened() -> None:
    x = photographs(2, 20, 20)
    augment = fusedmix.FusedAugment(8, RandomCrop(0), Flip(1.0, 1.0), color=ColorJitter(grayscale=1.0))
    _, plan = augment(x, return_plan=True)
    y0, x0, *_ = window_of(plan, 0)
    text = plan.explain(0)
    assert text.startswith(f"from y {y0}..{y0 + 8} x {x0}..{x0 + 8}, flipped, upside down, brightness 1.00")
    assert "gray; untouched" in text
    for angle in (30.0, 120.0, 200.0):
        for size in (None, (8, 16)):
            for flip, said in ((0.0, "; "), (1.0, ", flipped; ")):
                turned = fusedmix.FusedAugment(size, flip=flip, affine=RandomAffine((angle, angle)))
                step = 1.0 if size is None else (20 * 20 / (8 * 16)) ** 0.5
                _, plan = turned(x, return_plan=True)
                assert plan.explain(0).startswith(f"turned {angle:.1f} degrees, {step:.3f} pixels a pixel{said}")
    assert repr(plan).startswith("AugmentPlan(2 samples")


def test_erasing_without_mixing() -> None:
    x, y = photographs(6, 12, 12), torch.arange(6)
    augment = fusedmix.FusedAugment(flip=1.0, erase=fusedmix.Cutout(4, value=7.0))
    out, same, plan = augment(x, y, return_plan=True)
    assert same is y
    for i in range(6):
        y0, x0, y1, x1 = plan.regions(plan.packed[i].tolist())[-1][0][:4]
        want = x[i].flip(2)
        want[:, y0:y1, x0:x1] = 7
        assert torch.equal(out[i], want)
    assert "mix=" not in repr(augment)


WRONG = {
    r"mix must be None, a spec .* got \[\]": lambda: fusedmix.FusedAugment(mix=[]),
    r"mix\[0\] must be a pair": lambda: fusedmix.FusedAugment(mix=[3]),
    "size must be in": lambda: fusedmix.FusedAugment(0),
    "crop must be None or a RandomCrop": lambda: fusedmix.FusedAugment(crop=3),
    "affine must be None or a RandomAffine": lambda: fusedmix.FusedAugment(affine=10),
    "mix must be None, a spec": lambda: fusedmix.FusedAugment(mix=3),
    "mix holds ResizeMix": lambda: fusedmix.FusedAugment(mix=fusedmix.ResizeMix()),
    "mix sets num_classes": lambda: fusedmix.FusedAugment(mix=fusedmix.MixupOrCutMix(num_classes=3)),
    "interpolation must be one of": lambda: fusedmix.FusedAugment(interpolation="cubic"),
    "channels must be one of": lambda: fusedmix.FusedAugment(channels="middle"),
    "brightness must be >= 0": lambda: ColorJitter(-1.0),
    "degrees must be in": lambda: RandomAffine(400.0),
    "translate must be a pair": lambda: RandomAffine(translate=0.1),
    "share must be in": lambda: CenterCrop(1.5),
    "padding_mode must be one of": lambda: RandomCrop(1, "wrap"),
    "flip must be in": lambda: fusedmix.FusedAugment(flip=1.5),
    "horizontal must be in": lambda: Flip(1.5),
    "degrees must be a number or a pair": lambda: RandomAffine("wide"),
    "contrast must be a number or a pair": lambda: ColorJitter(contrast=(1.0, 2.0, 3.0)),
    "mean must be finite": lambda: fusedmix.FusedAugment(mean=float("nan")),
    "does not fit: H of x is 8": lambda: fusedmix.FusedAugment(12, RandomCrop(1))(photographs(2, 8, 8)),
    "padding must be below H": lambda: fusedmix.FusedAugment(8, RandomCrop(8, "reflect"))(photographs(2, 8, 8)),
    "3 channels": lambda: fusedmix.FusedAugment(color=ColorJitter(0.1))(photographs(2, 8, 8)[:, :1]),
    "at most 16 channels": lambda: fusedmix.FusedAugment()(torch.rand(2, 17, 4, 4)),
    "x must not require grad": lambda: fusedmix.FusedAugment()(torch.rand(2, 3, 4, 4).requires_grad_()),
    "x must be .B, H, W, C.": lambda: fusedmix.FusedAugment(channels="last")(torch.rand(3, 4, 4)),
    "out must have the shape of the result": lambda: fusedmix.FusedAugment()(photographs(2, 8, 8), out=torch.empty(3)),
    "gray must be": lambda: fusedmix.FusedAugment()(photographs(2, 8, 8), gray=torch.ones(3)),
    "gray plays no part": lambda: fusedmix.FusedAugment()(photographs(2, 8, 8), gray=torch.ones(2)),
    "gray must be a": lambda: fusedmix.FusedAugment().eval()(photographs(2, 8, 8), gray="nonsense"),
    "mix holds only None": lambda: fusedmix.FusedAugment(mix=[(None, 1.0)]),
    "probabilities of mix": lambda: fusedmix.FusedAugment(mix=[(fusedmix.CutMix(), 0.7), (None, 0.7)]),
    "value .or fill. must be a number or one per channel .3.": lambda: fusedmix.FusedAugment(fill=(1.0, 2.0))(
        photographs(2, 8, 8)
    ),
    "mean must be a number or one per channel": lambda: fusedmix.FusedAugment(mean="abc"),
    "std must be > 0": lambda: fusedmix.FusedAugment(std=0.0),
    "dtype must be a torch.dtype, got str": lambda: fusedmix.FusedAugment(dtype="half"),
    "interpolation must be one of .* got \\[\\]": lambda: fusedmix.FusedAugment(interpolation=[]),
    "generator must be a torch.Generator": lambda: fusedmix.FusedAugment()(photographs(2, 8, 8), generator=3),
    "plan must be a fusedmix.AugmentPlan": lambda: fusedmix.FusedAugment()(photographs(2, 8, 8), plan=3),
    "value of uint8 images .or fill. must be in": lambda: fusedmix.FusedAugment(fill=300.0)(photographs(2, 8, 8)),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_named(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        WRONG[message]()
