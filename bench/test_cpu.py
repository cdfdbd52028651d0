"""CPU speed of per-sample CutMix and mixup, float32, ten classes to dense rows, against `out.copy_(x)`.

Each test times all contenders in the same rounds, in an order drawn anew each round: a neighbour's load, the clock and
what the caches hold then fall on all alike. It keeps the table, prints it (with -s), and asserts what we promise.
"""

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import contenders
import numpy as np
import pytest
import torch
from contenders import CONTENDERS, DESTINATIONS, METHODS, OURS, YARDSTICKS, Contender, Wrong, gate
from torch import Tensor

import fusedmix
from fusedmix import ops

SMALL, LARGE = (512, 3, 32, 32), (128, 3, 224, 224)
ROUNDS = {SMALL: 100, LARGE: 25}
WARMUP = 3
DISTURBED = 1.5  # a round whose copies take this many times the median copy on average is dropped,
ELSEWHERE = 0.1  # and one in which other processes used more than the cores we leave idle and this much of one
SPARE = max(0, (os.cpu_count() or 1) - torch.get_num_threads())
MAX_ATTEMPTS = 6
NUM_CLASSES = 10
MAX_OUT_RATIO = 2.2  # of our out= to a copy, at the large shape
RIVALS = (contenders.TIMM, contenders.TORCHVISION, contenders.KORNIA)
CALLS = {"cutmix": fusedmix.fused_cutmix, "mixup": fusedmix.fused_mixup}

Key = tuple[str, str]  # name and destination
Call = Callable[[], Any]
Timed = dict[Key, tuple[Call, Call]]  # and the copy to run before: it leaves the tensors that are used warm


def interleave(timed: Timed, rounds: int) -> tuple[dict[Key, Any], Any, int]:
    """Milliseconds of every call in the calm rounds, and of the copy before each call; how many rounds it took.

    Goes on until `rounds` were calm, or for at most MAX_ATTEMPTS times as many. What a contender takes plays no part in
    dropping a round, only copies and what other processes ran.
    """
    order, names = np.random.default_rng(0), list(timed)
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
            calm = np.flatnonzero(~slow & (np.array(others) <= SPARE + ELSEWHERE))
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


def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator), torch.randint(NUM_CLASSES, shape[:1], generator=generator)


def prepare(method: str, x: Tensor, y: Tensor) -> tuple[Timed, dict[Key, str], list[dict[str, Any]]]:
    """Those that passed the gate, ready to be timed on tensors of their own destination; notes; the others' rows."""
    out, changed = torch.empty_like(x).fill_(0), x.clone()
    timed: Timed = {}
    notes: dict[Key, str] = {}
    untimed = []

    def bind(run: contenders.Run, destination: str) -> tuple[Call, Call]:
        if destination == "in place":
            return lambda: run(changed, y, None), lambda: changed.copy_(x)
        return lambda: run(x, y, out), lambda: out.copy_(x)

    for contender in CONTENDERS:
        key = (contender.name, contender.destination)
        try:
            run, notes[key] = gate(contender, method, x, y, NUM_CLASSES)
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
    scope = "per sample" if contender.per_sample else "per batch"
    return {"contender": contender.name, "scope": scope, "destination": contender.destination, **values}


def measure(method: str, shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """The table of one method and shape. Ratios are medians, and quartiles, over the median copy."""
    x, y = batch(shape)
    timed, notes, rows = prepare(method, x, y)
    times, copies, attempts = interleave(timed, rounds)
    if 2 * len(copies) < rounds:
        pytest.fail(f"the machine is too busy to tell: {len(copies)} calm rounds of {attempts}")
    unit = float(np.median(copies))
    by_key = {(c.name, c.destination): row(c) for c in CONTENDERS}
    for name, destination in YARDSTICKS:
        by_key[name, destination] = {"contender": name, "scope": "yardstick", "destination": destination}
    for key, values in times.items():
        quartiles = np.percentile(values, (25, 50, 75))
        low, middle, high = (round(float(q) / unit, 3) for q in quartiles)
        note = {"note": notes[key]} if notes.get(key) else {}
        rows.append(
            {**by_key[key], "ratio": middle, "quartiles": [low, high],
             "ms, this machine only": round(float(quartiles[1]), 4), **note}
        )  # fmt: skip
    return {
        "method": method, "shape": list(shape), "dtype": "float32", "num_classes": NUM_CLASSES,
        "unit": "median of out.copy_(x), which runs before each call", "copy ms, this machine only": round(unit, 4),
        "rounds": attempts, "rounds kept": len(copies),
        "rounds dropped": f"copies took over {DISTURBED} medians, or other processes over {ELSEWHERE} of a core we use",
        "rows": sorted(rows, key=lambda r: (DESTINATIONS.index(r["destination"]), r.get("ratio", np.inf))),
    }  # fmt: skip


def show(table: dict[str, Any]) -> None:
    print(f"\n\n{table['method']} {table['shape']}: times {table['copy ms, this machine only']:.3f} ms of copy; "
          f"{table['rounds kept']} of {table['rounds']} rounds kept")  # fmt: skip
    names = list(dict.fromkeys(r["contender"] for r in table["rows"]))
    print(f"{'':36}" + "".join(f"{destination:>26}" for destination in DESTINATIONS))
    for name in names:
        cells = dict.fromkeys(DESTINATIONS, "-")
        for r in table["rows"]:
            if r["contender"] == name:
                low, high = r.get("quartiles", (0, 0))
                cells[r["destination"]] = f"{r['ratio']:.2f} ({low:.2f} - {high:.2f})" if "ratio" in r else "none"
        print(f"{name:36}" + "".join(f"{cells[destination]:>26}" for destination in DESTINATIONS))
    for r in table["rows"]:
        if remark := r.get("status") or r.get("note"):
            print(f"  {r['contender']}, {r['destination']}: {remark}")


def broken_promises(table: dict[str, Any]) -> list[str]:
    ratio = {(r["contender"], r["destination"]): r.get("ratio") for r in table["rows"]}
    title = f"{table['method']} {table['shape']}"
    broken = [f"{title}: no time for ours, {d}" for d in DESTINATIONS if ratio[OURS, d] is None]
    if tuple(table["shape"]) == LARGE and (ratio[OURS, "out"] or 0) > MAX_OUT_RATIO:
        broken.append(f"{title}: out= takes {ratio[OURS, 'out']} copies, more than {MAX_OUT_RATIO}")
    for (name, destination), theirs in ratio.items():
        ours = ratio[OURS, destination]
        if name in RIVALS and theirs is not None and ours is not None and ours >= theirs:
            broken.append(f"{title}, {destination}: ours takes {ours} copies, {name} {theirs}")
    return broken


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_speed(method, shape, benchmark, keep, pytestconfig):
    rounds = pytestconfig.getoption("rounds") or ROUNDS[shape]
    table = measure(method, shape, rounds)
    keep(f"{method} {list(shape)}", table)
    show(table)
    benchmark.extra_info["table"] = table
    x, y = batch(shape)
    out = x.clone()
    benchmark.pedantic(
        CALLS[method], (x, y), {"num_classes": NUM_CLASSES, "out": out}, rounds=rounds, warmup_rounds=WARMUP
    )
    broken = broken_promises(table)
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("method", METHODS)
def test_host_cost(method, benchmark, keep, monkeypatch):
    """What a call costs before it touches pixels: a batch of two small images, and the same without implementation."""
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([3, 7])
    out = torch.empty_like(x)
    destinations = {"fresh": {}, "out": {"out": out}, "in place": {"inplace": True}}
    calls = {d: lambda o=options: CALLS[method](x, y, num_classes=10, **o) for d, options in destinations.items()}
    benchmark.pedantic(calls["fresh"], rounds=100, iterations=20, warmup_rounds=5)
    whole = {d: microseconds(call) for d, call in calls.items()}
    monkeypatch.setattr(ops, "implementation", lambda device_type: lambda *arguments: None)
    checks = {d: microseconds(call) for d, call in calls.items()}
    table = {
        "method": method, "shape": [2, 3, 8, 8], "us a call, this machine only": whole,
        "us of checks, allocation and dispatch alone, this machine only": checks,
    }  # fmt: skip
    keep(f"host cost {method}", table)
    benchmark.extra_info["table"] = table
    print(f"\n\nhost cost {method}, us: whole call {whole}; checks, allocation and dispatch {checks}")


def microseconds(call: Call, rounds: int = 100, iterations: int = 50) -> float:
    """Median time of a call over rounds of many."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(iterations):
            call()
        times.append(time.perf_counter() - start)
    return round(1e6 * float(np.median(times[5:])) / iterations, 2)
