"""What an install holds: the wheel, the sdist and the editable install."""

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import fusedmix

ROOT = Path(__file__).parent.parent
KERNELS = {p.name for p in (ROOT / "kernels").glob("*.py")}
RUN_TIME = ["numpy", "torch", "triton"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return folder


def test_wheel_holds_package_and_kernels(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert {f"fusedmix/kernels/{name}" for name in KERNELS} <= names
        assert {
            "fusedmix/py.typed",
            "fusedmix/cpu/mix.py",
            *(f"fusedmix/cpu/{path.name}" for path in (ROOT / "fusedmix/cpu").glob("*.[ch]")),
            "fusedmix/reference/mix.py",
        } <= names
        assert not any(name.startswith(("kernels/", "tests/", "bench/")) for name in names)
        archive.extractall(tmp_path)
    code = "import fusedmix, fusedmix.kernels.mix, fusedmix.launch; print(fusedmix.kernels.mix.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(tmp_path / "fusedmix/kernels/mix.py")


def test_sdist_builds_the_same_wheel(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")  # `build` makes the wheel from the sdist, so the sdist is complete
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "tests/cases.py", "bench/gpu.py"} <= names


def test_an_edit_in_kernels_shows_at_once() -> None:
    """The checkout's own package reads the top-level folder through the link."""
    link = ROOT / "fusedmix/kernels"
    assert link.is_symlink()
    assert os.readlink(link) == "../kernels"
    assert not (ROOT / "kernels/__init__.py").exists()
    assert (link / "mix.py").samefile(ROOT / "kernels/mix.py")


def test_run_time_needs_are_three() -> None:
    needs = [need for need in metadata.requires("fusedmix") or [] if "extra ==" not in need]
    assert sorted(need.split(">")[0] for need in needs) == RUN_TIME
    assert fusedmix.__version__ in (ROOT / "CHANGELOG.md").read_text()
