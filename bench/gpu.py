"""Checks and times the kernels on a CUDA GPU: `python bench/gpu.py --out DIR`.

Parts: correctness, every variant against the reference; launches, kernels and host time per call; bench, GB/s beside a
device copy in the same run. A check that fails is recorded and the rest goes on. DIR/gpu.json is written after each
part, a summary printed last. `--dry-run` runs the same code through Triton's interpreter on a CPU, on tiny inputs: it
finds bugs of this script, its numbers mean nothing. Exit code: 0 all checks passed, 1 one failed, 2 no GPU.
"""
# ruff: noqa: E402

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

DRY_RUN = "--dry-run" in sys.argv
os.environ["TRITON_INTERPRET"] = "1" if DRY_RUN else "0"  # read when triton is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import triton
from torch import Tensor

from fusedmix import FusedMix, Plan, fused_cutmix, fused_mixup, launch, ops, reference, rng
from fusedmix.checks import build_norm
from fusedmix.functional import call
from fusedmix.recipe import GIVEN, METHOD_MIXUP, MODES, PARTNERS, Recipe
from fusedmix.reference.sampling import Draw, draw

Check = Callable[[], dict]
PARTS = ("correctness", "launches", "bench")
F32, F16, BF16, U8 = torch.float32, torch.float16, torch.bfloat16, torch.uint8
METHODS = {"mixup": 0.0, "cutmix": 1.0, "policy": 0.5}  # name: switch_prob
PAIRINGS = {**PARTNERS, "given": GIVEN}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DEVICE, EVEN, ODD, LARGE = "cuda", (8, 3, 64, 64), (5, 3, 37, 53), (14400, 3, 224, 224)  # LARGE: past 2**31 elements
IMAGENET, CIFAR = (256, 3, 224, 224), (512, 3, 32, 32)
if DRY_RUN:
    DEVICE, EVEN, ODD, LARGE, IMAGENET, CIFAR = "cpu", (4, 3, 8, 8), (3, 3, 5, 7), *((2, 3, 8, 8),) * 3
    ops.IMPLEMENTATIONS["cpu"] = "launch"  # CPU tensors go through the Triton kernel

# (absolute, relative) bounds of computed pixels, for values up to 255. The steps are those of the reference, in float32
# with one rounding at the end: 2 ulp of 255 for float32; for narrower floats one unit of the last place, should that
# rounding fall on the other side. Copied pixels, integers and plans must be equal bit for bit.
TOLERANCES = {F32: (3.1e-5, 0.0), F16: (1e-4, 2**-10), BF16: (1e-4, 2**-7), U8: (0.0, 0.0)}
ROW_TOLERANCE = (2.4e-7, 0.0)  # target rows: 2 ulp of 1
GRADIENT_TOLERANCE = {F32: (2e-6, 0.0), BF16: (2e-6, 2**-7)}  # two products and a sum in another order; one rounding
PROMISE = 85.0  # percent of the copy's bandwidth


# ---- inputs, calls and comparisons


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(shape: tuple[int, ...], dtype: torch.dtype = F32, last: bool = False, seed: int = 0) -> Tensor:
    """Random pixels from 0 to 255, on the CPU."""
    x = (torch.rand(shape, generator=seeded(seed)) * 255).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def poison(t: Tensor) -> Tensor:
    return t.fill_(float("nan") if t.is_floating_point() else 77)


def mixed(recipe: Recipe, x: Tensor, y: Tensor | None, seed: int, **options: Any) -> tuple[Tensor, Tensor | None, Plan]:
    """The public calls' common end: (images, targets, plan). Of a `MixedTarget` the partners' classes."""
    names = ("lam", "box", "partner", "plan", "mean", "std", "out_dtype", "memory_format", "out")
    arguments = {**dict.fromkeys(names), "inplace": False, "sample_offset": 0, **options}
    out, *rows, plan = call(recipe, x, y, generator=seeded(seed), return_plan=True, **arguments)
    return out, (getattr(rows[0], "y_b", rows[0]) if rows else None), plan


def pack(drawn: Draw) -> Tensor:
    columns = drawn.method, drawn.lam.contiguous().view(torch.int32), drawn.partner, drawn.mate
    return torch.cat([torch.stack([c.int() for c in columns], 1), drawn.box], 1)


def close(what: str, got: Tensor | None, want: Tensor | None, bounds: tuple = (0.0, 0.0), where: Any = 1) -> dict:
    """Refuses a result that is off by more than the bounds; outside `where` it must be equal."""
    if got is None or want is None:
        assert got is want, f"{what}: {got} instead of {want}"
        return {}
    got, want = got.detach().cpu(), want.detach()
    assert (got.dtype, got.shape) == (want.dtype, want.shape), f"{what}: {got.dtype} {got.shape}"
    error = (got.double() - want.double()).abs()
    bad = ~(error <= (bounds[0] + bounds[1] * want.double().abs()) * where)  # NaN is bad
    assert not bad.any(), f"{what}: {bad.sum()} of {bad.numel()} wrong, worst {error.max()}, first {bad.nonzero()[0]}"
    return {"identical": torch.equal(got, want), "max_error": float(error.max()) if error.numel() else 0.0}


def close_pixels(got: Tensor, want: Tensor, drawn: Draw, norm: Tensor | None) -> dict:
    computed = (drawn.method == METHOD_MIXUP) | (norm is not None)
    return close("pixels", got, want, TOLERANCES[want.dtype], computed.view(-1, *[1] * (want.dim() - 1)))


def close_to_plan(
    x: Tensor, y: Tensor, got: Tensor, rows: Tensor, recipe: Recipe, drawn: Draw, picks: Iterable[int], norm: Any = None
) -> dict:
    """Compares some samples of a batch with the reference, which gets only those and their partners."""
    index = torch.tensor(list(picks))
    both, n = torch.cat([index, drawn.partner[index]]), len(index)
    partner, twice = torch.arange(n, 2 * n).repeat(2), index.repeat(2)
    plan = Draw(drawn.method[twice], drawn.lam[twice], partner, partner, drawn.box[twice])
    some = torch.stack([x[i] for i in both.tolist()]).cpu()
    want, want_rows, _ = reference.mix(some, y.cpu()[both], recipe, plan=plan, norm=norm, out_dtype=got.dtype)
    close("targets", rows.cpu()[index], want_rows[:n], ROW_TOLERANCE)
    got = torch.stack([got[i] for i in index.tolist()])
    return close_pixels(got, want[:n], Draw(*(column[index] for column in drawn)), norm)


def draw_of(plan: Plan) -> Draw:
    plan = plan.to("cpu")
    return Draw(plan.method, plan.lam, plan.partner, plan.mate, plan.box)


# ---- correctness


class Case(NamedTuple):
    """A variant of the kernel."""

    method: str
    dtype: torch.dtype = F32
    shape: tuple[int, ...] = EVEN
    last: bool = False
    out_dtype: torch.dtype | None = None
    out_last: bool | None = None
    norm: bool = False
    partner: str = "matching"
    mode: str = "elem"
    target: str | None = "one_hot"
    classes: int = 10
    p: float = 1.0
    smoothing: float = 0.0
    given: tuple[str, ...] = ()  # of "lam" and "box"
    minmax: float = -1.0
    correct_lam: bool = True
    in_place: bool = False
    replay: bool = False
    view: str = ""  # "unaligned": memory not on 16 bytes; "apart": a batch stride larger than a sample

    def __str__(self) -> str:
        changed = {k: v for k, v in self._asdict().items() if v != self._field_defaults.get(k)}
        return ", ".join(f"{k} {v}".removeprefix("method ").replace("torch.", "") for k, v in changed.items())


def cases() -> Iterator[Case]:
    for method in METHODS:
        case = partial(Case, method)
        yield from (case(dtype=dtype, last=last) for dtype in (F32, F16, BF16, U8) for last in (False, True))
        yield case(partner="exact", mode="pair", p=0.7, shape=ODD)
        yield case(partner="flip", mode="pair", p=0.7, target="soft", smoothing=0.1)
        yield case(partner="roll", mode="batch", target="classes", shape=ODD)
        yield case(partner="permute", p=0.7, target=None, dtype=BF16, last=True)
        yield case(partner="given", mode="batch", shape=ODD)
        yield case(mode="pair", classes=1200, smoothing=0.1)  # rows of several blocks
        yield from (case(shape=shape) for shape in ((0, 3, 8, 8), (1, 3, 5, 7), (2, 3, 1, 1), (5, 1, 9, 33)))
        yield from (case(dtype=U8, out_dtype=dtype, norm=norm) for dtype in (BF16, F32) for norm in (False, True))
        yield from (case(last=last, out_last=not last, shape=ODD) for last in (False, True))
        yield case(dtype=U8, out_dtype=BF16, norm=True, last=True, out_last=False)
        yield from (case(dtype=dtype, in_place=True, p=0.8) for dtype in (F32, BF16))
        yield case(dtype=U8, shape=ODD, last=True, in_place=True, partner="exact")
        yield case(norm=True, in_place=True, partner="flip", shape=ODD)
        yield case(replay=True, p=0.7, in_place=True, dtype=BF16, partner="exact")
        yield case(replay=True, p=0.7, partner="permute", shape=ODD)
        yield case(given=("lam",), target="classes")
        yield from (case(view="unaligned", shape=ODD), case(view="apart", dtype=BF16))
        if method != "mixup":
            yield from (case(minmax=0.2), case(correct_lam=False), case(given=("lam", "box"), partner="given"))


def place(x: Tensor, view: str) -> Tensor:
    """A copy of x on the device, its memory as `view` says."""
    if view == "unaligned":
        return torch.empty(x.numel() + 1, dtype=x.dtype, device=DEVICE)[1:].view(x.shape).copy_(x)
    if view == "apart":
        return torch.empty((2 * x.shape[0], *x.shape[1:]), dtype=x.dtype, device=DEVICE)[::2].copy_(x)
    return x.to(DEVICE, copy=True)


def check_case(case: Case, seed: int) -> dict:
    """A first call and one through the cached launch, on poisoned memory, against the reference and each other."""
    recipe = Recipe(
        0.4, 1.0, case.p, METHODS[case.method], MODES[case.mode], PAIRINGS[case.partner], case.correct_lam, case.minmax,
        max(case.minmax, 4 * case.minmax), case.classes if case.target == "one_hot" else 0, case.smoothing,
    )  # fmt: skip
    batch, _, height, _ = case.shape
    x, y = images(case.shape, case.dtype, case.last, seed), torch.randint(0, 10, (batch,), generator=seeded(seed))
    y = {"soft": torch.rand(batch, 10, generator=seeded(seed)), None: None}.get(case.target, y)
    lam, partner = torch.linspace(0, 1, batch), torch.randint(0, batch or 1, (batch,), generator=seeded(seed))
    box = torch.tensor([[i // 2, 1, height - i // 2, 2 + i] for i in range(batch)]).int()
    given = {"lam": lam, "box": box, "partner": partner}
    given = {k: v for k, v in given.items() if k in case.given or (k, case.partner) == ("partner", "given")}
    norm = build_norm(MEAN, STD, case.shape[1], torch.device("cpu")) if case.norm else None
    out_dtype = case.out_dtype or (F32 if case.norm and case.dtype == U8 else case.dtype)
    out_last = case.last if case.out_last is None else case.out_last
    layout = torch.channels_last if out_last else torch.contiguous_format
    drawn_by = (*rng.next_seed(seeded(seed)), seed % 2 * 1000)
    want, want_rows, drawn = reference.mix(x, y, recipe, *drawn_by, norm=norm, out_dtype=out_dtype, **given)
    options = {"sample_offset": drawn_by[2], "out_dtype": out_dtype, "inplace": case.in_place}
    options |= {"mean": MEAN, "std": STD} if case.norm else {}
    options |= {k: v.to(DEVICE) for k, v in given.items()}
    if case.replay:
        options["plan"] = Plan(pack(drawn).to(DEVICE), recipe, case.shape[2:] if recipe.has_box else None)
    first: tuple = ()
    for attempt in ("first call", "cached launch"):
        source = place(x, case.view)
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN or the largest integer
        options["memory_format"] = None if case.in_place else layout
        if seed % 2 and not case.in_place:
            options["out"] = torch.empty(case.shape, dtype=out_dtype, device=DEVICE, memory_format=layout)
        got, rows, plan = mixed(recipe, source, None if y is None else y.to(DEVICE), seed, **options)
        torch.use_deterministic_algorithms(False)
        close(f"plan of the {attempt}", plan.packed, pack(drawn))
        assert got.is_contiguous(memory_format=layout), "memory format"
        assert (got is source) if case.in_place else torch.equal(source.cpu(), x), "written in the wrong place"
        close("targets", rows, want_rows, ROW_TOLERANCE if case.target != "classes" else (0, 0))
        result = close_pixels(got, want, drawn, norm)
        first = first or (got.cpu(), None if rows is None else rows.cpu())
        close("second call", got, first[0])
        close("second call's targets", rows, first[1])
    return result


def check_gradients(method: str, partner: str, dtype: torch.dtype, last: bool) -> dict:
    """Gradients of images and soft targets against autograd of the reference."""
    recipe = Recipe(switch_prob=METHODS[method], pairing=PARTNERS[partner], p=0.8, smoothing=0.1)
    x, soft = images(EVEN, dtype, last), torch.rand(EVEN[0], 10, generator=seeded(1))
    grads = torch.randn(EVEN, generator=seeded(2)).to(dtype), torch.randn(soft.shape, generator=seeded(3))
    inputs = x.to(DEVICE, copy=True).requires_grad_(), soft.to(DEVICE, copy=True).requires_grad_()
    out, rows, plan = mixed(recipe, *inputs, 4)
    got = torch.autograd.grad((out, rows), inputs, [g.to(DEVICE) for g in grads])
    twins = x.requires_grad_(), soft.requires_grad_()
    want = torch.autograd.grad(reference.mix(*twins, recipe, plan=draw_of(plan))[:2], twins, grads)
    assert got[0].stride() == x.stride(), "memory format of the gradient"
    close("target gradient", got[1], want[1], GRADIENT_TOLERANCE[F32])
    return close("image gradient", got[0], want[0], GRADIENT_TOLERANCE[dtype])


def check_cpu_twin(partner: str) -> dict:
    """The same seed gives the same plan on both devices, and the same CutMix pixels."""
    x, y = images(ODD), torch.arange(ODD[0])
    for seed in range(3):
        options = {"partner": partner, "num_classes": 10, "return_plan": True}
        here = fused_cutmix(x, y, generator=seeded(seed), **options)
        there = fused_cutmix(x.to(DEVICE), y.to(DEVICE), generator=seeded(seed), **options)
        close("plan", there[2].packed, here[2].packed)
        close("pixels", there[0], here[0])
        close("targets", there[1], here[1], ROW_TOLERANCE)
    return {}


def check_cuda_generator() -> dict:
    random, x = torch.Generator(DEVICE).manual_seed(5), images(EVEN).to(DEVICE)
    for offset in (0, 4):
        _, plan = fused_cutmix(x, generator=random, return_plan=True)
        close("plan", plan.packed, pack(draw(plan.recipe, EVEN[0], *EVEN[2:], 5, offset)))
    return {}


def check_relaunch() -> dict:
    """The second call takes the cached launch, one on unaligned memory does not, and all agree."""
    taken, relaunch = [], launch.relaunch
    launch.relaunch = lambda *arguments: (taken.append(1), relaunch(*arguments))[1]
    try:
        x, counts, results = images(ODD, F16), [], []
        for view in ("", "", "unaligned", ""):
            results.append(fused_mixup(place(x, view), partner="flip", generator=seeded(0)))
            counts.append(len(taken))
    finally:
        launch.relaunch = relaunch
    assert counts == [0, 1, 1, 2], f"cached launches after each call: {counts}"
    assert all(torch.equal(results[0], r) for r in results), "results differ"
    return {}


def check_stream() -> dict:
    """Launched on the current stream: input that is still being written there is waited for."""
    x, side = images(EVEN).to(DEVICE), torch.cuda.Stream()
    want, late = fused_cutmix(x, generator=seeded(1)), torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # cycles: tens of milliseconds
        got = fused_cutmix(late.copy_(x), generator=seeded(1))
    side.synchronize()
    return close("pixels", got, want.cpu())


def check_large(method: str) -> dict:
    """A batch of more than 2**31 elements, its first and last samples against the reference."""
    recipe, elements = Recipe(switch_prob=METHODS[method], num_classes=10), torch.Size(LARGE).numel()
    if not DRY_RUN and torch.cuda.mem_get_info()[0] < 3 * elements:
        return {"skipped": "not enough memory"}
    x, y = torch.randint(0, 256, LARGE, dtype=U8, device=DEVICE), torch.randint(0, 10, LARGE[:1], device=DEVICE)
    got, rows, plan = mixed(recipe, x, y, 3, out=poison(torch.empty_like(x)))
    size = LARGE[2:] if recipe.has_box else (1, 1)
    close("plan", plan.packed, pack(draw(recipe, LARGE[0], *size, *rng.next_seed(seeded(3)))))
    picks = (0, 1, LARGE[0] // 2, LARGE[0] - 2, LARGE[0] - 1)
    return {"elements": elements, **close_to_plan(x, y, got, rows, recipe, draw_of(plan), picks)}


def check_fresh_draws(x: Tensor, y: Tensor, step: Callable[[], tuple]) -> dict:
    """Three steps, each right by its own plan, no two with the same draws."""
    plans = []
    for _ in range(3):
        got, rows, plan = step()
        result = close_to_plan(x, y, got, rows, plan.recipe, draw_of(plan), range(len(x)))
        plans.append(plan.packed.cpu().clone())
    assert not any(torch.equal(a, b) for a, b in pairwise(plans)), "the same draws twice"
    return result


def check_compile() -> dict:
    x, y, mix = images(EVEN).to(DEVICE), torch.arange(EVEN[0], device=DEVICE), FusedMix(num_classes=10)
    backend = "aot_eager" if DRY_RUN else "inductor"
    step = torch.compile(lambda x, y: mix(x * 1.0, y, return_plan=True), fullgraph=True, backend=backend)
    return check_fresh_draws(x, y, lambda: step(x, y))


def check_graph(method: str, warmed: bool) -> dict:
    """Capture and replay. Not `warmed`: after eager calls only, which launch a variant without `state`."""
    x, y = images(EVEN, BF16 if warmed else F16).to(DEVICE), torch.arange(EVEN[0], device=DEVICE)
    mix = FusedMix(num_classes=10, mixup_alpha=0.4, switch_prob=METHODS[method], partner="flip")
    with torch.cuda.stream(torch.cuda.Stream()):
        mix(x, y, return_plan=True)
        if warmed:
            state = rng.graph_state(x.device)
            torch.ops.fusedmix.mix(x, y, *(None,) * 5, state, 0, 0, 0, *mix.recipe, True, None, None)
        torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = mix(x, y, return_plan=True)
    return check_fresh_draws(x, y, lambda: (poison(result[0]), graph.replay(), result)[2])


def checks() -> Iterator[tuple[str, Check]]:
    yield from ((str(case), partial(check_case, case, number)) for number, case in enumerate(cases()))
    for method in METHODS:
        yield f"gradients: {method}, matching", partial(check_gradients, method, "matching", F32, False)
        yield f"more than 2**31 elements: {method}", partial(check_large, method)
    yield "gradients: policy, exact, bfloat16", partial(check_gradients, "policy", "exact", BF16, True)
    yield "gradients: policy, permute", partial(check_gradients, "policy", "permute", F32, False)
    for partner in ("matching", "exact", "permute"):
        yield f"same plan as on the CPU: {partner}", partial(check_cpu_twin, partner)
    yield "torch.compile", check_compile
    if not DRY_RUN:
        yield from (("CUDA generator", check_cuda_generator), ("cached launch", check_relaunch))
        yield "current stream", check_stream
        yield from ((f"CUDA graph: {method}", partial(check_graph, method, True)) for method in METHODS)


def run_checks(todo: Iterable[tuple[str, Check]]) -> Iterator[dict]:
    for name, check in todo:
        start = time.perf_counter()
        try:
            entry = {"name": name, "ok": True, **check()}
        except Exception:
            entry = {"name": name, **failure()}
        torch.use_deterministic_algorithms(False)  # a case that failed may have left it on
        yield {**entry, "seconds": round(time.perf_counter() - start, 3)}
        synchronize()  # raises when the device is lost: nothing after that would mean anything


# ---- launches


def run_launches() -> Iterator[dict]:
    shape = EVEN if DRY_RUN else (64, 3, 32, 32)
    x, integers = images(shape).to(DEVICE), images(shape, U8).to(DEVICE)
    y, out, k = torch.zeros(shape[0], dtype=torch.int64, device=DEVICE), torch.empty_like(x), {"num_classes": 10}
    mix, normalise = FusedMix(num_classes=10), FusedMix(num_classes=10, mean=MEAN, std=STD, out_dtype=BF16)
    steps: dict[str, tuple[Callable[[], Any], int | None]] = {  # name: the call, kernels expected
        "fused_cutmix": (lambda: fused_cutmix(x, y, **k), 1),
        "fused_mixup": (lambda: fused_mixup(x, y, **k), 1),
        "FusedMix": (lambda: mix(x, y), 1),
        "FusedMix, uint8 to bfloat16, normalised": (lambda: normalise(integers, y), 1),
        "fused_cutmix, out=": (lambda: fused_cutmix(x, y, out=out, **k), 1),
        "fused_cutmix, in place": (lambda: fused_cutmix(out, y, inplace=True, **k), 1),
        "fused_mixup, pairs of classes": (lambda: fused_mixup(x, y), 1),
        "fused_mixup, lam=0.3": (lambda: fused_mixup(x, y, lam=0.3, **k), None),  # a fill besides
        "out.copy_(x)": (lambda: out.copy_(x), 1),
    }
    rounds, calls = (1, 1) if DRY_RUN else (30, 200)  # of calls that the launch queue holds
    for name, (step, expected) in steps.items():
        try:
            step()
            kernels, times = [], []
            if not DRY_RUN:
                step()
                with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
                    for _ in range(10):
                        step()
                    torch.cuda.synchronize()
                on_device = [e for e in profiled.events() if e.device_type == torch.autograd.DeviceType.CUDA]
                kernels = [e.name[:60] for e in on_device if "Sync" not in e.name]
            for _ in range(rounds):
                start = time.perf_counter()
                for _ in range(calls):
                    step()
                times.append((time.perf_counter() - start) / calls * 1e6)
                synchronize()
            count = None if DRY_RUN else len(kernels) / 10
            entry = {"ok": DRY_RUN or expected in (None, count), "expected": expected, "kernels": count}
            yield {"name": name, **entry, "kernel_names": sorted(set(kernels)), "host_us": round(median(times), 2)}
        except Exception:
            yield {"name": name, **failure()}


# ---- bench


class Bench(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    out_dtype: torch.dtype
    methods: tuple[str, ...] = tuple(METHODS)
    last: bool = False
    norm: bool = False
    in_place: bool = False
    classes: int = 1000
    promised: tuple[str, ...] = ()


BENCHES = (
    Bench("bfloat16", IMAGENET, BF16, BF16, promised=("mixup", "cutmix")),
    Bench("float32", IMAGENET, F32, F32, promised=("mixup", "cutmix")),
    Bench("float32 CIFAR", CIFAR, F32, F32, classes=100),
    Bench("uint8 to bfloat16, normalised", IMAGENET, U8, BF16, norm=True),
    Bench("bfloat16 channels_last", IMAGENET, BF16, BF16, last=True),
    Bench("bfloat16 in place", IMAGENET, BF16, BF16, ("cutmix",), in_place=True),
    Bench("float32 in place", IMAGENET, F32, F32, ("cutmix",), in_place=True),
)


def synchronize() -> None:
    if not DRY_RUN:
        torch.cuda.synchronize()


def captured(launches: list[Callable[[], Any]], sets: int) -> Callable[[], Any]:
    """A replayable CUDA graph of all the launches."""
    for step in launches[:sets]:
        step()
    synchronize()
    if DRY_RUN:
        return lambda: [step() for step in launches]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for step in launches:
            step()
    return graph.replay


def stamp() -> Any:
    if DRY_RUN:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def interleaved(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round, queued behind a lead-in so that no launch gap is timed."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for start in range(rounds):
        order = [names[(start + k) % len(names)] for k in range(len(names))]
        contenders[order[-1]]()
        stamps = [stamp(), *((contenders[name](), stamp())[1] for name in order)]
        synchronize()
        for name, (a, b) in zip(order, pairwise(stamps), strict=True):
            times[name].append(b - a if DRY_RUN else a.elapsed_time(b) / 1e3)
    return times


def run_bench(bench: Bench, l2_bytes: int) -> Iterator[dict]:
    """One row per method: time, GB/s, share of the bandwidth of `out.copy_(x)`, and a check of what was timed."""
    batch, elements = bench.shape[0], torch.Size(bench.shape).numel()
    copy_bytes = elements * (bench.dtype.itemsize + bench.out_dtype.itemsize)
    sets = max(2, -(-4 * l2_bytes // copy_bytes))  # of buffers, so that L2 holds nothing of the next launch
    calls = sets if DRY_RUN else sets * -(-max(int(8e9 / copy_bytes), 20) // sets)  # 2 ms a replay at 4 TB/s
    layout = torch.channels_last if bench.last else torch.contiguous_format
    xs = [(torch.rand(bench.shape, device=DEVICE) * 255).to(bench.dtype, memory_format=layout) for _ in range(sets)]
    outs = [torch.empty_like(x, dtype=bench.out_dtype) for x in xs]
    written = xs if bench.in_place else outs
    y = torch.randint(0, bench.classes, (batch,), device=DEVICE)
    rows = torch.empty((batch, bench.classes), device=DEVICE)
    norm = build_norm(MEAN, STD, bench.shape[1], xs[0].device) if bench.norm else None
    recipes = {m: Recipe(0.8, 1.0, 1.0, METHODS[m], num_classes=bench.classes) for m in bench.methods}

    def mix(recipe: Recipe, seed: int) -> None:
        x, out, none = xs[seed % sets], written[seed % sets], None
        launch.mix_into(out, rows, none, x, y, norm, none, none, none, none, seed, 0, 0, recipe, False)

    contenders = {"copy": captured([partial(outs[n % sets].copy_, xs[n % sets]) for n in range(calls)], sets)}
    for method, recipe in recipes.items():
        contenders[method] = captured([partial(mix, recipe, n) for n in range(calls)], sets)
    times = interleaved(contenders, 1 if DRY_RUN else 30)

    for method, recipe in recipes.items():
        seeds = range(0 if bench.in_place else calls - 1, calls)
        draws, moved = [draw(recipe, batch, *bench.shape[2:], seed, 0) for seed in seeds], copy_bytes
        if bench.in_place:  # of each box, the partner's pixels are read and the own ones written
            boxes = [((d.box[:, 2] - d.box[:, 0]) * (d.box[:, 3] - d.box[:, 1])).sum().item() for d in draws]
            moved = 2 * mean(boxes) * bench.shape[1] * bench.dtype.itemsize
        moved += batch * (8 + 4 * bench.classes)
        k = (calls - 1) % sets
        source = xs[k].clone()
        poison(rows)
        if bench.in_place:
            mix(recipe, calls - 1)
        else:
            poison(outs[k])
            contenders[method]()  # the very launches that were timed; the last of them is checked
        picks = (0, 1, batch // 2, batch - 1)
        check = partial(close_to_plan, source, y, written[k], rows, recipe, draws[-1], picks, norm)
        us, copy_us = ([t / calls * 1e6 for t in times[name]] for name in (method, "copy"))
        percent = [100 * b / a * moved / copy_bytes for a, b in zip(us, copy_us, strict=True)]
        spread = {name: (min(v), max(v)) for name, v in (("us", us), ("copy_us", copy_us), ("percent", percent))}
        checked = next(run_checks([("sub-batch", check)]))
        yield {
            "name": bench.name, "method": method, "shape": bench.shape, "ok": checked["ok"], "check": checked,
            "bytes": moved, "calls": calls, "buffer_sets": sets, "us": median(us), "gb_per_s": moved / median(us) / 1e3,
            "copy_us": median(copy_us), "copy_gb_per_s": copy_bytes / median(copy_us) / 1e3,
            "percent_of_copy": median(percent), "spread": spread, "promised": method in bench.promised,
        }  # fmt: skip


def run_benches(l2_bytes: int) -> Iterator[dict]:
    for bench in BENCHES:
        try:
            yield from run_bench(bench, l2_bytes)
        except Exception:
            yield {"name": bench.name, "method": "", **failure()}


# ---- environment, files, summary


def failure() -> dict:
    """The current exception, without folders and host name."""
    text = re.sub(r"(?:/[^\s/:\"',)]+)+/", "", traceback.format_exc()[-3000:])
    return {"ok": False, "error": text.replace(platform.node() or "\n", "host" if platform.node() else "\n")}


def environment() -> dict:
    found = {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}
    if DRY_RUN:
        return {**found, "gpu": "no GPU: DRY RUN, not a measurement", "l2_bytes": 0}
    gpu = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return {
        **found, "gpu": gpu.name, "capability": (gpu.major, gpu.minor), "driver": driver, "cuda": torch.version.cuda,
        "multiprocessors": gpu.multi_processor_count, "l2_bytes": gpu.L2_cache_size, "memory_bytes": gpu.total_memory,
    }  # fmt: skip


def summary(results: dict) -> bool:
    """Prints the results in short; True when nothing failed."""
    env, ran = results["environment"], results.get("correctness", [])
    entries = [entry for part in PARTS for entry in results.get(part, [])]
    print(f"\n{env['gpu']}, torch {env['torch']}, triton {env['triton']}")
    print(f"correctness: {sum(e['ok'] for e in ran)} of {len(ran)} checks passed", end=", ")
    print(f"{sum(bool(e.get('identical')) for e in ran)} identical bit for bit", end=", ")
    print(f"skipped: {[e['name'] for e in ran if 'skipped' in e]}")
    for e in (e for e in results.get("launches", []) if "host_us" in e):
        print(f"{e['name']:42} {e['kernels']!s:>5} kernels {e['host_us']:9.1f} us host")
    for e in (e for e in results.get("bench", []) if "us" in e):
        print(f"{e['name']:30} {e['method']:7} {e['us']:9.1f} us {e['gb_per_s']:7.0f} GB/s", end=" ")
        print(f"{e['percent_of_copy']:6.1f} % of copy, {e['us'] / e['copy_us']:5.2f} x its time")
    if "promise_kept" in results:
        print(f">= {PROMISE:g} % of copy at {IMAGENET}, bfloat16 and float32, both methods: {results['promise_kept']}")
    for e in (e for e in entries if not e["ok"]):
        error = e.get("error") or e.get("check", {}).get("error") or f"{e.get('kernels')} kernels"
        print(f"FAILED {e['name']} {e.get('method', '')}: {error.strip().splitlines()[-1][:150]}")
    return all(entry["ok"] for entry in entries) and "aborted" not in results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="through the interpreter, without a GPU")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if not DRY_RUN and not torch.cuda.is_available():
        print("bench/gpu.py needs a CUDA GPU and torch finds none (--dry-run does without)", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict = {"environment": environment(), "seconds": {}}
    # Last, since a capture that fails can leave the allocator unusable.
    unwarmed = [] if DRY_RUN else [("CUDA graph after eager calls only", partial(check_graph, "mixup", False))]
    benches = run_benches(results["environment"]["l2_bytes"])
    runs = (run_checks(checks()), run_launches(), benches, run_checks(unwarmed))
    for name, part, run in zip((*PARTS, "capture"), (*PARTS, "correctness"), runs, strict=True):
        if part not in parts or "aborted" in results:
            continue
        start, entries = time.perf_counter(), results.setdefault(part, [])
        try:
            for entry in run:  # each kept as it comes, whatever the next one does
                entries.append(entry)
        except Exception:
            results["aborted"] = failure()["error"]
            print(f"aborted in {name}:\n{results['aborted']}")
        results["seconds"][name] = round(time.perf_counter() - start, 1)
        if name == "bench":
            promised = [e for e in entries if e.get("promised")]
            results["promise_kept"] = len(promised) == 4 and all(e["percent_of_copy"] >= PROMISE for e in promised)
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0 if summary(results) else 1


if __name__ == "__main__":
    sys.exit(main())
