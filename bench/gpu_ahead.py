"""Compilation ahead, by other processes, into Triton's cache on disk: the time at a GPU is for measuring."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import timing
from gpu_common import DRY_RUN, failure

LIMIT = 0.45  # of a part's time


def compile_share(share: str) -> Iterator[dict]:
    """Compiles the k-th of n shares of what a part needs; `share`: "part:k/n"."""
    import gpu_tune
    import gpu_variants

    part, _, numbers = share.partition(":")
    k, n = map(int, numbers.split("/"))
    todo = {"variants": gpu_variants.compilations, "tune": gpu_tune.compilations}[part]()
    for compile_one in todo[k::n]:
        try:
            compile_one()
        except Exception:
            yield {"name": str(compile_one.args), **failure()}


def compile_ahead(script: Path, part: str) -> Iterator[dict]:
    workers = min(12, (os.cpu_count() or 2) - 2)
    if DRY_RUN or workers < 2:
        return
    limit, start = LIMIT * timing.budget.left(), timing.budget.left()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), "--only", "precompile", "--minutes", str(limit / 60), "--out"]
        children = [
            subprocess.Popen([*command, f"{folder}/{k}", "--share", f"{part}:{k}/{workers}"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for k in range(workers)
        ]  # fmt: skip
        late = 0
        for child in children:
            try:
                child.wait(timeout=max(limit - (start - timing.budget.left()), 0.1))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                late += 1
    yield {"ok": True, "workers": workers, "stopped": late, "failed": sum(c.returncode != 0 for c in children)}
