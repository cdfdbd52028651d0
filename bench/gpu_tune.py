"""A search over the launch table (kernels/config.py): tile size, tiles a program, warps, registers, stages.

Per method, dtypes, destination and shape. The table predicts that its own entry is the best; every other candidate is
measured beside it, first all of them in few rounds, then the best in many. A winner has to give the same bits.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import timing
import torch
from gpu_common import DRY_RUN, METHODS, Steps, failure, poison
from gpu_kernels import POINTS, Buffers, Point, calls_of

from fusedmix import launch
from fusedmix.kernels import config
from fusedmix.recipe import Recipe

WARP = 32
WARPS, TILES = ((4,), (1, 2)) if DRY_RUN else ((2, 4, 8), (2, 4, 8, 16))
SCREENING, FINAL, FINALISTS = (1, 1, 2) if DRY_RUN else (5, 25, 4)  # rounds, rounds, candidates
COPY = "copy"
SEED = 7


class Candidate(NamedTuple):
    """An entry of the launch table; the last two are options of the compiler."""

    block: int
    tiles: int
    num_warps: int
    max_registers: int | None = config.MAX_REGISTERS
    num_stages: int | None = None  # Triton's own

    def __str__(self) -> str:
        registers = f", at most {self.max_registers} registers" if self.max_registers else ", registers not capped"
        stages = f", {self.num_stages} stages" if self.num_stages else ""
        each = self.block // (WARP * self.num_warps)
        return f"{each} a thread x {self.num_warps} warps x {self.tiles} tiles{registers}{stages}"


class Variant(NamedTuple):
    point: Point
    method: str
    in_place: bool = False

    def __str__(self) -> str:
        return f"{self.point.name}, {self.method}{', in place' if self.in_place else ''}"

    @property
    def recipe(self) -> Recipe:
        return Recipe(0.8, 1.0, 1.0, METHODS[self.method], num_classes=self.point.classes)

    @property
    def sample_elements(self) -> int:
        return self.point.elements // self.point.shape[0]


def variants() -> list[Variant]:
    """The most used first."""
    points = {p.name: p for p in POINTS}
    wanted: list[tuple[str, tuple[str, ...], bool]] = [
        ("bf16", ("mixup", "cutmix", "policy"), False), ("fp32", ("mixup", "cutmix", "policy"), False),
        ("u8 to bf16, norm", ("mixup", "cutmix"), False), ("bf16", ("cutmix",), True),
        ("CIFAR fp32", ("mixup", "cutmix"), False), ("bf16 channels_last", ("cutmix",), False),
        ("fp32", ("cutmix",), True), ("bf16", ("mixup",), True), ("u8 to bf16, norm", ("policy",), False),
    ]  # fmt: skip
    found = [Variant(points[n], m, here) for n, ms, here in wanted if n in points for m in ms]
    return found[:2] if DRY_RUN else found


def current(variant: Variant) -> Candidate:
    sizes = variant.point.dtype.itemsize, variant.point.out_dtype.itemsize
    entry = config.launch_for(variant.sample_elements, *sizes)
    return Candidate(entry.block, entry.tiles, entry.num_warps)


def candidates(variant: Variant) -> list[Candidate]:
    """The table's entry, then the others, those close to it first."""
    now, point = current(variant), variant.point
    vector = config.VECTOR_BYTES // max(point.dtype.itemsize, point.out_dtype.itemsize)
    found = {now}
    for multiple, warps, tiles in product((1,) if DRY_RUN else (1, 2, 4), WARPS, TILES):
        block = vector * multiple * WARP * warps
        if vector * multiple <= 32 and block < 2 * variant.sample_elements:
            found.add(Candidate(block, min(tiles, max(1, -(-variant.sample_elements // block))), warps))

    def distance(c: Candidate) -> tuple[float, ...]:
        return (abs(c.block.bit_length() - now.block.bit_length()) + abs(c.tiles.bit_length() - now.tiles.bit_length())
                + abs(c.num_warps.bit_length() - now.num_warps.bit_length()), *c[:3])  # fmt: skip

    return [now, *sorted(found - {now}, key=distance)]


@contextmanager
def tuned(candidate: Candidate) -> Iterator[None]:
    """All launches inside are prepared by the candidate instead of the table."""
    table = launch.prepare

    def prepare(shape: Any, override: Any = None, *rest: Any) -> Any:
        prepared = table(shape, config.Launch(candidate.block, candidate.tiles, candidate.num_warps), *rest)
        options = {k: v for k, v in prepared.options.items() if k != "maxnreg"}
        if candidate.max_registers and "maxnreg" in prepared.options:
            options["maxnreg"] = candidate.max_registers
        if candidate.num_stages:
            options["num_stages"] = candidate.num_stages
        prepared.options = options
        return prepared

    launch._prepared.clear()
    launch.prepare = prepare
    try:
        yield
    finally:
        launch.prepare = table
        launch._prepared.clear()


def resources() -> dict[str, Any]:
    """Registers and spills of the kernel that was prepared last."""
    for prepared in launch._prepared.values():
        compiled = prepared.compiled
        return {"registers": getattr(compiled, "n_regs", None), "spills": getattr(compiled, "n_spills", None)}
    return {}


def search(variant: Variant, number: int, total: int, l2_bytes: int) -> Iterator[dict]:
    ends = timing.budget.left() / max(total - number, 1)  # seconds for this variant
    stop = timing.budget.left() - 0.8 * ends
    buffers, recipe, point = Buffers(variant.point, l2_bytes), variant.recipe, variant.point
    calls = calls_of(point, buffers.sets)
    pairs = list(zip(buffers.xs, buffers.outs, strict=True))
    copies = [partial(pairs[n % buffers.sets][1].copy_, pairs[n % buffers.sets][0]) for n in range(calls)]
    graphs: dict[Any, timing.Call] = {COPY: timing.captured(copies, buffers.sets)}
    notes: dict[Any, dict] = {}

    def add(candidate: Candidate) -> None:
        if candidate in notes:
            return
        try:
            with tuned(candidate):
                steps = [partial(buffers.launch, recipe, n, variant.in_place) for n in range(calls)]
                graphs[candidate] = timing.captured(steps, buffers.sets)
                notes[candidate] = resources()
        except Exception:
            notes[candidate] = {"error": failure()["error"].strip().splitlines()[-1][:200]}

    wanted = candidates(variant)
    for candidate in wanted:
        if not DRY_RUN and len(notes) > 1 and timing.budget.left() < stop:
            break
        add(candidate)
    now = current(variant)
    screened = {c: median(t) for c, t in timing.interleaved(graphs, SCREENING, least=SCREENING).items() if c != COPY}
    best = sorted(screened, key=screened.__getitem__)
    for extra in (best[0]._replace(max_registers=None), best[0]._replace(num_stages=1), best[0]._replace(num_stages=4)):
        add(extra)
    finalists = {*best[:FINALISTS], now, *(c for c in graphs if c != COPY and c not in screened)}
    times = timing.interleaved({c: graphs[c] for c in graphs if c in finalists or c == COPY}, FINAL)
    us = {c: median(t) / calls * 1e6 for c, t in times.items()}
    order = sorted((c for c in us if c != COPY), key=us.__getitem__)
    winner = next((c for c in order if c == now or same_bits(buffers, variant, now, c)), now)
    percent = {c: 100 * us[COPY] / us[c] for c in us}
    yield {
        **point.described(), "name": str(variant), "method": variant.method, "in_place": variant.in_place, "ok": True,
        "sample_elements": variant.sample_elements, "tried": len(screened), "of": len(wanted),
        "current": now._asdict(), "predicted": str(now), "current_us": us[now], "current_percent": percent[now],
        "best": winner._asdict(), "best_is": str(winner), "best_us": us[winner], "best_percent": percent[winner],
        "gain_percent": 100 * (us[now] / us[winner] - 1),
        "different_bits": [str(c) for c in order[: order.index(winner)]],
        "finalists": [
            {"candidate": str(c), "us": us[c], **notes[c], "seconds a graph": timing.quartiles(times[c])} for c in order
        ],
        "screened": {str(c): screened[c] / calls * 1e6 for c in best},
        "failed": {str(c): n["error"] for c, n in notes.items() if "error" in n},
    }  # fmt: skip


def same_bits(buffers: Buffers, variant: Variant, one: Candidate, other: Candidate) -> bool:
    """The winner must write what the table's entry writes, images and rows."""
    k, results = SEED % buffers.sets, []
    source = buffers.xs[k].clone()
    for candidate in (one, other):
        buffers.xs[k].copy_(source)
        poison(buffers.outs[k])
        poison(buffers.rows)
        with tuned(candidate):
            buffers.launch(variant.recipe, SEED, variant.in_place)
        written = buffers.xs[k] if variant.in_place else buffers.outs[k]
        results.append((written.clone(), buffers.rows.clone()))
    return all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# Compiled ahead, by other processes, into Triton's cache on disk.


def precompile(share: str) -> Iterator[dict]:
    """Compiles the k-th of n shares of all candidates; `share`: "k/n"."""
    k, n = map(int, share.split("/"))
    todo = [(v, c) for v in variants() for c in candidates(v)]
    for variant, candidate in todo[k::n]:
        batch = min(variant.point.shape[0], 16)
        buffers = Buffers(variant.point._replace(shape=(batch, *variant.point.shape[1:])), 0)
        try:
            with tuned(candidate):
                buffers.launch(variant.recipe, 0, variant.in_place)
        except Exception:
            yield {"name": f"{variant}, {candidate}", **failure()}


def compile_ahead(script: Path) -> Iterator[dict]:
    workers = min(12, (os.cpu_count() or 2) - 2)
    if DRY_RUN or workers < 2:
        return
    limit, start = 0.45 * timing.budget.left(), timing.budget.left()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), "--only", "precompile", "--minutes", str(limit / 60), "--out"]
        children = [
            subprocess.Popen([*command, f"{folder}/{k}", "--share", f"{k}/{workers}"],
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


def steps(script: Path, l2_bytes: int) -> Steps:
    todo = variants()
    yield "compiled ahead", partial(compile_ahead, script)
    yield from ((str(v), partial(search, v, n, len(todo), l2_bytes)) for n, v in enumerate(todo))


def config_lines(results: dict) -> list[str]:
    """What to put into the launch table, from gpu.json's "tune"."""
    lines = []
    for e in (e for e in results.get("tune", []) if "best" in e):
        b = e["best"]
        lines.append(
            f"Launch({b['block']}, {b['tiles']}, {b['num_warps']})  # {e['name']}: {e['sample_elements']} elements, "
            f"{e['dtype']} to {e['out_dtype']}; {e['best_is']}; {e['best_percent']:.1f} % of copy, "
            f"{e['gain_percent']:+.1f} % over {e['predicted']}"
        )
    return lines
