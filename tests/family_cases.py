"""Small specs of every method of the family, and the harness that holds an implementation to the reference."""

import cases
import torch
from cases import EXACT, Result, assert_equal, images, run, targets
from torch import Tensor

from fusedmix.checks import fills_of, knobs_of
from fusedmix.kernels.config import Launch
from fusedmix.ops import Extras
from fusedmix.recipe import ALONE, PARTNERS
from fusedmix.reference.family import mix_family, pack
from fusedmix.spec import (
    CutMix,
    Cutout,
    FMix,
    GridMask,
    GridMix,
    HideAndSeek,
    Mixup,
    Policy,
    RandomErasing,
    ResizeMix,
    SmoothMix,
)

SPECS = {
    "mixup": Mixup(0.4),
    "cutmix": CutMix(1.0),
    "cutmix minmax": CutMix(1.0, minmax=(0.2, 0.8)),
    "cutmix drawn lam": CutMix(0.3, correct_lam=False),
    "cutout": Cutout(5, n_holes=2, p=0.8, value=(1.0, 2.0, 3.0)),
    "erasing": RandomErasing(p=0.8, area=(0.1, 0.4), value=7.0),
    "erasing linear, rand": RandomErasing(1.0, (0.1, 0.4), (0.3, 3.33), "linear", "rand", 100.0, 9.0),
    "erasing pixel": RandomErasing(1.0, (0.2, 0.6), fill_mode="pixel", value=50.0, sigma=40.0, max_count=3),
    "gridmask": GridMask((3, 7), p=1.0),
    "gridmask stripes": GridMask((4, 6), 0.4, 1, False, "round", 0.8, 5.0),
    "hide and seek": HideAndSeek((0, 2, 3, 5), value=9.0),
    "hide and seek, wide": HideAndSeek((0, 16, 19)),
    "gridmix": GridMix(cells=3),
    "gridmix, wide": GridMix(cells=2),
    "resizemix": ResizeMix((0.3, 0.9)),
    "resizemix bilinear": ResizeMix((0.3, 0.9), "bilinear"),
    "smoothmix": SmoothMix(),
    "fmix": FMix(),
}
DROPS = (
    "cutout",
    "erasing",
    "erasing linear, rand",
    "erasing pixel",
    "gridmask",
    "gridmask stripes",
    "hide and seek",
    "hide and seek, wide",
)
MIXES = tuple(name for name in SPECS if name not in DROPS)
# Pixels that one step after another computes are equal bit for bit; the CPU path takes the reference's own steps.


def single(name: str, **options) -> Policy:
    return Policy(((SPECS[name], 1.0),), **options)


def everything(erase: str | None, **options) -> Policy:
    """All methods at once."""
    names = [
        "mixup",
        "cutmix",
        "cutout",
        "erasing",
        "gridmask",
        "hide and seek",
        "gridmix",
        "resizemix",
        "smoothmix",
        "fmix",
    ]
    pairs = tuple((SPECS[name], 0.09) for name in names)
    return Policy(pairs, None if erase is None else SPECS[erase], **options)


def extras_for(policy: Policy, x: Tensor, norm: Tensor | None) -> Extras:
    """Knobs, fills and any ranks: all implementations must make the same of them."""
    batch, _, height, width = x.shape
    generator = torch.Generator().manual_seed(3)
    ranks = [torch.randperm(height * width, generator=generator).view(height, width) for _ in range(batch)]
    field = torch.stack(ranks).int() if policy.recipe.has_field and batch else None
    fill = fills_of(policy.fills, norm, x) if policy.recipe.has_fill else None
    return knobs_of(policy.knobs(), torch.device("cpu")), fill, field


def expect(x: Tensor, y: Tensor | None, policy: Policy, norm: Tensor | None = None, **options) -> Result:
    knobs, fill, field = extras_for(policy, x, norm)
    out, rows, drawn = mix_family(x, y, policy.recipe, knobs, fill=fill, field=field, norm=norm, **options)
    return Result(out, rows, pack(drawn))


def check(
    implementation: str,
    policy: Policy,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    channels_last: bool = False,
    *,
    form: str | None = "one_hot",
    norm: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    out_last: bool | None = None,
    in_place: bool = False,
    replay: bool = False,
    launch: Launch | None = None,
    **options,
) -> Result:
    """Runs one call and holds it to the reference: plan, rows and every pixel, bit for bit."""
    x, y = images(shape, dtype, channels_last), targets(form, shape[0])
    if form == "one_hot":
        policy = Policy(policy.methods, policy.erase, policy.mode, policy.partner, cases.K, policy.smoothing)
    want = expect(x, y, policy, norm, out_dtype=out_dtype, **options)
    got = run(
        implementation, x, y, policy.recipe, norm=norm, out=x if in_place else None, out_dtype=out_dtype,
        channels_last=out_last, replay=want.plan if replay else None, extras=extras_for(policy, x, norm),
        launch=launch, **({} if replay else options),
    )  # fmt: skip
    assert_equal(got, want, EXACT, (implementation, policy, shape, dtype, options))
    return got


def partners_of(name: str) -> list[str]:
    return ["matching"] if name in DROPS else list(PARTNERS)


assert all((single(name).recipe.pairing == ALONE) == (name in DROPS) for name in SPECS)
