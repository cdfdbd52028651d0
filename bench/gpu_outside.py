"""What takes a process of its own: compute-sanitizer, and the first call with empty caches."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import timing
from gpu_common import DRY_RUN, ROOT, Steps, find_sanitizer, without_paths

TOOLS = ("memcheck", "racecheck")
KERNEL = "mix_kernel"
# A first call in steps; the process prints one JSON line.
FIRST_CALL = """
import json, sys, time
import torch
device, shape = sys.argv[1], (16, 3, 224, 224)
x, y = torch.rand(shape, device=device), torch.arange(16, device=device)
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
wait()
start = time.perf_counter()
import fusedmix
imported = time.perf_counter()
fusedmix.fused_cutmix(x, y, num_classes=1000)
wait()
first = time.perf_counter()
fusedmix.fused_cutmix(x, y, num_classes=1000)
wait()
second = time.perf_counter()
print(json.dumps({"import_s": imported - start, "first_call_s": first - imported, "second_call_s": second - first}))
"""
FIRST_COMPILED = """
import json, time
import torch
x, y = torch.rand((16, 3, 224, 224), device="cuda"), torch.arange(16, device="cuda")

@torch.compile
def mix(x, y):
    lam, partner = torch.rand(16, device=x.device), torch.randperm(16, device=x.device)
    rows = torch.zeros(16, 1000, device=x.device).scatter_(1, y[:, None], lam[:, None])
    rows = rows.scatter_add_(1, y[partner][:, None], (1 - lam)[:, None])
    return torch.lerp(x[partner], x, lam.view(-1, 1, 1, 1)), rows

torch.cuda.synchronize()
start = time.perf_counter()
mix(x, y)
torch.cuda.synchronize()
first = time.perf_counter()
mix(x, y)
torch.cuda.synchronize()
print(json.dumps({"first_call_s": first - start, "second_call_s": time.perf_counter() - first}))
"""


def output_of(command: list[str], seconds: float, **variables: str) -> tuple[int | None, str]:
    """(exit code, None when it took too long; standard output and error)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=max(seconds, 1.0), env=environment
        )
    except subprocess.TimeoutExpired as error:
        return None, (error.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace")


# compute-sanitizer.


def sanitize(tool: str, script: Path, later: int) -> Iterator[dict]:
    sanitizer = find_sanitizer()
    if sanitizer is None:
        yield {"ok": True, "skipped": "not installed"}
        return
    limit = timing.budget.left() / (later + 1)
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, str(script), "--only", "smoke", "--out", folder, "--minutes", str(limit / 90)]
        options = ["--tool", tool, "--error-exitcode", "99", "--target-processes", "application-only"]
        narrow = [*options, "--kernel-name", f"kns={KERNEL}", "--report-api-errors", "no"]
        variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {}
        if DRY_RUN:
            run.append("--dry-run")
        code, text = output_of([sanitizer, *(narrow if tool == "memcheck" else narrow[:-2]), *run], limit, **variables)
        smoke = Path(folder) / "gpu.json"
        if code not in (0, 99, None) and not smoke.exists():  # an option that this version does not know?
            code, text = output_of([sanitizer, *options, *run], timing.budget.left() / (later + 1), **variables)
        checks = json.loads(smoke.read_text()).get("smoke", []) if smoke.exists() else []
    summaries = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", text)
    entry = {
        "exit_code": code, "summary": summaries, "checks": len(checks), "wrong": sum(not c["ok"] for c in checks),
        "output": without_paths(text[-1500:]), "ok": True,
    }  # fmt: skip
    if code is None:
        yield {**entry, "skipped": f"not done after {limit:.0f} s"}
    elif not summaries:
        yield {**entry, "skipped": "the tool gave no summary: " + " ".join(entry["output"].split()[-20:])}
    else:
        clean = all(re.search(r"SUMMARY: 0 ", line) for line in summaries)
        yield {**entry, "ok": clean and code == 0 and entry["wrong"] == 0}


def sanitizer_steps(script: Path) -> Steps:
    yield from ((tool, partial(sanitize, tool, script, len(TOOLS) - 1 - n)) for n, tool in enumerate(TOOLS))


# First calls.


def first_call(code: str, cold: Path | None) -> Iterator[dict]:
    """Of a fresh process; with `cold`, an empty folder, as its caches."""
    caches = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    variables = {name: str(cold) for name in caches} if cold else {}
    arguments = ["cpu"] if DRY_RUN else ["cuda"]
    exit_code, text = output_of(
        [sys.executable, "-c", code, *arguments], timing.budget.left(), TRITON_INTERPRET="0", **variables
    )
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if exit_code is None:
        yield {"ok": True, "skipped": "out of time"}
    elif exit_code or not lines:
        yield {"ok": False, "error": without_paths(text[-1500:]) or f"exit code {exit_code}"}
    else:
        yield {"ok": True, **json.loads(lines[-1])}


def cold_and_warm(code: str) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as folder:
        for caches in ("empty", "filled"):
            for entry in first_call(code, Path(folder)):
                yield {"caches": caches, **entry}


def first_steps() -> Steps:
    yield "fused_cutmix", partial(cold_and_warm, FIRST_CALL)
    if not DRY_RUN:
        yield "torch.compile of the same by hand (mixup)", partial(cold_and_warm, FIRST_COMPILED)
