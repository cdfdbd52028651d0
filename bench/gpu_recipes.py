"""Whole recipes from a uint8 batch to bfloat16 on a GPU: images a second, bytes, launches, beside a copy of the result.

Contenders and gate are those of the CPU bench (bench/recipes.py), with the peers that need a GPU besides.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import timing
import torch
from gpu_common import BF16, DEVICE, DRY_RUN, U8, Steps, device_images, failure, short, without_paths
from gpu_compare import COMPILE_S, ROUNDS, diagnosed, free, launches_of, measured
from peers import OURS, Wrong
from recipes import GPU_PEERS, PEERS, RECIPES, Call, Contender, K, Recipe, admitted, compiled, ours
from torch import Tensor

BATCH = 256
COPY = "out.copy_(t)"
SLOW = "image by image"  # loops over samples


def of_gpu(recipe: Recipe) -> Recipe:
    batch, side = (6, 24) if DRY_RUN else (max(BATCH, recipe.shape[0]), recipe.shape[2])
    size = (20, 20) if DRY_RUN and recipe.crop != "padded" else (side, side) if DRY_RUN else recipe.size
    return recipe._replace(shape=(batch, 3, side, side), size=size, dtype=BF16)


def contenders() -> list[Contender]:
    modes = [] if DRY_RUN else [Contender("PyTorch by hand, torch.compile max-autotune", partial(compiled, mode="max-autotune-no-cudagraphs"))]  # noqa: E501  # fmt: skip
    peers = [peer for peer in PEERS if not (DRY_RUN and "compile" in peer.name)]
    return [Contender(OURS, ours), *peers, *GPU_PEERS, *modes]


class Sets:
    """Inputs and results to rotate over, so that L2 holds nothing of the next call."""

    def __init__(self, recipe: Recipe, l2_bytes: int):
        self.count = timing.buffer_sets(recipe.elements * (1 + recipe.dtype.itemsize), l2_bytes)
        shape = (recipe.shape[0], 3, *recipe.size)
        self.xs = [device_images(recipe.shape, U8) for _ in range(self.count)]
        self.outs = [torch.empty(shape, dtype=recipe.dtype, device=DEVICE) for _ in range(self.count)]
        self.spares = [torch.zeros_like(out) for out in self.outs]
        self.y = torch.arange(recipe.shape[0], device=DEVICE) % K

    def timed(self, call: Call) -> timing.Timed:
        held: dict[int, Any] = {}

        def step(k: int) -> Any:
            held[k % self.count] = call(self.xs[k % self.count], self.y)

        return timing.Timed(step, held.clear)

    def copy(self, k: int) -> Tensor:
        return self.outs[k % self.count].copy_(self.spares[k % self.count])


def compare(recipe: Recipe, l2_bytes: int) -> Iterator[dict]:
    sets = Sets(recipe, l2_bytes)
    entries: dict[str, dict[str, Any]] = {}
    ready: dict[str, timing.Timed] = {}
    described = {
        "recipe": recipe.name, "shape": list(recipe.shape), "size": list(recipe.size), "dtype": "uint8",
        "out_dtype": short(recipe.dtype), "destination": "fresh", "ok": True,
    }  # fmt: skip
    for contender in contenders():
        entry = entries[contender.name] = {**described, "contender": contender.name}
        if contender.note:
            entry["note"] = contender.note
        if timing.budget.left() < (0 if DRY_RUN else COMPILE_S if "compile" in contender.name else 3):
            entry["status"] = "no time left"
            continue
        try:
            call = admitted(contender, recipe, DEVICE)
            candidate = sets.timed(call)
            candidate.step(0)
            candidate.step(1)
            if SLOW not in contender.name:  # its thousands of launches take the profiler long
                entry |= diagnosed("kernels", partial(launches_of, candidate))
                candidate.kernels = entry.get("kernels")
            ready[contender.name] = timing.prepare(candidate)
        except ImportError as error:
            entry["status"] = without_paths(f"not installed: {error}")[:300]
        except Wrong as error:
            entry |= {"ok": contender.name != OURS, "status": f"wrong: {without_paths(str(error))}"}
        except Exception:
            entry |= {**failure(), "ok": contender.name != OURS, "status": "failed"}
    ready[COPY] = timing.prepare(timing.Timed(sets.copy, kernels=1))
    times = timing.queued(ready, ROUNDS)
    moved = recipe.elements * (1 + recipe.dtype.itemsize)
    for name, entry in entries.items():
        if name in times:
            copied = 2 * recipe.elements * recipe.dtype.itemsize
            entry |= measured(times[name], times[COPY]["us"], moved, copied)
            entry["images_per_s"] = recipe.shape[0] / entry["us"] * 1e6
        yield entry
    ready.clear()
    torch.compiler.reset()
    free()


def steps(l2_bytes: int) -> Steps:
    yield from ((recipe.name, partial(compare, of_gpu(recipe), l2_bytes)) for recipe in RECIPES)
