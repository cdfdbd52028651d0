"""CIFAR-10 end to end, fusedmix in place of the usual transforms: `python -m bench.train_cifar10 --data PATH`.

PATH is the folder `cifar-10-batches-py` of the python release (or the folder it lies in), or an npz file of JPEG bytes
with `{train,test}_jpeg` uint8, `{train,test}_offsets` [N + 1] and `{train,test}_labels`. The same network learns from

    fusedmix     uint8 batches, `fusedmix.loader.prefetch`; crop, flip, CutMix and normalisation in one on the device
    torchvision  crop, flip, tensor and normalisation per image in worker processes, CutMix per batch as they collate

Seconds are the host's: "data" until the loop has its batch, "step" the rest. On a GPU what runs there meanwhile shows
in "step"; images per second are of the whole epoch.
"""

import argparse
import io
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

import fusedmix
from bench.peers import import_torchvision
from fusedmix.loader import prefetch
from fusedmix.recipes import CIFAR10_MEAN, CIFAR10_STD

CLASSES = 10
BATCHES = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
WARMUP = 0.2  # share of the training in which the learning rate rises


class Images(NamedTuple):
    """x: uint8 [N, 3, 32, 32]; y: int64 [N]."""

    x: Tensor
    y: Tensor


# Data.


def load(path: Path, cache: Path | None = None, limit: int | None = None) -> tuple[Images, Images]:
    """Images to train on and to test with; with a limit the first of them, and a fifth of it to test."""
    limits = {"train": limit, "test": None if limit is None else max(1, limit // 5)}
    train, test = (load_part(path, part, cache, limits[part]) for part in BATCHES)
    return train, test


def load_part(path: Path, part: str, cache: Path | None, limit: int | None) -> Images:
    folder = path if (path / "test_batch").is_file() else path / "cifar-10-batches-py"
    if path.is_file():
        x, y = read_jpegs(path, part, cache, limit)
    elif folder.is_dir():
        x, y = read_pickles([folder / name for name in BATCHES[part]])
    else:
        raise SystemExit(f"--data must be a folder with cifar-10-batches-py or an npz file, found neither at {path}")
    return Images(torch.from_numpy(x[:limit]), torch.from_numpy(y[:limit].astype(np.int64)))


def read_pickles(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 3, 32, 32] and labels [N] of the python release, whose pickles run what they hold: trust the source."""
    parts = []
    for file in files:
        with file.open("rb") as stream:
            parts.append(pickle.load(stream, encoding="latin1"))
    images, labels = (np.concatenate([part[key] for part in parts]) for key in ("data", "labels"))
    return images.reshape(-1, 3, 32, 32), labels


def read_jpegs(path: Path, part: str, cache: Path | None, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """As `read_pickles`, from JPEG bytes; decoded ones are kept in the folder `cache`, where one is given."""
    kept = None if cache is None else cache / f"{path.stem}-{path.stat().st_size}-{part}.npy"
    with np.load(path, allow_pickle=False) as file:
        labels, offsets = file[f"{part}_labels"], file[f"{part}_offsets"]
        if kept is not None and kept.exists():
            return np.load(kept), labels
        jpeg = file[f"{part}_jpeg"]
    count = len(labels) if kept is not None else min(len(labels), limit or len(labels))
    images = np.stack([decode(jpeg[offsets[i] : offsets[i + 1]]) for i in range(count)])
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".part.npy")
        np.save(unfinished, images)
        unfinished.replace(kept)
    return images, labels


def decode(jpeg: np.ndarray) -> np.ndarray:
    """uint8 [3, H, W] of JPEG bytes."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")).transpose(2, 0, 1)


# The two pipelines: batches (float [B, 3, 32, 32], float [B, 10]) on the device.


class Batches:
    """Batches of images that lie in memory; shuffled ones are all full, where there are enough images for one."""

    def __init__(self, images: Images, batch: int, shuffle: bool):
        self.images, self.batch, self.shuffle = images, min(batch, len(images.x)), shuffle

    def __len__(self) -> int:
        count = len(self.images.x)
        return count // self.batch if self.shuffle else -(-count // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.images.x)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for rows in order.split(self.batch)[: len(self)]:
            yield self.images.x[rows], self.images.y[rows]


def fusedmix_batches(images: Images, options: argparse.Namespace) -> Iterable[tuple[Tensor, Tensor]]:
    mix = [(fusedmix.CutMix(1.0), options.cutmix)]
    augment = fusedmix.recipes.cifar10(mix=mix, num_classes=CLASSES)
    return prefetch(Batches(images, options.batch, shuffle=True), options.device, augment)


class Transformed(Dataset):
    """A dataset as torchvision's: a PIL image through the transforms, and its class."""

    def __init__(self, images: Images, transform: Callable[[Any], Tensor]):
        self.x, self.y, self.transform = images.x.permute(0, 2, 3, 1).contiguous().numpy(), images.y, transform

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.x[i])), int(self.y[i])


def collate(samples: list[tuple[Tensor, int]], cutmix: Callable[..., Any], chance: float) -> tuple[Tensor, Tensor]:
    x, y = default_collate(samples)
    return cutmix(x, y) if torch.rand(()) < chance else (x, F.one_hot(y, CLASSES).float())


def torchvision_batches(images: Images, options: argparse.Namespace) -> Iterable[tuple[Tensor, Tensor]]:
    try:
        import_torchvision()
    except ImportError:
        raise SystemExit("--pipeline torchvision needs torchvision: pip install torchvision") from None
    from torchvision import transforms
    from torchvision.transforms import v2

    mean, std = (tuple(value / 255 for value in values) for values in (CIFAR10_MEAN, CIFAR10_STD))
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    stack = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])
    loader: DataLoader = DataLoader(
        Transformed(images, stack), min(options.batch, len(images.x)), shuffle=True, drop_last=True,
        num_workers=options.workers, persistent_workers=options.workers > 0, pin_memory=options.device.type == "cuda",
        collate_fn=partial(collate, cutmix=v2.CutMix(num_classes=CLASSES, alpha=1.0), chance=options.cutmix),
    )  # fmt: skip
    return prefetch(loader, options.device)


PIPELINES = {"fusedmix": fusedmix_batches, "torchvision": torchvision_batches}


# The network, and its training.


def conv(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *[nn.MaxPool2d(2)] * pool)


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def resnet9(width: int) -> nn.Sequential:
    """A ResNet of nine layers, `width` channels in the first."""
    w = width
    return nn.Sequential(
        conv(3, w), conv(w, 2 * w, pool=True), Residual(conv(2 * w, 2 * w), conv(2 * w, 2 * w)),
        conv(2 * w, 4 * w, pool=True), conv(4 * w, 8 * w, pool=True), Residual(conv(8 * w, 8 * w), conv(8 * w, 8 * w)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * w, CLASSES),
    )  # fmt: skip


def one_cycle(share: float) -> float:
    """Factor of the learning rate at a share of the training: up, then down to 0."""
    return float(np.interp(share, [0, WARMUP, 1], [0, 1, 0]))


def train(name: str, train_images: Images, test_images: Images, options: argparse.Namespace) -> list[dict[str, float]]:
    """Trains with one pipeline and prints a line per epoch. Returns what it printed."""
    torch.manual_seed(options.seed)
    device = options.device
    model = resnet9(options.width).to(device)
    batches = PIPELINES[name](train_images, options)
    steps = options.epochs * len(batches)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), options.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle((step + 0.5) / steps))
    rows = []
    for epoch in range(1, options.epochs + 1):
        model.train()
        total, seen, waited = torch.zeros((), device=device), 0, 0.0
        start = before = time.perf_counter()
        for x, y in batches:
            waited += time.perf_counter() - before
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(x)
            seen += len(x)
            before = time.perf_counter()
        mean_loss = float(total) / seen  # waits for the device
        elapsed = time.perf_counter() - start
        row = {"epoch": epoch, "loss": mean_loss, "accuracy": accuracy(model, test_images, options)}
        row |= {"data": waited, "step": elapsed - waited, "images_per_s": seen / elapsed}
        rows.append(row)
        print(
            f"{name:<12} epoch {epoch:>3}  loss {mean_loss:.4f}  test {row['accuracy']:6.2%}  data {waited:6.2f} s  "
            f"step {row['step']:6.2f} s  {row['images_per_s']:8.0f} images/s",
            flush=True,
        )
    return rows


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, options: argparse.Namespace) -> float:
    """Share of the images that the model classifies right; `eval()` of the recipe normalises and no more."""
    model.eval()
    normalise = fusedmix.recipes.cifar10().eval()
    right = torch.zeros((), dtype=torch.int64, device=options.device)
    for x, y in prefetch(Batches(images, options.batch, shuffle=False), options.device, normalise):
        right += (model(x).argmax(1) == y).sum()
    return int(right) / len(images.x)


def main(arguments: list[str] | None = None) -> dict[str, list[dict[str, float]]]:
    """Runs the command line. Returns the epochs of every pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="PATH", help="cifar-10-batches-py, its parent, or an npz of JPEGs")
    add("--cache", type=Path, metavar="DIR", help="keeps decoded JPEGs here")
    add("--pipeline", choices=[*PIPELINES, "both"], default="fusedmix")
    add("--epochs", type=int, default=10)
    add("--batch", type=int, default=256)
    add("--images", type=int, metavar="N", help="train on the first N images only, test with a fifth as many")
    add("--cutmix", type=float, default=0.5, metavar="P", help="chance of CutMix: per sample, torchvision's per batch")
    add("--width", type=int, default=64, help="channels of the first layer; 8 suits a CPU")
    add("--lr", type=float, default=0.1, help="largest learning rate")
    add("--workers", type=int, default=2, help="processes of torchvision's loader")
    add("--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in ("epochs", "batch", "width", "images"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    train_images, test_images = load(options.data, options.cache, options.images)
    names = list(PIPELINES) if options.pipeline == "both" else [options.pipeline]
    return {name: train(name, train_images, test_images, options) for name in names}


if __name__ == "__main__":
    main()
