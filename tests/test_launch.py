"""The launch table: tiles a program by batch and GPU, vectors a thread by what they share."""

import json
from pathlib import Path
from unittest.mock import patch

import cases
import pytest
import torch
from cases import EXACT, assert_equal, images, targets
from codegen import shape_of
from codegen_variants import BF16, F32, HOT, MIXUP, POLICY, U8, Variant, family

from bench.hot import kernels_of
from bench.static import FULL, GPUS, kernel_names
from fusedmix import launch
from fusedmix.kernels.config import Launch, launch_for, tiles_for
from fusedmix.recipe import Recipe
from fusedmix.spec import Cutout, ResizeMix

STATIC = json.loads(Path(__file__).parent.with_name("bench").joinpath("results/static.json").read_text("utf-8"))


def test_tiles_by_batch() -> None:
    """The table's for large batches, else halves of it: several waves of programs, or one rather than costly draws."""
    table = Launch(1024, 16, 4)
    assert [tiles_for(table, n, 500) for n in (10**6, 22_000, 21_000, 6_000, 2_100, 1_000, 100, 1)] == [
        16, 16, 8, 4, 4, 2, 1, 1,
    ]  # fmt: skip
    assert tiles_for(Launch(256, 3, 4), 10**6, 500) == 3


def test_programs_of_a_gpu() -> None:
    """So many as a multiprocessor has registers for, fewer of threads that take more; none are known without a GPU."""
    with patch.object(launch, "multiprocessors", lambda device: 132):
        assert launch.programs_at_once(0, Launch(1024, 16, 4), heavy=False) == 132 * 6
        assert launch.programs_at_once(0, Launch(1024, 16, 2), heavy=True) == 132 * 4
        assert launch.programs_at_once(0, Launch(1024, 16, 16), heavy=True) == 132
    assert launch.programs_at_once(-1, Launch(1024, 16, 4), heavy=False) == 0


def prepared_on(variant: Variant, batch: int, multiprocessors: int) -> tuple[launch.Prepared, dict[str, int]]:
    """What is launched for a batch on such a GPU (0: on none), and its compile-time constants."""
    shape = shape_of(variant)
    shape = shape._replace(device=0 if multiprocessors else -1, x_shape=torch.Size((batch, *shape.x_shape[1:])))
    with patch.object(launch, "multiprocessors", lambda device: multiprocessors):
        prepared = (launch.prepare if shape.geometry is None else launch.prepare_augment)(shape, arch=90)
    return prepared, dict(zip(kernel_names(prepared), prepared.constants, strict=True))


def test_replays_have_knobs_as_well() -> None:
    """Unused ones: triton looks at what would draw, too."""
    recipe, device = family(Cutout()), torch.device("cpu")
    knobs, fill, field, table = launch.family_pointers((None, None, None), recipe, device)
    assert isinstance(knobs, torch.Tensor)
    assert fill is field is table is None
    given = torch.ones(2, 8)
    assert launch.family_pointers((given, None, None), recipe, device)[0] is given


@pytest.mark.parametrize("name", ["mixup bfloat16", "list: cutmix, mixup, erasing bfloat16", "augment: resized crop"])
def test_smaller_batches_get_shorter_programs(name: str) -> None:
    """All tiles have a program, whatever the batch."""
    found = []
    for batch in (8, 64, 256, 4096):
        prepared, constants = prepared_on(HOT[name], batch, 132)
        geometry = HOT[name].geometry
        row = constants["STRIDE"] * constants["BLOCK"] if geometry else 0  # and threads beyond its end
        size = geometry.height * row if geometry else torch.Size(HOT[name].shape[1:]).numel()
        assert prepared.numbers[2] * constants["TILES"] * constants["BLOCK"] >= size
        found.append(constants["TILES"])
    assert found == sorted(found)
    assert found[0] < found[2] < found[3]
    assert found[-1] == prepared_on(HOT[name], 8, 0)[1]["TILES"]


def test_few_images_stand_for_a_batch() -> None:
    """In the benches: they are checked, and compiled ahead, as the kernels of the batch that is timed."""
    for name in ("mixup bfloat16", "augment: resized crop", "erasing float32"):
        with kernels_of(256, 8):
            _, few = prepared_on(HOT[name], 8, 132)
        assert few == prepared_on(HOT[name], 256, 132)[1] != prepared_on(HOT[name], 8, 132)[1]


@pytest.mark.parametrize(("at_once", "programs"), [(0, 1), (1, 3), (10**6, 5)])
def test_results_do_not_depend_on_the_gpu(at_once: int, programs: int) -> None:
    """Five tiles in one program, two and two and one, or one each: the same pixels and rows."""
    x, y = images((4, 3, 40, 40), torch.float32), targets("one_hot", 4)
    recipe = Recipe(num_classes=cases.K, switch_prob=0.5)
    want, _ = cases.expect(x, y, recipe, 3)
    given = [torch.full_like(t, 7).to(cases.DEVICE) for t in (want.out, want.target, want.plan)]
    with patch.multiple(launch, programs_at_once=lambda *_: at_once, _prepared={}):
        launch.mix_into(*given, x.to(cases.DEVICE), y.to(cases.DEVICE), *[None] * 5, 3, 0, 0, recipe, False)
        (prepared,) = launch._prepared.values()
    assert prepared.numbers[2] == programs
    assert_equal(cases.Result(*(t.cpu() for t in given)), want, EXACT, at_once)


def test_vectors_of_a_thread() -> None:
    """Two where vectors lie in one channel, or channels make no difference; one where gathers and lists need room."""
    odd = (8, 3, 15, 15)
    two = (
        Variant(POLICY, BF16), Variant(POLICY, U8, BF16, has_norm=True), Variant(POLICY, BF16, channels_last=True),
        Variant(family(Cutout()), F32), Variant(MIXUP, F32, shape=(8, 3, 12, 15)),
    )  # fmt: skip
    one = (
        Variant(POLICY, BF16, has_norm=True, channels_last=True), Variant(POLICY, F32, shape=odd),
        Variant(POLICY, U8, BF16, channels_last=True, out_last=False), Variant(family(ResizeMix()), F32),
        Variant(MIXUP, F32, has_norm=True, shape=(8, 4, 15, 15)), HOT["everything, erasing bfloat16"],
    )  # fmt: skip
    assert [launch.fits_two_vectors(shape_of(v)) for v in two] == [True] * len(two)
    assert [launch.fits_two_vectors(shape_of(v)) for v in one] == [False] * len(one)
    assert launch_for(10**6, 4, 4).block == 2 * launch_for(10**6, 4, 4, vectors=1).block == 8 * 32 * 4
    assert launch_for(10**6, 1, 2, most=8).block == launch_for(10**6, 1, 2, most=8, vectors=1).block == 8 * 32 * 4


@pytest.mark.parametrize("name", HOT)
def test_hot_variants_keep_multiprocessors_busy(name: str) -> None:
    """By the model: 256 images are more programs than run at a time, so that few wait long for the last."""
    for gpu in STATIC["gpus"]:
        _, constants = prepared_on(HOT[name], FULL, GPUS[gpu].sms)
        waves = STATIC["variants"][name][gpu]["waves"]
        assert waves > 1.3 or constants["TILES"] == 1, (gpu, waves, constants["TILES"])
