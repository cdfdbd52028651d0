"""Shared cases, and the harness that runs an implementation on poisoned outputs."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor

from fusedmix import cpu, reference
from fusedmix.cpu import native
from fusedmix.kernels.config import Launch
from fusedmix.launch import mix_into as launch_mix_into
from fusedmix.ops import NO_EXTRAS, Extras, allocate_image, allocate_plan, allocate_target
from fusedmix.recipe import GIVEN, MODES, PARTNERS, Recipe
from fusedmix.reference.sampling import Draw, pack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
METHODS = {"mixup": 0.0, "cutmix": 1.0, "policy": 0.5}  # name: switch_prob
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.uint8]
PAIRINGS = {**PARTNERS, "given": GIVEN}
TARGETS = ["one_hot", "soft", "classes", None]
SHAPES = [(3, 1, 5, 7), (2, 3, 8, 8), (5, 2, 4, 16), (1, 3, 6, 5), (4, 3, 1, 1), (3, 2, 3, 9)]  # odd, even, one pixel
K = 5

# Copied pixels are equal bit for bit. Blended ones, as (absolute, relative) bounds for pixel values up to 255:
EXACT = (0.0, 0.0)
TOLERANCES = {
    # The same float32 steps in the same order, one rounding at the end: the kernel equals the reference exactly.
    "kernel": {torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT, torch.uint8: EXACT},
    # torch.lerp on the CPU fuses multiply and add: half a float32 ulp of 255 before the last rounding, which may then
    # fall on the other side: one ulp of the dtype. uint8 takes the reference's own steps.
    "numpy": {torch.float32: (3.1e-5, 0.0), torch.float16: (1e-4, 2**-10), torch.bfloat16: (1e-4, 2**-7),
              torch.uint8: EXACT},
}  # fmt: skip
# Native loops take the reference's steps too; older compilers leave float16 to numpy and torch.
TOLERANCES["cpu"] = TOLERANCES["numpy"]
if (library := native.library()) is not None:
    foreign = [] if native.knows_halves(library) else [torch.float16]
    TOLERANCES["cpu"] = TOLERANCES["kernel"] | {dtype: TOLERANCES["numpy"][dtype] for dtype in foreign}


@dataclass
class Result:
    out: Tensor
    target: Tensor | None
    plan: Tensor | None


def images(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool = False, seed: int = 0) -> Tensor:
    """Pixel values from 0 to 255, no two tensors with the same seed and shape different."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 255
    x = values.to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def targets(form: str | None, batch: int, seed: int = 0) -> Tensor | None:
    generator = torch.Generator().manual_seed(seed + 1)
    if form is None:
        return None
    if form == "soft":
        return torch.rand(batch, K, generator=generator)
    return torch.randint(0, K, (batch,), generator=generator)


def poison(t: Tensor) -> Tensor:
    return t.fill_(float("nan")) if t.is_floating_point() else t.fill_(77)


def without_native() -> patch:
    """What a machine without a C compiler does."""
    return patch.object(native, "library", lambda: None)


def run(
    implementation: str,
    x: Tensor,
    target: Tensor | None,
    recipe: Recipe,
    seed: int = 0,
    offset: int = 0,
    sample_offset: int = 0,
    *,
    norm: Tensor | None = None,
    replay: Tensor | None = None,
    out: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    channels_last: bool | None = None,
    lam: Tensor | None = None,
    box: Tensor | None = None,
    partner: Tensor | None = None,
    extras: Extras = NO_EXTRAS,
    launch: Launch | None = None,
) -> Result:
    """Runs "kernel", "cpu" or "numpy" (the CPU path without a compiler) on poisoned outputs; `out=x` is in place.

    Results come back to the CPU.
    """
    device = DEVICE if implementation == "kernel" else "cpu"
    in_place = out is x and out is not None
    x, target, norm, replay, lam, box, partner = (
        None if t is None else t.to(device) for t in (x, target, norm, replay, lam, box, partner)
    )
    if not in_place:
        out = poison(allocate_image(x, out_dtype, channels_last) if out is None else out.to(device))
    target_out = allocate_target(target, recipe)
    if target_out is not None:
        poison(target_out)
    plan = poison(allocate_plan(x, recipe)) if replay is None else replay
    arguments = (
        out, target_out, plan, x, target, norm, lam, box, partner, None, seed, offset, sample_offset, recipe,
        replay is not None, tuple(None if t is None else t.to(device) for t in extras),
    )  # fmt: skip
    if implementation == "kernel":
        # One large tile keeps the number of interpreted programs low; test_tiles covers the others.
        launch_mix_into(*arguments, launch=launch or Launch(256, 1, 4))
    else:
        with without_native() if implementation == "numpy" else nullcontext():
            cpu.mix_into(*arguments)
    return Result(out.cpu(), None if target_out is None else target_out.cpu(), plan.cpu())


def expect(x: Tensor, target: Tensor | None, recipe: Recipe, *arguments, **options) -> tuple[Result, Draw]:
    """The reference's answer, its plan packed as the implementations pack theirs."""
    out, target_out, drawn = reference.mix(x, target, recipe, *arguments, **options)
    return Result(out, target_out, pack(drawn)), drawn


def assert_equal(got: Result, want: Result, tolerance: tuple[float, float], case: object) -> None:
    assert torch.equal(got.plan, want.plan), f"plan of {case}:\n{got.plan}\n{want.plan}"
    assert got.out.dtype == want.out.dtype, case
    assert got.out.shape == want.out.shape, case
    a, b = got.out.double(), want.out.double()
    assert not a.isnan().any(), f"unwritten pixels in {case}"
    assert ((a - b).abs() <= tolerance[0] + tolerance[1] * b.abs()).all(), f"pixels of {case}: {(a - b).abs().max()}"
    if want.target is None:
        assert got.target is None, case
    else:
        assert torch.equal(got.target, want.target), f"targets of {case}: {got.target} {want.target}"


def grid(method: str) -> Iterator[tuple[Recipe, str | None, tuple[int, ...], dict]]:
    """Every partner kind, mode and target form; shapes, p, smoothing, minmax and correct_lam go round with them."""
    number = 0
    for pairing in PAIRINGS.values():
        for mode in MODES.values():
            for form in TARGETS:
                number += 1
                recipe = Recipe(
                    mixup_alpha=(0.2, 1.0, 4.0)[number % 3], cutmix_alpha=(1.0, 0.3)[number % 2],
                    p=(1.0, 0.6)[number % 2], switch_prob=METHODS[method], mode=mode, pairing=pairing,
                    correct_lam=number % 5 != 0, num_classes=K if form == "one_hot" else 0,
                    smoothing=0.1 if form in ("one_hot", "soft") and number % 3 == 0 else 0.0,
                )  # fmt: skip
                if number % 7 == 0 and method != "mixup":
                    recipe = recipe._replace(minmax_lo=0.2, minmax_hi=0.8, correct_lam=True)
                if mode == MODES["pair"] and not recipe.is_paired:
                    continue
                shape = SHAPES[number % len(SHAPES)]
                given = {}
                if pairing == GIVEN:
                    given["partner"] = torch.randint(
                        0, shape[0], (shape[0],), generator=torch.Generator().manual_seed(number)
                    )
                yield recipe, form, shape, {"seed": 2**62 + number, "offset": number, "sample_offset": number, **given}
