"""Who is compared on a GPU, each in its best form there, and the gate it passes before it is timed.

A contender is made for a point and a method and run as `run(x, y, out)`, which returns (images, float32 rows). Those in
place write into `x`, those with destination "out" into `out`. Nobody draws from anything but Beta(1, 1), which is
uniform: rivals draw lam with one call on the device. triton-augment is installed by some but mixes no samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from gpu_common import BF16, DEVICE, DRY_RUN, F32, poison, synchronize
from gpu_kernels import Point
from peers import (
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
    need,
    paper,
    scatter_rows,
    timm,
    torchvision_batch,
)
from torch import Tensor

CUDA_GRAPHS = ("reduce-overhead", "max-autotune")  # modes that overwrite the last result
CHUNK = 32  # samples the gate compares at once
LEAST_BOX = 0.02  # share of pixels; a box of that weight cannot be empty, wherever it is clipped
CALLS, MOST_CALLS = 4, 10  # until graphs are recorded; until one draw for the batch mixes something
ENOUGH = 16  # samples, for the gate to expect different draws
ROW_TOLERANCE = {F32: 1e-5, BF16: 2**-7}  # timm holds lam in the images' dtype


@dataclass(frozen=True)
class Contender:
    name: str
    destination: str  # "fresh", "out" or "in place"
    make: Callable[[Point, str], Run]
    scope: str = "per sample"  # or "per pair", "per batch"
    compile_mode: str = ""

    @property
    def key(self) -> str:
        return f"{self.name}, {self.destination}"


# PyTorch by hand, vectorised over the batch, everything on the device.


def centres(x: Tensor) -> list[Tensor]:
    return [torch.randint(side, (x.shape[0],), device=x.device) for side in x.shape[2:]]


def channel_norm(device: torch.device | str) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (MEAN, STD))
    return mean, std


def by_hand(destination: str, point: Point, method: str) -> Run:
    """Gathers the partners, then mixes the batch with them. lerp wants lam in the images' dtype."""
    mean, std = channel_norm(DEVICE)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        lam = torch.rand(x.shape[0], device=x.device)
        partner = torch.randperm(x.shape[0], device=x.device)
        other = x[partner] if destination == "fresh" else torch.index_select(x, 0, partner, out=out)
        result = None if destination == "fresh" else out
        if method == "cutmix":
            mask, lam = boxes(x, lam, centres(x))
            mixed = torch.where(mask, other, x) if result is None else torch.where(mask, other, x, out=result)
        else:
            own = x.float() if point.norm else x
            other, weight = other.to(own.dtype), lam.to(own.dtype).view(-1, 1, 1, 1)
            mixed = torch.lerp(other, own, weight) if result is None else torch.lerp(other, own, weight, out=result)
        if point.norm:
            mixed = ((mixed.float() - mean) / std).to(point.out_dtype)
        return mixed, scatter_rows(y, y[partner], lam, point.classes)

    return run


def compiled(mode: str, point: Point, method: str) -> Run:
    """The same as one fused graph; mixed in float32, which costs a compiled kernel nothing."""
    mean, std = channel_norm(DEVICE)

    def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        lam = torch.rand(x.shape[0], device=x.device)
        partner = torch.randperm(x.shape[0], device=x.device)
        if method == "cutmix":
            mask, lam = boxes(x, lam, centres(x))
            mixed = torch.where(mask, x[partner], x)
        else:
            mixed = torch.lerp(x[partner].float(), x.float(), lam.view(-1, 1, 1, 1))
        if point.norm:
            mixed = (mixed.float() - mean) / std
        return mixed.to(point.out_dtype), scatter_rows(y, y[partner], lam, point.classes)

    options = dict(backend="eager") if DRY_RUN else dict(mode=mode)
    fast = torch.compile(mix, dynamic=False, **options)
    if mode not in CUDA_GRAPHS or DRY_RUN:
        return lambda x, y, out: fast(x, y)

    def run(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return fast(x, y)

    return run


# Peers; uint8 they get as normalised floats, as their users' pipelines do.


def normalised(make: Callable[[Point, str], Run], point: Point, method: str) -> Run:
    run, (mean, std) = make(point, method), channel_norm(DEVICE)
    return lambda x, y, out: run(x.float().sub_(mean).div_(std).to(point.out_dtype), y, None)


def of(make: Callable[..., Run], *arguments: str) -> Callable[[Point, str], Run]:
    return lambda point, method: make(*arguments, method, point.classes)


def ours(destination: str, mode: str, point: Point, method: str) -> Run:
    return fused(destination, mode, method, point.classes, point.out_dtype if point.norm else None)


def contenders(point: Point, method: str) -> list[Contender]:
    """All that can do this point, the cheapest to prepare first."""
    mine = [Contender(OURS, d, partial(ours, d, "elem")) for d in ("fresh", "out", "in place")]
    mine.append(Contender(f'{OURS} mode="batch"', "fresh", partial(ours, "fresh", "batch"), "per batch"))
    hand = [Contender(HAND, d, partial(by_hand, d)) for d in ("fresh", "out")]
    papers = Contender("the paper's recipe", "in place" if method == "cutmix" else "fresh", of(paper), "per batch")
    peers = [
        Contender(TIMM, "in place", of(timm, "elem")),
        Contender('timm Mixup(mode="pair")', "in place", of(timm, "pair"), "per pair"),
        Contender('timm Mixup(mode="batch")', "in place", of(timm, "batch"), "per batch"),
        Contender("torchvision v2", "fresh", of(torchvision_batch), "per batch"),
        Contender("kornia V2", "fresh", of(kornia_v2)),
        Contender("composer", "fresh", of(composer), "per batch"),
    ]
    if point.norm:
        peers = [Contender(c.name, "fresh", partial(normalised, c.make), c.scope) for c in [papers, *peers]]
        mine, hand = [c for c in mine if c.destination != "in place"], hand[:1]
    else:
        peers = [papers, *peers]
    return [*mine, *hand, compiler("default"), *peers]


def compiler(mode: str) -> Contender:
    return Contender(f"torch.compile {mode}", "fresh", partial(compiled, mode), compile_mode=mode)


def compilers() -> list[Contender]:
    """The modes that take long to compile, and ours beside them."""
    modes = ("reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
    return [Contender(OURS, "fresh", partial(ours, "fresh", "elem")), *map(compiler, modes)]


# The gate.


def gate(contender: Contender, run: Run, point: Point, method: str, source: Tensor) -> str:
    """Checks a repeated call, warm and from the state that is timed; returns a note where only labels are off."""
    batch = len(source)
    y = torch.arange(batch, device=source.device) % point.classes
    x, seen = source.clone(), []
    for number in range(MOST_CALLS):
        x.copy_(source)
        out = None
        if contender.destination == "out":
            out = poison(torch.empty_like(source, dtype=point.out_dtype))
        images, rows = run(x, y, out)
        synchronize()
        seen.append(rows.clone())
        if number + 1 >= CALLS and bool((rows.amax(1) < 1).any()):  # else one draw for the batch that mixed nothing
            break
    fresh = any(not torch.equal(seen[0], other) for other in seen[1:])
    need(batch < ENOUGH or fresh, f"{len(seen)} calls drew the same")
    if contender.destination == "in place":
        need(images.data_ptr() == x.data_ptr(), "the result is not in place")
    else:
        need(torch.equal(x, source), "the input was changed")
        need(images.data_ptr() != x.data_ptr(), "the result shares memory")
    need(out is None or images.data_ptr() == out.data_ptr(), "the result is not in out")
    need(images.shape == source.shape and images.dtype == point.out_dtype, f"images are {images.dtype}")
    notes = [check_mix(point, method, contender.scope, source, images, rows, y)]
    layout = torch.channels_last if point.last else torch.contiguous_format
    notes.append("" if images.is_contiguous(memory_format=layout) else "the result has another memory layout")
    return "; ".join(filter(None, notes))


def tolerance(point: Point, method: str) -> float:
    """Of pixels: roundings of a rival that mixes and normalises in the images' dtype, a few units in the last place."""
    if point.norm:
        return 2**-5  # values up to 2.7: two ulp of bfloat16
    if method == "cutmix":
        return 0.0
    return 5e-4 if point.out_dtype == F32 else 3.0  # of 255, where one ulp of bfloat16 is 1


def check_mix(point: Point, method: str, scope: str, x: Tensor, images: Tensor, rows: Tensor, y: Tensor) -> str:
    """Raises `Wrong` unless each image is a mix of its own and one partner, with the weights of its row."""
    batch, classes = len(x), point.classes
    loose = ROW_TOLERANCE[BF16 if BF16 in (point.dtype, point.out_dtype) else F32]
    need(rows.shape == (batch, classes) and rows.dtype == torch.float32, f"rows are {rows.dtype} {list(rows.shape)}")
    need(bool(((rows.sum(1) - 1).abs() <= loose).all()), "rows don't sum to 1")
    lam = rows.gather(1, y[:, None])[:, 0]
    weight, other_class = rows.scatter(1, y[:, None], 0.0).max(1)
    need(bool(((lam + weight - 1).abs() <= loose).all()), "a row has more than two classes")
    alone = weight == 0  # not mixed, or with its own class, whose weight is then unknown
    differing = len(lam[~alone].unique())
    fewest, most = {"per sample": (2, batch), "per pair": (2, -(-batch // 2)), "per batch": (0, 1)}[scope]
    need(batch < ENOUGH or fewest <= differing <= most, f"{differing} different weights in the batch")
    skipped, wrong = 0, 0
    for start in range(0, batch, CHUNK):
        part = slice(start, min(start + CHUNK, batch))
        worst = torch.full((part.stop - part.start,), float("inf"), device=x.device)
        off = worst.clone()
        for candidate in range(-(-batch // classes)):
            partner = other_class[part] + candidate * classes
            partner = torch.where(alone[part] | (partner >= batch), torch.arange(batch, device=x.device)[part], partner)
            error, area_off = errors(point, method, x[part], x[partner], images[part], lam[part])
            off = torch.where(error < worst, area_off, off)
            worst = torch.minimum(worst, error)
        unknown = alone[part] & (batch > classes)
        skipped += int(unknown.sum())
        bad = ~(worst <= tolerance(point, method)) & ~unknown  # NaN is bad
        need(not bad.any(), f"{int(bad.sum())} of {len(bad)} images are no mix by their row, worst {worst.max():.3g}")
        wrong += int(((off > loose) & ~unknown).sum())
        nothing = (off >= 1 - lam[part]) & (1 - lam[part] > LEAST_BOX) & ~unknown
        need(method == "mixup" or not nothing.any(), f"nothing is pasted in {int(nothing.sum())} images")
    need(skipped <= max(2, batch // 8), f"{skipped} rows of one class")
    return f"weights of {wrong} of {batch} rows differ from the kept area" if wrong > batch // 20 else ""


def errors(point: Point, method: str, own: Tensor, other: Tensor, images: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image: largest distance from what its row says, and by how much a pasted box differs from its weight."""
    own, other, images = own.float(), other.float(), images.float()
    if method == "mixup":
        own = torch.lerp(other, own, lam.view(-1, 1, 1, 1))
    if point.norm:
        mean, std = channel_norm(own.device)
        own, other = (own - mean) / std, (other - mean) / std
    if method == "mixup":
        return (images - own).abs().amax((1, 2, 3)), torch.zeros_like(lam)
    foreign = ((images - own).abs() > tolerance(point, method)).any(1)  # [n, H, W]
    lines, columns = (between(foreign.any(dim)) for dim in (2, 1))
    box = lines[:, :, None] & columns[:, None]
    expected = torch.where(box[:, None], other, own)
    return (images - expected).abs().amax((1, 2, 3)), (box.float().mean((1, 2)) - (1 - lam)).abs()


def between(found: Tensor) -> Tensor:
    """bool [n, S]: from the first to the last True of each row."""
    forward = found.int().cummax(1).values
    backward = found.int().flip(1).cummax(1).values.flip(1)
    return (forward & backward).bool()
