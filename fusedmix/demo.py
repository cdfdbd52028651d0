"""The main job to look at: a contact sheet of mixed photographs, then a small model trained with and without mixing."""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import visualize
from .augment import FusedAugment
from .functional import (
    Plan,
    fused_cutmix,
    fused_cutout,
    fused_fmix,
    fused_gridmask,
    fused_gridmix,
    fused_hide_and_seek,
    fused_mixup,
    fused_random_erasing,
    fused_resizemix,
    fused_smoothmix,
)
from .placement import ColorJitter, RandomAffine, RandomResizedCrop
from .spec import CutMix, Mixup, RandomErasing
from .transforms import FusedMix

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_PHOTOGRAPHS = 6
SIDE = 224  # pixels of a tile
SHEET_SEED = 233

CLASSES = 10
TRAIN_SAMPLES = 400  # few, so that there is something to gain
EPOCHS = 40
SEEDS = 5


class DemoError(Exception):
    """Something the user can put right; the message says what."""


def run(images: str | None, out: str) -> None:
    """Writes the contact sheet to `out`, trains on digits and prints a table of test errors."""
    check_extras()
    check_output(out)
    photographs, names = load_photographs(images)
    contact_sheet(photographs, names).save(out)
    source = images if images is not None else "scikit-learn's sample photographs"
    print(f"Contact sheet of {len(names)} tiles from {source}: {out}")
    print(f"\nscikit-learn's handwritten digits, {TRAIN_SAMPLES} to train on, the rest to test:")
    print(format_table(train_all(range(SEEDS), EPOCHS)))


def check_extras() -> None:
    """Refuses to start without the packages of the extra `demo`."""
    try:
        for package in ("PIL", "sklearn", "tqdm"):
            import_module(package)
    except ImportError as error:
        raise DemoError(f'{error.name} is missing: pip install "fusedmix[demo]"') from error


def check_output(out: str) -> None:
    path = Path(out)
    if path.suffix.lower() != ".png":
        raise DemoError(f"--out must end in .png, got {out}")
    if path.is_dir():
        raise DemoError(f"--out is a folder: {out}")
    if not path.parent.is_dir():
        raise DemoError(f"the folder of --out does not exist: {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DemoError(f"--out can't be written: {out}")


# Photographs.


def load_photographs(folder: str | None) -> tuple[Tensor, list[str]]:
    """uint8 [B, 3, 224, 224] and a name for each; B >= 2."""
    from PIL import Image, UnidentifiedImageError

    if folder is None:
        from sklearn.datasets import load_sample_images

        samples = load_sample_images()
        pictures = [Image.fromarray(a) for a in samples.images]
        names = [Path(name).stem for name in samples.filenames]
    else:
        path = Path(folder)
        if not path.exists():
            raise DemoError(f"--images: no such folder: {folder}")
        if not path.is_dir():
            raise DemoError(f"--images must be a folder of photographs, got a file: {folder}")
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in ENDINGS and f.is_file())[:MAX_PHOTOGRAPHS]
        if not files:
            raise DemoError(f"--images: no photographs in {folder} (looked for {', '.join(ENDINGS)})")
        pictures, names = [], [f.stem for f in files]
        for file in files:
            try:
                with Image.open(file) as picture:
                    pictures.append(picture.convert("RGB"))
            except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
                raise DemoError(f"--images: {file} is not a readable image ({error})") from error
    if len(pictures) <= 2:  # too few to show several draws: two squares of each
        squares = [square(picture, where) for picture in pictures for where in (0.15, 0.85)]
        names = [name for name in names for _ in range(2)]
    else:
        squares = [square(picture, 0.5) for picture in pictures]
    stacked = np.stack([np.asarray(s.resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for s in squares])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous(), names


def square(picture: Any, where: float) -> Any:
    """The largest square of a picture, at `where` (0 to 1) along its longer side."""
    side = min(picture.size)
    left, top = (int((length - side) * where) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


# The contact sheet.


def sheet_rows(x: Tensor) -> list[tuple[str, Tensor, Plan | None]]:
    """Title, images and plan of every row: the originals, each method, and a policy of several."""
    generator = torch.Generator().manual_seed(SHEET_SEED)
    options: dict[str, Any] = {"generator": generator, "return_plan": True}
    noise: dict[str, Any] = {"p": 1.0, "fill_mode": "pixel", "value": 128.0, "sigma": 60.0}
    policy = FusedMix([(CutMix(1.0), 0.4), (Mixup(2.0), 0.3), (None, 0.3)], erase=RandomErasing(p=0.5))
    return [
        ("originals", x, None),
        ("fused_mixup(x, alpha=2.0)", *fused_mixup(x, alpha=2.0, **options)),
        ("fused_cutmix(x)", *fused_cutmix(x, **options)),
        ("fused_resizemix(x)", *fused_resizemix(x, scale=(0.3, 0.8), **options)),
        ("fused_gridmix(x, partner='flip')", *fused_gridmix(x, partner="flip", **options)),
        ("fused_smoothmix(x)", *fused_smoothmix(x, **options)),
        ("fused_fmix(x, partner='flip')", *fused_fmix(x, partner="flip", **options)),
        ("fused_cutout(x, length=112)", *fused_cutout(x, length=112, **options)),
        ("fused_random_erasing(x, p=1.0, fill_mode='pixel', ...)", *fused_random_erasing(x, **noise, **options)),
        ("fused_gridmask(x, d=(40, 90), p=1.0)", *fused_gridmask(x, d=(40, 90), p=1.0, **options)),
        ("fused_hide_and_seek(x, sizes=(32, 44, 56))", *fused_hide_and_seek(x, sizes=(32, 44, 56), **options)),
        ("FusedMix([(CutMix(1.0), 0.4), (Mixup(2.0), 0.3), (None, 0.3)], erase=RandomErasing(p=0.5))",
         *policy(x, **options)),
    ]  # fmt: skip


def augment_rows(x: Tensor) -> list[tuple[str, Tensor, Plan | None]]:
    """Rows of whole recipes, as `sheet_rows`."""
    recipes: dict[str, dict[str, Any]] = {
        "FusedAugment(crop=RandomResizedCrop(), flip=0.5, mix=CutMix())": {
            "crop": RandomResizedCrop(), "flip": 0.5, "mix": CutMix(),
        },
        "FusedAugment(flip=0.5, affine=RandomAffine(25), color=ColorJitter(0.4, 0.4, 0.4), mix=[(CutMix(), 0.5)])": {
            "flip": 0.5, "affine": RandomAffine(25.0), "color": ColorJitter(0.4, 0.4, 0.4), "mix": [(CutMix(), 0.5)],
        },
    }  # fmt: skip
    generator = torch.Generator().manual_seed(SHEET_SEED)
    return [
        (title, *FusedAugment(dtype=torch.uint8, **recipe)(x, generator=generator, return_plan=True))
        for title, recipe in recipes.items()
    ]


def contact_sheet(x: Tensor, names: Sequence[str]) -> Any:
    """A PIL image: two columns of titled rows of tiles, with label weights, boxes, and partners as insets."""
    from PIL import Image, ImageDraw, ImageFont

    head = 30  # pixels above a row, for its title
    font = ImageFont.load_default(size=17)
    rows = [
        (title, visualize.grid(images, plan=plan, labels=names, originals=x, columns=len(x)))
        for title, images, plan in (*sheet_rows(x), *augment_rows(x))
    ]
    wide, high = rows[0][1].width, rows[0][1].height + head
    sheet = Image.new("RGB", (2 * wide, -(-len(rows) // 2) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for n, (title, row) in enumerate(rows):
        left, top = n % 2 * wide, n // 2 * high
        draw.text((left + visualize.GAP, top + 6), title, fill="black", font=font)
        sheet.paste(row, (left, top + head))
    return sheet


# Training on digits.


def load_digits_split(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train images [400, 1, 8, 8] in [0, 1] and labels, test images and labels; the same for every method."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    y = torch.from_numpy(digits.target).long()
    train, test = train_test_split(
        np.arange(len(y)), train_size=TRAIN_SAMPLES, stratify=digits.target, random_state=seed
    )
    return x[train], y[train], x[test], y[test]


def small_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, CLASSES),
    )  # fmt: skip


METHODS = {
    "no mixing": lambda x, y: (x, F.one_hot(y, CLASSES).float()),
    "mixup": lambda x, y: fused_mixup(x, y, alpha=0.4, num_classes=CLASSES),
    "CutMix": lambda x, y: fused_cutmix(x, y, alpha=1.0, p=0.5, num_classes=CLASSES),
}


def train_all(seeds: Sequence[int], epochs: int, progress: bool = True) -> dict[str, list[float]]:
    """Test error in percent of every method, one per seed."""
    from tqdm import tqdm

    split = load_digits_split()
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small only waits for a second thread, and long where the cores are busy
    with (
        torch.random.fork_rng(devices=[]),
        tqdm(total=len(METHODS) * len(seeds), unit="run", disable=not progress) as bar,
    ):
        for seed in seeds:
            for name in METHODS:
                bar.set_description(f"{name}, seed {seed}")
                errors[name].append(train(name, seed, epochs, split))
                bar.update()
    torch.set_num_threads(threads)
    return errors


def train(method: str, seed: int, epochs: int, split: tuple[Tensor, Tensor, Tensor, Tensor]) -> float:
    """Test error in percent after training with one method."""
    torch.manual_seed(seed)
    x, y, test_x, test_y = split
    model, mix, batch = small_model(), METHODS[method], 50
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            inputs, targets = mix(x[rows], y[rows])
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return 100 * float((model(test_x).argmax(1) != test_y).float().mean())


def format_table(errors: dict[str, list[float]]) -> str:
    """Mean and standard deviation over seeds, a line per method."""
    lines = [f"{'method':<12}{'test error, %':>15}{'spread':>9}{'seeds':>7}"]
    for name, values in errors.items():
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        lines.append(f"{name:<12}{np.mean(values):>15.2f}{spread:>9.2f}{len(values):>7}")
    return "\n".join(lines)
