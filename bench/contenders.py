"""Who is compared: CutMix and mixup of a batch and its int64 classes, per sample or with one draw for the batch.

A contender is made for a `Point` and run as `run(x, y, out)`, which returns (images, float32 rows). Those in place
write into `x`; those with destination "out" write into `out`. composer 0.32.1 asks for torch < 2.7.1, so no extra can
name it beside ours: it is timed where it was installed without its dependencies.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

import fusedmix

METHODS = ("cutmix", "mixup")
DESTINATIONS = ("fresh", "out", "in place")
ALPHA = 1.0
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Run = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


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


def import_torchvision() -> ModuleType:
    try:
        import torchvision
    except RuntimeError:
        # PyPI's torchvision is built for a CUDA torch: beside the CPU one its operators don't load, and its import
        # stops at registering shapes for two of them that then have no schema.
        global _schemas
        _schemas = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


# Ours.


def fused(destination: str, mode: str, point: Point) -> Run:
    call = {"cutmix": fusedmix.fused_cutmix, "mixup": fusedmix.fused_mixup}[point.method]
    options = dict(alpha=ALPHA, num_classes=point.num_classes, mode=mode)
    if point.pipeline:
        options |= dict(mean=MEAN, std=STD, out_dtype=point.out_dtype)
    if destination == "fresh":
        return lambda x, y, out: call(x, y, **options)
    if destination == "out":
        return lambda x, y, out: call(x, y, out=out, **options)
    return lambda x, y, out: call(x, y, inplace=True, **options)


# Peers, float32 to float32; `normalised` puts their users' usual two ops before them.


def normalised(make: Callable[[Point], Run], point: Point) -> Run:
    """uint8 to float32, normalised, mixed, cast: in the peers' pipelines mixing comes last, on floats."""
    run = make(point)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (MEAN, STD))

    def whole(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        mixed, rows = run(x.float().sub_(mean).div_(std), y, None)
        return (mixed.to(point.out_dtype) if out is None else out.copy_(mixed)), rows

    return whole


def timm(mode: str, point: Point) -> Run:
    import_torchvision()  # timm needs it
    from timm.data.mixup import Mixup as TimmMixup

    alphas = {"mixup_alpha": ALPHA * (point.method == "mixup"), "cutmix_alpha": ALPHA * (point.method == "cutmix")}
    mix = TimmMixup(**alphas, mode=mode, label_smoothing=0.0, num_classes=point.num_classes)
    return lambda x, y, out: mix(x, y)


def torchvision_transform(point: Point) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    import_torchvision()
    from torchvision.transforms import v2

    return {"cutmix": v2.CutMix, "mixup": v2.MixUp}[point.method](alpha=ALPHA, num_classes=point.num_classes)


def torchvision_batch(point: Point) -> Run:
    mix = torchvision_transform(point)
    return lambda x, y, out: mix(x, y)


def torchvision_loop(point: Point) -> Run:
    """One call per sample on the view that holds it and the sample before, its partner; half of each result is used."""
    mix = torchvision_transform(point)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        images, rows = torch.empty_like(x), x.new_empty(len(x), point.num_classes)
        last = len(x) - 1
        for i in range(len(x)):
            pair, own = (slice(i - 1, i + 1), 1) if i else (slice(0, None, last), 0)
            mixed, target = mix(x[pair], y[pair])
            images[i], rows[i] = mixed[own], target[own]
        return images, rows

    return run


def kornia_v2(point: Point) -> Run:
    """Its labels, (own class, partner's class, weight), are scattered into rows: a few microseconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

    keys = ["input", "class"]
    if point.method == "cutmix":
        mix = RandomCutMixV2(p=1.0, beta=ALPHA, data_keys=keys, use_correct_lambda=True)
    else:
        mix = RandomMixUpV2(p=1.0, data_keys=keys)  # its lam is uniform, which is Beta(1, 1)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        images, labels = mix(x, y)
        own, other, weight = labels.view(-1, 3).unbind(1)
        lam = weight if point.method == "cutmix" else 1 - weight
        return images, scatter_rows(own.long(), other.long(), lam, point.num_classes)

    return run


def composer(point: Point) -> Run:
    import_torchvision()
    if point.method == "mixup":
        from composer.algorithms.mixup import mixup_batch

        def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
            images, other, weight = mixup_batch(x, y, alpha=ALPHA)
            return images, other, 1 - weight

    else:
        from composer.algorithms.cutmix import cutmix_batch

        def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
            return cutmix_batch(x, y, alpha=ALPHA)[:3]

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        images, other, lam = mix(x, y)
        return images, scatter_rows(y, other, torch.full((len(x),), float(lam)), point.num_classes)

    return run


# The papers' recipes: one lam, one box and one permutation for the batch. PyTorch by hand.


def paper(point: Point) -> Run:
    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        lam, partner = float(np.random.beta(ALPHA, ALPHA)), torch.randperm(len(x))
        if point.method == "mixup":
            images = lam * x + (1 - lam) * x[partner]
        else:
            height, width = x.shape[2:]
            edges = []
            for side in (height, width):
                half, centre = int(side * np.sqrt(1 - lam)) // 2, np.random.randint(side)
                edges += [max(centre - half, 0), min(centre + half, side)]
            y0, y1, x0, x1 = edges
            x[:, :, y0:y1, x0:x1] = x[partner, :, y0:y1, x0:x1]
            images, lam = x, 1 - (y1 - y0) * (x1 - x0) / (height * width)
        return images, scatter_rows(y, y[partner], torch.full((len(x),), lam), point.num_classes)

    return run


# PyTorch by hand, vectorised over the batch.


def scatter_rows(own: Tensor, other: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    rows = torch.zeros(len(own), num_classes, device=own.device).scatter_(1, own[:, None], lam[:, None])
    return rows.scatter_add_(1, other[:, None], (1 - lam)[:, None])


def boxes(x: Tensor, lam: Tensor, centres: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Which pixels to paste, bool [B, 1, H, W], and the share of those kept, float32 [B]."""
    ratio = torch.sqrt(1 - lam)
    edges = []
    for side, centre in zip(x.shape[2:], centres, strict=True):
        half = (ratio * side).long() // 2
        edges.append(((centre - half).clamp_(0, side), (centre + half).clamp_(0, side)))
    inside = []
    for (lo, hi), side in zip(edges, x.shape[2:], strict=True):
        index = torch.arange(side)
        inside.append((index >= lo[:, None]) & (index < hi[:, None]))
    (y0, y1), (x0, x1) = edges
    kept = 1 - (y1 - y0) * (x1 - x0) / (x.shape[2] * x.shape[3])
    return (inside[0][:, :, None] & inside[1][:, None])[:, None], kept


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


OURS = "fusedmix"
TIMM, TORCHVISION, KORNIA = 'timm Mixup(mode="elem")', "torchvision v2, one call per sample", "kornia V2"
PEERS = (TIMM, TORCHVISION, KORNIA)
HAND, COMPILED = "PyTorch by hand", "PyTorch by hand, torch.compile"

CONTENDERS = (
    *(Contender(OURS, d, partial(fused, d, "elem")) for d in DESTINATIONS),
    Contender(TIMM, "in place", partial(timm, "elem")),
    Contender(TORCHVISION, "fresh", torchvision_loop),
    Contender(KORNIA, "fresh", kornia_v2),
    *(Contender(HAND, d, partial(eager, d)) for d in DESTINATIONS),
    *(Contender(COMPILED, d, partial(compiled, d, "default"), compiled=True) for d in ("fresh", "out")),
    Contender(f"{COMPILED} max-autotune", "out", partial(compiled, "out", "max-autotune"), compiled=True),
    Contender('timm Mixup(mode="pair")', "in place", partial(timm, "pair"), "per pair"),
    *(Contender(f'{OURS} mode="batch"', d, partial(fused, d, "batch"), "per batch") for d in DESTINATIONS),
    Contender('timm Mixup(mode="batch")', "in place", partial(timm, "batch"), "per batch"),
    Contender("torchvision v2", "fresh", torchvision_batch, "per batch"),
    Contender("composer", "fresh", composer, "per batch"),
)
PAPER = {
    "mixup": Contender("the paper's recipe", "fresh", paper, "per batch"),
    "cutmix": Contender("the paper's recipe", "in place", paper, "per batch"),
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
