"""Who is compared: per-sample CutMix and mixup of int64 classes to dense target rows, and the gate each has to pass.

A contender is made per method ("cutmix" or "mixup") and number of classes, and run as `run(x, y, out)`, which returns
(images, rows). Those in place write into `x`; those with destination "out" write into `out`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

import fusedmix
from fusedmix import rng
from fusedmix.reference import mix as reference_mix
from fusedmix.spec import CutMix, Mixup

METHODS = ("cutmix", "mixup")
DESTINATIONS = ("fresh", "out", "in place")
ALPHA = 1.0
TOLERANCE = 1e-5  # float32 images in [0, 1) and weights: a few roundings

Run = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Contender:
    name: str
    destination: str
    make: Callable[[str, int], Run]
    per_sample: bool = True


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


def fused(destination: str) -> Callable[[str, int], Run]:
    def make(method: str, num_classes: int) -> Run:
        call = {"cutmix": fusedmix.fused_cutmix, "mixup": fusedmix.fused_mixup}[method]
        if destination == "fresh":
            return lambda x, y, out: call(x, y, alpha=ALPHA, num_classes=num_classes)
        if destination == "out":
            return lambda x, y, out: call(x, y, alpha=ALPHA, num_classes=num_classes, out=out)
        return lambda x, y, out: call(x, y, alpha=ALPHA, num_classes=num_classes, inplace=True)

    return make


# Peers.


def timm_elem(method: str, num_classes: int) -> Run:
    import_torchvision()  # timm needs it
    from timm.data.mixup import Mixup as TimmMixup

    alphas = {"mixup_alpha": ALPHA * (method == "mixup"), "cutmix_alpha": ALPHA * (method == "cutmix")}
    mix = TimmMixup(**alphas, mode="elem", label_smoothing=0.0, num_classes=num_classes)
    return lambda x, y, out: mix(x, y)


def torchvision_transform(method: str, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    import_torchvision()
    from torchvision.transforms import v2

    return {"cutmix": v2.CutMix, "mixup": v2.MixUp}[method](alpha=ALPHA, num_classes=num_classes)


def torchvision_batch(method: str, num_classes: int) -> Run:
    mix = torchvision_transform(method, num_classes)
    return lambda x, y, out: mix(x, y)


def torchvision_loop(method: str, num_classes: int) -> Run:
    """One call per sample on the view that holds it and the sample before, its partner; half of each result is used."""
    mix = torchvision_transform(method, num_classes)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        images, rows = torch.empty_like(x), x.new_empty(len(x), num_classes)
        last = len(x) - 1
        for i in range(len(x)):
            pair, own = (slice(i - 1, i + 1), 1) if i else (slice(0, None, last), 0)
            mixed, target = mix(x[pair], y[pair])
            images[i], rows[i] = mixed[own], target[own]
        return images, rows

    return run


def kornia_v2(method: str, num_classes: int) -> Run:
    """Its labels, (own class, partner's class, weight), are scattered into rows: a few microseconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

    keys = ["input", "class"]
    if method == "cutmix":
        mix = RandomCutMixV2(p=1.0, beta=ALPHA, data_keys=keys, use_correct_lambda=True)
    else:
        mix = RandomMixUpV2(p=1.0, data_keys=keys)  # its lam is uniform, which is Beta(1, 1)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        images, labels = mix(x, y)
        own, other, weight = labels.view(-1, 3).unbind(1)
        lam = weight if method == "cutmix" else 1 - weight
        return images, scatter_rows(own.long(), other.long(), lam, num_classes)

    return run


# PyTorch by hand, vectorised over the batch.


def scatter_rows(own: Tensor, other: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    rows = torch.zeros(len(own), num_classes, device=own.device).scatter_(1, own[:, None], lam[:, None])
    return rows.scatter_add_(1, other[:, None], (1 - lam)[:, None])


def draw_lam(x: Tensor) -> Tensor:
    return torch.from_numpy(np.random.beta(ALPHA, ALPHA, len(x)).astype(np.float32))


def boxes(x: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels to paste, bool [B, 1, H, W], and the share of those kept, float32 [B]."""
    ratio = torch.sqrt(1 - lam)
    edges = []
    for side in x.shape[2:]:
        half = (ratio * side).long() // 2
        centre = torch.randint(side, (len(x),))
        edges.append(((centre - half).clamp_(0, side), (centre + half).clamp_(0, side)))
    inside = []
    for (lo, hi), side in zip(edges, x.shape[2:], strict=True):
        index = torch.arange(side)
        inside.append((index >= lo[:, None]) & (index < hi[:, None]))
    (y0, y1), (x0, x1) = edges
    kept = 1 - (y1 - y0) * (x1 - x0) / (x.shape[2] * x.shape[3])
    return (inside[0][:, :, None] & inside[1][:, None])[:, None], kept


def eager(destination: str) -> Callable[[str, int], Run]:
    """Gathers the partners into the result, then mixes the batch into it: one result-sized tensor, two passes."""

    def make(method: str, num_classes: int) -> Run:
        def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
            lam, partner = draw_lam(x), torch.randperm(len(x))
            other = torch.index_select(x, 0, partner, out=out if destination == "out" else None)
            result = x if destination == "in place" else other
            if method == "cutmix":
                mask, lam = boxes(x, lam)
                torch.where(mask, other, x, out=result)
            else:
                torch.lerp(other, x, lam.view(-1, 1, 1, 1), out=result)
            return result, scatter_rows(y, y[partner], lam, num_classes)

        return run

    return make


# The yardsticks, which mix nothing.


def copy(x: Tensor, y: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    return out.copy_(x), y


def clone(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.clone(), y


OURS = "fusedmix"
PEERS = ("timm", "torchvision", "kornia")
TIMM, TORCHVISION, KORNIA = 'timm Mixup(mode="elem")', "torchvision v2, one call per sample", "kornia V2"

CONTENDERS = (
    *(Contender(OURS, destination, fused(destination)) for destination in DESTINATIONS),
    Contender(TIMM, "in place", timm_elem),
    Contender(TORCHVISION, "fresh", torchvision_loop),
    Contender(KORNIA, "fresh", kornia_v2),
    *(Contender("PyTorch by hand", destination, eager(destination)) for destination in DESTINATIONS),
    Contender("torchvision v2, one lam per batch", "fresh", torchvision_batch, per_sample=False),
)
YARDSTICKS = {("out.copy_(x)", "out"): copy, ("x.clone()", "fresh"): clone}


# The gate.


class Wrong(Exception):
    """A result that is no mix of the batch; the contender gets no time."""


def need(condition: object, message: str) -> None:
    if not condition:
        raise Wrong(message)


def gate(contender: Contender, method: str, x: Tensor, y: Tensor, num_classes: int) -> tuple[Run, str]:
    """The contender's run, once its results are right; and a note where only its labels are off.

    With a class of its own for each sample, target rows name partner and weight, against which images are checked.
    The run with `num_classes`, the one to be timed, must repeat that run's images and add up its rows.
    """
    own_class = torch.arange(len(x))
    images, rows = checked_run(contender, contender.make(method, len(x)), x, own_class)
    note = check_mix(method, contender.per_sample, x, images, rows)
    run = contender.make(method, num_classes)
    again, summed = checked_run(contender, run, x, y)
    need(torch.equal(again, images), "the same seed gives other images with another number of classes")
    expected = rows @ torch.nn.functional.one_hot(y, num_classes).float()
    need(torch.allclose(summed, expected, rtol=0, atol=TOLERANCE), "rows of shared classes don't add up")
    if contender.name == OURS:
        check_reference(method, x, y, num_classes, again, summed)
    return run, note


def seed_all() -> None:
    torch.manual_seed(7)
    np.random.seed(7)


def checked_run(contender: Contender, run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Runs it once on copies; the result must lie where the contender says and the input survive unless in place."""
    given = x.clone()
    out = torch.full_like(x, float("nan")) if contender.destination == "out" else None
    seed_all()
    images, rows = run(given, y, out)
    if contender.destination == "in place":
        need(images.data_ptr() == given.data_ptr(), "the result is not in place")
    else:
        need(torch.equal(given, x), "the input was changed")
        need(images.untyped_storage().data_ptr() != given.untyped_storage().data_ptr(), "the result shares memory")
    if out is not None:
        need(images.data_ptr() == out.data_ptr(), "the result is not in out")
    need(images.shape == x.shape and images.dtype == x.dtype, f"images are {images.dtype} {list(images.shape)}")
    return images, rows


def check_mix(method: str, per_sample: bool, x: Tensor, images: Tensor, rows: Tensor) -> str:
    """Raises `Wrong` unless each image is a mix of its own and one partner; returns a note on labels that are off."""
    batch = len(x)
    need(rows.shape == (batch, batch) and rows.dtype == torch.float32, f"rows are {rows.dtype} {list(rows.shape)}")
    need((rows.sum(1) - 1).abs().max() <= TOLERANCE, "rows don't sum to 1")
    lam = rows.diagonal()
    others = rows.clone().fill_diagonal_(0)
    weight, partner = others.max(1)
    need((lam + weight - 1).abs().max() <= TOLERANCE, "a row has more than two classes")
    differing = len(lam[lam < 1].unique())
    need(differing > 1 if per_sample else differing <= 1, f"{differing} different weights in the batch")

    other = x[torch.where(weight > 0, partner, torch.arange(batch))]
    if method == "mixup":
        expected = torch.lerp(other, x, lam.view(-1, *[1] * (x.dim() - 1)))
        need((images - expected).abs().max() <= TOLERANCE, "images are not lam x + (1 - lam) partner")
        return ""
    foreign = (images != x).any(1)  # [B, H, W]
    need(torch.equal(images, torch.where(foreign[:, None], other, x)), "a pixel is neither own nor the partner's")
    lines, columns = foreign.any(2).sum(1), foreign.any(1).sum(1)
    need(torch.equal(foreign.sum((1, 2)), lines * columns), "what was pasted is no box")
    error = (foreign.float().mean((1, 2)) - (1 - lam)).abs()
    wrong = int((error > TOLERANCE).sum())
    return f"weights of {wrong} of {batch} rows differ from the kept area, by up to {error.max():.3f}" if wrong else ""


def check_reference(method: str, x: Tensor, y: Tensor, num_classes: int, images: Tensor, rows: Tensor) -> None:
    """Ours must equal the reference, which gets nothing but the seed."""
    spec = {"cutmix": CutMix, "mixup": Mixup}[method](alpha=ALPHA, num_classes=num_classes)
    seed_all()
    expected, expected_rows, _ = reference_mix(x, y, spec.recipe, *rng.next_seed())
    atol = 0.0 if method == "cutmix" else 1e-6
    need(torch.allclose(images, expected, rtol=0, atol=atol), "images differ from the reference")
    need(torch.allclose(rows, expected_rows, rtol=0, atol=1e-6), "rows differ from the reference")
