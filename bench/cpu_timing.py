"""Times contenders on a CPU in the same rounds, in an order drawn anew each round.

A neighbour's load, the clock and what the caches hold then fall on all alike; ratios are to `out.copy_(x)`, which runs
before each call.
"""

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contenders import DESTINATIONS, YARDSTICKS, Contender, Point, contenders
from gate import empty_out, gate
from peers import Run, Wrong
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

WARMUP = 3
DISTURBED = 1.5  # a round whose copies take this many times the median copy on average is dropped,
ELSEWHERE = 0.1  # and one in which other processes used more than the cores we leave idle and this much of one
MAX_ATTEMPTS = 6

Key = tuple[str, str]  # name and destination
Call = Callable[[], Any]
Timed = dict[Key, tuple[Call, Call]]  # and the copy to run before: it leaves the tensors that are used warm


def interleave(timed: Timed, rounds: int) -> tuple[dict[Key, Any], Any, int]:
    """Milliseconds of every call in the calm rounds, and of the copy before each call; how many rounds it took.

    Goes on until `rounds` were calm, or for at most MAX_ATTEMPTS times as many. What a contender takes plays no part in
    dropping a round, only copies and what other processes ran.
    """
    order, names = np.random.default_rng(0), list(timed)
    spare = max(0, (os.cpu_count() or 1) - torch.get_num_threads())
    times, copies, others = [], [], []
    calm: Any = ()
    enabled = gc.isenabled()
    gc.disable()
    try:
        while len(calm) < rounds and len(times) < MAX_ATTEMPTS * rounds:
            result, reference = np.empty(len(names)), np.empty(len(names))
            start, before = time.perf_counter(), busy_elsewhere()
            for n in order.permutation(len(names)):
                call, copy = timed[names[n]]
                copy()  # whatever ran before: from here on the caches hold the same
                reference[n], result[n] = milliseconds(copy), milliseconds(call)
            others.append((busy_elsewhere() - before) / (time.perf_counter() - start))
            times.append(result)
            copies.append(reference)
            gc.collect(0)
            slow = np.array(copies).mean(1) > DISTURBED * np.median(copies)
            calm = np.flatnonzero(~slow & (np.array(others) <= spare + ELSEWHERE))
            calm = calm[calm >= WARMUP]
    finally:
        if enabled:
            gc.enable()
    kept = np.array(times)[calm]
    return {name: kept[:, n] for n, name in enumerate(names)}, np.array(copies)[calm], len(times) - WARMUP


def busy_elsewhere() -> float:
    """Seconds of CPU time that anything but this process has used, on all cores, since the machine started."""
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except OSError:
        return 0.0
    used = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return used - time.process_time()


def milliseconds(call: Call) -> float:
    """Time until the call returns; what it returned is freed after that."""
    start = time.perf_counter()
    result = call()
    end = time.perf_counter()
    del result
    return 1e3 * (end - start)


def peak_bytes(call: Call) -> int:
    """The most memory that torch held beyond what it held before, results of the call included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    del result
    return int(max(held, default=0))


def prepare(
    point: Point, chosen: list[Contender], x: Tensor, y: Tensor
) -> tuple[Timed, dict[Key, str], list[dict[str, Any]]]:
    """Those that passed the gate, ready to be timed on tensors of their own destination; notes; the others' rows."""
    out, changed = empty_out(point, x), x.clone()
    timed: Timed = {}
    notes: dict[Key, str] = {}
    untimed = []

    def bind(run: Run, destination: str) -> tuple[Call, Call]:
        if destination == "in place":
            return lambda: run(changed, y, None), lambda: changed.copy_(x)
        return lambda: run(x, y, out), lambda: out.copy_(x)

    for contender in chosen:
        key = (contender.name, contender.destination)
        try:
            run, notes[key] = gate(contender, point, x, y)
        except ImportError as error:
            untimed.append(row(contender, status=f"not installed: {error.name}"))
        except Wrong as error:
            untimed.append(row(contender, status=f"wrong: {error}"))
        else:
            timed[key] = bind(run, contender.destination)
    for key, run in YARDSTICKS.items():
        timed[key] = bind(run, key[1])
    return timed, notes, untimed


def row(contender: Contender, **values: Any) -> dict[str, Any]:
    return {
        "contender": contender.name, "scope": contender.scope, "destination": contender.destination, **values
    }  # fmt: skip


def measure(point: Point, rounds: int, chosen: list[Contender] | None = None) -> dict[str, Any]:
    """The table of one point. Ratios are medians, and quartiles, over the median copy."""
    x, y = point.batch()
    chosen = contenders(point) if chosen is None else chosen
    timed, notes, rows = prepare(point, chosen, x, y)
    peaks = {key: peak_bytes(call) / x.nbytes for key, (call, _) in timed.items()}
    times, copies, attempts = interleave(timed, rounds)
    if 2 * len(copies) < rounds:
        pytest.fail(f"the machine is too busy to tell: {len(copies)} calm rounds of {attempts}")
    unit = float(np.median(copies))
    by_key = {(c.name, c.destination): row(c) for c in chosen}
    for name, destination in YARDSTICKS:
        by_key[name, destination] = {"contender": name, "scope": "yardstick", "destination": destination}
    for key, values in times.items():
        quartiles = np.percentile(values, (25, 50, 75))
        low, middle, high = (round(float(q) / unit, 3) for q in quartiles)
        note = {"note": notes[key]} if notes.get(key) else {}
        rows.append(
            {**by_key[key], "ratio": middle, "quartiles": [low, high], "peak memory, in x": round(peaks[key], 2),
             "ms, this machine only": round(float(quartiles[1]), 4), **note}
        )  # fmt: skip
    return {
        "method": point.method, "shape": list(point.shape), "num_classes": point.num_classes,
        "channels_last": point.channels_last, "pipeline": point.pipeline, "threads": torch.get_num_threads(),
        "unit": "median of out.copy_(x), which runs before each call", "copy ms, this machine only": round(unit, 4),
        "rounds": attempts, "rounds kept": len(copies),
        "rounds dropped": f"copies took over {DISTURBED} medians, or other processes over {ELSEWHERE} of a core we use",
        "rows": sorted(rows, key=lambda r: (DESTINATIONS.index(r["destination"]), r.get("ratio", np.inf))),
    }  # fmt: skip


def table_of(shape: tuple[int, ...], timed: Timed, remarks: list[dict[str, Any]], rounds: int = 15) -> dict[str, Any]:
    """Ratios of what is timed to the median copy; `remarks` are the rows of what could not be."""
    times, copies, attempts = interleave(timed, rounds)
    if 2 * len(copies) < rounds:
        pytest.fail(f"the machine is too busy to tell: {len(copies)} calm rounds of {attempts}")
    unit, rows = float(np.median(copies)), list(remarks)
    for (name, destination), values in times.items():
        low, middle, high = (round(float(q) / unit, 3) for q in np.percentile(values, (25, 50, 75)))
        rows.append({"contender": name, "destination": destination, "ratio": middle, "quartiles": [low, high]})
    return {
        "shape": list(shape), "threads": torch.get_num_threads(), "unit": "median of out.copy_(x)", "rounds": attempts,
        "copy ms, this machine only": round(unit, 4), "rounds kept": len(copies), "rows": rows,
    }  # fmt: skip


def show(title: str, table: dict[str, Any]) -> None:
    print(f"\n\n{title}: times {table['copy ms, this machine only']:.3f} ms of copy, {table['threads']} threads; "
          f"{table['rounds kept']} of {table['rounds']} rounds kept")  # fmt: skip
    names = list(dict.fromkeys(r["contender"] for r in table["rows"]))
    print(f"{'':42}" + "".join(f"{destination:>26}" for destination in DESTINATIONS))
    for name in names:
        cells = dict.fromkeys(DESTINATIONS, "-")
        for r in table["rows"]:
            if r["contender"] == name:
                low, high = r.get("quartiles", (0, 0))
                cells[r["destination"]] = f"{r['ratio']:.2f} ({low:.2f} - {high:.2f})" if "ratio" in r else "none"
        print(f"{name:42}" + "".join(f"{cells[destination]:>26}" for destination in DESTINATIONS))
    for r in table["rows"]:
        if remark := r.get("status") or r.get("note"):
            print(f"  {r['contender']}, {r['destination']}: {remark}")
