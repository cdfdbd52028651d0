"""Options of the benchmarks, and the file that keeps their tables: `pytest bench --benchmark-only --results FILE`."""

import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from peers import version_of

TABLES = pytest.StashKey[dict[str, Any]]()
PACKAGES = {name: name for name in ("fusedmix", "torch", "numpy", "timm", "torchvision", "kornia")} | {
    "composer": "mosaicml"
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fusedmix")
    group.addoption("--results", metavar="FILE", help="JSON file for environment and tables; keeps its other tables")
    group.addoption("--rounds", type=int, metavar="N", help="timed rounds of each table, instead of its own number")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLES] = {}


@pytest.fixture
def keep(pytestconfig: pytest.Config) -> Callable[[str, Any], None]:
    """Keeps a table, by its title, for `--results`."""
    return pytestconfig.stash[TABLES].__setitem__


def pytest_sessionfinish(session: pytest.Session) -> None:
    path, tables = session.config.getoption("results"), session.config.stash[TABLES]
    if path and tables:
        results = {"environment": environment(), "tables": tables}
        if Path(path).exists():
            before = json.loads(Path(path).read_text(encoding="utf-8"))
            if {**before["environment"], "date": ""} == {**results["environment"], "date": ""}:
                results["tables"] = {**before["tables"], **tables}
        Path(path).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version_of(package) for name, package in PACKAGES.items()},
        "date": date.today().isoformat(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
