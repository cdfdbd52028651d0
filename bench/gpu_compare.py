"""The benches with contenders, and growth with the batch and the number of classes."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import product
from statistics import median
from typing import Any

import timing
import torch
from gpu_common import BF16, DRY_RUN, Steps, failure, without_paths
from gpu_contenders import CUDA_GRAPHS, Contender, compilers, contenders, gate
from gpu_kernels import POINTS, Buffers, Point
from peers import HAND, OURS, TIMM, Run, Wrong

from fusedmix.recipe import Recipe
from fusedmix.reference.sampling import draw

COMPILE_S = 15.0  # a compilation is not begun with less time left
ROUNDS = 1 if DRY_RUN else 15
COPY = "out.copy_(x)"
BATCHES = (2, 4) if DRY_RUN else (8, 32, 128, 512, 2048, 4096)
CLASSES = (3, 10) if DRY_RUN else (10, 100, 1000, 21841)
GROWTH_METHODS = ("mixup", "cutmix")
COUNTED = ("bf16", "fp32", "CIFAR fp32", "u8 to bf16, norm")  # points at which launches are counted: takes long
SLOW_BATCH = 512  # of contenders that loop over samples: larger ones take too long


@cache
def box_share(height: int, width: int) -> float:
    """Expected share of pixels inside a box of CutMix, alpha 1."""
    box = draw(Recipe(), 4096, height, width, 0, 0).box.double()
    return float(((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).mean()) / (height * width)


def bytes_moved(point: Point, method: str, in_place: bool) -> float:
    share = box_share(*point.shape[2:]) if in_place and method == "cutmix" else 1.0
    return share * point.image_bytes + point.label_bytes


def free() -> None:
    gc.collect()
    if not DRY_RUN:
        torch.cuda.empty_cache()


def timed(contender: Contender, run: Run, buffers: Buffers) -> timing.Timed:
    """Its k-th call, on the k-th buffers; results live until as many calls later, so that they rotate too."""
    xs, held = buffers.xs, {}
    restore: Callable[[], Any] = held.clear
    if contender.destination == "in place":
        xs = [x.clone() for x in xs]

        def restore() -> None:
            held.clear()
            for x, source in zip(xs, buffers.xs, strict=True):
                x.copy_(source)

    def step(k: int) -> Any:
        k %= buffers.sets
        result = run(xs[k], buffers.y, buffers.outs[k])
        if contender.compile_mode not in CUDA_GRAPHS:
            held[k] = result
        return result

    return timing.Timed(step, restore)


def measured(us: dict[str, list[float]], copy_us: list[float], moved: float, copied: float) -> dict:
    middle, copy = median(us["us"]), median(copy_us)
    return {
        "us": middle, "spread": timing.quartiles(us["us"]), "host_us": median(us["host_us"]), "bytes": moved,
        "gb_per_s": moved / middle / 1e3, "copy_us": copy, "copy_gb_per_s": copied / copy / 1e3,
        "percent_of_copy": 100 * (moved / middle) / (copied / copy), "times_of_copy": middle / copy,
    }  # fmt: skip


def admit(contender: Contender, point: Point, method: str, buffers: Buffers) -> tuple[dict, timing.Timed | None]:
    """Its entry without times, and what to time once it passed the gate."""
    entry: dict[str, Any] = {
        **point.described(), "method": method, "contender": contender.name, "destination": contender.destination,
        "scope": contender.scope, "ok": True,
    }  # fmt: skip
    if timing.budget.left() < (0 if DRY_RUN else COMPILE_S if contender.compile_mode else 2):
        return {**entry, "status": "no time left"}, None
    start = time.perf_counter()
    try:
        run = contender.make(point, method)
        note = gate(contender, run, point, method, buffers.xs[0])
        entry |= {"gate_s": round(time.perf_counter() - start, 2), **({"note": note} if note else {})}
        candidate = timed(contender, run, buffers)
        for k in range(2 if DRY_RUN else buffers.sets + 2):
            candidate.step(k)
        if point.name in COUNTED:
            entry |= diagnosed("kernels", lambda: launches_of(candidate))
            candidate.kernels = entry.get("kernels")
        candidate.restore()
        entry |= diagnosed("extra_bytes", lambda: timing.extra_memory(lambda: candidate.step(0)))
        return entry, timing.prepare(candidate)
    except ImportError as error:
        return {**entry, "status": without_paths(f"not installed: {error}")[:300]}, None
    except Wrong as error:
        return {**entry, "ok": not contender.name.startswith(OURS), "status": f"wrong: {error}"}, None
    except Exception:
        failed = failure()
        last = failed["error"].strip().splitlines()[-1][:300]
        ours = {**failed} if contender.name.startswith(OURS) else {"trace": failed["error"]}
        return {**entry, **ours, "status": f"failed: {last}"}, None


def launches_of(candidate: timing.Timed) -> float | None:
    kernels = timing.kernels_of(lambda: candidate.step(0))
    return None if kernels is None else round(len(kernels) / 3, 2)


def diagnosed(name: str, measure: Callable[[], Any]) -> dict:
    """A figure beside the times, which must not be lost when it fails."""
    try:
        return {name: measure()}
    except Exception:
        return {f"{name}_error": failure()["error"].strip().splitlines()[-1][:200]}


def compare(point: Point, method: str, l2_bytes: int, modes: bool = False) -> Iterator[dict]:
    """Times those that pass the gate in the same rounds; `modes`: the slower compilers instead of everybody."""
    buffers = Buffers(point, l2_bytes)
    entries, ready = {}, {}
    for contender in compilers() if modes else contenders(point, method):
        entries[contender.key], candidate = admit(contender, point, method, buffers)
        if candidate:
            ready[contender.key] = candidate
    pairs = list(zip(buffers.xs, buffers.outs, strict=True))
    ready[COPY] = timing.prepare(timing.Timed(partial(copy, pairs), kernels=1))
    times = timing.queued(ready, ROUNDS)
    for key, entry in entries.items():
        if key in times:
            moved = bytes_moved(point, method, entry["destination"] == "in place")
            entry |= measured(times[key], times[COPY]["us"], moved, point.image_bytes)
            entry |= {"calls": ready[key].calls, "synchronises": ready[key].synchronises}
        yield entry
    ready.clear()
    torch.compiler.reset()
    free()


def copy(pairs: list, k: int) -> Any:
    x, out = pairs[k % len(pairs)]
    return out.copy_(x)


def steps(l2_bytes: int) -> Steps:
    """The most used points first; slow compilations in between and last."""

    def some(points: Iterable[Point], modes: bool, methods: tuple[str, ...] = GROWTH_METHODS) -> Steps:
        for p, m in product(points, methods):
            yield f"{p.name}, {m}{', modes' if modes else ''}", partial(compare, p, m, l2_bytes, modes)

    yield from some(POINTS[:2], False)
    yield from some(POINTS[:1], True, ("mixup",))
    yield from some(POINTS[2:], False)
    yield from some(POINTS[1:3], True, ("mixup",))
    yield from some(POINTS[:3], True, ("cutmix",))


# Growth.


def grow(axis: str, value: int, l2_bytes: int) -> Iterator[dict]:
    """Times at one size of those that the points have put through the gate."""
    small = (4, 3, 8, 8) if DRY_RUN else (256, 3, 224, 224)
    point = Point(f"{axis}={value}", small, BF16, BF16, classes=10 if DRY_RUN else 1000)
    point = point._replace(shape=(value, *small[1:])) if axis == "B" else point._replace(classes=value)
    buffers = Buffers(point, l2_bytes)
    ready, entries = {}, {}
    for method in GROWTH_METHODS:
        for contender in contenders(point, method):
            if (contender.name, contender.destination) not in ((OURS, "out"), (HAND, "fresh"), (TIMM, "in place")):
                continue
            entry = {"axis": axis, "value": value, "method": method, "contender": contender.name, "ok": True}
            key = f"{contender.key}, {method}"
            if contender.name == TIMM and value > SLOW_BATCH and axis == "B":
                continue
            try:
                candidate = timed(contender, contender.make(point, method), buffers)
                for k in range(2 if DRY_RUN else buffers.sets + 2):
                    candidate.step(k)
                ready[key], entries[key] = timing.prepare(candidate, 2.0), entry
            except ImportError:
                continue
            except Exception:
                yield {**entry, **failure(), "ok": contender.name != OURS}
    pairs = list(zip(buffers.xs, buffers.outs, strict=True))
    ready[COPY] = timing.prepare(timing.Timed(partial(copy, pairs), kernels=1), 2.0)
    times = timing.queued(ready, 1 if DRY_RUN else 9)
    for key, entry in entries.items():
        moved = bytes_moved(point, entry["method"], "in place" in key)
        yield {**entry, **measured(times[key], times[COPY]["us"], moved, point.image_bytes)}
    ready.clear()
    free()


def growth_steps(l2_bytes: int) -> Steps:
    yield from ((f"B={b}", partial(grow, "B", b, l2_bytes)) for b in BATCHES)
    yield from ((f"K={k}", partial(grow, "K", k, l2_bytes)) for k in CLASSES)
