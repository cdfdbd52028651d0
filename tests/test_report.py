"""README's speed section comes from bench/results, and bench.compare finds what got slower."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import compare, report

ROOT = Path(__file__).resolve().parent.parent
CPU = json.loads((ROOT / "bench/results/cpu.json").read_text(encoding="utf-8"))


def test_readme_agrees_with_the_results() -> None:
    readme = report.README.read_text(encoding="utf-8")
    assert readme == report.with_section(readme, report.render()), "run python -m bench.report"


def test_a_changed_result_changes_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    readme, changed = report.README.read_text(encoding="utf-8"), copy.deepcopy(CPU)
    for row in changed["tables"]["cutmix [128, 3, 224, 224]"]["rows"]:
        row["ratio"] = 7.77
    monkeypatch.setattr(report, "load", lambda name: changed if name == "cpu.json" else None)
    assert report.with_section(readme, report.render()) != readme


def test_compare() -> None:
    rows = compare.rows(CPU)
    assert compare.compare(rows, rows, 1.1)[1] is False
    slower = {name: (10 * middle, 10 * low, 10 * high) for name, (middle, low, high) in rows.items()}
    lines, worse = compare.compare(rows, slower, 1.1)
    assert worse
    assert all(line.startswith("SLOWER") for line in lines)
    assert compare.compare(slower, rows, 1.1)[1] is False


def test_compare_refuses_what_is_no_result(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.compare", tmp_path / "none.json", tmp_path / "none.json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "none.json is no result file" in done.stderr
