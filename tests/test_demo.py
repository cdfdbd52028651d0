"""The demo: its pictures, its table, and a plain sentence for everything a user can get wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusedmix import demo, visualize
from fusedmix.__main__ import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs of different sizes and modes, and a file that is none."""
    path = tmp_path / "photographs"
    path.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(values).save(path / "a.JPG")
    Image.fromarray(values[:, :40]).convert("L").save(path / "b.png")
    Image.fromarray(values[:30]).save(path / "a_very_long_file_name.bmp")
    (path / "notes.txt").write_text("not a photograph")
    return path


def test_sheet_of_the_sample_photographs() -> None:
    x, names = demo.load_photographs(None)
    assert x.shape == (4, 3, demo.SIDE, demo.SIDE)
    assert names == ["china", "china", "flower", "flower"]
    sheet = demo.contact_sheet(x, names)
    pixels = np.asarray(sheet)
    first = x[0].permute(1, 2, 0).numpy()
    top, left = 30 + visualize.GAP, visualize.GAP
    assert np.array_equal(pixels[top : top + demo.SIDE, left : left + demo.SIDE], first)


def test_sheet_shows_every_method() -> None:
    x, _ = demo.load_photographs(None)
    rows = demo.sheet_rows(x)
    single = [set(plan.method.tolist()) for _, _, plan in rows[1:-1]]
    assert sorted(method for methods in single for method in methods) == list(range(1, 11))
    assert {0, 1, 2} == set(rows[-1][2].method.tolist())
    assert bool(rows[-1][2].erased.any())
    for title, images, plan in rows[1:]:
        assert not torch.equal(images, x), title
        assert all(plan.explain(i) for i in range(len(x)))


def test_sheet_shows_whole_recipes() -> None:
    x, _ = demo.load_photographs(None)
    for title, images, plan in demo.augment_rows(x):
        assert images.dtype == torch.uint8
        assert not torch.equal(images, x), title
        assert 2 in plan.method.tolist()


def test_sheet_of_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "SEEDS", 2)
    out = tmp_path / "sheet.png"
    assert main(["demo", "--images", str(folder), "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.width == 2 * (visualize.GAP + 3 * (demo.SIDE + visualize.GAP))
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 1000
    x, names = demo.load_photographs(str(folder))
    assert x.dtype == torch.uint8
    assert names == ["a", "a_very_long_file_name", "b"]


def test_table_of_a_short_training(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state()
    errors = demo.train_all(range(2), epochs=2, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    assert list(errors) == ["no mixing", "mixup", "CutMix"]
    assert all(len(values) == 2 and all(0 <= v <= 100 for v in values) for values in errors.values())
    assert demo.train("mixup", 0, 2, demo.load_digits_split()) == errors["mixup"][0]
    table = demo.format_table({"a": [1.0, 3.0], "b": [2.0]})
    assert table.splitlines()[1].split() == ["a", "2.00", "1.41", "2"]
    assert table.splitlines()[2].split() == ["b", "2.00", "nan", "1"]


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["demo", *arguments]) == 2
    return capsys.readouterr().err


def test_wrong_folders(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "sheet.png"))
    missing = str(tmp_path / "missing")
    assert f"no such folder: {missing}" in failed(capsys, "--images", missing, *out)
    assert "must be a folder" in failed(capsys, "--images", str(folder / "a.JPG"), *out)
    empty = tmp_path / "empty"
    empty.mkdir()
    message = failed(capsys, "--images", str(empty), *out)
    assert f"no photographs in {empty}" in message
    assert ".webp" in message
    broken = folder / "broken.jpg"
    broken.write_bytes((folder / "a.JPG").read_bytes()[:200])
    assert f"{broken} is not a readable image" in failed(capsys, "--images", str(folder), *out)
    broken.write_text("not an image")
    assert f"{broken} is not a readable image" in failed(capsys, "--images", str(folder), *out)
    assert not Path(out[1]).exists()


def test_wrong_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must end in .png" in failed(capsys, "--out", str(tmp_path / "sheet.jpg"))
    assert "does not exist" in failed(capsys, "--out", str(tmp_path / "missing" / "sheet.png"))
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in failed(capsys, "--out", str(tmp_path / "folder.png"))


def test_missing_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert 'tqdm is missing: pip install "fusedmix[demo]"' in failed(capsys, "--out", str(tmp_path / "sheet.png"))
