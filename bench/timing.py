"""Timing on a CUDA GPU. Two ways, both with contenders interleaved in an order drawn anew each round:

- replays of CUDA graphs (`interleaved`), for single kernels;
- calls queued behind a kernel that waits (`queued`), for whatever Python does: the GPU is never kept waiting unless a
  call synchronises, and the time to enqueue is the host time.
Callers rotate over more buffers than L2 holds. In a dry run the same code runs on the host's clock.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from gpu_common import DRY_RUN, synchronize

Call = Callable[[], Any]
QUEUE = 800  # launches: below the 1,024 that a stream queues before the host has to wait
SMALLEST_BUFFERS = 4  # times L2


class Budget:
    """Seconds left to the whole run, and to the part that runs now."""

    def __init__(self, seconds: float):
        self.end = self.part_end = time.monotonic() + seconds

    def start_part(self, share: float, later: float) -> float:
        """Gives this part its share of what is left; `later`: the shares of the parts to come. Returns seconds."""
        left = self.total_left()
        self.part_end = time.monotonic() + left * share / (share + later)
        return self.left()

    def left(self) -> float:
        return self.part_end - time.monotonic()

    def total_left(self) -> float:
        return max(self.end - time.monotonic(), 0.0)


budget = Budget(9 * 60)


def stamp() -> Any:
    if DRY_RUN:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds(start: Any, end: Any) -> float:
    return end - start if DRY_RUN else start.elapsed_time(end) / 1e3


def buffer_sets(bytes_a_call: float, l2_bytes: int) -> int:
    """How many sets of buffers to rotate over, so that L2 holds nothing of the next call."""
    return max(2, -(-SMALLEST_BUFFERS * l2_bytes // int(bytes_a_call)))


def calls_a_graph(bytes_a_call: float, sets: int) -> int:
    """Launches in a graph: 2 ms at 4 TB/s, every set of buffers as often."""
    return sets if DRY_RUN else sets * -(-max(int(8e9 / bytes_a_call), 20) // sets)


def quartiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    low, high = (ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.25, 0.75))
    return {"median": median(ordered), "q1": low, "q3": high, "rounds": len(ordered)}


# Graphs.


def captured(launches: list[Call], warm: int) -> Call:
    """A replayable CUDA graph of all the launches; the first `warm` of them run before, to be compiled."""
    for step in launches[:warm]:
        step()
    synchronize()
    if DRY_RUN:
        return lambda: [step() for step in launches]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for step in launches:
            step()
    return graph.replay


def interleaved(contenders: dict[str, Call], rounds: int, least: int = 5) -> dict[str, list[float]]:
    """Seconds of every contender in every round, queued behind a lead-in so that no launch gap is timed.

    Stops early, after `least` rounds, when the part's time is up.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names, order = list(contenders), random.Random(0)
    for number in range(rounds + 1):  # the first one warms up
        order.shuffle(names)
        contenders[names[-1]]()
        stamps = [stamp(), *((contenders[name](), stamp())[1] for name in names)]
        synchronize()
        for name, (a, b) in zip(names, pairwise(stamps), strict=True):
            if number or DRY_RUN:
                times[name].append(seconds(a, b))
        if (DRY_RUN or number >= least) and budget.left() < 0:
            break
    return times


# Queued calls.


@dataclass
class Timed:
    """A contender's k-th call, what to do before its round, and how it is to be queued."""

    step: Callable[[int], Any]
    restore: Call | None = None
    calls: int = 1
    lead_ms: float = 0.0
    synchronises: bool = False
    kernels: float | None = None  # a call


@cache
def cycles_per_ms() -> float:
    torch.cuda._sleep(50_000_000)  # the clock rises meanwhile
    start = stamp()
    torch.cuda._sleep(10_000_000)
    end = stamp()
    synchronize()
    return 1e7 / (1e3 * seconds(start, end))


def lead_in(milliseconds: float) -> None:
    """Keeps the GPU waiting, so that what follows is queued."""
    if milliseconds > 0 and not DRY_RUN:
        torch.cuda._sleep(int(milliseconds * cycles_per_ms()))


def host_ms(step: Callable[[int], Any], calls: int) -> tuple[float, float]:
    """Milliseconds a call until it returns, and until its work is done; on an idle GPU."""
    synchronize()
    start = time.perf_counter()
    for k in range(calls):
        step(k)
    enqueued = time.perf_counter()
    synchronize()
    return 1e3 * (enqueued - start) / calls, 1e3 * (time.perf_counter() - start) / calls


def prepare(timed: Timed, target_ms: float = 3.0) -> Timed:
    """Chooses how many calls a round takes, and the wait they are queued behind; the calls must be warm."""
    if DRY_RUN:
        return timed
    host, total = host_ms(timed.step, 3)
    synchronize()
    lead_in(15 + 2 * host)
    start = time.perf_counter()
    timed.step(0)
    timed.synchronises = 1e3 * (time.perf_counter() - start) > 10 + 2 * host
    synchronize()
    most = QUEUE / max(timed.kernels or 16, 1)
    timed.calls = int(max(2, min(target_ms / total, most, 200)))
    timed.lead_ms = 0.0 if timed.synchronises else min(2 * timed.calls * host + 0.2, 100.0)
    return timed


def queued(contenders: dict[str, Timed], rounds: int, least: int = 3) -> dict[str, dict[str, list[float]]]:
    """Microseconds a call, on the device ("us") and until it returns ("host_us"), per contender and round."""
    times: dict[str, dict[str, list[float]]] = {name: {"us": [], "host_us": []} for name in contenders}
    names, order = list(contenders), random.Random(0)
    for number in range(rounds):
        order.shuffle(names)
        for name in names:
            timed = contenders[name]
            if timed.restore:
                timed.restore()
            lead_in(timed.lead_ms)
            start, host_start = stamp(), time.perf_counter()
            for k in range(timed.calls):
                timed.step(k)
            host_end, end = time.perf_counter(), stamp()
            synchronize()
            times[name]["us"].append(1e6 * seconds(start, end) / timed.calls)
            times[name]["host_us"].append(1e6 * (host_end - host_start) / timed.calls)
        if number + 1 >= least and budget.left() < 0:
            break
    return times


# Launches, host time, memory.


def profile(activities: list, step: Call, calls: int) -> torch.profiler.profile:
    with torch.profiler.profile(activities=activities) as profiled:
        for _ in range(calls):
            step()
        synchronize()
    return profiled


def kernels_of(step: Call, calls: int = 3) -> list[str] | None:
    """Names of what `calls` calls ran on the device, as the profiler saw it: kernels, copies and fills."""
    if DRY_RUN:
        step()
        return None
    synchronize()
    activities = torch.profiler.ProfilerActivity
    try:
        profiled = profile([activities.CUDA], step, calls)
    except AssertionError:  # a build that profiles the device only along with the host
        profiled = profile([activities.CPU, activities.CUDA], step, calls)
    on_device = [e for e in profiled.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    marks = ("Sync", "Torch-Compiled", "CompiledFxGraph", "## Call")  # no work of the device
    return [
        e.name[:60] for e in on_device
        if not getattr(e, "is_user_annotation", False) and not any(mark in e.name for mark in marks)
    ]  # fmt: skip


def host_us(step: Call, calls: int, rounds: int) -> dict[str, float]:
    """Microseconds until a call returns, over rounds of as many calls as the launch queue holds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            step()
        times.append((time.perf_counter() - start) / calls * 1e6)
        synchronize()
    return quartiles(times)


def extra_memory(step: Call) -> int | None:
    """Most bytes allocated during a call beyond those before it, its result included."""
    if DRY_RUN:
        return None
    synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = step()
    synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before
