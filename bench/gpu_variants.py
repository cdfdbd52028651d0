"""Every hot variant of the tests, alone: percent of a device copy's bandwidth, beside what the static model expects."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import timing
import torch
from gpu_ahead import compile_ahead
from gpu_common import DEVICE, DRY_RUN, ROOT, ROW_TOLERANCE, TOLERANCES, Steps, close, poison, short
from hot import HOT, Hot, Variant, hot, kernels_of, small

from fusedmix import launch

BATCH, LARGE_SIDE = 256, 224  # images of that side and above come in batches of at least so many
CHECKED = 8  # samples that the reference computes
ROUNDS = 1 if DRY_RUN else 15
DRAWS = 16  # calls whose bytes are averaged
SEED = 7
COPY = "copy"
DRY_NAMES = (
    "augment: crop, flip, mix", "augment: resized crop, mix", "policy bfloat16 replay", "mixup float32 adjoint",
)  # fmt: skip


def sized(variant: Variant) -> tuple[Variant, int]:
    """(the variant, its batch) as they are timed."""
    if DRY_RUN:
        return small(variant), 4
    batch, side = variant.shape[0], variant.shape[-1]
    return variant, max(batch, BATCH) if side >= LARGE_SIDE else batch


def is_promised(variant: Variant) -> bool:
    return variant.shape[-1] >= LARGE_SIDE and not variant.in_place


def buffers(variant: Variant, batch: int, l2_bytes: int) -> list[Hot]:
    """As many of a variant's as hold more than L2."""
    first = hot(variant, batch, DEVICE)
    return [first, *(first.again() for _ in range(timing.buffer_sets(first.bytes_moved(0), l2_bytes) - 1))]


def copies_of(sets: list[Hot], calls: int) -> list[Callable[[], Any]]:
    """Copies of results, as often."""
    return [partial(sets[n % len(sets)].out.copy_, sets[(n + 1) % len(sets)].out) for n in range(calls)]


def check(variant: Variant, batch: int) -> dict:
    """The kernel of that variant on a few samples against the reference."""
    few = hot(variant, 4 if DRY_RUN else CHECKED, DEVICE)
    want, want_rows = few.expected(SEED)
    if not variant.in_place:
        poison(few.out)
    if few.rows is not None:
        poison(few.rows)
    with kernels_of(batch, len(few.x)):
        few.launch(SEED)
    close("targets", few.rows, want_rows, ROW_TOLERANCE)
    return close("pixels", few.out, want, TOLERANCES[want.dtype])


def expectation(name: str) -> dict | None:
    """What the static model says of this GPU: issue time / memory time. None of a GPU that it does not know."""
    model = json.loads((ROOT / "bench" / "results" / "static.json").read_text(encoding="utf-8"))
    if DRY_RUN or name not in model["variants"]:
        return None
    device = torch.cuda.get_device_name()
    gpu = next((gpu for gpu in model["gpus"] if gpu.split()[0] in device), None)
    if gpu is None:
        return None
    figures = model["variants"][name][gpu]
    return {"gpu": gpu, "margin": figures.get("expected", figures["margin"])}


def resources() -> dict[str, Any]:
    """Registers and spills of the kernel that was prepared last."""
    for prepared in reversed(launch._prepared.values()):
        compiled = prepared.compiled
        return {"registers": getattr(compiled, "n_regs", None), "spills": getattr(compiled, "n_spills", None)}
    return {}


def bench(name: str, l2_bytes: int) -> Iterator[dict]:
    variant, batch = sized(HOT[name])
    entry = {
        "variant": name, "shape": [batch, *variant.shape[1:]], "dtype": short(variant.x_dtype),
        "in_place": variant.in_place, "promised": is_promised(variant), "expected": expectation(name),
        **check(variant, batch),
    }  # fmt: skip
    sets = buffers(variant, batch, l2_bytes)
    first = sets[0]
    calls = timing.calls_a_graph(first.bytes_moved(0), len(sets))
    steps = [partial(sets[n % len(sets)].launch, n) for n in range(calls)]
    graphs = {COPY: timing.captured(copies_of(sets, calls), 1), name: timing.captured(steps, len(sets))}
    used = resources()
    times = timing.interleaved(graphs, ROUNDS)
    us, copy_us = ([t / calls * 1e6 for t in times[key]] for key in (name, COPY))
    if not variant.in_place and first.out.is_floating_point():
        for each in sets:
            poison(each.out)
        graphs[name]()
        assert not any(each.out.isnan().any() for each in sets), "pixels that were not written"
    moved, copied = mean(map(first.bytes_moved, range(min(calls, DRAWS)))), 2 * first.out.nbytes
    percent = [100 * moved / a / (copied / b) for a, b in zip(us, copy_us, strict=True)]
    yield {
        **entry, **used, "ok": True, "bytes": moved, "calls": calls, "buffer_sets": len(sets), "us": median(us),
        "gb_per_s": moved / median(us) / 1e3, "copy_gb_per_s": copied / median(copy_us) / 1e3,
        "percent_of_copy": median(percent),
        "spread": {"us": timing.quartiles(us), "percent": timing.quartiles(percent)},
    }  # fmt: skip


def names() -> list[str]:
    """Those first that the model expects to be slowed down by the issue of instructions."""
    if DRY_RUN:
        return list(DRY_NAMES)
    expected = {name: expectation(name) for name in HOT}
    return sorted(HOT, key=lambda name: -(expected[name] or {"margin": 0.0})["margin"])


def compilations() -> list[timing.Call]:
    """One call a variant that compiles it."""
    return [partial(compile_one, name) for name in names()]


def compile_one(name: str) -> None:
    variant, batch = sized(HOT[name])
    few = hot(variant, CHECKED, DEVICE)
    with kernels_of(batch, CHECKED):
        few.launch(SEED)


def steps(script: Path, l2_bytes: int) -> Steps:
    yield "compiled ahead", partial(compile_ahead, script, "variants")
    yield from ((name, partial(bench, name, l2_bytes)) for name in names())
