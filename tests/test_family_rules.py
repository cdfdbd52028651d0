"""The family against the published rules, told independently, and by its statistics at fixed seeds."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from cases import without_native
from family_cases import SPECS, everything, single
from scipy import stats

from fusedmix import rng
from fusedmix.checks import knobs_of
from fusedmix.cpu.family import words
from fusedmix.field import fmix_ranks
from fusedmix.reference.family import FamilyDraw, draw_family, given_weight, taken_by
from fusedmix.reference.philox import words as slow_words
from fusedmix.reference.regions import bilinear, nearest, normal
from fusedmix.spec import (
    CutMix,
    Cutout,
    FMix,
    GridMask,
    GridMix,
    HideAndSeek,
    Mixup,
    Policy,
    RandomErasing,
    ResizeMix,
    SmoothMix,
)

CPU = torch.device("cpu")


def drawn(spec: object, n: int, height: int, width: int, seed: int = 1, erase: object = None) -> FamilyDraw:
    methods = spec if isinstance(spec, tuple) else ((spec, 1.0),)
    policy = Policy(methods, erase)
    return draw_family(policy.recipe, knobs_of(policy.knobs(), CPU), n, height, width, seed, 0, words=words)


def masks(spec: object, n: int, height: int, width: int, seed: int = 1) -> torch.Tensor:
    policy = Policy(((spec, 1.0),))
    return taken_by(drawn(spec, n, height, width, seed).region, policy.recipe.choices, height, width, None)


def test_numpy_words_are_the_reference_s() -> None:
    index = torch.arange(40) * 77
    for stream in (3, torch.arange(40) * 16 + 5):
        want = slow_words(2**62 + 5, 9, index, stream)
        for context in (nullcontext(), without_native()):
            with context:
                got = words(2**62 + 5, 9, index, stream)
            assert all(map(torch.equal, got, want))


def test_cutout_masks_what_the_paper_s_code_masks() -> None:
    share = masks(Cutout(16), 20_000, 32, 32).float().mean()
    centre = np.arange(32)
    side = np.minimum(centre + 8, 32) - np.maximum(centre - 8, 0)
    assert float(share) == pytest.approx(side.mean() ** 2 / 32**2, abs=2e-3)  # 0.191, not 0.25
    assert int(masks(Cutout(7), 1000, 64, 64).sum((1, 2)).max()) == 36  # an odd length loses a pixel


def published_erasing(n: int, side: int, area: tuple, aspect: tuple, linear: bool) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths by the published loop, in float64 and numpy's own generator."""
    generator, found = np.random.default_rng(0), []
    for _ in range(n):
        for _ in range(10):
            size = generator.uniform(*area) * side * side
            a = generator.uniform(*aspect) if linear else math.exp(generator.uniform(*np.log(aspect)))
            h, w = int(math.sqrt(size * a) + 0.5), int(math.sqrt(size / a) + 0.5)
            if h < side and w < side:
                found.append((h, w))
                break
    return np.array(found).T


@pytest.mark.parametrize("linear", [False, True], ids=["log", "linear"])
def test_random_erasing_sizes(linear: bool) -> None:
    area, aspect, side, n = (0.02, 0.4), (0.3, 3.33), 64, 20_000
    spec = RandomErasing(1.0, area, aspect, "linear" if linear else "log")
    y0, x0, y1, x1 = drawn(spec, n, side, side).region.slots[:, :4].unbind(1)
    h, w = (y1 - y0).numpy(), (x1 - x0).numpy()
    heights, widths = published_erasing(n, side, area, aspect, linear)
    assert stats.ks_2samp(h[h > 0], heights).pvalue > 1e-4
    assert stats.ks_2samp(w[w > 0], widths).pvalue > 1e-4
    taller = float((h > w).mean() / (h != w).mean())
    assert taller == pytest.approx(0.78 if linear else 0.5, abs=0.02)  # a linear aspect favours tall boxes
    assert int(y0[h == 20].min()) == 0
    assert int(y1[h == 20].max()) == side  # the last row can be erased


def test_erasing_counts() -> None:
    slots = drawn(RandomErasing(1.0, (0.1, 0.2), min_count=2, max_count=4), 4000, 32, 32).region.slots
    boxes = (slots[:, 2::4] > slots[:, 0::4]).sum(1)
    assert set(boxes.tolist()) == {2, 3, 4}
    area = ((slots[:, 2::4] - slots[:, 0::4]) * (slots[:, 3::4] - slots[:, 1::4])).sum(1).float() / 32**2
    assert 0.1 < float(area.mean()) < 0.2  # the area is shared out among the boxes


@pytest.mark.parametrize("rule", ["ceil", "round"])
def test_gridmask_without_rotation_is_the_published_loop(rule: str) -> None:
    for invert in (False, True):
        for seed in range(5):
            spec = GridMask((5, 12), 0.6, 1, invert, rule, 1.0)
            slots = drawn(spec, 8, 30, 22, seed).region.slots
            got = masks(spec, 8, 30, 22, seed)
            for n in range(8):
                d, length, shift_y, shift_x = slots[n, :4].tolist()
                want = int(d * 0.6 + 0.5) if rule == "round" else min(max(math.ceil(d * 0.6), 1), d - 1)
                assert length == want
                canvas = np.ones((60, 60))
                for start in range(-1, 60 // 5 + 1):
                    canvas[max(d * start + shift_y, 0) : max(d * start + shift_y + length, 0)] = 0
                    canvas[:, max(d * start + shift_x, 0) : max(d * start + shift_x + length, 0)] = 0
                # The image lies in the canvas so that its centre is the canvas's.
                centre = math.ceil(math.hypot(30, 22)) // 2 + 2
                part = canvas[centre - 15 : centre + 15, centre - 11 : centre + 11]
                assert np.array_equal(got[n].numpy(), (1 - part if invert else part) == 0)


def test_gridmask_turns_as_pillow_does() -> None:
    image = pytest.importorskip("PIL.Image")
    spec = GridMask((9, 17), 0.5, 360, False, "ceil", 1.0)
    slots = drawn(spec, 40, 64, 64).region.slots
    got = masks(spec, 40, 64, 64)
    centre = math.ceil(math.hypot(64, 64)) // 2 + 2
    agreed = []
    for n in range(40):
        d, length, shift_y, shift_x, cosine, sine, _ = slots[n].tolist()
        row = np.arange(2 * centre)
        canvas = ((row[:, None] - shift_y) % d < length) | ((row - shift_x) % d < length)
        turned = image.fromarray(canvas.astype(np.uint8) * 255).rotate(math.degrees(math.atan2(sine, cosine)))
        part = np.asarray(turned)[centre - 32 : centre + 32, centre - 32 : centre + 32] > 0
        agreed.append((part == got[n].numpy()).mean())
    assert np.mean(agreed) > 0.995  # but for rounding on the edges of stripes


def test_gridmask_keeps_what_the_paper_says() -> None:
    kept = 1 - masks(GridMask((96, 224), 0.6, 360, True, "ceil", 1.0), 200, 224, 224).float().mean()
    assert float(kept) == pytest.approx(1 - 0.4**2, abs=0.02)


def test_hide_and_seek_cells() -> None:
    spec = HideAndSeek((0, 8), 0.5)
    hidden = masks(spec, 4000, 16, 20).float()
    cells = hidden.unflatten(1, (2, 8))
    assert torch.equal(cells.amin(2), cells.amax(2))  # rows of a cell go together
    assert torch.equal(hidden[:, :, :8].amin(2), hidden[:, :, :8].amax(2))
    assert torch.equal(hidden[:, :, 16:].amin(2), hidden[:, :, 16:].amax(2))  # the last cell is truncated
    none = float((hidden.sum((1, 2)) == 0).float().mean())
    assert none == pytest.approx(0.5 + 0.5 * 0.5**6, abs=0.03)
    assert float(hidden.mean()) == pytest.approx(0.25, abs=0.01)


def test_cells_are_independent() -> None:
    """Neighbouring cells of one sample, and one cell of neighbouring samples, agree half the time."""
    hidden = masks(HideAndSeek((4,), 0.5), 5000, 16, 16)[:, ::4, ::4]
    for a, b in ((hidden[:, 1:], hidden[:, :-1]), (hidden[:, :, 1:], hidden[:, :, :-1]), (hidden[1:], hidden[:-1])):
        assert float((a == b).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_gridmix_lam_is_beta_blurred_by_cells() -> None:
    lam = drawn(GridMix(1.0, 4), 20_000, 16, 16).lam
    counts = np.bincount((lam * 16).round().long().numpy(), minlength=17)
    assert stats.chisquare(counts).pvalue > 1e-4  # Beta(1, 1) over 16 cells: every count equally likely


def test_resizemix_boxes_and_pixels() -> None:
    draw = drawn(ResizeMix((0.1, 0.8)), 20_000, 100, 100)
    y0, _, y1, _ = draw.region.slots[:, :4].unbind(1)
    free = (y0 > 0) & (y1 < 100)
    assert int((y1 - y0)[free].min()) >= 10
    assert int((y1 - y0)[free].max()) <= 80
    offset = torch.arange(7)
    assert nearest(offset, torch.tensor(7), 20).tolist() == [i * 20 // 7 for i in range(7)]
    row = torch.rand(1, 1, 1, 20)
    want = torch.nn.functional.interpolate(row, size=(1, 7), mode="bilinear", align_corners=False)[0, 0, 0]
    first, second, weight = bilinear(offset, torch.tensor(7), 20)
    torch.testing.assert_close(row[0, 0, 0, first] + weight * (row[0, 0, 0, second] - row[0, 0, 0, first]), want)


def test_smoothmix_is_a_gaussian_bell() -> None:
    policy = Policy(((SmoothMix((0.25, 0.5)), 1.0),))
    draw = drawn(SmoothMix((0.25, 0.5)), 50, 24, 40)
    weight = 1 - given_weight(draw, policy.recipe, 24, 40).double()
    row, column, inverse_y, inverse_x = draw.region.slots[:, :4].unbind(1)
    y, x = torch.arange(24)[:, None], torch.arange(40)
    tall, wide = (v.int().view(torch.float32).double()[:, None, None] for v in (inverse_y, inverse_x))
    distance = (y - row[:, None, None]) ** 2 * tall + (x - column[:, None, None]) ** 2 * wide
    assert float((weight - (1 - torch.exp(-distance))).abs().max()) < 5e-5  # weights of 15 bits
    mixed = draw.method > 0
    torch.testing.assert_close(draw.lam[mixed].double(), weight.mean((1, 2))[mixed], atol=1e-6, rtol=0)
    sigma = (0.5 / tall[:, 0, 0]).sqrt() / 24
    assert float(sigma.min()) >= 0.25 - 1e-6
    assert float(sigma.max()) <= 0.5 + 1e-6


def test_fmix_masks() -> None:
    ranks = fmix_ranks(8, 32, 48, 3.0, False, CPU, 1)
    assert torch.equal(ranks.flatten(1).sort(1).values, torch.arange(32 * 48).int().expand(8, -1))
    taken = ranks >= 32 * 48 // 2
    rough = [(taken.diff(dim=dim)).float().mean() for dim in (1, 2)]
    assert max(rough) < 0.15  # few borders: low frequencies
    noise = fmix_ranks(8, 32, 48, 0.0, False, CPU, 1) >= 32 * 48 // 2
    assert float(noise.diff(dim=1).float().mean()) == pytest.approx(0.5, abs=0.05)  # decay 0 is white noise
    official = fmix_ranks(200, 64, 64, 3.0, True, CPU, 1) >= 2048
    fixed = fmix_ranks(200, 64, 64, 3.0, False, CPU, 1) >= 2048
    for taken, same in ((fixed, True), (official, False)):
        down, across = (float(taken.diff(dim=dim).float().mean()) for dim in (1, 2))
        assert (abs(down / across - 1) < 0.1) == same  # the quirk of the authors' code is not isotropic
    lam = drawn(FMix(1.0), 20_000, 5, 5).lam
    kept = (lam * 25).round().long()
    assert torch.equal(kept.float() / 25, lam)
    assert float(lam.mean()) == pytest.approx(0.5, abs=0.02)


def test_noise_is_standard_normal_and_replayable() -> None:
    noise = normal(12345, torch.arange(200_000), words)
    assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-4
    assert torch.equal(noise[6:99], normal(12345, torch.arange(6, 99)))
    for lag in range(1, 5):  # of one radius, of one draw of words, of neighbours
        assert abs(np.corrcoef(noise[lag:], noise[:-lag])[0, 1]) < 0.01
        assert abs(np.corrcoef(noise[lag:] ** 2, noise[:-lag] ** 2)[0, 1]) < 0.01
    assert abs(np.corrcoef(noise, normal(12346, torch.arange(200_000), words))[0, 1]) < 0.01


def test_lines_of_the_normal_distribution() -> None:
    """Numbers are within 3e-5 of the inverse over all that words can be, fall without a step, and have variance 1."""

    def numbers(s: torch.Tensor) -> torch.Tensor:
        bits = s.float().view(torch.int32).long() & 0xFFFFFFFF
        line = rng.normal_table()[bits >> rng.NORMAL_SHIFT].double()
        return line[:, 0] + line[:, 1] * s.float()

    s = torch.cat([torch.arange(1, 2**18), torch.arange(2**18, 2**31, 4099), torch.tensor([2**31 - 1])]).double()
    for sign in (1, -1):
        sizes = sign * numbers(sign * s)
        assert np.abs(sizes.numpy() - stats.norm.isf(s.numpy() / 2**32)).max() < 3e-5
        assert bool((sizes.diff() < 1e-6).all())  # up to the rounding of lines to float32
    assert numbers(torch.tensor([-(2.0**31), 2.0**31])).tolist() == [0.0, 0.0]
    assert float(numbers(torch.zeros(1))) == pytest.approx(stats.norm.isf(0.5 / 2**32), abs=1e-5)
    even = (torch.arange(-(2**20), 2**20).double() + 0.5) * 2**11
    assert float((numbers(even) ** 2).mean()) == pytest.approx(1.0, abs=1e-4)
    assert float(numbers(even).mean()) == pytest.approx(0.0, abs=1e-6)


def test_probabilities_of_a_list() -> None:
    methods = ((CutMix(1.0), 0.4), (Mixup(0.2), 0.3), (None, 0.1), (Cutout(4, p=0.5), 0.2))
    draw = drawn(methods, 40_000, 8, 8, erase=RandomErasing(p=0.25))
    share = torch.bincount(draw.method, minlength=4) / 40_000
    for got, want in zip(share.tolist(), (0.2, 0.3, 0.4, 0.1), strict=True):
        assert got == pytest.approx(want, abs=0.01)
    assert draw.erased is not None
    erased = draw.erased.code != 0
    assert float(erased.float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(erased[draw.method == 2].float().mean()) == pytest.approx(0.25, abs=0.02)  # whatever the method


@pytest.mark.parametrize("name", [*SPECS, "everything"])
def test_shards_draw_what_the_whole_would(name: str) -> None:
    """Methods, regions and lam follow from the global index alone."""
    policy = everything("erasing pixel") if name == "everything" else single(name)
    whole, part = (
        draw_family(policy.recipe, knobs_of(policy.knobs(), CPU), n, 20, 24, 5, 0, first, words=words)
        for n, first in ((12, 3), (6, 9))
    )
    for name in ("method", "lam"):
        assert torch.equal(getattr(whole, name)[6:], getattr(part, name))
    for regions in ((whole.region, part.region), (whole.erased, part.erased)):
        if regions[0] is not None:
            assert all(torch.equal(a[6:], b) for a, b in zip(*regions, strict=True))


def test_an_empty_batch_has_no_ranks() -> None:
    assert fmix_ranks(0, 8, 6, 3.0, False, torch.device("cpu"), 1).shape == (0, 8, 6)
