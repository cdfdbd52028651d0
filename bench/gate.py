"""The gate: a contender gets a time only once its result is right."""

import numpy as np
import torch
from contenders import NO_COMPILER, Contender, Point
from peers import ALPHA, MEAN, OURS, STD, Run, need
from torch import Tensor

from fusedmix import rng
from fusedmix.reference import mix as reference_mix
from fusedmix.spec import CutMix, Mixup

TOLERANCE = 1e-5  # float32 images in [0, 1) and weights: a few roundings
# Normalised values lie within +-3 and are rounded to bfloat16 once, or mixed in float32 before: an ulp at 3 is 2^-6.
PIPELINE_TOLERANCE = 2**-6


def gate(contender: Contender, point: Point, x: Tensor, y: Tensor) -> tuple[Run, str]:
    """The contender's run, once its results are right; and a note where only its labels are off.

    With a class of its own for each sample, target rows name partner and weight, against which images are checked.
    The run with the point's classes, the one to be timed, must repeat that run's images and add up its rows.
    """
    own_class = torch.arange(len(x))
    apart = Point(point.method, point.shape, len(x), point.channels_last, point.pipeline)
    images, rows = checked_run(contender, contender.make(apart), point, x, own_class)
    note = check_mix(point, contender.scope, x, images, rows)
    run = contender.make(point)
    again, summed = checked_run(contender, run, point, x, y)
    need(torch.equal(again, images), "the same seed gives other images with another number of classes")
    expected = torch.zeros_like(summed).index_add_(1, y, rows)
    need(torch.allclose(summed, expected, rtol=0, atol=TOLERANCE), "rows of shared classes don't add up")
    if contender.name in (OURS, NO_COMPILER):
        check_reference(point, x, y, again, summed)
    return run, note


def seed_all() -> None:
    torch.manual_seed(7)
    np.random.seed(7)


def empty_out(point: Point, x: Tensor) -> Tensor:
    return torch.full_like(x, float("nan"), dtype=point.out_dtype)


def checked_run(contender: Contender, run: Run, point: Point, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Runs it once on copies; the result must lie where the contender says and the input survive unless in place."""
    given = x.clone()
    out = empty_out(point, x) if contender.destination == "out" else None
    seed_all()
    images, rows = run(given, y, out)
    if contender.destination == "in place":
        need(images.data_ptr() == given.data_ptr(), "the result is not in place")
    else:
        need(torch.equal(given, x), "the input was changed")
        need(images.untyped_storage().data_ptr() != given.untyped_storage().data_ptr(), "the result shares memory")
    if out is not None:
        need(images.data_ptr() == out.data_ptr(), "the result is not in out")
    need(images.shape == x.shape and images.dtype == point.out_dtype, f"images: {images.dtype} {list(images.shape)}")
    return images, rows


def check_mix(point: Point, scope: str, x: Tensor, images: Tensor, rows: Tensor) -> str:
    """Raises `Wrong` unless each image is a mix of its own and one partner; returns a note on labels that are off."""
    batch = len(x)
    need(rows.shape == (batch, batch) and rows.dtype == torch.float32, f"rows are {rows.dtype} {list(rows.shape)}")
    need((rows.sum(1) - 1).abs().max() <= TOLERANCE, "rows don't sum to 1")
    lam = rows.diagonal()
    others = rows.clone().fill_diagonal_(0)
    weight, partner = others.max(1)
    need((lam + weight - 1).abs().max() <= TOLERANCE, "a row has more than two classes")
    differing = len(lam[lam < 1].unique())
    need(differing <= 1 if scope == "per batch" else differing > 1, f"{differing} different weights in the batch")

    other = x[torch.where(weight > 0, partner, torch.arange(batch))]
    if point.pipeline:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (MEAN, STD))
        x, other = ((v.float() - mean) / std for v in (x, other))
    if point.method == "mixup":
        expected = torch.lerp(other, x, lam.view(-1, *[1] * (x.dim() - 1)))
        bound = PIPELINE_TOLERANCE if point.pipeline else TOLERANCE
        need((images.float() - expected).abs().max() <= bound, "images are not lam x + (1 - lam) partner")
        return ""
    if point.pipeline:
        x, other = x.to(images.dtype), other.to(images.dtype)
    foreign = (images != x).any(1)  # [B, H, W]
    need(torch.equal(images, torch.where(foreign[:, None], other, x)), "a pixel is neither own nor the partner's")
    lines, columns = foreign.any(2).sum(1), foreign.any(1).sum(1)
    alike = 4 if point.pipeline else 0  # pixels that own and partner may share by chance, in 8 bits
    need(((lines * columns - foreign.sum((1, 2))).abs() <= alike).all(), "what was pasted is no box")
    error = (foreign.float().mean((1, 2)) - (1 - lam)).abs()
    wrong = int((error > TOLERANCE + alike / foreign[0].numel()).sum())
    return f"weights of {wrong} of {batch} rows differ from the kept area, by up to {error.max():.3f}" if wrong else ""


def check_reference(point: Point, x: Tensor, y: Tensor, images: Tensor, rows: Tensor) -> None:
    """Ours must equal the reference, which gets nothing but the seed."""
    spec = {"cutmix": CutMix, "mixup": Mixup}[point.method](alpha=ALPHA, num_classes=point.num_classes)
    norm = torch.tensor([MEAN, [1 / s for s in STD]]) if point.pipeline else None
    seed_all()
    expected, expected_rows, _ = reference_mix(
        x, y, spec.recipe, *rng.next_seed(), norm=norm, out_dtype=point.out_dtype
    )
    exact = point.method == "cutmix" or point.pipeline  # the pipeline takes the reference's own steps
    need(torch.allclose(images, expected, rtol=0, atol=0 if exact else 1e-6), "images differ from the reference")
    need(torch.allclose(rows, expected_rows, rtol=0, atol=1e-6), "rows differ from the reference")
