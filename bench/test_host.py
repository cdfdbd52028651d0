"""What does a call cost before it touches pixels, and what does the first call cost?"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from contenders import METHODS
from torch import Tensor

import fusedmix
from fusedmix import ops

CALLS = {"cutmix": fusedmix.fused_cutmix, "mixup": fusedmix.fused_mixup}
X, Y = torch.rand(2, 3, 8, 8), torch.tensor([3, 7])
LARGEST_HOST = 1.0  # of the cheapest eager sequence that mixes one lam for the batch


def cheapest(method: str):
    """The fewest eager ops that could do the job: one lam, one permutation, target rows by two interpolations."""

    def run() -> tuple[Tensor, Tensor]:
        lam, partner = float(np.random.beta(1.0, 1.0)), torch.randperm(2)
        rows = torch.nn.functional.one_hot(Y, 10).float()
        if method == "mixup":
            return torch.lerp(X[partner], X, lam), torch.lerp(rows[partner], rows, lam)
        half, y, x = int(8 * np.sqrt(1 - lam)) // 2, np.random.randint(8), np.random.randint(8)
        y0, x0, y1, x1 = max(y - half, 0), max(x - half, 0), min(y + half, 8), min(x + half, 8)
        mixed = X.clone()
        mixed[:, :, y0:y1, x0:x1] = X[partner, :, y0:y1, x0:x1]
        return mixed, torch.lerp(rows[partner], rows, 1 - (y1 - y0) * (x1 - x0) / 64)

    return run


def microseconds(calls: dict, rounds: int = 100, iterations: int = 50) -> dict[str, float]:
    """Median time of each call over interleaved rounds of many."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(iterations):
                call()
            times[name].append(time.perf_counter() - start)
    return {name: round(1e6 * float(np.median(t[5:])) / iterations, 2) for name, t in times.items()}


@pytest.mark.parametrize("method", METHODS)
def test_host_cost(method, benchmark, keep, monkeypatch):
    """A batch of two small images, whole and without implementation: checks, allocation and dispatch alone."""
    out = torch.empty_like(X)
    destinations = {"fresh": {}, "out": {"out": out}, "in place": {"inplace": True}}
    calls = {d: lambda o=options: CALLS[method](X, Y, num_classes=10, **o) for d, options in destinations.items()}
    benchmark.pedantic(calls["fresh"], rounds=100, iterations=20, warmup_rounds=5)
    whole = microseconds(calls)
    monkeypatch.setattr(ops, "implementation", lambda device_type: lambda *arguments: None)
    stubbed = microseconds({**calls, "cheapest eager ops": cheapest(method)})
    eager = stubbed.pop("cheapest eager ops")
    table = {
        "method": method, "shape": list(X.shape), "us a call, this machine only": whole,
        "us of checks, allocation and dispatch alone, this machine only": stubbed,
        "us of the cheapest eager ops, this machine only": eager,
        "host cost in cheapest eager ops": {d: round(v / eager, 3) for d, v in stubbed.items()},
    }  # fmt: skip
    keep(f"host cost {method}", table)
    benchmark.extra_info["table"] = table
    print(f"\n\nhost cost {method}, us: whole {whole}; without implementation {stubbed}; cheapest eager ops {eager}")
    assert max(stubbed.values()) <= LARGEST_HOST * eager


FIRST = """
import time, torch, fusedmix, contenders
from contenders import Point
point = Point({method!r}, (512, 3, 32, 32))
x, y = point.batch()
x.clone()
run = {run}
start = time.perf_counter()
run(x, y, None)
first = time.perf_counter() - start
start = time.perf_counter()
run(x, y, None)
print(1e3 * first, 1e3 * (time.perf_counter() - start))
"""
FIRST_RUNS = {
    "fusedmix": "contenders.ours('fresh', 'elem', point)",
    "fusedmix without a C compiler": "contenders.ours_without_compiler('fresh', point)",
    "PyTorch by hand": "contenders.eager('fresh', point)",
    "PyTorch by hand, torch.compile": "contenders.compiled('fresh', 'default', point)",
}


@pytest.mark.parametrize("method", METHODS)
def test_first_call(method, benchmark, keep):
    """In a process of its own, with no compiler cache: the first call and the second."""
    table = {"method": method, "shape": [512, 3, 32, 32], "first and second call ms, this machine only": {}}
    for name, run in FIRST_RUNS.items():
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TORCHINDUCTOR_CACHE_DIR": cache,
                           "XDG_CACHE_HOME": cache}  # fmt: skip
            script = FIRST.format(method=method, run=run)
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        table["first and second call ms, this machine only"][name] = [round(float(v), 2) for v in done.stdout.split()]
    benchmark.pedantic(lambda: None)
    keep(f"first call {method}", table)
    print(f"\n\nfirst call {method}, ms: {table['first and second call ms, this machine only']}")
    first = {name: values[0] for name, values in table["first and second call ms, this machine only"].items()}
    assert first["fusedmix"] < first["PyTorch by hand, torch.compile"]
