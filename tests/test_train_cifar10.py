"""bench/train_cifar10.py on a few made-up images: both formats of the data, the network, an epoch."""

import argparse
import io
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fusedmix
from bench import train_cifar10

PER_BATCH = 12  # images in each of the five training files, and in the test file


def make_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images, which JPEG keeps nearly as they are: uint8 [n, 3, 32, 32] and classes."""
    generator = np.random.default_rng(0)
    corners = torch.from_numpy(generator.uniform(0, 255, (n, 3, 2, 2)))
    smooth = torch.nn.functional.interpolate(corners, size=32, mode="bilinear", align_corners=True)
    return smooth.round().to(torch.uint8).numpy(), generator.integers(0, 10, n)


@pytest.fixture
def pickles(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    x, y = make_images(6 * PER_BATCH)
    for n, name in enumerate([*train_cifar10.BATCHES["train"], *train_cifar10.BATCHES["test"]]):
        rows = slice(n * PER_BATCH, (n + 1) * PER_BATCH)
        batch = {"data": x[rows].reshape(PER_BATCH, 3072), "labels": y[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    return tmp_path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    x, y = make_images(6 * PER_BATCH)
    arrays = {}
    for part, rows in (("train", slice(0, 5 * PER_BATCH)), ("test", slice(5 * PER_BATCH, None))):
        encoded = []
        for pixels in x[rows]:
            stream = io.BytesIO()
            image.fromarray(pixels.transpose(1, 2, 0)).save(stream, "JPEG", quality=95)
            encoded.append(stream.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
        arrays[f"{part}_labels"] = y[rows].astype(np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)
    return path


def check(train: train_cifar10.Images, test: train_cifar10.Images, counts: tuple[int, int], tolerance: int) -> None:
    x, y = make_images(6 * PER_BATCH)
    for images, count, start in ((train, counts[0], 0), (test, counts[1], 5 * PER_BATCH)):
        assert images.x.dtype == torch.uint8
        assert images.y.dtype == torch.int64
        assert list(images.x.shape) == [count, 3, 32, 32]
        assert images.y.tolist() == y[start : start + count].tolist()
        apart = np.abs(images.x.numpy().astype(int) - x[start : start + count])
        assert apart.max() <= tolerance


def test_pickles_exactly(pickles: Path) -> None:
    check(*train_cifar10.load(pickles), (60, 12), tolerance=0)
    check(*train_cifar10.load(pickles / "cifar-10-batches-py", limit=25), (25, 5), tolerance=0)


def test_jpegs_nearly(npz: Path, tmp_path: Path) -> None:
    tolerance = 16  # chroma at half the resolution, quality 95
    check(*train_cifar10.load(npz), (60, 12), tolerance)
    check(*train_cifar10.load(npz, limit=7), (7, 1), tolerance)
    cache = tmp_path / "decoded"
    check(*train_cifar10.load(npz, cache, limit=7), (7, 1), tolerance)
    assert len(list(cache.iterdir())) == 2
    check(*train_cifar10.load(npz, cache), (60, 12), tolerance)


def test_cache_is_read(npz: Path, tmp_path: Path) -> None:
    train_cifar10.load(npz, tmp_path / "decoded")
    for file in (tmp_path / "decoded").iterdir():
        np.save(file, np.load(file) * 0 + 9)
    train, test = train_cifar10.load(npz, tmp_path / "decoded")
    assert train.x.unique().tolist() == test.x.unique().tolist() == [9]


def test_no_data(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SystemExit, match="--data must be a folder with cifar-10-batches-py or an npz file"):
            train_cifar10.load(path)


def test_batches() -> None:
    images = train_cifar10.Images(*map(torch.from_numpy, make_images(20)))
    batches = train_cifar10.Batches(images, 8, shuffle=False)
    assert [len(x) for x, _ in batches] == [8, 8, 4]
    assert len(batches) == 3
    assert torch.equal(torch.cat([y for _, y in batches]), images.y)
    shuffled = train_cifar10.Batches(images, 8, shuffle=True)
    assert [len(x) for x, _ in shuffled] == [8, 8]
    assert len(shuffled) == 2
    assert [len(x) for x, _ in train_cifar10.Batches(images, 64, shuffle=True)] == [20]


def test_learning_rate() -> None:
    assert [train_cifar10.one_cycle(share) for share in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("data", ["pickles", "npz"])
def test_epoch(data: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    path = request.getfixturevalue(data)
    arguments = [
        "--data",
        str(path),
        "--epochs",
        "2",
        "--batch",
        "16",
        "--width",
        "2",
        "--device",
        "cpu",
        "--seed",
        "3",
    ]
    rows = train_cifar10.main(arguments)["fusedmix"]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        assert 0 < row["loss"] < 10
        assert row["accuracy"] * 12 == pytest.approx(round(row["accuracy"] * 12))
        assert min(row["data"], row["step"], row["images_per_s"]) > 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert all("loss" in line and "images/s" in line for line in printed)


def test_same_seed_same_batches() -> None:
    images = train_cifar10.Images(*map(torch.from_numpy, make_images(12)))
    options = argparse.Namespace(batch=4, cutmix=0.5, device=torch.device("cpu"))
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append(list(train_cifar10.fusedmix_batches(images, options)))
    for (a, b), (c, d) in zip(*results, strict=True):
        assert list(a.shape) == [4, 3, 32, 32]
        assert list(b.shape) == [4, 10]
        assert b.sum(1).tolist() == pytest.approx([1] * 4)
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_evaluation_normalises_and_no_more() -> None:
    x = torch.from_numpy(make_images(3)[0])
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (train_cifar10.CIFAR10_MEAN, train_cifar10.CIFAR10_STD)
    )
    torch.testing.assert_close(fusedmix.recipes.cifar10().eval()(x), (x - mean) / std, atol=1e-5, rtol=1e-5)


def test_wrong_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_cifar10.main(["--data", "x", "--epochs", "0"])
    assert "--epochs must be at least 1, got 0" in capsys.readouterr().err


def test_torchvision_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    images = train_cifar10.Images(*map(torch.from_numpy, make_images(4)))
    with pytest.raises(SystemExit, match="--pipeline torchvision needs torchvision"):
        train_cifar10.torchvision_batches(images, argparse.Namespace())
