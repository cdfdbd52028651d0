"""Who is compared: CutMix and mixup of a batch and its int64 classes, per sample or with one draw for the batch.

A contender is made for a `Point` and run as `run(x, y, out)`, which returns (images, float32 rows). Those in place
write into `x`; those with destination "out" write into `out`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from peers import (
    ALPHA,
    HAND,
    MEAN,
    OURS,
    STD,
    TIMM,
    Run,
    boxes,
    composer,
    fused,
    kornia_v2,
    paper,
    scatter_rows,
    timm,
    torchvision_batch,
    torchvision_transform,
)
from torch import Tensor

from fusedmix.cpu import native

METHODS = ("cutmix", "mixup")
DESTINATIONS = ("fresh", "out", "in place")


@dataclass(frozen=True)
class Point:
    """A work point: float32 [B, C, H, W] to float32, or with `pipeline` uint8 to normalised bfloat16."""

    method: str
    shape: tuple[int, ...]
    num_classes: int = 10
    channels_last: bool = False
    pipeline: bool = False

    @property
    def out_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.pipeline else torch.float32

    @property
    def title(self) -> str:
        notes = [f"{self.num_classes} classes"] if self.num_classes != 10 else []
        notes += ["channels_last"] * self.channels_last + ["uint8 to normalised bfloat16"] * self.pipeline
        return ", ".join([f"{self.method} {list(self.shape)}", *notes])

    def batch(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.shape, generator=generator)
        if self.pipeline:
            x = (x * 256).to(torch.uint8)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, torch.randint(self.num_classes, self.shape[:1], generator=generator)


@dataclass(frozen=True)
class Contender:
    name: str
    destination: str
    make: Callable[[Point], Run]
    scope: str = "per sample"  # or "per pair", "per batch"
    compiled: bool = False


def of(make: Callable[..., Run], *arguments: str) -> Callable[[Point], Run]:
    return lambda point: make(*arguments, point.method, point.num_classes)


def ours(destination: str, mode: str, point: Point) -> Run:
    return fused(destination, mode, point.method, point.num_classes, point.out_dtype if point.pipeline else None)


def ours_without_compiler(destination: str, point: Point) -> Run:
    run = ours(destination, "elem", point)

    def on_numpy(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        with patch.object(native, "library", lambda: None):
            return run(x, y, out)

    return on_numpy


# Peers, float32 to float32; `normalised` puts their users' usual two ops before them.


def normalised(make: Callable[[Point], Run], point: Point) -> Run:
    """uint8 to float32, normalised, mixed, cast: in the peers' pipelines mixing comes last, on floats."""
    run = make(point)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (MEAN, STD))

    def whole(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        mixed, rows = run(x.float().sub_(mean).div_(std), y, None)
        return (mixed.to(point.out_dtype) if out is None else out.copy_(mixed)), rows

    return whole


def torchvision_loop(point: Point) -> Run:
    """One call per sample on the view that holds it and the sample before, its partner; half of each result is used."""
    mix = torchvision_transform(point.method, point.num_classes)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        images, rows = torch.empty_like(x), x.new_empty(len(x), point.num_classes)
        last = len(x) - 1
        for i in range(len(x)):
            pair, own = (slice(i - 1, i + 1), 1) if i else (slice(0, None, last), 0)
            mixed, target = mix(x[pair], y[pair])
            images[i], rows[i] = mixed[own], target[own]
        return images, rows

    return run


# PyTorch by hand, vectorised over the batch.


def draw(point: Point, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    lam = torch.from_numpy(np.random.beta(ALPHA, ALPHA, len(x)).astype(np.float32))
    return lam, torch.randperm(len(x)), [torch.randint(side, (len(x),)) for side in x.shape[2:]]


def eager(destination: str, point: Point) -> Run:
    """Gathers the partners into the result, then mixes the batch into it: one result-sized tensor, two passes."""

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        lam, partner, centres = draw(point, x)
        other = torch.index_select(x, 0, partner, out=out if destination == "out" else None)
        result = x if destination == "in place" else other
        if point.method == "cutmix":
            mask, lam = boxes(x, lam, centres)
            torch.where(mask, other, x, out=result)
        else:
            torch.lerp(other, x, lam.view(-1, 1, 1, 1), out=result)
        return result, scatter_rows(y, y[partner], lam, point.num_classes)

    return run


def compiled(destination: str, mode: str, point: Point) -> Run:
    """The same in one graph, which the compiler fuses; the draws come from outside."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (MEAN, STD))

    def mix(
        x: Tensor, y: Tensor, out: Tensor | None, lam: Tensor, partner: Tensor, centres: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        own, other = x, x[partner]
        if point.pipeline:
            own, other = ((v.float() - mean) / std for v in (own, other))
        if point.method == "cutmix":
            mask, lam = boxes(x, lam, centres)
            mixed = torch.where(mask, other, own)
        else:
            mixed = torch.lerp(other, own, lam.view(-1, 1, 1, 1))
        rows = scatter_rows(y, y[partner], lam, point.num_classes)
        return (mixed.to(point.out_dtype) if out is None else out.copy_(mixed)), rows

    fast = torch.compile(mix, mode=mode, fullgraph=True, dynamic=False)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        return fast(x, y, out if destination == "out" else None, *draw(point, x))

    return run


TORCHVISION, KORNIA = "torchvision v2, one call per sample", "kornia V2"
COMPILED = f"{HAND}, torch.compile"
NO_COMPILER = f"{OURS} without a C compiler"

CONTENDERS = (
    *(Contender(OURS, d, partial(ours, d, "elem")) for d in DESTINATIONS),
    *(Contender(NO_COMPILER, d, partial(ours_without_compiler, d)) for d in DESTINATIONS),
    Contender(TIMM, "in place", of(timm, "elem")),
    Contender(TORCHVISION, "fresh", torchvision_loop),
    Contender(KORNIA, "fresh", of(kornia_v2)),
    *(Contender(HAND, d, partial(eager, d)) for d in DESTINATIONS),
    *(Contender(COMPILED, d, partial(compiled, d, "default"), compiled=True) for d in ("fresh", "out")),
    Contender(f"{COMPILED} max-autotune", "out", partial(compiled, "out", "max-autotune"), compiled=True),
    Contender('timm Mixup(mode="pair")', "in place", of(timm, "pair"), "per pair"),
    *(Contender(f'{OURS} mode="batch"', d, partial(ours, d, "batch"), "per batch") for d in DESTINATIONS),
    Contender('timm Mixup(mode="batch")', "in place", of(timm, "batch"), "per batch"),
    Contender("torchvision v2", "fresh", of(torchvision_batch), "per batch"),
    Contender("composer", "fresh", of(composer), "per batch"),
)
PAPER = {
    "mixup": Contender("the paper's recipe", "fresh", of(paper), "per batch"),
    "cutmix": Contender("the paper's recipe", "in place", of(paper), "per batch"),
}


def contenders(point: Point) -> list[Contender]:
    """All that can do this point. In a pipeline the peers first make floats, and nobody works in place."""
    chosen = [*CONTENDERS, PAPER[point.method]]
    if not point.pipeline:
        return chosen
    result = []
    for c in chosen:
        if c.name.startswith(OURS) or c.compiled:
            result += [c] if c.destination != "in place" else []
        elif c.destination != "out":
            make = partial(normalised, c.make)
            result += [] if c.name == HAND and c.destination == "fresh" else [
                Contender(c.name, "fresh", make, c.scope), Contender(c.name, "out", make, c.scope)
            ]  # fmt: skip
    return result


def copy(x: Tensor, y: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    return out.copy_(x), y


def clone(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.clone(), y


YARDSTICKS = {("out.copy_(x)", "out"): copy, ("x.clone()", "fresh"): clone}  # they mix nothing
