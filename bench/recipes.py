"""Whole recipes from a uint8 batch to the training tensor, who is compared on them, and the gate before the clock.

The gate feeds images that hold their rows, their columns and their number as channels, so that it can read from a
result where each pixel came from: own pixels must lie on a map of rows and columns that is straight and differs from
sample to sample, half of them flipped; a box of another image may lie on top, and labels must say how much of it.
Under a change of colours the channels must stay straight functions of row and column, other ones in every sample.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peers import MEAN, OURS, STD, Wrong, import_torchvision, need
from torch import Tensor

import fusedmix

Call = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
K = 15
STEP = 4  # between the numbers of two samples, further apart than bfloat16 rounds them
GATED = 60  # samples: their numbers fit a byte
JITTER = 0.4  # brightness, contrast and saturation
LOW, SCALE = 80, 4  # coordinates as bytes that no jitter clamps: 80 + row // 4


class Recipe(NamedTuple):
    name: str
    shape: tuple[int, int, int, int]
    size: tuple[int, int]
    crop: str  # "padded", "resized" or "window"
    mix: bool
    color: bool
    dtype: torch.dtype = torch.float32

    @property
    def elements(self) -> int:
        return self.shape[0] * self.shape[1] * self.size[0] * self.size[1]


RECIPES = (
    Recipe("CIFAR: padded crop, flip, CutMix", (512, 3, 32, 32), (32, 32), "padded", True, False),
    Recipe("ImageNet: resized crop, flip, CutMix", (64, 3, 256, 256), (224, 224), "resized", True, False),
    Recipe(
        "colour: crop, flip, brightness, contrast, saturation", (64, 3, 256, 256), (224, 224), "window", False, True
    ),
)


class Contender(NamedTuple):
    name: str
    make: Callable[[Recipe], Call]
    places: bool = True  # crops and flips, and draws them per sample
    note: str = ""


def channels(values: tuple[float, ...], x: Tensor) -> Tensor:
    return torch.tensor(values, device=x.device).view(1, 3, 1, 1)


def ours(recipe: Recipe, out: Tensor | None = None) -> Call:
    crop = {
        "padded": fusedmix.RandomCrop(4), "resized": fusedmix.RandomResizedCrop(), "window": fusedmix.RandomCrop()
    }[recipe.crop]  # fmt: skip
    mix = [(fusedmix.CutMix(), 0.5)] if recipe.mix else None
    color = fusedmix.ColorJitter(JITTER, JITTER, JITTER) if recipe.color else None
    classes = K if recipe.mix else None
    augment = fusedmix.FusedAugment(
        recipe.size, crop, 0.5, color=color, mix=mix, mean=MEAN, std=STD, dtype=recipe.dtype, num_classes=classes
    )

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        into = None if out is None else out[: len(x)]
        if not recipe.mix:
            return augment(x, out=into), None
        images, rows = augment(x, y, out=into)
        return images, rows

    return run


def of_torchvision(recipe: Recipe, per_image: bool = True) -> Call:
    """The usual stack, image by image or once for the batch, then its CutMix of the batch (with one lam)."""
    import_torchvision()
    v2 = import_module("torchvision.transforms.v2")
    steps = {
        "padded": lambda: v2.RandomCrop(recipe.size, padding=4),
        "resized": lambda: v2.RandomResizedCrop(recipe.size, antialias=False),
        "window": lambda: v2.RandomCrop(recipe.size),
    }
    place = v2.Compose([
        steps[recipe.crop](), v2.RandomHorizontalFlip(),
        *([v2.ColorJitter(JITTER, JITTER, JITTER)] if recipe.color else []),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
        v2.ToDtype(recipe.dtype),
    ])  # fmt: skip
    cutmix = v2.CutMix(num_classes=K) if recipe.mix else lambda x, y: (x, None)
    if per_image:
        return lambda x, y: cutmix(torch.stack([place(image) for image in x]), y)
    return lambda x, y: cutmix(place(x), y)


def of_kornia(recipe: Recipe) -> Call:
    """Its rows of labels, in a form of its own, are left as they are."""
    k = import_module("kornia.augmentation")
    steps = {
        "padded": lambda: k.RandomCrop(recipe.size, padding=4, cropping_mode="slice"),
        "resized": lambda: k.RandomResizedCrop(recipe.size, cropping_mode="resample", align_corners=False),
        "window": lambda: k.RandomCrop(recipe.size, cropping_mode="slice"),
    }
    mean, std = torch.tensor(MEAN) / 255, torch.tensor(STD) / 255
    color = [k.ColorJitter(JITTER, JITTER, JITTER, 0.0)] if recipe.color else []
    flip, normalise = k.RandomHorizontalFlip(), k.Normalize(mean, std)
    place = k.AugmentationSequential(steps[recipe.crop](), flip, *color, normalise, data_keys=["input"])
    cutmix = k.RandomCutMixV2(p=1.0, data_keys=["input", "class"])

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, None]:
        placed = place(x.float() / 255)
        return (cutmix(placed, y)[0] if recipe.mix else placed).to(recipe.dtype), None

    return run


def of_timm(recipe: Recipe) -> Call:
    """The device's part of its fast input path: PrefetchLoader, then Mixup; its crops and flips are the workers'."""
    if recipe.color:
        raise Wrong("it has no such recipe")
    import_torchvision()
    loader = import_module("timm.data.loader").PrefetchLoader
    mixup = import_module("timm.data.mixup").Mixup(
        mixup_alpha=0.0, cutmix_alpha=1.0, mode="elem", label_smoothing=0.0, num_classes=K
    )
    mean, std = ([v / 255 for v in values] for values in (MEAN, STD))

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        cropped = x[:, :, : recipe.size[0], : recipe.size[1]]
        ((images, classes),) = loader([(cropped, y)], mean, std, device=x.device, img_dtype=recipe.dtype)
        return mixup(images, classes) if recipe.mix else (images, None)

    return run


def of_triton_augment(recipe: Recipe) -> Call:
    """It neither pads nor resizes nor mixes, and wants floats."""
    if recipe.crop != "window" or recipe.mix:
        raise Wrong("it has no such recipe")
    augment = import_module("triton_augment").TritonFusedAugment(
        crop_size=recipe.size, horizontal_flip_p=0.5, brightness=JITTER, contrast=JITTER, saturation=JITTER,
        mean=tuple(m / 255 for m in MEAN), std=tuple(s / 255 for s in STD),
    )  # fmt: skip
    return lambda x, y: (augment(x.float() / 255).to(recipe.dtype), None)


def by_hand(recipe: Recipe) -> Call:
    """Vectorised: one grid of source points a sample, sampled, coloured, normalised, mixed under a mask."""
    height, width = recipe.size

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, _, rows, columns = x.shape

        def draws(count: int = 1) -> Tensor:
            return torch.rand(count, batch, device=x.device)

        down, across = (torch.arange(side, device=x.device) + 0.5 for side in (height, width))
        if recipe.crop == "resized":
            area, log_ratio = rows * columns * (0.08 + 0.92 * draws()[0]), (draws()[0] * 2 - 1) * 0.28768
            ratio = torch.exp(log_ratio)
            w, h = (area * ratio).sqrt().clamp(max=columns), (area / ratio).sqrt().clamp(max=rows)
            y0, x0 = draws()[0] * (rows - h), draws()[0] * (columns - w)
        else:
            h = torch.full((batch,), float(height), device=x.device)
            w = torch.full((batch,), float(width), device=x.device)
            spare = (8, 8, 4) if recipe.crop == "padded" else (rows - height, columns - width, 0)
            y0, x0 = (torch.floor(draws()[0] * (room + 1)) - spare[2] for room in spare[:2])
        v = y0[:, None] + down * (h / height)[:, None]
        flipped = torch.where(draws()[0][:, None] < 0.5, width - across, across)
        u = x0[:, None] + flipped * (w / width)[:, None]
        zero = torch.zeros(batch, height, width, device=x.device)
        grid = torch.stack([(2 * u / columns - 1)[:, None] + zero, (2 * v / rows - 1)[..., None] + zero], 3)
        beyond = "zeros" if recipe.crop == "padded" else "border"
        placed = F.grid_sample(x.float(), grid, "bilinear", beyond, align_corners=False)
        if recipe.color:
            brightness, contrast, saturation = (1 + JITTER * (2 * draws(3) - 1)).view(3, batch, 1, 1, 1)
            placed = (placed * brightness).clamp(0, 255)
            placed = (127.5 + contrast * (placed - 127.5)).clamp(0, 255)
            weights = torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)
            gray = (placed * weights).sum(1, keepdim=True)
            placed = (gray + saturation * (placed - gray)).clamp(0, 255)
        placed = (placed - channels(MEAN, x)) / channels(STD, x)
        if not recipe.mix:
            return placed.to(recipe.dtype), None
        apply, drawn, cy, cx = draws(4)
        half = (1 - torch.where(apply < 0.5, drawn, 1.0)).sqrt() * 0.5
        cy, cx = cy * height, cx * width
        y0, y1 = (cy - half * height).clamp(min=0).floor(), (cy + half * height).clamp(max=height).floor()
        x0, x1 = (cx - half * width).clamp(min=0).floor(), (cx + half * width).clamp(max=width).floor()
        rows_in = (down > y0[:, None]) & (down < y1[:, None])
        columns_in = (across > x0[:, None]) & (across < x1[:, None])
        box = rows_in[:, :, None] & columns_in[:, None]
        partner = draws()[0].argsort()  # inductor of torch 2.13 fails on images[torch.randperm(batch)]
        kept = 1 - box.float().mean((1, 2))
        hot = F.one_hot(y, K).float()
        mixed_rows = kept[:, None] * hot + (1 - kept)[:, None] * hot[partner]
        return torch.where(box[:, None], placed[partner], placed).to(recipe.dtype), mixed_rows

    return run


def compiled(recipe: Recipe, **options: Any) -> Call:
    torch._dynamo.reset()
    return torch.compile(by_hand(recipe), **options)


PEERS = (
    Contender("torchvision v2, image by image", of_torchvision),
    Contender("kornia", of_kornia),
    Contender("PyTorch by hand", by_hand),
    Contender("PyTorch by hand, torch.compile", compiled),
)
GPU_PEERS = (
    Contender("torchvision v2, one draw a batch", lambda recipe: of_torchvision(recipe, False), False),
    Contender("timm PrefetchLoader, Mixup", of_timm, False, "crop and flip are left to the workers of its loader"),
    Contender("triton-augment", of_triton_augment),
)


def gate(contender: Contender, call: Call, recipe: Recipe, device: torch.device | str = "cpu") -> None:
    """Refuses a result whose pixels do not come from where a recipe of its kind takes them."""
    batch = min(recipe.shape[0], GATED)
    height, width = recipe.shape[2:]
    row, column = torch.arange(height)[:, None], torch.arange(width)
    if recipe.color:
        row, column = LOW + row // SCALE, LOW + column // SCALE
    number = STEP * (torch.arange(batch)[:, None, None] + 1) if not recipe.color else torch.tensor(LOW + 20)
    x = torch.stack([plane.expand(batch, height, width) for plane in (row, column, number)], 1)
    x, y = x.to(torch.uint8).to(device), torch.arange(batch, device=device) % K
    before = x.clone()
    images, rows = call(x, y)
    need(torch.equal(x, before), "the input was changed")
    need(tuple(images.shape) == (batch, 3, *recipe.size), f"images are {list(images.shape)}")
    need(images.dtype == recipe.dtype, f"images are {images.dtype}")
    values = (images.float() * channels(STD, images) + channels(MEAN, images)).double().cpu()
    if recipe.color:
        check_colors(contender, values)
    else:
        check_places(contender, recipe, values, None if rows is None else rows.cpu())


def plane_of(values: Tensor) -> tuple[Tensor, float]:
    """Coefficients (constant, per row, per column) of the plane through [H, W], and the furthest point from it."""
    height, width = values.shape
    down, across = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    design = torch.stack([torch.ones_like(down), down, across], -1).view(-1, 3)
    found = torch.linalg.lstsq(design, values.reshape(-1, 1)).solution
    return found[:, 0], float((design @ found - values.reshape(-1, 1)).abs().max())


def check_colors(contender: Contender, values: Tensor) -> None:
    seen, flips = set(), 0
    for image in values:
        fits = [plane_of(channel) for channel in image]
        off = max(error for _, error in fits)
        # Whole numbers after each of three steps, whose factors reach 1.4: 1 + 1.4 + 1.4 ** 2, and half a step of x.
        need(off < 5.0, f"channels are off a straight function of row and column by {off:.2f}")
        flips += float(fits[1][0][2]) < 0
        seen.add(tuple(round(float(c), 2) for found, _ in fits for c in found))
    if contender.places:
        need(len(seen) > 0.9 * len(values), f"only {len(seen)} different images")
        check_flips(flips, len(values))


def check_places(contender: Contender, recipe: Recipe, values: Tensor, rows: Tensor | None) -> None:
    flips, places, mixed = 0, set(), 0
    slack = 0.01 if recipe.dtype == torch.float32 else 1.0
    bent = 0.01 if recipe.dtype == torch.float32 else 0.06  # by how much rounded pixels tilt a line of slope 1
    down, across = torch.meshgrid(*(torch.arange(side).double() for side in recipe.size), indexing="ij")
    for i, image in enumerate(values):
        number = image[2]
        own, there = (number - STEP * (i + 1)).abs() <= slack, number > 0.5 * STEP
        if int(own.sum()) < 200:
            continue
        maps = []
        for plane, along in ((image[0], down), (image[1], across)):
            a, b = along[own], plane[own]
            slope = ((a - a.mean()) * (b - b.mean())).sum() / ((a - a.mean()) ** 2).sum()
            off = (b - b.mean() - slope * (a - a.mean())).abs().max()
            need(off < 1.1 + slack, f"pixels of sample {i} are off their straight map by {off:.2f}")
            maps += [float(slope), float(b.mean() - slope * a.mean())]
        flips += maps[2] < 0
        places.add(tuple(round(m, 2) for m in maps))
        if recipe.crop == "resized" and contender.places:
            share = abs(maps[0] * maps[2]) * recipe.size[0] * recipe.size[1] / (recipe.shape[2] * recipe.shape[3])
            need(0.07 < share < 1.03, f"sample {i} shows {share:.2f} of its image")
        elif contender.places:
            need(abs(abs(maps[2]) - 1) < bent and abs(maps[0] - 1) < bent, f"sample {i} was resized")
        other = there & ~own
        mixed += bool(other.any())
        if rows is not None:
            weight, kept = float(rows[i, i % K]), 1 - float(other.double().mean())
            need(abs(float(rows[i].sum()) - 1) < 1e-2, "rows don't add up to 1")
            classes = set((number[other] / STEP).round().long().sub(1).remainder(K).tolist()) - {i % K}
            blank = float((~there).double().mean())  # may belong to either
            need(weight >= kept - blank - 0.02, f"label of sample {i} is too low")
            need(weight <= kept + 0.02 or not classes, f"label of sample {i} is too high")
    need(not recipe.mix or mixed > 0 or len(values) < 16, "nothing was mixed")
    if contender.places:
        check_flips(flips, len(values))
        need(len(places) > len(values) // 4, f"only {len(places)} different places")


def check_flips(flips: int, count: int) -> None:
    need(abs(flips - count / 2) <= 2 * count**0.5, f"{flips} of {count} images are flipped")  # four deviations


def admitted(contender: Contender, recipe: Recipe, device: torch.device | str = "cpu") -> Call:
    """A contender that passed the gate; raises ImportError, or `Wrong` with what it did."""
    try:
        call = contender.make(recipe)
        gate(contender, call, recipe, device)
    except (ImportError, Wrong):
        raise
    except Exception as error:
        if contender.name == OURS:
            raise
        raise Wrong(f"failed: {str(error).strip().splitlines()[0][:200]}") from error
    return call
