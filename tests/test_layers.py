"""The floors of the design: imports run downward only, and the package imports without triton."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import fusedmix

PACKAGE = Path(fusedmix.__file__).parent
FLOORS = [  # lowest first; a module may import from its own floor's folder and from below
    ["recipe", "rng", "layout", "schedule"],
    ["reference", "kernels"],
    ["cpu", "launch"],
    ["ops", "field"],
    ["spec"],
    ["labels", "placement"],
    ["checks"],
    ["functional"],
    ["transforms", "visualize"],
    ["augment"],
    ["recipes", "loader"],
    ["__init__"],
    ["demo"],
    ["__main__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def floor_name(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Names of the floors that a module imports from, wherever the import stands."""
    found = set()
    package = ("fusedmix", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = (*base, *(node.module.split(".") if node.module else ()))
            if target[:1] == ("fusedmix",):
                found |= {target[1]} if len(target) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {([*name, "__init__"])[1] for name in names if name[0] == "fusedmix"}
    return found


def modules() -> list[Path]:
    return [*PACKAGE.glob("*.py"), *(p for f in ("reference", "cpu", "kernels") for p in (PACKAGE / f).glob("*.py"))]


def test_every_module_has_a_floor() -> None:
    assert {floor_name(path) for path in modules()} == set(FLOOR)


def test_imports_run_downward() -> None:
    for path in modules():
        name = floor_name(path)
        for other in imported(path):
            other = other if other in FLOOR else "__init__"  # a name of the package itself
            assert other == name or FLOOR[other] < FLOOR[name], f"{path.relative_to(PACKAGE)} imports {other}"


def test_kernels_know_no_spec_and_hold_only_triton() -> None:
    for path in (PACKAGE / "kernels").glob("*.py"):
        assert imported(path) <= {
            *("recipe", "rng", "kernels", "family", "geometry", "labels", "masks", "mix", "philox", "pixel", "regions"),
            "sampling",
        }
        assert "import torch" not in path.read_text()


def test_kernels_unpack_one_level_at_a_time() -> None:
    """Triton 3.6 can't read tuples within tuples on the left of an assignment."""
    for path in (PACKAGE / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for target in node.targets if isinstance(node, ast.Assign) else ():
                nested = isinstance(target, ast.Tuple) and any(isinstance(part, ast.Tuple) for part in target.elts)
                assert not nested, f"{path.name}:{node.lineno}"


def test_reference_mirrors_kernels_name_for_name() -> None:
    """Every reference file has its kernel file or files, and every sampler, mask and pixel step its twin."""
    parts = {"family": ("choices", "tiles", "family")}
    differ = {  # where the one works on a whole tensor and the other on a program's values
        "sampling": {"number", "sqrt", "draw", "mates", "sort_keys", "cut_box", "minmax_box", "clip_box", "pack"},
        "labels": {"dense_rows", "mix_rows"},
        "philox": {"multiply", "philox"},
        "mix": {"mix", "finished", "mixed_target"},
        "pixel": {"fma", "emulated_fma", "addcmul_rounds_once"},
        "regions": {"cut_side", "grid_centre"},
        "augment": {
            "sampled",
            "pictures",
            "brightest",
            "white_of",
            "draw_augment",
            "augment",
            "pack_augment",
            "unpack_augment",
        },
        "family": {
            *("no_boxes", "first_fitting", "holes", "chosen_cells", "columns", "pixels", "draw_family", "in_boxes"),
            *("given_weight", "blends_softly", "noise_of"),
            *("mix_family", "apply_family", "adjoint_family", "weighed", "resized", "resized_adjoint"),
            *("pack", "unpack"),
        },
    }
    for path in (PACKAGE / "reference").glob("[!_]*.py"):
        twins = [PACKAGE / "kernels" / f"{stem}.py" for stem in parts.get(path.stem, (path.stem,))]
        names, of_kernels = (
            {node.name for p in paths for node in ast.parse(p.read_text()).body if isinstance(node, ast.FunctionDef)}
            for paths in ([path], twins)
        )
        assert names - differ.get(path.stem, set()) <= of_kernels, path.stem


def test_import_without_triton() -> None:
    """On a machine without triton everything works on the CPU, and a GPU call says what is missing."""
    code = """
        import sys
        sys.modules["triton"] = None
        import torch, fusedmix
        x, y = fusedmix.fused_cutmix(torch.rand(4, 3, 8, 8), torch.arange(4), num_classes=4)
        assert y.shape == (4, 4)
        try:
            fusedmix.ops.implementation("cuda")
        except RuntimeError as error:
            assert "pip install triton" in str(error), error
        else:
            raise AssertionError("no error")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
