"""bench/gpu.py without a GPU: its command line and files in a dry run, its promises and plots on made-up results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu_report, plots, report
from bench.hot import HOT, hot, small

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"gpu": "GPU", "torch": "2", "triton": "3"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def kernel(percent: float, method: str = "mixup", in_place: bool = False, times: float = 1.0) -> dict:
    return {
        "name": "bf16", "point": "bf16", "shape": [256, 3, 224, 224], "classes": 10, "method": method, "us": 40.0,
        "gb_per_s": 4000.0, "percent_of_copy": percent, "times_of_copy": times, "in_place": in_place, "promised": True,
        "ok": True,
    }  # fmt: skip


def call(contender: str, times: float, destination: str = "fresh", method: str = "mixup") -> dict:
    return {
        **kernel(100 / times, method, times=times), "contender": contender, "destination": destination,
        "scope": "per sample",
    }  # fmt: skip


def variant(name: str, percent: float, margin: float | None, promised: bool = True) -> dict:
    return {
        "variant": name, "shape": [256, 3, 224, 224], "us": 40.0, "gb_per_s": 4000.0, "percent_of_copy": percent,
        "promised": promised, "in_place": not promised, "expected": margin and {"gpu": "H200", "margin": margin},
        "ok": True,
    }  # fmt: skip


def results() -> dict:
    launch = {"name": "fused_mixup", "ok": True, "expected": 1, "kernels": 1.0, "host_us": 9.0}
    growth = {"axis": "B", "method": "mixup", "contender": "fusedmix", "copy_us": 1.0, "ok": True}
    return {
        "environment": ENVIRONMENT, "dry_run": False, "seconds": {}, "left_out": {}, "aborted": [],
        "launches": [launch], "bench": [kernel(96.0), kernel(80.0, "cutmix", True, 0.6)],
        "contenders": [call("fusedmix", 1.1), call("torch.compile default", 2.0), call("torch.compile x", 1.7),
                       call('timm Mixup(mode="elem")', 80.0, "in place")],
        "variants": [variant("mixup bfloat16", 97.0, 0.4), variant("cutmix bfloat16 in place", 80.0, None, False)],
        "growth": [{**growth, "value": 8, "us": 2.0}, {**growth, "value": 32, "us": 4.0}],
    }  # fmt: skip


def test_dry_run_writes_results_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    done = run("--dry-run", "--only", "smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["dry_run"]
    assert [e["ok"] for e in found["smoke"]] == [True, True]
    (tmp_path / "gpu.json").write_text(json.dumps({**found, "smoke": found["smoke"][:1]}))
    assert run("--dry-run", "--only", "smoke", "--out", str(tmp_path), "--resumed", "1").returncode == 0
    assert [e["step"] for e in json.loads((tmp_path / "gpu.json").read_text())["smoke"]] == [
        e["step"] for e in found["smoke"]
    ]


def test_hot_variants_are_checked_and_timed(tmp_path: Path) -> None:
    """Those that differ in what they are given: placements, a plan to replay, gradients."""
    done = run("--dry-run", "--only", "variants", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())["variants"]
    assert len(found) == 4
    assert all(e["ok"] and e["us"] > 0 and e["bytes"] > 0 for e in found), found
    # Gradients are summed in another order, and resized crops to floats join steps, whose last place may be another.
    same = {e["name"] for e in found if e["identical"]}
    assert same >= {"augment: crop, flip, mix", "policy bfloat16 replay"}, found


def test_bytes_that_must_move() -> None:
    """In place mixup reads and writes every pixel, CutMix those of the boxes."""
    names = "mixup bfloat16", "mixup bfloat16 in place", "cutmix bfloat16 in place"
    plain, mixup, cutmix = (hot(small(HOT[name]), 4, "cpu").bytes_moved(0) for name in names)
    assert plain == mixup > cutmix > 4 * 4 * 1000  # the rows of the targets


def test_out_of_time_says_what_it_left_out(tmp_path: Path) -> None:
    done = run("--dry-run", "--only", "smoke,growth", "--minutes", "0", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    left_out = json.loads((tmp_path / "gpu.json").read_text())["left_out"]
    assert len(left_out["smoke"]) == 2
    assert "no time left in growth" in done.stdout


def test_unknown_part_is_refused(tmp_path: Path) -> None:
    done = run("--dry-run", "--only", "speed", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "--only takes correctness" in done.stderr


def test_promises_kept_broken_and_not_measured() -> None:
    kept = {name: p["kept"] for name, p in gpu_report.promises(results()).items()}
    assert set(kept.values()) == {True}
    assert gpu_report.promises(results())["mixup >= 1.5 x ahead of the best torch.compile"]["values"] == {
        "bf16, mixup": pytest.approx(1.7 / 1.1)
    }
    worse = results()
    worse["bench"][0]["percent_of_copy"] = 90.0
    worse["variants"][0]["percent_of_copy"] = 90.0
    broken = {name: p["broken_by"] for name, p in gpu_report.promises(worse).items() if p["kept"] is False}
    assert list(broken.values()) == [["bf16, mixup", "mixup bfloat16"]]
    assert next(iter(broken)).startswith(">= 95 %")
    assert {p["kept"] for p in gpu_report.promises({}).values()} == {None}


def test_summary_tells_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.summary(results())
    failed = {**results(), "correctness": [{"name": "mixup, uint8", "ok": False, "error": "Error: 3 wrong"}]}
    assert not gpu_report.summary(failed)
    assert "FAILED correctness: mixup, uint8 : Error: 3 wrong" in capsys.readouterr().out


def test_plots(tmp_path: Path) -> None:
    names = {path.name for path in plots.draw(results(), tmp_path)}
    assert names == {"gpu-kernels.svg", "gpu-mixup.svg", "gpu-growth.svg", "gpu-variants.svg"}
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)
    assert plots.draw({"environment": ENVIRONMENT}, tmp_path) == []


def test_readme_has_the_results_of_a_gpu() -> None:
    found = {**results(), "promises": gpu_report.promises(results())}
    recipe = {"recipe": "DeiT", "contender": "fusedmix", "images_per_s": 1e6, "times_of_copy": 0.9, "us": 1.0}
    lines = report.render_gpu([{**found, "recipes": [recipe]}])
    assert "| mixup bfloat16 | 40.0 | 4000 | 97.0 | 0.40 |" in lines
    assert "| mixup | torch.compile x | fresh | 1.70 |" in lines
    assert "| DeiT | fusedmix | 1000000 | 0.90 |" in lines
    assert "| one launch a call | kept | - |" in lines
    assert "not measured" in "".join(report.render_gpu([]))
