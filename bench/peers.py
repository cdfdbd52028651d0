"""Who mixes, on any device: our calls, other libraries, the papers' recipes. Shared by the CPU and the GPU benches.

Each is made for a method ("cutmix" or "mixup") and a number of classes and run as `run(x, y, out)`, which returns
(images, float32 rows). composer 0.32.1 asks for torch < 2.7.1, so no extra can name it beside ours: it is timed where
it was installed without its dependencies.
"""

import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

import fusedmix

ALPHA = 1.0
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
OURS, HAND, TIMM = "fusedmix", "PyTorch by hand", 'timm Mixup(mode="elem")'

Run = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


class Wrong(Exception):
    """A result that is no mix of the batch; the contender gets no time."""


def need(condition: object, message: str) -> None:
    if not condition:
        raise Wrong(message)


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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


def fused(destination: str, mode: str, method: str, num_classes: int, out_dtype: torch.dtype | None = None) -> Run:
    """Our call; with an `out_dtype` it also normalises."""
    call = {"cutmix": fusedmix.fused_cutmix, "mixup": fusedmix.fused_mixup}[method]
    options = dict(alpha=ALPHA, num_classes=num_classes, mode=mode)
    if out_dtype is not None:
        options |= dict(mean=MEAN, std=STD, out_dtype=out_dtype)
    if destination == "fresh":
        return lambda x, y, out: call(x, y, **options)
    if destination == "out":
        return lambda x, y, out: call(x, y, out=out, **options)
    return lambda x, y, out: call(x, y, inplace=True, **options)


def timm(mode: str, method: str, num_classes: int) -> Run:
    import_torchvision()  # timm needs it
    from timm.data.mixup import Mixup as TimmMixup

    alphas = {"mixup_alpha": ALPHA * (method == "mixup"), "cutmix_alpha": ALPHA * (method == "cutmix")}
    mix = TimmMixup(**alphas, mode=mode, label_smoothing=0.0, num_classes=num_classes)
    return lambda x, y, out: mix(x, y)


def torchvision_transform(method: str, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    import_torchvision()
    from torchvision.transforms import v2

    return {"cutmix": v2.CutMix, "mixup": v2.MixUp}[method](alpha=ALPHA, num_classes=num_classes)


def torchvision_batch(method: str, num_classes: int) -> Run:
    mix = torchvision_transform(method, num_classes)
    return lambda x, y, out: mix(x, y)


def kornia_v2(method: str, num_classes: int) -> Run:
    """Its labels, (own class, partner's class, weight), are scattered into rows: a few microseconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own, at import
        from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

    keys = ["input", "class"]
    if method == "cutmix":
        mix = RandomCutMixV2(p=1.0, beta=ALPHA, data_keys=keys, use_correct_lambda=True)
    else:
        mix = RandomMixUpV2(p=1.0, data_keys=keys)  # its lam is uniform, which is Beta(1, 1)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        images, labels = mix(x, y)
        own, other, weight = labels.view(-1, 3).unbind(1)
        lam = (weight if method == "cutmix" else 1 - weight).float()
        return images, scatter_rows(own.long(), other.long(), lam, num_classes)

    return run


def composer(method: str, num_classes: int) -> Run:
    import_torchvision()
    if method == "mixup":
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
        return images, scatter_rows(y, other, torch.full((len(x),), float(lam), device=x.device), num_classes)

    return run


def paper(method: str, num_classes: int) -> Run:
    """One lam, one box and one permutation for the batch, as in the papers' code."""

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        lam, partner = float(np.random.beta(ALPHA, ALPHA)), torch.randperm(len(x), device=x.device)
        if method == "mixup":
            images = lam * x + (1 - lam) * x[partner]
        else:
            height, width = x.shape[2:]
            edges = []
            for side in (height, width):
                half, centre = int(side * np.sqrt(1 - lam)) // 2, int(np.random.randint(side))
                edges += [max(centre - half, 0), min(centre + half, side)]
            y0, y1, x0, x1 = edges
            x[:, :, y0:y1, x0:x1] = x[partner, :, y0:y1, x0:x1]
            images, lam = x, 1 - (y1 - y0) * (x1 - x0) / (height * width)
        return images, scatter_rows(y, y[partner], torch.full((len(x),), lam, device=x.device), num_classes)

    return run


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
        index = torch.arange(side, device=x.device)
        inside.append((index >= lo[:, None]) & (index < hi[:, None]))
    (y0, y1), (x0, x1) = edges
    kept = 1 - (y1 - y0) * (x1 - x0) / (x.shape[2] * x.shape[3])
    return (inside[0][:, :, None] & inside[1][:, None])[:, None], kept
