"""What the parts of bench/gpu.py share: device and sizes, inputs, comparison with the reference, environment.

`--dry-run` on the command line is read here, before triton is imported: it selects the interpreter and tiny sizes.
"""
# ruff: noqa: E402  # imports come after the choice of the interpreter

import os
import platform
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

DRY_RUN = "--dry-run" in sys.argv
os.environ["TRITON_INTERPRET"] = "1" if DRY_RUN else "0"  # read when triton is imported
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
import triton
from peers import version_of
from torch import Tensor

from fusedmix import Plan, ops, reference
from fusedmix.functional import call
from fusedmix.recipe import METHOD_MIXUP, Recipe
from fusedmix.reference.sampling import Draw

# A name and what yields its entries: the unit between which a part can stop.
Step = tuple[str, Callable[[], Iterable[dict]]]
Steps = Iterator[Step]

F32, F16, BF16, U8 = torch.float32, torch.float16, torch.bfloat16, torch.uint8
METHODS = {"mixup": 0.0, "cutmix": 1.0, "policy": 0.5}  # name: switch_prob
DEVICE, EVEN, ODD, LARGE = "cuda", (8, 3, 64, 64), (5, 3, 37, 53), (14400, 3, 224, 224)  # LARGE: past 2**31 elements
if DRY_RUN:
    DEVICE, EVEN, ODD, LARGE = "cpu", (4, 3, 8, 8), (3, 3, 5, 7), (2, 3, 8, 8)
    ops.IMPLEMENTATIONS["cpu"] = "launch"  # CPU tensors go through the Triton kernel

# (absolute, relative) bounds of computed pixels, for values up to 255. The steps are those of the reference, in float32
# with one rounding at the end: 2 ulp of 255 for float32; for narrower floats one unit of the last place, should that
# rounding fall on the other side. Copied pixels, integers and plans must be equal bit for bit.
TOLERANCES = {F32: (3.1e-5, 0.0), F16: (1e-4, 2**-10), BF16: (1e-4, 2**-7), U8: (0.0, 0.0)}
ROW_TOLERANCE = (2.4e-7, 0.0)  # target rows: 2 ulp of 1
PACKAGES = ("numpy", "timm", "torchvision", "kornia", "mosaicml", "triton-augment", "matplotlib")


def synchronize() -> None:
    if not DRY_RUN:
        torch.cuda.synchronize()


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# Inputs and calls.


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(shape: tuple[int, ...], dtype: torch.dtype = F32, last: bool = False, seed: int = 0) -> Tensor:
    """Random pixels from 0 to 255, on the CPU."""
    x = (torch.rand(shape, generator=seeded(seed)) * 255).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def device_images(shape: tuple[int, ...], dtype: torch.dtype, last: bool = False) -> Tensor:
    """Random pixels from 0 to 255, on the device."""
    layout = torch.channels_last if last else torch.contiguous_format
    return (torch.rand(shape, device=DEVICE) * 255).to(dtype).contiguous(memory_format=layout)


def poison(t: Tensor) -> Tensor:
    return t.fill_(float("nan") if t.is_floating_point() else 77)


def mixed(recipe: Recipe, x: Tensor, y: Tensor | None, seed: int, **options: Any) -> tuple[Tensor, Tensor | None, Plan]:
    """The public calls' common end: (images, targets, plan). Of a `MixedTarget` the partners' classes."""
    names = ("lam", "box", "partner", "plan", "mean", "std", "out_dtype", "memory_format", "out")
    arguments = {**dict.fromkeys(names), "inplace": False, "sample_offset": 0, **options}
    out, *rows, plan = call(recipe, x, y, generator=seeded(seed), return_plan=True, **arguments)
    return out, (getattr(rows[0], "y_b", rows[0]) if rows else None), plan


# Comparison.


def draw_of(plan: Plan) -> Draw:
    plan = plan.to("cpu")
    return Draw(plan.method, plan.lam, plan.partner, plan.mate, plan.box)


def close(what: str, got: Tensor | None, want: Tensor | None, bounds: tuple = (0.0, 0.0), where: Any = 1) -> dict:
    """Refuses a result that is off by more than the bounds; outside `where` it must be equal."""
    if got is None or want is None:
        assert got is want, f"{what}: {got} instead of {want}"
        return {}
    got, want = got.detach().cpu(), want.detach()
    assert (got.dtype, got.shape) == (want.dtype, want.shape), f"{what}: {got.dtype} {got.shape}"
    error = (got.double() - want.double()).abs()
    bad = ~(error <= (bounds[0] + bounds[1] * want.double().abs()) * where)  # NaN is bad
    assert not bad.any(), f"{what}: {bad.sum()} of {bad.numel()} wrong, worst {error.max()}, first {bad.nonzero()[0]}"
    return {"identical": torch.equal(got, want), "max_error": float(error.max()) if error.numel() else 0.0}


def close_pixels(got: Tensor, want: Tensor, drawn: Draw, norm: Tensor | None) -> dict:
    computed = (drawn.method == METHOD_MIXUP) | (norm is not None)
    return close("pixels", got, want, TOLERANCES[want.dtype], computed.view(-1, *[1] * (want.dim() - 1)))


def close_to_plan(
    x: Tensor, y: Tensor, got: Tensor, rows: Tensor, recipe: Recipe, drawn: Draw, picks: Iterable[int], norm: Any = None
) -> dict:
    """Compares some samples of a batch with the reference, which gets only those and their partners."""
    index = torch.tensor(list(picks))
    both, n = torch.cat([index, drawn.partner[index]]), len(index)
    partner, twice = torch.arange(n, 2 * n).repeat(2), index.repeat(2)
    plan = Draw(drawn.method[twice], drawn.lam[twice], partner, partner, drawn.box[twice])
    some = torch.stack([x[i] for i in both.tolist()]).cpu()
    norm = None if norm is None else norm.cpu()
    want, want_rows, _ = reference.mix(some, y.cpu()[both], recipe, plan=plan, norm=norm, out_dtype=got.dtype)
    close("targets", rows.cpu()[index], want_rows[:n], ROW_TOLERANCE)
    got = torch.stack([got[i] for i in index.tolist()])
    return close_pixels(got, want[:n], Draw(*(column[index] for column in drawn)), norm)


# Failures and environment.


def without_paths(text: str) -> str:
    """Without folders and host name."""
    text = re.sub(r"(?:/[^\s/:\"',)]+)+/", "", text)
    return text.replace(platform.node(), "host") if platform.node() else text


def failure() -> dict:
    """The current exception."""
    return {"ok": False, "error": without_paths(traceback.format_exc()[-3000:])}


def find_sanitizer() -> str | None:
    """compute-sanitizer on the PATH, or in a CUDA toolkit."""
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    folders += map(str, sorted(Path("/usr/local").glob("cuda-*"), reverse=True))
    folders.append(str(Path(triton.__file__).parent / "backends" / "nvidia"))
    names = [Path(f) / sub / "compute-sanitizer" for f in folders if f for sub in ("bin", "compute-sanitizer", "")]
    found = shutil.which("compute-sanitizer")
    return found or next((str(name) for name in names if name.is_file() and os.access(name, os.X_OK)), None)


def environment() -> dict:
    found = {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}
    found |= {name: version_of(name) for name in PACKAGES}
    if DRY_RUN:
        return {**found, "gpu": "no GPU: DRY RUN, not a measurement", "l2_bytes": 0}
    gpu = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
        driver, sm_mhz, memory_mhz = (word.strip() for word in text.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        driver = sm_mhz = memory_mhz = "unknown"
    return {
        **found, "gpu": gpu.name, "capability": (gpu.major, gpu.minor), "driver": driver, "cuda": torch.version.cuda,
        "multiprocessors": gpu.multi_processor_count, "l2_bytes": getattr(gpu, "L2_cache_size", 64 << 20),
        "memory_bytes": gpu.total_memory, "max_sm_mhz": sm_mhz, "max_memory_mhz": memory_mhz,
    }  # fmt: skip
