"""Checks and times the kernels on a CUDA GPU, in one sitting: `python bench/gpu.py --out DIR`.

Parts, in this order (`--only` picks some; "bench" stands for bench, variants, contenders, growth and recipes):

    correctness  every variant, streams, graphs, more than 2**31 elements: against the reference
    launches     kernels, host time and memory of each public call
    sanitizer    compute-sanitizer's memcheck and racecheck on small cases, where it is installed
    bench        the kernels alone: GB/s beside a device copy in the same run
    variants     every hot variant of the tests alone, beside what bench/results/static.json expects of it
    contenders   public calls, PyTorch by hand, torch.compile and libraries, each behind a gate
    growth       with the batch and the number of classes
    recipes      FusedAugment and its peers, from a uint8 batch to bfloat16
    tune         a search over the launch table; `--emit-config` prints what it found
    first        first calls of fresh processes
    capture      a graph of a variant that has not run before; last, it may break the allocator

Each part has a share of `--minutes` and leaves out what it has no time for. DIR/gpu.json is written after every part.
What fails is recorded and the rest goes on; when the device is lost or a step hangs, the run goes on in a new process.
`--dry-run` runs the same code through Triton's interpreter on a CPU, on tiny inputs: it finds bugs of these scripts,
its numbers mean nothing. Exit code: 0 nothing failed, 1 something did, 2 no GPU. Promises are reported, not judged.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gpu_ahead
import gpu_checks
import gpu_compare
import gpu_kernels
import gpu_outside
import gpu_recipes
import gpu_report
import gpu_tune
import gpu_variants
import timing
import torch
from gpu_common import DRY_RUN, Steps, environment, failure, synchronize

SCRIPT = Path(__file__).resolve()
SHARES = {  # of the time, in seconds of nine minutes
    "correctness": 115, "launches": 15, "sanitizer": 60, "bench": 40, "variants": 60, "contenders": 130, "growth": 15,
    "recipes": 50, "tune": 70, "first": 30, "capture": 5, "smoke": 60, "precompile": 60,
}  # fmt: skip
PARTS = tuple(SHARES)[:-2]  # the last two are run by others: smoke by the sanitizers, precompile by gpu_ahead
ALIASES = {"bench": ("bench", "variants", "contenders", "growth", "recipes")}
HANGS = 45.0  # seconds that a step may take beyond its part's time
RESUMES = 4
SAVE_EVERY = 15.0


class Lost(Exception):
    """The device does not answer; only a new process can go on."""


class Run:
    """The results so far, their file, and what is running."""

    def __init__(self, options: argparse.Namespace, parts: list[str]):
        self.options, self.parts, self.path = options, parts, options.out / "gpu.json"
        self.step: tuple[str, str] | None = None
        self.deadline = self.saved = 0.0
        self.lock = threading.Lock()
        if options.resumed and self.path.exists():
            self.results = json.loads(self.path.read_text())
        else:
            self.results = {
                "environment": environment(), "dry_run": DRY_RUN, "minutes": options.minutes, "seconds": {},
                "left_out": {}, "aborted": [],
            }  # fmt: skip

    def save(self) -> None:
        with self.lock:
            self.results["promises"] = gpu_report.promises(self.results)
            fresh = self.path.with_suffix(".tmp")
            fresh.write_text(json.dumps(self.results, indent=1, default=str) + "\n")
            fresh.replace(self.path)
            self.saved = time.monotonic()

    def record(self, part: str, step: str, entry: dict) -> None:
        self.results[part].append({"step": step, "name": step, "ok": True, **entry})

    def part(self, name: str, steps: Steps) -> None:
        """Runs the steps of a part that an earlier process has not recorded, until its time is up."""
        entries = self.results.setdefault(name, [])
        known, left_out = {e["step"] for e in entries}, []
        for step, run in steps:
            if step in known:
                continue
            if timing.budget.left() <= 0:
                left_out.append(step)
                continue
            start, before = time.perf_counter(), len(entries)
            self.step, self.deadline = (name, step), time.monotonic() + max(timing.budget.left(), 0) + HANGS
            try:
                for entry in run():
                    self.record(name, step, entry)
            except Exception:
                self.record(name, step, failure())
            self.step = None
            if len(entries) > before:
                entries[-1]["seconds"] = round(time.perf_counter() - start, 3)
            try:
                synchronize()  # raises when the device is lost: nothing after that would mean anything
            except Exception as error:
                lost = failure()
                self.record(name, step, {**lost, "device_lost": True})
                raise Lost(f"{name}, {step}: {lost['error']}") from error
            if time.monotonic() - self.saved > SAVE_EVERY:
                self.save()
        if left_out:
            self.results["left_out"][name] = left_out

    def go_on(self, reason: str) -> None:
        """Replaces this process by one that goes on after the last recorded step. Does not return."""
        self.results["aborted"].append(reason)
        print(f"aborted: {reason}", flush=True)
        self.save()
        options, left = self.options, timing.budget.total_left()
        if options.resumed < RESUMES and left > 20:
            arguments = ["--out", str(options.out), "--only", ",".join(self.parts), "--minutes", str(left / 60)]
            arguments += ["--resumed", str(options.resumed + 1), *(["--dry-run"] if DRY_RUN else [])]
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, str(SCRIPT), *arguments])
        gpu_report.summary(self.results)
        sys.stdout.flush()
        os._exit(1)

    def watch(self) -> None:
        """In a thread: a step that hangs is recorded as failed and left behind."""
        while True:
            time.sleep(2)
            step = self.step
            if step and time.monotonic() > self.deadline:
                error = "hangs, or takes far longer than its part has"
                self.record(*step, {"ok": False, "error": error})
                self.go_on(f"{', '.join(step)}: {error}")


def steps_of(part: str, l2_bytes: int, share: str) -> Steps:
    makers: dict[str, Callable[[], Steps]] = {
        "correctness": gpu_checks.steps,
        "launches": gpu_kernels.launch_steps,
        "sanitizer": partial(gpu_outside.sanitizer_steps, SCRIPT),
        "bench": partial(gpu_kernels.kernel_steps, l2_bytes),
        "variants": partial(gpu_variants.steps, SCRIPT, l2_bytes),
        "contenders": partial(gpu_compare.steps, l2_bytes),
        "growth": partial(gpu_compare.growth_steps, l2_bytes),
        "recipes": partial(gpu_recipes.steps, l2_bytes),
        "tune": partial(gpu_tune.steps, SCRIPT, l2_bytes),
        "first": gpu_outside.first_steps,
        "capture": gpu_checks.capture_steps,
        "smoke": gpu_checks.smoke_steps,
        "precompile": lambda: iter([("precompile", partial(gpu_ahead.compile_share, share))]),
    }
    return makers[part]()


def draw_plots(results: dict[str, Any], folder: Path) -> None:
    try:
        import plots

        print("plots:", *(path.name for path in plots.draw(results, folder)))
    except ImportError as error:
        print(f"no plots: {error}")
    except Exception:
        print(f"no plots: {failure()['error'].strip().splitlines()[-1]}")


def arguments_of() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and plots")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="through the interpreter, without a GPU")
    parser.add_argument("--emit-config", action="store_true", help="print launch table lines from DIR/gpu.json, only")
    parser.add_argument("--share", default="tune:0/1", help=argparse.SUPPRESS)
    parser.add_argument("--resumed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    asked = options.only.split(",")
    if unknown := set(asked) - set(SHARES):
        parser.error(f"--only takes {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if not options.resumed:
        asked = [part for name in asked for part in ALIASES.get(name, (name,))]
    return options, [part for part in SHARES if part in asked]


def main() -> int:
    options, parts = arguments_of()
    if options.emit_config:
        print(*gpu_tune.config_lines(json.loads((options.out / "gpu.json").read_text())), sep="\n")
        return 0
    if not DRY_RUN and not torch.cuda.is_available():
        print("bench/gpu.py needs a CUDA GPU and torch finds none (--dry-run does without)", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    timing.budget = timing.Budget(60 * options.minutes)
    run = Run(options, parts)
    threading.Thread(target=run.watch, daemon=True).start()
    l2_bytes = run.results["environment"]["l2_bytes"]
    for number, part in enumerate(parts):
        run.parts = parts[number:]
        start = time.perf_counter()
        given = timing.budget.start_part(SHARES[part], sum(SHARES[p] for p in parts[number + 1 :]))
        try:
            run.part(part, steps_of(part, l2_bytes, options.share))
        except Lost as error:
            run.go_on(str(error))
        except Exception:  # of making the steps
            run.record(part, part, failure())
        seconds = run.results["seconds"]
        seconds[part] = round(seconds.get(part, 0.0) + time.perf_counter() - start, 1)
        wrong = sum(not e["ok"] for e in run.results.get(part, []))
        print(f"{part}: {seconds[part]} s of {given:.0f}, {wrong} failed", flush=True)
        run.save()
    run.save()
    if not {"smoke", "precompile"} & set(parts):
        draw_plots(run.results, options.out)
    return 0 if gpu_report.summary(run.results) else 1


if __name__ == "__main__":
    sys.exit(main())
