"""Correctness on the device: every variant against the reference; graphs, streams, compile, large batches."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from gpu_common import (
    BF16,
    DEVICE,
    DRY_RUN,
    EVEN,
    F16,
    F32,
    LARGE,
    METHODS,
    ODD,
    ROW_TOLERANCE,
    TOLERANCES,
    U8,
    Steps,
    close,
    close_pixels,
    close_to_plan,
    draw_of,
    images,
    mixed,
    poison,
    seeded,
)
from peers import MEAN, STD
from torch import Tensor

from fusedmix import (
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    FMix,
    FusedAugment,
    FusedMix,
    GridMask,
    GridMix,
    HideAndSeek,
    Mixup,
    Plan,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    ResizeMix,
    SmoothMix,
    fused_cutmix,
    fused_mixup,
    launch,
    reference,
    rng,
)
from fusedmix.augment import norm_and_fill
from fusedmix.checks import build_norm, fills_of, knobs_of
from fusedmix.recipe import GIVEN, MODES, PARTNERS, Recipe
from fusedmix.reference.augment import augment as reference_augment
from fusedmix.reference.augment import pack_augment
from fusedmix.reference.family import mix_family
from fusedmix.reference.family import pack as pack_family
from fusedmix.reference.sampling import draw, pack

Check = Callable[[], dict]
PAIRINGS = {**PARTNERS, "given": GIVEN}
GRADIENT_TOLERANCE = {F32: (2e-6, 0.0), BF16: (2e-6, 2**-7)}  # two products and a sum in another order; one rounding


class Case(NamedTuple):
    """A variant of the kernel."""

    method: str
    dtype: torch.dtype = F32
    shape: tuple[int, ...] = EVEN
    last: bool = False
    out_dtype: torch.dtype | None = None
    out_last: bool | None = None
    norm: bool = False
    partner: str = "matching"
    mode: str = "elem"
    target: str | None = "one_hot"
    classes: int = 10
    p: float = 1.0
    smoothing: float = 0.0
    given: tuple[str, ...] = ()  # of "lam" and "box"
    minmax: float = -1.0
    correct_lam: bool = True
    in_place: bool = False
    replay: bool = False
    view: str = ""  # "unaligned": memory not on 16 bytes; "apart": a batch stride larger than a sample

    def __str__(self) -> str:
        changed = {k: v for k, v in self._asdict().items() if v != self._field_defaults.get(k)}
        return ", ".join(f"{k} {v}".removeprefix("method ").replace("torch.", "") for k, v in changed.items())


def cases() -> Iterator[Case]:
    for method in METHODS:
        case = partial(Case, method)
        yield from (case(dtype=dtype, last=last) for dtype in (F32, F16, BF16, U8) for last in (False, True))
        yield case(partner="exact", mode="pair", p=0.7, shape=ODD)
        yield case(partner="flip", mode="pair", p=0.7, target="soft", smoothing=0.1)
        yield case(partner="roll", mode="batch", target="classes", shape=ODD)
        yield case(partner="permute", p=0.7, target=None, dtype=BF16, last=True)
        yield case(partner="given", mode="batch", shape=ODD)
        yield case(mode="pair", classes=1200, smoothing=0.1)  # rows of several blocks
        yield from (case(shape=shape) for shape in ((0, 3, 8, 8), (1, 3, 5, 7), (2, 3, 1, 1), (5, 1, 9, 33)))
        yield from (case(dtype=U8, out_dtype=dtype, norm=norm) for dtype in (BF16, F32) for norm in (False, True))
        yield from (case(last=last, out_last=not last, shape=ODD) for last in (False, True))
        yield case(dtype=U8, out_dtype=BF16, norm=True, last=True, out_last=False)
        yield from (case(dtype=dtype, in_place=True, p=0.8) for dtype in (F32, BF16))
        yield case(dtype=U8, shape=ODD, last=True, in_place=True, partner="exact")
        yield case(norm=True, in_place=True, partner="flip", shape=ODD)
        yield case(replay=True, p=0.7, in_place=True, dtype=BF16, partner="exact")
        yield case(replay=True, p=0.7, partner="permute", shape=ODD)
        yield case(given=("lam",), target="classes")
        yield from (case(view="unaligned", shape=ODD), case(view="apart", dtype=BF16), case(view="unaligned", dtype=U8))
        if method != "mixup":
            yield from (case(minmax=0.2), case(correct_lam=False), case(given=("lam", "box"), partner="given"))


def place(x: Tensor, view: str) -> Tensor:
    """A copy of x on the device, its memory as `view` says."""
    if view == "unaligned":
        return torch.empty(x.numel() + 1, dtype=x.dtype, device=DEVICE)[1:].view(x.shape).copy_(x)
    if view == "apart":
        return torch.empty((2 * x.shape[0], *x.shape[1:]), dtype=x.dtype, device=DEVICE)[::2].copy_(x)
    return x.to(DEVICE, copy=True)


def check_case(case: Case, seed: int) -> dict:
    """A first call and one through the cached launch, on poisoned memory, against the reference and each other."""
    recipe = Recipe(
        0.4, 1.0, case.p, METHODS[case.method], MODES[case.mode], PAIRINGS[case.partner], case.correct_lam, case.minmax,
        max(case.minmax, 4 * case.minmax), case.classes if case.target == "one_hot" else 0, case.smoothing,
    )  # fmt: skip
    batch, _, height, _ = case.shape
    x, y = images(case.shape, case.dtype, case.last, seed), torch.randint(0, 10, (batch,), generator=seeded(seed))
    y = {"soft": torch.rand(batch, 10, generator=seeded(seed)), None: None}.get(case.target, y)
    lam, partner = torch.linspace(0, 1, batch), torch.randint(0, batch or 1, (batch,), generator=seeded(seed))
    box = torch.tensor([[i // 2, 1, height - i // 2, 2 + i] for i in range(batch)]).int()
    given = {"lam": lam, "box": box, "partner": partner}
    given = {k: v for k, v in given.items() if k in case.given or (k, case.partner) == ("partner", "given")}
    norm = build_norm(MEAN, STD, case.shape[1], torch.device("cpu")) if case.norm else None
    out_dtype = case.out_dtype or (F32 if case.norm and case.dtype == U8 else case.dtype)
    out_last = case.last if case.out_last is None else case.out_last
    layout = torch.channels_last if out_last else torch.contiguous_format
    drawn_by = (*rng.next_seed(seeded(seed)), seed % 2 * 1000)
    want, want_rows, drawn = reference.mix(x, y, recipe, *drawn_by, norm=norm, out_dtype=out_dtype, **given)
    options = {"sample_offset": drawn_by[2], "out_dtype": out_dtype, "inplace": case.in_place}
    options |= {"mean": MEAN, "std": STD} if case.norm else {}
    options |= {k: v.to(DEVICE) for k, v in given.items()}
    if case.replay:
        options["plan"] = Plan(pack(drawn).to(DEVICE), recipe, case.shape[2:] if recipe.has_box else None)
    first: tuple = ()
    for attempt in ("first call", "cached launch"):
        source = place(x, case.view)
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN or the largest integer
        options["memory_format"] = None if case.in_place else layout
        if seed % 2 and not case.in_place:
            options["out"] = torch.empty(case.shape, dtype=out_dtype, device=DEVICE, memory_format=layout)
        got, rows, plan = mixed(recipe, source, None if y is None else y.to(DEVICE), seed, **options)
        torch.use_deterministic_algorithms(False)
        close(f"plan of the {attempt}", plan.packed, pack(drawn))
        assert got.is_contiguous(memory_format=layout), "memory format"
        assert (got is source) if case.in_place else torch.equal(source.cpu(), x), "written in the wrong place"
        close("targets", rows, want_rows, ROW_TOLERANCE if case.target != "classes" else (0, 0))
        result = close_pixels(got, want, drawn, norm)
        first = first or (got.cpu(), None if rows is None else rows.cpu())
        close("second call", got, first[0])
        close("second call's targets", rows, first[1])
    return result


def check_gradients(method: str, partner: str, dtype: torch.dtype, last: bool) -> dict:
    """Gradients of images and soft targets against autograd of the reference."""
    recipe = Recipe(switch_prob=METHODS[method], pairing=PARTNERS[partner], p=0.8, smoothing=0.1)
    x, soft = images(EVEN, dtype, last), torch.rand(EVEN[0], 10, generator=seeded(1))
    grads = torch.randn(EVEN, generator=seeded(2)).to(dtype), torch.randn(soft.shape, generator=seeded(3))
    inputs = x.to(DEVICE, copy=True).requires_grad_(), soft.to(DEVICE, copy=True).requires_grad_()
    out, rows, plan = mixed(recipe, *inputs, 4)
    got = torch.autograd.grad((out, rows), inputs, [g.to(DEVICE) for g in grads])
    twins = x.requires_grad_(), soft.requires_grad_()
    want = torch.autograd.grad(reference.mix(*twins, recipe, plan=draw_of(plan))[:2], twins, grads)
    assert got[0].stride() == x.stride(), "memory format of the gradient"
    close("target gradient", got[1], want[1], GRADIENT_TOLERANCE[F32])
    return close("image gradient", got[0], want[0], GRADIENT_TOLERANCE[dtype])


def check_cpu_twin(partner: str) -> dict:
    """The same seed gives the same plan on both devices, and the same CutMix pixels."""
    x, y = images(ODD), torch.arange(ODD[0])
    for seed in range(3):
        options = {"partner": partner, "num_classes": 10, "return_plan": True}
        here = fused_cutmix(x, y, generator=seeded(seed), **options)
        there = fused_cutmix(x.to(DEVICE), y.to(DEVICE), generator=seeded(seed), **options)
        close("plan", there[2].packed, here[2].packed)
        close("pixels", there[0], here[0])
        close("targets", there[1], here[1], ROW_TOLERANCE)
    return {}


def check_cuda_generator() -> dict:
    random, x = torch.Generator(DEVICE).manual_seed(5), images(EVEN).to(DEVICE)
    for offset in (0, 4):
        _, plan = fused_cutmix(x, generator=random, return_plan=True)
        close("plan", plan.packed, pack(draw(plan.recipe, EVEN[0], *EVEN[2:], 5, offset)))
    return {}


def check_relaunch() -> dict:
    """The second call takes the cached launch, one on unaligned memory does not, and all agree."""
    taken, relaunch = [], launch.relaunch
    launch.relaunch = lambda *arguments: (taken.append(1), relaunch(*arguments))[1]
    try:
        x, counts, results = images(ODD, F16), [], []
        for view in ("", "", "unaligned", ""):
            results.append(fused_mixup(place(x, view), partner="flip", generator=seeded(0)))
            counts.append(len(taken))
    finally:
        launch.relaunch = relaunch
    assert counts == [0, 1, 1, 2], f"cached launches after each call: {counts}"
    assert all(torch.equal(results[0], r) for r in results), "results differ"
    return {}


def check_stream() -> dict:
    """Launched on the current stream: input that is still being written there is waited for."""
    x, side = images(EVEN).to(DEVICE), torch.cuda.Stream()
    want, late = fused_cutmix(x, generator=seeded(1)), torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # cycles: tens of milliseconds
        got = fused_cutmix(late.copy_(x), generator=seeded(1))
    side.synchronize()
    return close("pixels", got, want.cpu())


def check_large(method: str) -> dict:
    """A batch of more than 2**31 elements, its first and last samples against the reference."""
    recipe, elements = Recipe(switch_prob=METHODS[method], num_classes=10), torch.Size(LARGE).numel()
    if not DRY_RUN and torch.cuda.mem_get_info()[0] < 3 * elements:
        return {"skipped": "not enough memory"}
    x, y = torch.randint(0, 256, LARGE, dtype=U8, device=DEVICE), torch.randint(0, 10, LARGE[:1], device=DEVICE)
    got, rows, plan = mixed(recipe, x, y, 3, out=poison(torch.empty_like(x)))
    size = LARGE[2:] if recipe.has_box else (1, 1)
    close("plan", plan.packed, pack(draw(recipe, LARGE[0], *size, *rng.next_seed(seeded(3)))))
    picks = (0, 1, LARGE[0] // 2, LARGE[0] - 2, LARGE[0] - 1)
    return {"elements": elements, **close_to_plan(x, y, got, rows, recipe, draw_of(plan), picks)}


ERASE = RandomErasing(p=0.5, area=(0.1, 0.4), fill_mode="pixel", value=90.0, sigma=30.0)
FAMILY: dict[str, tuple[tuple[Any, float], ...]] = {
    type(spec).__name__ + note: ((spec, 1.0),)
    for spec, note in (
        (Cutout(5, n_holes=2, value=(1.0, 2.0, 3.0)), ""), (RandomErasing(1.0, (0.1, 0.4), max_count=3), ""),
        (RandomErasing(1.0, aspect_scale="linear", fill_mode="rand", value=9.0), ", linear, rand"), (ERASE, ", pixel"),
        (GridMask((3, 9)), ""), (GridMask((4, 6), invert=False, rule="round"), ", stripes"),
        (HideAndSeek((0, 2, 5)), ""),
        (GridMix(cells=3), ""), (ResizeMix(), ""), (ResizeMix(interpolation="bilinear"), ", bilinear"),
        (SmoothMix(), ""), (FMix(), ""),
    )
} | {"list": ((CutMix(1.0), 0.4), (Mixup(0.2), 0.3), (None, 0.3))}  # fmt: skip
FAMILY["everything"] = tuple(
    (spec, 0.07) for name in FAMILY for spec, _ in FAMILY[name] if spec is not None and "bilinear" not in name
)


def check_family(name: str, dtype: torch.dtype, partner: str, erase: bool) -> dict:
    """One call of a list of methods against the reference: plan, target rows and pixels."""
    mix = FusedMix(list(FAMILY[name]), erase=ERASE if erase else None, partner=partner, num_classes=10)
    policy = mix.policy
    assert policy is not None
    x, y = images(ODD, dtype), torch.arange(ODD[0]) % 10
    seed, offset = rng.next_seed(seeded(7))
    out, rows, plan = mix(x.to(DEVICE), y.to(DEVICE), generator=seeded(7), return_plan=True)
    plan = plan.to("cpu")
    fill = fills_of(policy.fills, None, x) if policy.recipe.has_fill else None
    knobs = knobs_of(policy.knobs(), torch.device("cpu"))
    want, want_rows, drawn = mix_family(x, y, policy.recipe, knobs, seed, offset, fill=fill, field=plan.field)
    close("plan", plan.packed, pack_family(drawn))
    close("targets", rows, want_rows, ROW_TOLERANCE)
    return close("pixels", out, want, TOLERANCES[dtype])


AFFINE = RandomAffine(30.0, (0.1, 0.2), (0.7, 1.4), (-10.0, 20.0, -5.0, 5.0), 0.8)
JITTER = ColorJitter(0.4, 0.4, 0.4, 0.3, 0.9)
LIST = [(CutMix(1.0), 0.4), (Mixup(0.4), 0.4)]
AUGMENT: dict[str, dict[str, Any]] = {
    "flips": {"flip": Flip(0.5, 0.5)},
    "padded crop, CutMix": {"crop": RandomCrop(4), "flip": 0.5, "mix": LIST[:1]},
    "reflected crop, cutout": {"crop": RandomCrop(3, "reflect"), "erase": Cutout(5)},
    "resized crop": {"size": (24, 30), "crop": RandomResizedCrop(), "flip": 0.5, "mix": LIST},
    "resized crop, alone": {"size": (40, 264), "crop": RandomResizedCrop(), "flip": Flip(0.5, 0.5)},
    "resized crop, nearest": {"size": 21, "crop": RandomResizedCrop(), "mix": LIST, "interpolation": "nearest"},
    "affine": {"crop": RandomCrop(2, "edge"), "affine": AFFINE, "fill": (1.0, 2.0, 3.0)},
    "colour": {"color": JITTER, "flip": 0.5},
    "everything": {
        "size": (20, 28), "crop": RandomResizedCrop(), "flip": 0.5, "affine": AFFINE, "color": JITTER,
        "mix": [*LIST, (FMix(), 0.1), (SmoothMix(), 0.1)], "erase": ERASE,
    },
}  # fmt: skip


def check_augment(name: str, dtype: torch.dtype, out_dtype: torch.dtype, last: bool, norm: bool) -> dict:
    """One call of FusedAugment against the reference: plan, target rows and pixels."""
    shape = (4, 3, 9, 8) if DRY_RUN else (9, 3, 37, 53)
    options = {**AUGMENT[name], "dtype": out_dtype, "num_classes": 10}
    if DRY_RUN and "size" in options:
        options["size"] = (6, 7)
    options |= {"mean": MEAN, "std": STD} if norm else {}
    module = FusedAugment(**options).to(DEVICE)
    x, y = images(shape, dtype, last), torch.arange(shape[0]) % 10
    if dtype.is_floating_point and "color" in options:
        x = x / 255
    seed, offset = rng.next_seed(seeded(7))
    first, _, plan = module(x.to(DEVICE), y.to(DEVICE), generator=seeded(7), return_plan=True)
    out, rows, _ = module(x.to(DEVICE), y.to(DEVICE), generator=seeded(7), return_plan=True)
    close("second call", out, first.cpu())
    plan, host = plan.to("cpu"), torch.device("cpu")
    numbers, fill = norm_and_fill(options.get("mean"), options.get("std"), module.fills, x, plan.geometry)
    want, want_rows, drawn = reference_augment(
        x, y, module.recipe, plan.geometry, knobs_of(module.rows(0.0), host), fill, seed, offset, field=plan.field,
        norm=numbers, out_dtype=out_dtype,
    )  # fmt: skip
    close("plan", plan.packed, pack_augment(drawn))
    close("targets", rows, want_rows, ROW_TOLERANCE)
    return close("pixels", out, want, TOLERANCES[out_dtype])


def check_fresh_draws(x: Tensor, y: Tensor, step: Callable[[], tuple]) -> dict:
    """Three steps, each right by its own plan, no two with the same draws."""
    plans = []
    for _ in range(3):
        got, rows, plan = step()
        result = close_to_plan(x, y, got, rows, plan.recipe, draw_of(plan), range(len(x)))
        plans.append(plan.packed.cpu().clone())
    assert not any(torch.equal(a, b) for a, b in pairwise(plans)), "the same draws twice"
    return result


def check_compile() -> dict:
    x, y, mix = images(EVEN).to(DEVICE), torch.arange(EVEN[0], device=DEVICE), FusedMix(num_classes=10)
    backend = "aot_eager" if DRY_RUN else "inductor"
    step = torch.compile(lambda x, y: mix(x * 1.0, y, return_plan=True), fullgraph=True, backend=backend)
    return check_fresh_draws(x, y, lambda: step(x, y))


def check_compiled_noise() -> dict:
    """Noise of a call that torch.compile may replay as a CUDA graph, while others use the memory; as on the CPU."""
    x, y, mix = images(EVEN), torch.arange(EVEN[0]) % 10, FusedMix([(Mixup(0.4), 0.5)], erase=ERASE, num_classes=10)
    options = {"backend": "aot_eager"} if DRY_RUN else {"mode": "reduce-overhead"}
    step = torch.compile(lambda x, y: mix(x * 1.0, y, return_plan=True), fullgraph=True, **options)
    between = torch.compile(lambda x: (x * 2.0).cumsum(-1).sort(-1)[0], **options)
    result: dict = {}
    for _ in range(2 if DRY_RUN else 5):
        out, _, plan = step(x.to(DEVICE), y.to(DEVICE))
        out, plan = out.cpu(), Plan(plan.packed.cpu(), plan.recipe, plan.size, plan.fills)
        between(x.to(DEVICE))
        result = close("pixels", out, plan.apply(x), TOLERANCES[F32])
    return result


def check_graph(method: str, warmed: bool) -> dict:
    """Capture and replay. Not `warmed`: after eager calls only, which launch a variant without `state`."""
    x, y = images(EVEN, BF16 if warmed else F16).to(DEVICE), torch.arange(EVEN[0], device=DEVICE)
    mix = FusedMix(num_classes=10, mixup_alpha=0.4, switch_prob=METHODS[method], partner="flip")
    with torch.cuda.stream(torch.cuda.Stream()):
        mix(x, y, return_plan=True)
        if warmed:
            state = rng.graph_state(x.device)
            torch.ops.fusedmix.mix(x, y, *(None,) * 5, state, 0, 0, 0, *mix.recipe, True, None, None)
        torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = mix(x, y, return_plan=True)
    return check_fresh_draws(x, y, lambda: (poison(result[0]), graph.replay(), result)[2])


def checks() -> Iterator[tuple[str, Check]]:
    for method in METHODS:  # before cases that could use up the time
        yield f"more than 2**31 elements: {method}", partial(check_large, method)
    step = 3 if DRY_RUN else 1  # the tests run them all through the interpreter
    yield from ((str(case), partial(check_case, case, n)) for n, case in enumerate(cases()) if n % step == 0)
    for name in FAMILY:
        for n, dtype in enumerate((F32, BF16, U8)):
            partner = ("matching", "permute", "exact")[n]
            yield f"family: {name}, {dtype}, {partner}", partial(check_family, name, dtype, partner, n != 1)
    for n, name in enumerate(AUGMENT):
        yield f"augment: {name}, uint8 to bfloat16", partial(check_augment, name, U8, BF16, n % 2 == 1, True)
        yield f"augment: {name}, float32", partial(check_augment, name, F32, F32, n % 2 == 0, False)
        if not DRY_RUN:
            yield f"augment: {name}, uint8", partial(check_augment, name, U8, U8, False, False)
    for method in METHODS:
        yield f"gradients: {method}, matching", partial(check_gradients, method, "matching", F32, False)
    yield "gradients: policy, exact, bfloat16", partial(check_gradients, "policy", "exact", BF16, True)
    yield "gradients: policy, permute", partial(check_gradients, "policy", "permute", F32, False)
    for partner in ("matching", "exact", "permute"):
        yield f"same plan as on the CPU: {partner}", partial(check_cpu_twin, partner)
    yield from (("torch.compile", check_compile), ("torch.compile, noise", check_compiled_noise))
    if not DRY_RUN:
        yield from (("CUDA generator", check_cuda_generator), ("cached launch", check_relaunch))
        yield "current stream", check_stream
        yield from ((f"CUDA graph: {method}", partial(check_graph, method, True)) for method in METHODS)


def once(check: Check) -> Iterator[dict]:
    try:
        yield check()
    finally:
        torch.use_deterministic_algorithms(False)  # a case that failed may have left it on


def steps() -> Steps:
    yield from ((name, partial(once, check)) for name, check in checks())


def capture_steps() -> Steps:
    """Apart and last, since a capture that fails can leave the allocator unusable."""
    if not DRY_RUN:
        yield "CUDA graph after eager calls only", partial(once, partial(check_graph, "mixup", False))


SMOKE = (
    Case("cutmix"), Case("mixup", BF16, ODD), Case("policy", U8, ODD, out_dtype=BF16, norm=True),
    Case("cutmix", BF16, in_place=True), Case("policy", partner="exact", target="soft", shape=ODD),
    Case("cutmix", partner="permute", last=True), Case("mixup", view="unaligned", shape=ODD),
    Case("policy", replay=True, shape=ODD), Case("cutmix", last=True, out_last=False, classes=1200),
)  # fmt: skip


def smoke_steps() -> Steps:
    """A few small cases, for compute-sanitizer."""
    cases = SMOKE[:2] if DRY_RUN else SMOKE
    yield from ((str(case), partial(once, partial(check_case, case, n))) for n, case in enumerate(cases))
