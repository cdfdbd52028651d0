"""A search over the launch table (kernels/config.py): tile size, tiles a program, warps, registers, stages.

Per hot variant. The table predicts that its own entry is the best; every other candidate is measured beside it, first
all of them in few rounds, then the best in many: more and fewer programs for the batch, other tiles. Tiles that are
rows or rectangles (resized and turned images) are also held to tiles of pixels in order, walks down rows to walks of
other lengths, to walks that read bytes instead of words and to walks that do not ask for the row that comes next. A
winner has to give the same result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import timing
import torch
from gpu_ahead import compile_ahead
from gpu_common import DEVICE, DRY_RUN, TOLERANCES, Steps, failure, poison, short
from gpu_variants import CHECKED, SEED, buffers, copies_of, resources, sized
from hot import HOT, Hot, Variant, hot, kernels_of

from bench.static import kernel_names
from fusedmix import launch
from fusedmix.kernels import config

WARP = 32
WARPS, TILES = ((4,), (1, 2)) if DRY_RUN else ((2, 4, 8), (2, 4, 8, 16))
WAVES = (2,) if DRY_RUN else (1, 2, 6)  # beside the table's
WALKED = (8,) if DRY_RUN else (64, 128, 512)  # pixels of a thread that walks, beside the table's
MOST = 32  # elements of a thread
SCREENING, FINAL, FINALISTS = (1, 1, 2) if DRY_RUN else (5, 25, 4)  # rounds, rounds, candidates
COPY = "copy"
TUNED = (  # the most used first
    "mixup bfloat16", "cutmix bfloat16", "augment: resized crop, mix", "augment: DeiT", "policy bfloat16",
    "mixup float32", "cutmix float32", "policy uint8 to bfloat16 normalised", "cutmix bfloat16 in place",
    "augment: resized crop", "list: cutmix, mixup, erasing bfloat16", "cutmix float32 CIFAR", "policy float32",
    "augment: affine to float32", "cutmix bfloat16 channels_last", "mixup float32 CIFAR", "erasing pixel bfloat16",
    "everything, erasing bfloat16",
)  # fmt: skip
DRY_TUNED = ("mixup bfloat16", "augment: resized crop, mix")


class Candidate(NamedTuple):
    """What to launch instead of the table's entry; None: as the table does."""

    block: int | None = None
    tiles: int | None = None
    num_warps: int | None = None
    walked: int | None = None  # pixels of a thread that walks down rows, in all images; 0: tiles of pixels in order
    waves: int | None = None  # of programs, at the least, where there are tiles enough
    prefetches: bool = True
    words: bool = True  # where walks read them
    capped: bool = True  # registers, by the table
    num_stages: int | None = None

    def __str__(self) -> str:
        said = []
        if self.block and self.num_warps:
            said.append(
                f"{self.block // (WARP * self.num_warps)} a thread x {self.num_warps} warps x {self.tiles} tiles"
            )
        if self.walked is not None:
            said.append(f"walks of {self.walked} pixels a thread" if self.walked else "tiles of pixels in order")
        said += [f"{self.waves} waves"] if self.waves else []
        said += ["no prefetch"] * (not self.prefetches) + ["bytes"] * (not self.words)
        said += ["registers not capped"] * (not self.capped)
        said += [f"{self.num_stages} stages"] if self.num_stages else []
        return ", ".join(said) or "the table's"


TABLE = Candidate()


@contextmanager
def tuned(candidate: Candidate) -> Iterator[None]:
    """All launches inside are prepared by the candidate instead of the table."""

    def by(table: Any) -> Any:
        def prepare(shape: Any, _: Any = None, *rest: Any) -> Any:
            c = candidate
            entry = config.Launch(c.block, c.tiles, c.num_warps) if c.block and c.tiles and c.num_warps else None
            prepared = table(shape, entry, *rest)
            constants = dict(zip(kernel_names(prepared), prepared.constants, strict=True))
            if not c.prefetches:
                constants["PREFETCHES"] = False
            if not c.words:
                constants.update(PAIRS=False)
            prepared.constants = tuple(constants.values())
            if not c.capped:
                prepared.options.pop("maxnreg", None)
            if c.num_stages:
                prepared.options["num_stages"] = c.num_stages
            return prepared

        return prepare

    changed: dict[str, Any] = {"prepare": by(launch.prepare), "prepare_augment": by(launch.prepare_augment)}
    if candidate.walked == 0:
        changed["has_rectangles"] = lambda shape: False
    elif candidate.walked:
        changed["programs_at_once"] = lambda *_: 0  # so long, whatever the batch
    table = {"WALKED_PIXELS": candidate.walked or config.WALKED_PIXELS, "WAVES": candidate.waves or config.WAVES}
    with patch.multiple(launch, _prepared={}, **changed), patch.multiple(config, **table):
        yield


def table_entry(variant: Variant, batch: int) -> dict[str, int]:
    """What the table launches for a batch: BLOCK, TALL, TILES, VEC, WALKS, PAIRS, PREFETCHES and warps."""
    few = hot(variant, 2, DEVICE)
    with kernels_of(batch, 2), tuned(TABLE), patch.object(launch, "run", lambda *_: None):
        few.launch(SEED)
        (prepared,) = launch._prepared.values()
    constants = dict(zip(kernel_names(prepared), prepared.constants, strict=True))
    names = "BLOCK", "TALL", "TILES", "VEC", "WALKS", "PAIRS", "PREFETCHES"
    found = {name: int(constants.get(name, 0)) for name in names}
    return {**found, "num_warps": prepared.options["num_warps"]}


def candidates(variant: Variant, batch: int) -> list[Candidate]:
    """The table's entry, then the others, those close to it first."""
    entry = table_entry(variant, batch)
    waves = [Candidate(waves=n) for n in WAVES]
    if entry["WALKS"]:
        lengths = [TABLE, *waves, *(Candidate(walked=n) for n in WALKED)]
        quiet = [c._replace(prefetches=False) for c in lengths] if entry["PREFETCHES"] else []
        quiet = [TABLE._replace(words=False), *quiet] if entry["PAIRS"] else quiet
        others = [Candidate(walked=0), *(Candidate(4 * WARP * w, t, w, 0) for w, t in product(WARPS, TILES))]
        return [*lengths, others[0], *quiet, *others[1:]]
    geometry = variant.geometry
    elements = geometry.height * geometry.width if geometry else torch.Size(variant.shape[1:]).numel()
    now = entry["BLOCK"], entry["TILES"], entry["num_warps"]
    found = set()
    for multiple, warps, tiles in product((1,) if DRY_RUN else (1, 2, 4), WARPS, TILES):
        block = entry["VEC"] * multiple * WARP * warps
        if entry["VEC"] * multiple <= MOST and block < 2 * elements:
            found.add((block, min(tiles, max(1, -(-elements // block))), warps))

    def distance(one: tuple[int, int, int]) -> tuple[int, ...]:
        return sum(abs(a.bit_length() - b.bit_length()) for a, b in zip(one, now, strict=True)), *one

    flat = [Candidate(walked=0)] if entry["TALL"] else []
    return [TABLE, *waves, *flat, *(Candidate(*one) for one in sorted(found - {now}, key=distance))]


def search(name: str, number: int, total: int, l2_bytes: int) -> Iterator[dict]:
    ends = timing.budget.left() / max(total - number, 1)  # seconds for this variant
    stop = timing.budget.left() - 0.8 * ends
    variant, batch = sized(HOT[name])
    sets = buffers(variant, batch, l2_bytes)
    calls = timing.calls_a_graph(sets[0].bytes_moved(0), len(sets))
    graphs: dict[Any, timing.Call] = {COPY: timing.captured(copies_of(sets, calls), 1)}
    notes: dict[Any, dict] = {}

    def add(candidate: Candidate) -> None:
        if candidate in notes:
            return
        try:
            with tuned(candidate):
                steps = [partial(sets[n % len(sets)].launch, n) for n in range(calls)]
                graphs[candidate] = timing.captured(steps, len(sets))
                notes[candidate] = resources()
        except Exception:
            notes[candidate] = {"error": failure()["error"].strip().splitlines()[-1][:200]}

    wanted = candidates(variant, batch)
    for candidate in wanted:
        if not DRY_RUN and len(notes) > 1 and timing.budget.left() < stop:
            break
        add(candidate)
    screened = {c: median(t) for c, t in timing.interleaved(graphs, SCREENING, least=SCREENING).items() if c != COPY}
    best = sorted(screened, key=screened.__getitem__)
    for extra in (best[0]._replace(capped=False), best[0]._replace(num_stages=1), best[0]._replace(num_stages=4)):
        add(extra)
    finalists = {*best[:FINALISTS], TABLE, *(c for c in graphs if c != COPY and c not in screened)}
    times = timing.interleaved({c: graphs[c] for c in graphs if c in finalists or c == COPY}, FINAL)
    us = {c: median(t) / calls * 1e6 for c, t in times.items()}
    order = sorted((c for c in us if c != COPY), key=us.__getitem__)
    winner = next((c for c in order if c == TABLE or same_result(sets[0], c)), TABLE)
    moved, copied = sets[0].bytes_moved(0), 2 * sets[0].out.nbytes
    percent = {c: 100 * moved / us[c] / (copied / us[COPY]) for c in order}
    yield {
        "variant": name, "shape": [batch, *variant.shape[1:]], "dtype": short(variant.x_dtype),
        "out_dtype": short(sets[0].out.dtype), "ok": True, "tried": len(screened), "of": len(wanted),
        "table": table_entry(variant, batch), "current_us": us[TABLE], "current_percent": percent[TABLE],
        "best": winner._asdict(), "best_is": str(winner), "best_us": us[winner], "best_percent": percent[winner],
        "gain_percent": 100 * (us[TABLE] / us[winner] - 1),
        "different_result": [str(c) for c in order[: order.index(winner)]],
        "finalists": [
            {"candidate": str(c), "us": us[c], **notes[c], "seconds a graph": timing.quartiles(times[c])} for c in order
        ],
        "screened": {str(c): screened[c] / calls * 1e6 for c in best},
        "failed": {str(c): n["error"] for c, n in notes.items() if "error" in n},
    }  # fmt: skip


def same_result(one: Hot, candidate: Candidate) -> bool:
    """The winner must write what the table's entry writes, images and rows.

    Bit for bit, but within the bounds of the checks where the one walks down rows and joins steps, the other does not.
    """
    source, results = one.x.clone(), []
    for each in (TABLE, candidate):
        poison(one.out)
        one.x.copy_(source)
        if one.rows is not None:
            poison(one.rows)
        with tuned(each):
            one.launch(SEED)
        results.append((one.out.clone(), None if one.rows is None else one.rows.clone()))
    (image, rows), (other, other_rows) = results
    geometry = one.variant.geometry
    joins = geometry is not None and not geometry.turns and candidate.walked == 0
    bounds = TOLERANCES[image.dtype] if joins else (0.0, 0.0)
    near = (image.double() - other.double()).abs() <= bounds[0] + bounds[1] * other.double().abs()
    return bool(near.all()) and (rows is None or torch.equal(rows, other_rows))


def compile_one(name: str, candidate: Candidate) -> None:
    variant, batch = sized(HOT[name])
    few = hot(variant, CHECKED, DEVICE)
    with kernels_of(batch, CHECKED), tuned(candidate):
        few.launch(SEED)


def compilations() -> list[timing.Call]:
    """One call a candidate that compiles it."""
    return [partial(compile_one, name, c) for name in names() for c in candidates(*sized(HOT[name]))]


def names() -> tuple[str, ...]:
    return DRY_TUNED if DRY_RUN else TUNED


def steps(script: Path, l2_bytes: int) -> Steps:
    yield "compiled ahead", partial(compile_ahead, script, "tune")
    yield from ((name, partial(search, name, n, len(names()), l2_bytes)) for n, name in enumerate(names()))


def config_lines(results: dict) -> list[str]:
    """What to put into the launch table, from gpu.json's "tune"."""
    return [
        f"{e['variant']}: {e['best_is']}, {e['best_percent']:.1f} % of a copy's bandwidth, {e['gain_percent']:+.1f} % "
        f"over the table's {e['table']}; {e['best']}"
        for e in results.get("tune", []) if "best" in e
    ]  # fmt: skip
