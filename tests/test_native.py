"""The CPU path's native loops: their draws beside numpy's, images larger than a block, and machines that lack them."""

import contextlib
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from augment_cases import CASES
from augment_cases import check as check_augment
from cases import EXACT, METHODS, assert_equal, expect, images, run, targets, without_native
from family_cases import SPECS, check, everything, extras_for, single
from family_cases import expect as expect_family

import fusedmix
from fusedmix.cpu import native, sampling
from fusedmix.recipe import FLIP, MODES, PARTNERS, PERMUTE, Recipe
from fusedmix.spec import Policy, RandomErasing

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C compiler")

RECIPES = [
    dict(mixup_alpha=0.2, cutmix_alpha=1.0, switch_prob=0.5, p=0.7),
    dict(mixup_alpha=1.0, switch_prob=0.0),
    dict(mixup_alpha=1e-3, switch_prob=0.0),
    dict(mixup_alpha=1e6, switch_prob=0.0, p=0.3),
    dict(cutmix_alpha=1.0),
    dict(cutmix_alpha=0.3, correct_lam=False),
    dict(minmax_lo=0.2, minmax_hi=0.8, p=0.9),
]


@pytest.mark.parametrize("numbers", RECIPES, ids=str)
def test_draws_are_numpy_s(numbers: dict) -> None:
    """Every column, over partners, modes and sizes, with lam and box drawn and given."""
    for batch, mode, pairing, given in product(
        (1, 2, 7, 512), MODES.values(), PARTNERS.values(), ((), ("lam",), ("box",), ("lam", "box"))
    ):
        random = np.random.default_rng(batch)
        values = {
            "lam": random.uniform(-0.5, 1.5, batch).astype(np.float32),
            "box": random.integers(-9, 60, (batch, 4)).astype(np.int32),
        }
        recipe = Recipe(**numbers, mode=mode, pairing=pairing)
        arguments = (recipe, batch, 37, 50, 2**62 + batch, 2**33 + 3, 2**32 - 5)
        options = {name: values[name] for name in given}
        got = sampling.draw(*arguments, **options)
        with without_native():
            want = sampling.draw(*arguments, **options)
        for name in want._fields[:-1]:
            assert np.array_equal(getattr(got, name), getattr(want, name)), (name, mode, pairing, given)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(6, 3, 70, 65), (4, 2, 3, 5000), (5, 1, 1, 4097), (130, 3, 20, 20)], ids=str)
def test_blocks_and_threads(shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes of several blocks, rows longer than a block, more samples than a thread takes at once."""
    monkeypatch.setattr(native, "threads_for", lambda nbytes: threads)
    norm = torch.tensor([[1.0, 20.0, 30.0], [0.5, 0.25, 0.125]])[:, : shape[1]]
    for (name, switch_prob), dtype, pairing in product(
        METHODS.items(), (torch.float32, torch.uint8, torch.bfloat16), (FLIP, PERMUTE)
    ):
        recipe = Recipe(switch_prob=switch_prob, pairing=pairing, num_classes=5, smoothing=0.1)
        x, y = images(shape, dtype), targets("one_hot", shape[0])
        want, _ = expect(x, y, recipe, seed=3)
        case = (name, dtype, pairing)
        assert_equal(run("cpu", x, y, recipe, seed=3), want, EXACT, case)
        if pairing == FLIP:
            inside = x.clone()
            assert_equal(run("cpu", inside, y, recipe, seed=3, out=inside), want, EXACT, (*case, "in place"))
        for out_dtype in (torch.float32, torch.bfloat16):
            want, _ = expect(x, y, recipe, seed=3, norm=norm, out_dtype=out_dtype)
            assert_equal(run("cpu", x, y, recipe, seed=3, norm=norm, out_dtype=out_dtype), want, EXACT, (*case, "norm"))
            last = x.contiguous(memory_format=torch.channels_last)
            got = run("cpu", last, y, recipe, seed=3, norm=norm, out_dtype=out_dtype)
            assert_equal(got, want, EXACT, (*case, "norm, channels_last"))
            if pairing == FLIP and dtype == out_dtype:
                got = run("cpu", last, y, recipe, seed=3, norm=norm, out=last)
                assert_equal(got, want, EXACT, (*case, "norm, channels_last, in place"))


@pytest.mark.parametrize("skipped", [0, 1, 3])
@pytest.mark.parametrize("shape", [(6, 3, 70, 65), (9, 2, 3, 3), (4, 1, 2, 4097), (12, 3, 64, 64)], ids=str)
def test_batches_larger_than_a_cache(shape: tuple[int, ...], skipped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written a line at a time, from any address: `skipped` elements after one that torch gives."""
    monkeypatch.setattr(native, "LARGE", 0)
    norm = torch.tensor([[1.0, 20.0, 30.0], [0.5, 0.25, 0.125]])[:, : shape[1]]
    for (name, switch_prob), dtype, pairing, p in product(
        METHODS.items(), (torch.float32, torch.uint8, torch.bfloat16), (FLIP, PERMUTE), (1.0, 0.5)
    ):
        recipe = Recipe(switch_prob=switch_prob, pairing=pairing, p=p)
        x = images(shape, dtype)
        around = torch.full((x.numel() + 2 * skipped,), 99, dtype=dtype)
        out = around[skipped : skipped + x.numel()].view(shape)
        for constants in (None, norm) if dtype == torch.float32 else (None,):
            want, _ = expect(x, None, recipe, seed=5, norm=constants)
            run("cpu", x, None, recipe, seed=5, norm=constants, out=out)
            assert torch.equal(out, want.out), (name, dtype, pairing, p, constants)
            assert bool((around[:skipped] == 99).all() and (around[skipped + x.numel() :] == 99).all())


def outcomes(monkeypatch: pytest.MonkeyPatch, name: str) -> list[bool]:
    """What `native.name` will have returned: whether it knew what to do."""
    seen: list[bool] = []
    call = getattr(native, name)
    monkeypatch.setattr(native, name, lambda *arguments: seen.append(call(*arguments)) or seen[-1])
    return seen


FAMILY = {
    **{name: single(name) for name in SPECS},
    "erasing, several": Policy(((RandomErasing(1.0, (0.05, 0.9), (0.1, 5.0), "linear", max_count=4, value=9.0), 1.0),)),
    "erasing, often too large": Policy(((RandomErasing(1.0, (0.6, 1.0), (0.01, 90.0)), 1.0),)),
    "all, then holes": everything("cutout"),
    "all, then noise": everything("erasing pixel"),
    "pairs, then a grid": everything("gridmask", mode="pair", partner="exact"),
}


@pytest.mark.parametrize("name", FAMILY)
def test_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images smaller and larger than a block, in C and without a compiler; written past the cache; in place."""
    monkeypatch.setattr(native, "threads_for", lambda nbytes: 3)
    done = outcomes(monkeypatch, "family")
    policy, norm = FAMILY[name], torch.tensor([[1.0, 20.0, 30.0], [0.5, 0.25, 0.125]])
    dtypes = (torch.float32, torch.uint8, torch.bfloat16, torch.float16)
    for dtype, last, shape in product(dtypes, (False, True), ((14, 3, 12, 17), (6, 3, 33, 40), (9, 3, 1, 2))):
        check("cpu", policy, shape, dtype, last, seed=3, in_place=True)
        check("cpu", policy, shape, dtype, last, seed=3, norm=norm, out_dtype=torch.bfloat16)
        if shape[0] == 14:
            check("numpy", policy, shape, dtype, last, seed=3)
        with monkeypatch.context() as m:
            m.setattr(native, "LARGE", 0)
            check("cpu", policy, shape, dtype, last, seed=4, out_dtype=torch.float32)
    if name != "mixup":  # which is `native.mix`
        assert done
        assert all(done)


def test_plans_from_anywhere_reach_no_memory_outside() -> None:
    """Numbers of a plan that no draw makes: a result of some kind, or an error."""
    random = np.random.default_rng(1)
    for name in SPECS:
        policy = single(name)
        x = images((4, 3, 9, 11), torch.float32)
        knobs, fill, field = extras_for(policy, x, None)
        plan = expect_family(x, None, policy).plan
        for column in range(plan.shape[1]):
            for value in (-(2**31), -1, 1, 7, 2**31 - 1, int(random.integers(-(2**31), 2**31))):
                changed = plan.clone()
                changed[:, column] = value
                with contextlib.suppress(IndexError, RuntimeError, ValueError, OverflowError, AssertionError, KeyError):
                    run("cpu", x, None, policy.recipe, replay=changed, extras=(knobs, fill, field))
    augment = fusedmix.FusedAugment(8, crop=fusedmix.RandomResizedCrop(), color=fusedmix.ColorJitter(0.4, 0.4, 0.4))
    x = images((4, 3, 9, 11), torch.uint8)
    plan = augment(x, return_plan=True)[1]
    for column in range(plan.packed.shape[1]):
        for value in (-(2**31), -1, 1, 2**23, 2**31 - 1, 0x7F800000, 0x7FC00000, 0x501502F9):
            before = plan.packed.clone()
            plan.packed[:, column] = value
            with contextlib.suppress(IndexError, RuntimeError):
                plan.apply(x)
            plan.packed.copy_(before)


@pytest.mark.parametrize("name", CASES)
def test_places(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of FusedAugment that several threads take, larger than a block; in both layouts; past the cache."""
    monkeypatch.setattr(native, "threads_for", lambda nbytes: 3)
    placed = outcomes(monkeypatch, "place")
    norm, case = torch.tensor([[123.7, 116.3, 103.5], [1 / 58.4, 1 / 57.1, 1 / 57.4]]), CASES[name]
    for number, dtype in enumerate((torch.float32, torch.uint8, torch.bfloat16, torch.float16)):
        last = number % 2 == 0
        check_augment("cpu", case, (13, 3, 40, 33), dtype, last, seed=number)
        check_augment("cpu", case, (5, 3, 21, 50), dtype, not last, seed=number, norm=norm, out_last=last)
        with monkeypatch.context() as m:
            m.setattr(native, "LARGE", 0)
            check_augment("cpu", case, (6, 3, 17, 64), dtype, seed=number, out_dtype=torch.float32)
    assert placed
    assert all(placed)


def test_ranks() -> None:
    """Of many equal values, of signs, of images of few and of many pixels."""
    library = native.library()
    for n in (1, 5, 1000, 10_000):
        x = torch.randn(6, n)
        x[0], x[1], x[2], x[3, 0] = (3 * x[0]).round(), 0.0, -x[2].abs(), -0.0
        order = x.argsort(stable=True, dim=1, descending=True)
        want = torch.empty(6, n, dtype=torch.int32).scatter_(1, order, torch.arange(n, dtype=torch.int32).expand(6, -1))
        assert torch.equal(native.ranks(library, x), want)


def test_boxes_of_a_plan_reach_no_memory_outside() -> None:
    x = torch.zeros(3, 1, 4, 4)
    plan = fusedmix.fused_cutout(x, length=2, return_plan=True)[1]
    for edges in ((-5, -5, 99, 99), (3, 3, 1, 1), (9, 9, 12, 12)):
        plan.packed[:, 4:8] = torch.tensor(edges)
        assert plan.apply(x + 1).sum() == (0 if edges[0] == -5 else 48)


def test_it_does_what_it_says_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual calls end in native code; another layout doesn't."""
    done = outcomes(monkeypatch, "mix")
    x, half = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8).half()
    fusedmix.fused_cutmix(x)
    fusedmix.fused_mixup(x, inplace=True)
    fusedmix.fused_cutmix(half, inplace=True)
    fusedmix.fused_cutmix(x.contiguous(memory_format=torch.channels_last))
    fusedmix.fused_cutmix((x * 255).byte(), mean=127.0, std=50.0, out_dtype=torch.bfloat16)
    last = x.contiguous(memory_format=torch.channels_last)
    fusedmix.fused_mixup(last, mean=0.5, std=0.2)
    fusedmix.fused_cutmix(last, mean=(0.1, 0.2, 0.3), std=0.2, inplace=True)
    fusedmix.fused_mixup(half)
    assert done == [True] * 7 + [native.knows_halves(native.library())]
    fusedmix.fused_cutmix(x, memory_format=torch.channels_last)
    assert done[8:] == [False]


def test_partners_out_of_range_reach_no_memory() -> None:
    plan = fusedmix.fused_mixup(torch.rand(4, 3, 8, 8), return_plan=True)[1]
    plan.partner[1] = plan.packed[1, 2] = 99
    with pytest.raises((IndexError, RuntimeError)):
        plan.apply(torch.rand(4, 3, 8, 8))


CALL = """
import logging, torch, fusedmix
from fusedmix.cpu import native
logging.basicConfig(level=logging.INFO)
torch.manual_seed(0)
out = fusedmix.fused_cutmix(torch.arange(768.0).view(4, 3, 8, 8))
print(native.library() is not None, float(out.double().pow(2).sum()))
"""


def call(cache: Path, **environment: str) -> tuple[str, str, str]:
    """(whether native, a number made of the images, what was logged) of a call in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CALL], env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    is_native, number = done.stdout.split()
    return is_native, number, done.stderr


def test_machines_with_and_without_a_compiler(tmp_path: Path) -> None:
    is_native, number, _ = call(tmp_path)
    assert is_native == "True"
    (kept,) = (tmp_path / "fusedmix").iterdir()
    before = kept.stat().st_mtime_ns
    assert call(tmp_path)[:2] == ("True", number)
    assert kept.stat().st_mtime_ns == before, "compiled twice"

    assert call(tmp_path, FUSEDMIX_NATIVE="0")[:2] == ("False", number)
    is_native, same, log = call(tmp_path / "other", PATH=str(tmp_path / "nothing"), CC="")
    assert (is_native, same) == ("False", number)
    assert "no C compiler" in log
    assert call(tmp_path / "broken", CC="false")[:2] == ("False", number)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert call(blocked)[:2] == ("True", number), "a private folder serves where there is no cache"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(40, 3, 33, 31), (6, 2, 5, 1100), (60, 1, 3, 7)], ids=str)
def test_noise(shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of noise, of rows longer than a block, wherever they begin; of several boxes; in every type."""
    monkeypatch.setattr(native, "threads_for", lambda nbytes: threads)
    boxes = dict(p=0.8, area=(0.1, 0.6), aspect=(0.01, 1.0), max_count=2)

    def erase(dtype: torch.dtype, fill_mode: str, inplace: bool) -> torch.Tensor:
        torch.manual_seed(threads)
        x = images(shape, dtype)
        return fusedmix.fused_random_erasing(x, **boxes, fill_mode=fill_mode, value=100, sigma=70, inplace=inplace)

    for case in product((torch.float32, torch.uint8, torch.bfloat16), ("pixel", "rand"), (False, True)):
        got = erase(*case)
        assert not torch.equal(got, images(shape, case[0]))
        with without_native():
            assert torch.equal(got, erase(*case)), case
