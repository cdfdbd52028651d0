"""Every hot variant compiles without a GPU: no spills, wide accesses, registers that leave room for latency hiding.

And the static model of bench/static.py: memory, not the issue of instructions, limits it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton
from codegen_variants import FAMILY, HOT, RARE, variants_for

from bench.static import is_limited

CODEGEN = Path(__file__).with_name("codegen.py")
TARGETS = ["sm_80", "sm_90", "sm_100", "gfx942"]
NUMBERS = 4  # 64-bit loads of seed, offset and classes, whatever the images are


def run_codegen(what: str) -> dict:
    """What tests/codegen.py prints, from a process that does not interpret."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (CODEGEN.parent, CODEGEN.parent.parent)))
    done = subprocess.run([sys.executable, CODEGEN, what], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request: pytest.FixtureRequest) -> tuple[str, dict]:
    """Reports of all variants for one target."""
    return request.param, run_codegen(request.param)


def test_all_layouts_pass_the_first_stage() -> None:
    """Whose checks of types the interpreter does not make: of every method and placement, in all layouts."""
    stopped = {name: error for name, error in run_codegen("layouts").items() if error}
    assert not stopped, next(iter(stopped.items()))


STATIC = json.loads((CODEGEN.parent.parent / "bench/results/static.json").read_text(encoding="utf-8"))


def test_no_variant_is_limited_by_issue() -> None:
    assert not [(name, gpu) for name, entry in STATIC["variants"].items() for gpu in STATIC["gpus"]
                if is_limited(entry[gpu])]  # fmt: skip


@pytest.mark.parametrize("name", HOT)
def test_static_model(compiled: tuple[str, dict], name: str) -> None:
    target, reports = compiled
    if name not in variants_for(target):
        pytest.skip("compiled by python -m bench.static")
    if target == "gfx942":
        assert "static" not in reports[name]  # the model knows NVIDIA's machine code
        return
    figures = reports[name]["static"]
    for gpu in STATIC["gpus"]:
        if gpu in figures:
            assert not is_limited(figures[gpu]), (gpu, figures)
            if triton.__version__ == STATIC["triton"]:
                assert figures[gpu] == STATIC["variants"][name][gpu], "run python -m bench.static --write"


@pytest.mark.parametrize("name", RARE)
def test_rare_shapes_do_not_spill(compiled: tuple[str, dict], name: str) -> None:
    target, reports = compiled
    assert reports[name]["spills"] == 0, (target, reports[name])


@pytest.mark.parametrize("name", HOT)
def test_variant(compiled: tuple[str, dict], name: str) -> None:
    target, reports = compiled
    if name not in variants_for(target):
        pytest.skip("compiled by python -m bench.static")
    report, hot = reports[name], HOT[name]
    assert report["spills"] == 0, report
    assert report.get("prefetches", hot.prefetches) == hot.prefetches, report  # not counted for AMD
    if hot.geometry is not None:  # pixels are gathered
        pairs = report["loads"].get("U16", 0)  # AMD's compiler joins neighbours
        if hot.by_words:  # two words for two pixels of a channel
            words = report["loads"].get("32", 0) + 2 * report["loads"].get("64", 0)  # which AMD's compiler joins
            assert words >= 2 * 3 * hot.images, report
            assert not {"U8", "U16"} & report["loads"].keys(), report
            assert report.get("dots", 24) >= 24, report  # not counted for AMD; of a thread's 8 pixels of 3 channels
            assert (report.get("pairs", 0) >= 24) == (target == "sm_100"), report  # of float32 numbers
        else:
            assert report["loads"].get("U8", 0) + 2 * pairs >= 3 * hot.images, report
        assert report["stores"].get(hot.store_width, 0) >= (target != "gfx942") * 3 * hot.images, report
        assert target == "gfx942" or set(report["stores"]) <= {"128", hot.store_width}, report
        assert target == "gfx942" or report["registers"] <= hot.max_registers, report
        assert report["shared"] <= hot.max_shared, report
        return
    numbers = NUMBERS - (hot.images == 1) if hot.load_width == "64" else 0  # a lone sample's class is loaded once
    if target == "gfx942" and name in FAMILY:
        numbers = 0  # they come through scalar loads, which are not counted
    wide = report["loads"].get(hot.load_width, 0) - numbers
    assert wide >= hot.images, report
    if target == "gfx942":  # a divergent end of a row of targets may be written in smaller pieces
        assert report["stores"].get("128", 0) >= hot.images or hot.gathers, report
        return
    assert report["registers"] <= hot.max_registers, report
    assert report["shared"] <= hot.max_shared, report
    # Byte and halfword accesses would be images, read or written one element at a time.
    elements = {*report["stores"], *(() if hot.gathers else report["loads"])}
    assert not {"U8", "U16", "S8", "S16"} & elements, report
    allowed = {"128", "64", "32"} if hot.narrow_rows else {"128", hot.load_width}
    assert set(report["stores"]) <= allowed, report
    assert report["stores"].get("128", 0) >= hot.images, report
