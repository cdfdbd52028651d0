"""What do the other methods cost on the CPU, beside `out.copy_(x)`, and Random Erasing beside timm and torchvision?

An erasing is timed only if every image it made differs from its original in one filled rectangle or not at all.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from contenders import OURS
from cpu_timing import Timed, show, table_of
from peers import Wrong, import_torchvision
from torch import Tensor

import fusedmix

SHAPES = [(512, 3, 32, 32), (128, 3, 224, 224)]
Erasing = Callable[[Tensor], Tensor]


def timm_erasing(noise: bool) -> Erasing:
    import_torchvision()
    mode = "pixel" if noise else "const"
    return import_module("timm.data.random_erasing").RandomErasing(probability=0.5, mode=mode, device="cpu")


def torchvision_erasing(noise: bool) -> Erasing:
    import_torchvision()
    value = "random" if noise else 0
    erase = import_module("torchvision.transforms.v2").RandomErasing(p=0.5, value=value)
    return lambda x: torch.stack([erase(image) for image in x])


def gate(erase: Erasing, x: Tensor, noise: bool) -> None:
    """Refuses anything but one rectangle of zeros, or of standard normal numbers, in about half of the images."""
    before = x + 9.0
    out = erase(before.clone())
    erased = (out != before).any(1)  # [B, H, W]
    inside = erased[:, None].expand_as(out)
    if not torch.equal(out[~inside], before[~inside]):
        raise Wrong("pixels outside the rectangles changed")
    if noise:
        mean, std = float(out[inside].mean()), float(out[inside].std())
        if abs(mean) > 0.05 or abs(std - 1) > 0.05:
            raise Wrong(f"noise of mean {mean:.2f} and standard deviation {std:.2f} instead of 0 and 1")
    elif bool((out[inside] != 0).any()):
        raise Wrong("pixels inside the rectangles are not 0")
    rows, columns = erased.any(2), erased.any(1)
    if not torch.equal(erased, rows[:, :, None] & columns[:, None, :]):
        raise Wrong("the region is no rectangle")
    share = float(rows.any(1).float().mean())
    if not 0.3 < share < 0.7:
        raise Wrong(f"{share:.2f} of the images were erased instead of one half")


def bound(x: Tensor, out: Tensor, call: Callable[[Tensor], Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    return lambda: call(x), lambda: out.copy_(x)


@pytest.mark.parametrize("noise", [False, True], ids=["zeros", "noise"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_erasing(shape, noise, benchmark, keep):
    x = torch.rand(shape)
    out, changed = torch.empty_like(x), x.clone()
    ours = partial(fusedmix.fused_random_erasing, fill_mode="pixel" if noise else "const")
    contenders: dict[tuple[str, str], tuple[Callable[[], Erasing], Tensor]] = {
        (OURS, "fresh"): (lambda: ours, x),
        (OURS, "out"): (lambda: lambda t: ours(t, out=out), x),
        (OURS, "in place"): (lambda: lambda t: ours(t, inplace=True), changed),
        ("timm RandomErasing", "in place"): (partial(timm_erasing, noise), changed),
        ("torchvision v2, one call per sample", "fresh"): (partial(torchvision_erasing, noise), x),
    }
    timed: Timed = {}
    remarks = []
    for key, (make, source) in contenders.items():
        try:
            erase = make()
            gate(erase, x, noise)
            timed[key] = bound(source, out, erase)
        except (ImportError, Wrong) as error:
            remarks.append({"contender": key[0], "destination": key[1], "status": str(error)})
    table = table_of(shape, timed, remarks)
    title = f"random erasing{', noise' * noise} {list(shape)}"
    show(title, table)
    keep(title, table)
    benchmark.pedantic(lambda: ours(changed, inplace=True), rounds=5, warmup_rounds=1)
    assert not [r for r in table["rows"] if r["contender"] == OURS and "ratio" not in r]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_family(shape, benchmark, keep):
    x, y, side = torch.rand(shape), torch.zeros(shape[0], dtype=torch.int64), shape[-1]
    out = torch.empty_like(x)
    options: dict[str, Any] = {"out": out}
    policy = fusedmix.FusedMix(
        [(fusedmix.CutMix(1.0), 0.4), (fusedmix.Mixup(0.2), 0.3)], erase=fusedmix.RandomErasing(p=0.25), num_classes=10
    )
    calls: dict[str, Callable[[Tensor], Any]] = {
        "cutout": lambda t: fusedmix.fused_cutout(t, length=side // 2, **options),
        "random erasing": lambda t: fusedmix.fused_random_erasing(t, **options),
        "random erasing, pixel": lambda t: fusedmix.fused_random_erasing(t, fill_mode="pixel", **options),
        "gridmask": lambda t: fusedmix.fused_gridmask(t, d=(side // 4, side // 2), **options),
        "hide and seek": lambda t: fusedmix.fused_hide_and_seek(t, sizes=(0, side // 8, side // 4), **options),
        "gridmix": lambda t: fusedmix.fused_gridmix(t, y, **options),
        "resizemix": lambda t: fusedmix.fused_resizemix(t, y, **options),
        "smoothmix": lambda t: fusedmix.fused_smoothmix(t, y, **options),
        "fmix": lambda t: fusedmix.fused_fmix(t, y, **options),
    }
    timed = {(f"{OURS} {name}", "out"): bound(x, out, call) for name, call in calls.items()}
    timed[f"{OURS} cutmix or mixup, then erasing", "fresh"] = bound(x, out, lambda t: policy(t, y))
    table = table_of(shape, timed, [])
    show(f"family {list(shape)}", table)
    keep(f"family {list(shape)}", table)
    benchmark.pedantic(lambda: calls["cutout"](x), rounds=3, warmup_rounds=1)
