"""From a uint8 batch to the training tensor on a CPU: the whole recipe against torchvision v2, kornia, PyTorch by hand.

Every image holds its rows, its columns and its number as its three channels, so that the gate can read from a result
where each pixel came from: own pixels must lie on a map of rows and columns that is straight, differ from sample to
sample, half of them flipped; a box of another image may lie on top, and labels must say how much of it.
timm's PrefetchLoader and triton-augment need a GPU and are in bench/gpu.py.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contenders import OURS
from cpu_timing import Timed, show
from peers import MEAN, STD, Wrong, import_torchvision, need
from test_family import table_of
from torch import Tensor

import fusedmix

Call = Callable[[Tensor, Tensor], Any]
K = 15  # divides 255: the number of a sample tells its class
POINTS = {
    "CIFAR: crop, flip, CutMix": ((512, 3, 32, 32), (32, 32)),
    "ImageNet: resized crop, flip, CutMix": ((64, 3, 256, 256), (224, 224)),
}
ROUNDS = 15


def coordinates(shape: tuple[int, ...]) -> Tensor:
    """uint8 [B, 3, H, W]: row, column, number of the sample; from 1 where 255 allows it. B up to 255."""
    batch, _, height, width = shape
    first = 1 if max(height, width) < 255 else 0
    row, column = torch.arange(height)[:, None] + first, torch.arange(width) + first
    number = torch.arange(batch)[:, None, None] + 1
    planes = [plane.expand(batch, height, width) for plane in (row, column, number)]
    return torch.stack(planes, 1).to(torch.uint8)


def ours(size: tuple[int, int], resized: bool, **options: Any) -> Call:
    crop = fusedmix.RandomResizedCrop() if resized else fusedmix.RandomCrop(4)
    augment = fusedmix.FusedAugment(
        size, crop, 0.5, mix=[(fusedmix.CutMix(), 0.5)], mean=MEAN, std=STD, dtype=torch.float32, num_classes=K
    )
    return lambda x, y: augment(x, y, **options)


def of_torchvision(size: tuple[int, int], resized: bool) -> Call:
    """The usual stack, image by image, then its CutMix of the batch (every batch; ours mixes each sample or not)."""
    import_torchvision()
    v2 = import_module("torchvision.transforms.v2")
    crop = v2.RandomResizedCrop(size, antialias=False) if resized else v2.RandomCrop(size, padding=4)
    place = v2.Compose([
        crop, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
    ])  # fmt: skip
    cutmix = v2.CutMix(num_classes=K)
    return lambda x, y: cutmix(torch.stack([place(image) for image in x]), y)


def of_kornia(size: tuple[int, int], resized: bool) -> Call:
    """Its rows of labels, in a form of its own, are left as they are."""
    k = import_module("kornia.augmentation")
    crop = (
        k.RandomResizedCrop(size, cropping_mode="resample", align_corners=False)
        if resized
        else k.RandomCrop(size, padding=4, cropping_mode="slice")
    )
    mean, std = torch.tensor(MEAN) / 255, torch.tensor(STD) / 255
    place = k.AugmentationSequential(crop, k.RandomHorizontalFlip(), k.Normalize(mean, std), data_keys=["input"])
    cutmix = k.RandomCutMixV2(p=1.0, data_keys=["input", "class"])
    return lambda x, y: (cutmix(place(x.float() / 255), y)[0], None)


def by_hand(size: tuple[int, int], resized: bool) -> Call:
    """Vectorised: one grid of source points a sample, sampled, normalised, mixed under a mask."""
    height, width = size
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    down, across = torch.arange(height) + 0.5, torch.arange(width) + 0.5

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, rows, columns = x.shape
        if resized:
            area = rows * columns * (0.08 + 0.92 * torch.rand(batch))
            ratio = torch.exp((torch.rand(batch) * 2 - 1) * 0.28768)
            w, h = (area * ratio).sqrt().clamp(max=columns), (area / ratio).sqrt().clamp(max=rows)
            y0, x0 = torch.rand(batch) * (rows - h), torch.rand(batch) * (columns - w)
        else:
            h, w = torch.full((batch,), float(height)), torch.full((batch,), float(width))
            y0, x0 = torch.randint(-4, 5, (batch,)).float(), torch.randint(-4, 5, (batch,)).float()
        v = y0[:, None] + down * (h / height)[:, None]
        flipped = torch.where(torch.rand(batch, 1) < 0.5, width - across, across)
        u = x0[:, None] + flipped * (w / width)[:, None]
        zero = torch.zeros(batch, height, width)
        grid = torch.stack([(2 * u / columns - 1)[:, None] + zero, (2 * v / rows - 1)[..., None] + zero], 3)
        beyond = "border" if resized else "zeros"
        placed = F.grid_sample(x.float(), grid, "bilinear", beyond, align_corners=False)
        placed = (placed - mean) / std
        lam = torch.where(torch.rand(batch) < 0.5, torch.rand(batch), 1.0)
        half = (1 - lam).sqrt() * 0.5
        cy, cx = torch.rand(batch) * height, torch.rand(batch) * width
        y0, y1 = (cy - half * height).clamp(min=0).floor(), (cy + half * height).clamp(max=height).floor()
        x0, x1 = (cx - half * width).clamp(min=0).floor(), (cx + half * width).clamp(max=width).floor()
        rows_in = (down > y0[:, None]) & (down < y1[:, None])
        columns_in = (across > x0[:, None]) & (across < x1[:, None])
        box = rows_in[:, :, None] & columns_in[:, None]
        partner = torch.randperm(batch)
        kept = 1 - box.float().mean((1, 2))
        hot = F.one_hot(y, K).float()
        rows_of = kept[:, None] * hot + (1 - kept)[:, None] * hot[partner]
        return torch.where(box[:, None], placed[partner], placed), rows_of

    return run


def compiled(size: tuple[int, int], resized: bool) -> Call:
    torch._dynamo.reset()
    return torch.compile(by_hand(size, resized))


def gate(call: Call, shape: tuple[int, ...], size: tuple[int, int], resized: bool) -> None:
    """Refuses a result whose pixels do not come from where a recipe of its kind takes them."""
    shape = min(shape[0], 255), *shape[1:]
    x, y = coordinates(shape), torch.arange(shape[0]) % K
    before = x.clone()
    images, rows = call(x, y)
    need(torch.equal(x, before), "the input was changed")
    need(tuple(images.shape) == (shape[0], 3, *size) and images.dtype == torch.float32, f"{images.shape}")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    values = (images * std + mean).double()
    flips, places = 0, set()
    down, across = torch.meshgrid(torch.arange(size[0]).double(), torch.arange(size[1]).double(), indexing="ij")
    for i in range(shape[0]):
        number = values[i, 2]
        own, there = (number - (i + 1)).abs() < 0.01, number > 0.5
        if int(own.sum()) < 200:
            continue
        maps = []
        for plane, along in ((values[i, 0], down), (values[i, 1], across)):
            a, b = along[own], plane[own]
            slope = ((a - a.mean()) * (b - b.mean())).sum() / ((a - a.mean()) ** 2).sum()
            off = (b - b.mean() - slope * (a - a.mean())).abs().max()
            need(off < 0.6, f"pixels of sample {i} are off their straight map by {off:.2f}")
            maps += [float(slope), float(b.mean() - slope * a.mean())]
        flips += maps[2] < 0
        places.add(tuple(round(m, 3) for m in maps))
        if resized:
            share = abs(maps[0] * maps[2]) * size[0] * size[1] / (shape[2] * shape[3])
            need(0.07 < share < 1.02, f"sample {i} shows {share:.2f} of its image")
        else:
            need(abs(abs(maps[2]) - 1) < 1e-3 and abs(maps[0] - 1) < 1e-3, f"sample {i} was resized")
        other = there & ~own
        if rows is not None:
            weight = float(rows[i, i % K])
            need(abs(float(rows[i].sum()) - 1) < 1e-4, "rows don't add up to 1")
            apart = set(number[other].round().long().sub(1).remainder(K).tolist()) - {i % K}
            bound = 1 - float(other.double().mean())
            need(weight >= bound - float((~there).double().mean()) - 0.02, f"label of sample {i} is too low")
            need(weight <= bound + 0.02 or not apart, f"label of sample {i} is too high")
    need(0.3 < flips / shape[0] < 0.7, f"{flips} of {shape[0]} images are flipped")
    need(len(places) > shape[0] // 8, f"only {len(places)} different places")


CONTENDERS: dict[str, Callable[[tuple[int, int], bool], Call]] = {
    "torchvision v2, image by image": of_torchvision,
    "kornia": of_kornia,
    "PyTorch by hand": by_hand,
    "PyTorch by hand, torch.compile": compiled,
}


@pytest.mark.parametrize("name", POINTS)
def test_recipe(name, benchmark, keep):
    (shape, size), resized = POINTS[name], "resized" in name
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    y = torch.arange(shape[0]) % K
    out, spare = torch.empty(shape[0], 3, *size), torch.rand(shape[0], 3, *size)
    made: dict[tuple[str, str], Callable[[], Call]] = {
        (OURS, "fresh"): lambda: ours(size, resized),
        (OURS, "out"): lambda: ours(size, resized, out=out),
        **{(other, "fresh"): (lambda make=make: make(size, resized)) for other, make in CONTENDERS.items()},
    }
    timed: Timed = {}
    remarks: list[dict[str, Any]] = []
    for key, make in made.items():
        try:
            call = make()
            gate(call, shape, size, resized)
            timed[key] = (lambda call=call: call(x, y)), lambda: out.copy_(spare)
        except (ImportError, Wrong) as error:
            remarks.append({"contender": key[0], "destination": key[1], "status": str(error)})
    table = table_of(shape, x, out, timed, remarks)
    table["unit"] = "median of out.copy_(t) of the float32 result"
    show(f"recipe {name}", table)
    keep(f"recipe {name}", table)
    benchmark.pedantic(lambda: ours(size, resized)(x, y), rounds=3, warmup_rounds=1)
    assert not [r for r in table["rows"] if r["contender"] == OURS and "ratio" not in r]
