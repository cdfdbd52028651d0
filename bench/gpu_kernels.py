"""The kernels alone: GB/s beside a device copy of as many bytes in the same run; and what each public call launches."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import mean, median
from typing import Any, NamedTuple

import timing
import torch
from gpu_common import (
    BF16,
    DEVICE,
    DRY_RUN,
    EVEN,
    F32,
    METHODS,
    U8,
    Steps,
    close_to_plan,
    device_images,
    failure,
    images,
    poison,
    short,
)
from peers import MEAN, STD
from torch import Tensor

from fusedmix import (
    CutMix,
    FusedMix,
    Mixup,
    RandomErasing,
    fused_cutmix,
    fused_cutout,
    fused_fmix,
    fused_gridmask,
    fused_mixup,
    fused_random_erasing,
    fused_resizemix,
    launch,
    recipes,
)
from fusedmix.checks import build_norm
from fusedmix.recipe import Recipe
from fusedmix.reference.sampling import draw


class Point(NamedTuple):
    """A batch to be timed: shape, dtypes and layout of the images, number of classes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    out_dtype: torch.dtype
    last: bool = False
    norm: bool = False
    classes: int = 1000
    promised: bool = False  # large enough for the promises of bandwidth

    @property
    def elements(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def image_bytes(self) -> int:
        """Read and written once."""
        return self.elements * (self.dtype.itemsize + self.out_dtype.itemsize)

    @property
    def label_bytes(self) -> int:
        """int64 classes read, float32 rows written."""
        return self.shape[0] * (8 + 4 * self.classes)

    def described(self) -> dict:
        return {
            "point": self.name, "shape": list(self.shape), "dtype": short(self.dtype),
            "out_dtype": short(self.out_dtype), "classes": self.classes,
        }  # fmt: skip


IMAGENET = (256, 3, 224, 224)
POINTS = (
    Point("bf16", IMAGENET, BF16, BF16, promised=True),
    Point("fp32", IMAGENET, F32, F32, promised=True),
    Point("CIFAR fp32", (512, 3, 32, 32), F32, F32, classes=100),
    Point("u8 to bf16, norm", IMAGENET, U8, BF16, norm=True, promised=True),
    Point("bf16 B=1024", (1024, 3, 224, 224), BF16, BF16, promised=True),
    Point("fp32 512x512", (64, 3, 512, 512), F32, F32, promised=True),
    Point("bf16 channels_last", IMAGENET, BF16, BF16, last=True, promised=True),
    Point("bf16 K=21841", IMAGENET, BF16, BF16, classes=21841),
    Point("fp32 B=1024", (1024, 3, 224, 224), F32, F32, promised=True),
)
if DRY_RUN:
    small = {"bf16": (4, 3, 8, 8), "CIFAR fp32": (6, 3, 8, 8), "u8 to bf16, norm": (4, 3, 8, 8)}
    POINTS = tuple(p._replace(shape=small[p.name], classes=10, promised=False) for p in POINTS if p.name in small)
IN_PLACE = ("bf16", "fp32")


# Public calls: launches, host time, memory.


def launch_steps() -> Steps:
    shape = EVEN if DRY_RUN else (64, 3, 32, 32)
    x, integers = images(shape).to(DEVICE), images(shape, U8).to(DEVICE)
    y, out, k = torch.zeros(shape[0], dtype=torch.int64, device=DEVICE), torch.empty_like(x), {"num_classes": 10}
    mix, normalise = FusedMix(num_classes=10), FusedMix(num_classes=10, mean=MEAN, std=STD, out_dtype=BF16)
    listed = FusedMix([(CutMix(1.0), 0.4), (Mixup(0.2), 0.3)], erase=RandomErasing(p=0.25), num_classes=10).to(DEVICE)
    cifar = recipes.cifar10(10, size=shape[2], mix=[(CutMix(), 0.5)]).to(DEVICE)
    deit = recipes.deit(10, size=shape[2]).to(DEVICE)
    lam = torch.rand(shape[0], device=DEVICE)
    calls: dict[str, tuple[Callable[[], Any], int | None]] = {  # name: the call, launches expected
        "fused_cutmix": (lambda: fused_cutmix(x, y, **k), 1),
        "fused_mixup": (lambda: fused_mixup(x, y, **k), 1),
        "FusedMix": (lambda: mix(x, y), 1),
        "FusedMix, uint8 to bfloat16, normalised": (lambda: normalise(integers, y), 1),
        "fused_cutmix, out=": (lambda: fused_cutmix(x, y, out=out, **k), 1),
        "fused_mixup, out=": (lambda: fused_mixup(x, y, out=out, **k), 1),
        "fused_cutmix, in place": (lambda: fused_cutmix(out, y, inplace=True, **k), 1),
        "fused_mixup, in place": (lambda: fused_mixup(out, y, inplace=True, **k), 1),
        "fused_mixup, pairs of classes": (lambda: fused_mixup(x, y), 1),
        "fused_cutmix, plan returned": (lambda: fused_cutmix(x, y, return_plan=True, **k), 1),
        'fused_mixup, partner="permute"': (lambda: fused_mixup(x, y, partner="permute", **k), 1),
        "fused_mixup, lam=tensor": (lambda: fused_mixup(x, y, lam=lam, **k), 1),
        "fused_mixup, lam=0.3": (lambda: fused_mixup(x, y, lam=0.3, **k), None),  # a fill besides
        "fused_cutout": (lambda: fused_cutout(x, length=8), 1),
        "fused_random_erasing": (lambda: fused_random_erasing(x), 1),
        "fused_gridmask": (lambda: fused_gridmask(x, d=(8, 16)), 1),
        "fused_resizemix": (lambda: fused_resizemix(x, y, **k), 1),
        "FusedMix, a list and an erasing": (lambda: listed(x, y), 1),
        "FusedAugment, CIFAR with CutMix": (lambda: cifar(integers, y), 1),
        "FusedAugment, DeiT": (lambda: deit(integers, y), 1),
        "fused_fmix": (lambda: fused_fmix(x, y, **k), None),  # the Fourier step besides
        "out.copy_(x)": (lambda: out.copy_(x), 1),
    }
    yield from ((name, partial(count_launches, step, expected)) for name, (step, expected) in calls.items())


def count_launches(step: Callable[[], Any], expected: int | None) -> Iterator[dict]:
    calls = 1 if DRY_RUN else 10
    step()
    step()
    host = timing.host_us(step, *((1, 1) if DRY_RUN else (200, 30)))
    entry = {"expected": expected, "host_us": round(host["median"], 2), "host": host, "kernels": None}
    try:
        kernels = timing.kernels_of(step, calls)
        entry |= {"kernels": kernels and len(kernels) / calls, "kernel_names": sorted(set(kernels or []))}
        entry["extra_bytes"] = timing.extra_memory(step)
    except Exception:
        yield {**entry, **failure()}
        return
    yield {**entry, "ok": DRY_RUN or expected in (None, entry["kernels"])}


# The kernel in graphs of many launches.


class Buffers:
    """Sets of inputs and outputs of a point, to rotate over."""

    def __init__(self, point: Point, l2_bytes: int):
        self.sets = timing.buffer_sets(point.image_bytes, l2_bytes)
        self.xs = [device_images(point.shape, point.dtype, point.last) for _ in range(self.sets)]
        self.outs = [torch.empty_like(x, dtype=point.out_dtype) for x in self.xs]
        self.y = torch.randint(0, point.classes, point.shape[:1], device=DEVICE)
        self.rows = torch.empty((point.shape[0], point.classes), device=DEVICE)
        self.norm = build_norm(MEAN, STD, point.shape[1], self.xs[0].device) if point.norm else None

    def launch(self, recipe: Recipe, seed: int, in_place: bool = False, rows: Tensor | None = None) -> None:
        k, none = seed % self.sets, None
        x, rows = self.xs[k], self.rows if rows is None else rows
        out = x if in_place else self.outs[k]
        launch.mix_into(
            out, rows, none, x, self.y, self.norm, none, none, none, none, seed, 0, 0, recipe, False
        )  # fmt: skip


def bench_kernels(point: Point, in_place: bool, l2_bytes: int) -> Iterator[dict]:
    """One entry a method: time, GB/s, share of the bandwidth of `out.copy_(x)`, and a check of what was timed."""
    buffers = Buffers(point, l2_bytes)
    calls, batch = timing.calls_a_graph(point.image_bytes, buffers.sets), point.shape[0]
    recipes = {m: Recipe(0.8, 1.0, 1.0, s, num_classes=point.classes) for m, s in METHODS.items()}
    pairs = list(zip(buffers.xs, buffers.outs, strict=True))
    copies = [partial(pairs[n % buffers.sets][1].copy_, pairs[n % buffers.sets][0]) for n in range(calls)]
    contenders = {"copy": timing.captured(copies, buffers.sets)}
    failed = {}
    for method, recipe in recipes.items():
        steps = [partial(buffers.launch, recipe, n, in_place) for n in range(calls)]
        try:
            contenders[method] = timing.captured(steps, buffers.sets)
        except Exception:
            failed[method] = failure()
    times = timing.interleaved(contenders, 1 if DRY_RUN else 30)
    for method, recipe in recipes.items():
        entry = {**point.described(), "method": method, "in_place": in_place, "promised": point.promised}
        if method in failed:
            yield {**entry, **failed[method]}
            continue
        seeds = range(0 if in_place else calls - 1, calls)
        drawn = [draw(recipe, batch, *point.shape[2:], seed, 0) for seed in seeds]
        moved = float(point.image_bytes)
        if in_place and method == "cutmix":  # of each box, the partner's pixels are read and the own ones written
            areas = [((d.box[:, 2] - d.box[:, 0]) * (d.box[:, 3] - d.box[:, 1])).sum().item() for d in drawn]
            moved = 2 * mean(areas) * point.shape[1] * point.dtype.itemsize
        moved += point.label_bytes
        checked = check_timed(buffers, point, recipe, calls - 1, in_place, contenders[method], drawn[-1])
        us, copy_us = ([t / calls * 1e6 for t in times[name]] for name in (method, "copy"))
        percent = [100 * b / a * moved / point.image_bytes for a, b in zip(us, copy_us, strict=True)]
        yield {
            **entry, **checked, "bytes": moved, "calls": calls, "buffer_sets": buffers.sets,
            "us": median(us), "gb_per_s": moved / median(us) / 1e3, "copy_us": median(copy_us),
            "copy_gb_per_s": point.image_bytes / median(copy_us) / 1e3, "percent_of_copy": median(percent),
            "times_of_copy": median(us) / median(copy_us),
            "spread": {"us": timing.quartiles(us), "copy_us": timing.quartiles(copy_us),
                       "percent": timing.quartiles(percent)},
        }  # fmt: skip


def check_timed(buffers: Buffers, point: Point, recipe: Recipe, seed: int, in_place: bool, replay, drawn) -> dict:
    """Checks the launches that were timed: a few samples of the last one against the reference."""
    k, batch = seed % buffers.sets, point.shape[0]
    source = buffers.xs[k].clone()
    poison(buffers.rows)
    if in_place:
        buffers.launch(recipe, seed, in_place)
    else:
        poison(buffers.outs[k])
        replay()
    written = buffers.xs[k] if in_place else buffers.outs[k]
    try:
        picks = sorted({0, 1, batch // 2, batch - 1})
        found = close_to_plan(source, buffers.y, written, buffers.rows, recipe, drawn, picks, buffers.norm)
    except Exception:
        return failure()
    return {"ok": True, **found}


def kernel_steps(l2_bytes: int) -> Steps:
    yield from ((p.name, partial(bench_kernels, p, False, l2_bytes)) for p in POINTS)
    for point in POINTS:
        if point.name in IN_PLACE:
            yield f"{point.name}, in place", partial(bench_kernels, point, True, l2_bytes)
