"""The Triton kernel and the CPU path against the reference."""

import itertools

import cases
import pytest
import torch
from cases import DTYPES, EXACT, METHODS, PAIRINGS, TOLERANCES, assert_equal, expect, grid, images, run, targets
from cpu_timing import peak_bytes

from fusedmix import launch
from fusedmix.cpu import mix as cpu_mix
from fusedmix.kernels.config import Launch
from fusedmix.kernels.mix import mix_kernel
from fusedmix.launch import Shape, prepare
from fusedmix.ops import image_adjoint
from fusedmix.recipe import EXACT as EXACT_PAIRS
from fusedmix.recipe import FLIP, MATCHING, PERMUTE, ROLL, Recipe

IMPLEMENTATIONS = ["kernel", "cpu", "numpy"]
CASTS = [
    (torch.uint8, torch.float32), (torch.uint8, torch.bfloat16), (torch.float32, torch.float16),
    (torch.bfloat16, torch.float32),
]  # fmt: skip


def is_interpreted(implementation: str) -> bool:
    """Slow: a layout then gets every second or third case, another layout another one."""
    return implementation == "kernel" and cases.DEVICE == "cpu"


def tolerance(implementation: str, method: str, dtype: torch.dtype) -> tuple[float, float]:
    return EXACT if method == "cutmix" else TOLERANCES[implementation][dtype]


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_product(implementation: str, method: str, dtype: torch.dtype, channels_last: bool) -> None:
    """Methods x dtypes x layouts x partner kinds x modes x target forms, over odd and even sizes."""
    share = 2 if dtype == torch.float32 else 3  # of the cases for a layout, where the interpreter is slow
    for number, (recipe, form, shape, options) in enumerate(grid(method)):
        if is_interpreted(implementation) and (number + DTYPES.index(dtype)) % share != channels_last:
            continue
        x, y = images(shape, dtype, channels_last), targets(form, shape[0])
        want, _ = expect(x, y, recipe, **options)
        got = run(implementation, x, y, recipe, **options)
        assert_equal(got, want, tolerance(implementation, method, dtype), (recipe, form, shape, options))


@pytest.mark.parametrize(
    "limits",
    [
        {"SMALL_SAMPLE": 0, "SMALL_BOXED": 0},
        {"SMALL_SAMPLE": 0, "SMALL_BOXED": 0, "LARGE_SAMPLE": 0},
        {"SMALL_BATCH": 1024},
    ],
    ids=["one by one", "large", "chunks"],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_cpu_routes(method: str, dtype: torch.dtype, limits: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop over samples that large ones take, and small ones in several chunks."""
    for name, value in limits.items():
        monkeypatch.setattr(cpu_mix, name, value)
    test_product("numpy", method, dtype, False)
    test_product("numpy", method, dtype, True)
    test_in_place_and_replay("numpy", method, dtype, False)
    test_in_place_and_replay("numpy", method, dtype, True)


def test_wide_rows_need_no_square_of_memory() -> None:
    x = images((4, 1, 1, 20_000), torch.uint8)
    want, _ = expect(x, None, Recipe(), seed=1)
    got = []
    assert peak_bytes(lambda: got.append(run("cpu", x, None, Recipe(), seed=1))) < 10 * x.nbytes
    assert_equal(got[0], want, EXACT, "wide rows")


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_in_place_and_replay(implementation: str, method: str, dtype: torch.dtype, channels_last: bool) -> None:
    """In place equals out of place, and a replay equals the first call, for every kind of pairs."""
    for number, pairing in enumerate((MATCHING, EXACT_PAIRS, FLIP)):
        for odd, shape in enumerate(((5, 3, 6, 8), (4, 2, 5, 7))):
            if is_interpreted(implementation) and (number + odd + DTYPES.index(dtype)) % 2 != channels_last:
                continue
            recipe = Recipe(switch_prob=METHODS[method], pairing=pairing, p=0.8, num_classes=cases.K)
            x, y = images(shape, dtype, channels_last), targets("one_hot", shape[0])
            want, _ = expect(x, y, recipe, seed=9, offset=1)
            bound = tolerance(implementation, method, dtype)
            for replay in (None, want.plan):
                inside = x.clone()
                got = run(implementation, inside, y, recipe, seed=9, offset=1, out=inside, replay=replay)
                assert_equal(got, want, bound, ("in place", recipe, shape, replay is not None))
            got = run(implementation, x, y, recipe, replay=want.plan)
            assert_equal(got, want, bound, ("replay", recipe, shape))


@pytest.mark.parametrize("pairing", [ROLL, PERMUTE, PAIRINGS["given"]])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_replay_of_a_gather(implementation: str, pairing: int) -> None:
    recipe = Recipe(switch_prob=0.5, pairing=pairing, p=0.7, num_classes=cases.K)
    x, y = images((5, 3, 6, 8), torch.float32), targets("one_hot", 5)
    given = torch.tensor([2, 2, 0, 3, 1]) if pairing == PAIRINGS["given"] else None
    want, _ = expect(x, y, recipe, seed=4, partner=given)
    got = run(implementation, x, y, recipe, replay=want.plan)
    assert_equal(got, want, TOLERANCES[implementation][torch.float32], pairing)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_given_parameters(implementation: str, method: str) -> None:
    """lam, box and partner from the caller, alone and together; boxes and partners out of range do no harm."""
    x, y = images((5, 3, 9, 11), torch.float32), targets("one_hot", 5)
    given = {
        "lam": torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0]),
        "box": torch.tensor([[0, 0, 9, 11], [2, 3, 2, 8], [1, 0, 5, 4], [-3, -2, 40, 5], [7, 7, 3, 9]]).int(),
        "partner": torch.tensor([4, -1, 0, 99, 2]),
    }
    names = list(given) if method != "mixup" else ["lam", "partner"]
    for chosen in range(1, 2 ** len(names)):
        options = {name: given[name] for bit, name in enumerate(names) if chosen >> bit & 1}
        recipe = Recipe(
            switch_prob=METHODS[method], num_classes=cases.K, correct_lam=chosen % 2 == 0,
            pairing=PAIRINGS["given"] if "partner" in options else MATCHING,
        )  # fmt: skip
        want, _ = expect(x, y, recipe, seed=3, **options)
        got = run(implementation, x, y, recipe, seed=3, **options)
        assert_equal(got, want, tolerance(implementation, method, torch.float32), (method, options.keys()))


@pytest.mark.parametrize("layouts", [(False, None), (True, None), (False, True), (True, False)], ids=str)
@pytest.mark.parametrize("dtypes", CASTS, ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_normalise_cast_and_layout(implementation: str, dtypes: tuple, layouts: tuple) -> None:
    """mean, std, out_dtype and memory_format: one rounding at the end, so float32 steps are equal bit for bit."""
    norm = torch.tensor([[123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]])
    combinations = itertools.product(METHODS.items(), (MATCHING, PERMUTE), (norm, None))
    for number, ((method, switch_prob), pairing, scale) in enumerate(combinations):
        if is_interpreted(implementation) and (number + number // 2 + CASTS.index(dtypes)) % 2 != layouts[0]:
            continue
        recipe = Recipe(switch_prob=switch_prob, pairing=pairing, p=0.8)
        x = images((5, 3, 6, 8), dtypes[0], layouts[0])
        want, _ = expect(x, None, recipe, seed=8, norm=scale, out_dtype=dtypes[1])
        got = run(implementation, x, None, recipe, seed=8, norm=scale, out_dtype=dtypes[1], channels_last=layouts[1])
        assert_equal(got, want, EXACT, (method, pairing, scale is None))
        last = layouts[0] if layouts[1] is None else layouts[1]
        assert got.out.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize("method", METHODS)
def test_tiles(method: str) -> None:
    """Samples of many tiles, several a program, with a ragged end; row blocks that split classes and samples."""
    for pairing in (MATCHING, EXACT_PAIRS, PERMUTE):
        for in_place in (False, True):
            if in_place and pairing == PERMUTE:
                continue
            recipe = Recipe(switch_prob=METHODS[method], pairing=pairing, num_classes=40)
            x = images((5, 3, 13, 12), torch.float32)
            y = torch.arange(5) * 7
            want, _ = expect(x, y, recipe, seed=6)
            launch = Launch(block=64, tiles=3, num_warps=4, row_elements=64)
            got = run("kernel", x, y, recipe, seed=6, launch=launch, out=x if in_place else None)
            assert_equal(got, want, EXACT, (method, pairing, in_place))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("method", ["cutmix", "policy"])
def test_bytes_in_words(method: str, channels_last: bool) -> None:
    """Rows of whole 16-byte runs, of which the kernel pastes four bytes at a time."""
    norm = torch.tensor([[1.0, 20.0], [0.5, 0.25]])
    for number, (width, pairing) in enumerate(itertools.product((16, 48), (MATCHING, EXACT_PAIRS, ROLL))):
        recipe = Recipe(switch_prob=METHODS[method], pairing=pairing, p=0.9)
        x = images((5, 2, 3, width), torch.uint8, channels_last)
        scale, out_dtype = ((None, None), (None, torch.bfloat16), (norm, torch.float32))[number % 3]
        options = {"seed": number, "norm": scale, "out_dtype": out_dtype}
        want, _ = expect(x, None, recipe, **options)
        assert_equal(run("kernel", x, None, recipe, **options), want, EXACT, (width, pairing, out_dtype))
        if pairing == MATCHING:
            want, _ = expect(x, None, recipe, seed=7)
            assert_equal(run("kernel", x, None, recipe, seed=7, out=x), want, EXACT, (width, pairing, "in place"))


def test_bytes_off_words_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that does not lie on 4 bytes can't be loaded on a GPU: images from an odd address, or oddly far apart."""
    seen = []
    monkeypatch.setattr(launch, "run", lambda prepared, *_: seen.append(prepared))
    memory, shape, strides = torch.zeros(600, dtype=torch.uint8), (5, 2, 3, 16), (48, 16, 1)
    aligned = memory.as_strided(shape, (96, *strides))
    for x, out in (
        (aligned, aligned),
        (memory.as_strided(shape, (96, *strides), 1), aligned),
        (aligned, memory.as_strided(shape, (96, *strides), 2)),
        (memory.as_strided(shape, (98, *strides)), aligned),
    ):
        launch.mix_into(out, None, None, x, None, None, None, None, None, None, 0, 0, 0, Recipe(), False)
    names = mix_kernel.arg_names[mix_kernel.arg_names.index("ALIGN") :]
    assert [p.constants[names.index("ON_WORDS")] for p in seen] == [True, False, False, False]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_empty_batch_and_empty_images(implementation: str) -> None:
    for shape in ((0, 3, 4, 4), (3, 0, 4, 4)):
        for switch_prob in METHODS.values():
            recipe = Recipe(switch_prob=switch_prob, num_classes=cases.K)
            x, y = torch.empty(shape), targets("one_hot", shape[0])
            got = run(implementation, x, y, recipe)
            assert got.out.shape == shape
            assert got.target.shape == (shape[0], cases.K)
            assert not got.target.isnan().any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_batch_stride(implementation: str) -> None:
    """Samples dense in memory but apart from each other, as x[::2] is."""
    x = images((10, 3, 5, 8), torch.float32)[::2]
    recipe = Recipe(switch_prob=0.5, num_classes=cases.K)
    want, _ = expect(x, targets("one_hot", 5), recipe, seed=1)
    got = run(implementation, x, targets("one_hot", 5), recipe, seed=1)
    assert_equal(got, want, TOLERANCES[implementation][torch.float32], "strided")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_unmixed_samples_are_untouched(implementation: str) -> None:
    """NaN, infinity and -0.0 of a neighbour never reach a sample that is not mixed, nor are its own bits changed."""
    x = torch.full((4, 1, 2, 2), -0.0)
    x[1], x[3] = float("inf"), float("nan")
    for switch_prob in METHODS.values():
        recipe = Recipe(switch_prob=switch_prob, p=0.0)
        got = run(implementation, x, None, recipe, seed=2)
        assert torch.equal(got.out.view(torch.int32), x.view(torch.int32))
    lam = torch.ones(4)
    got = run(implementation, x, None, Recipe(switch_prob=0.0), seed=2, lam=lam)
    assert torch.equal(got.out.view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("method", METHODS)
def test_adjoint_kernel(method: str) -> None:
    """The kernel's adjoint is the gradient that autograd gives through the reference."""
    for pairing in (MATCHING, EXACT_PAIRS, FLIP):
        for shape in ((5, 3, 6, 8), (4, 2, 5, 7)):
            recipe = Recipe(switch_prob=METHODS[method], pairing=pairing, p=0.7)
            x = images(shape, torch.float32).requires_grad_()
            want, _ = expect(x, None, recipe, seed=5)
            grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            (expected,) = torch.autograd.grad(want.out, x, grad)
            got = run("kernel", grad, None, recipe._replace(adjoint=True), replay=want.plan)
            # Two products and a sum, in an order that autograd chooses differently: 2 ulp of |grad| <= 5.
            torch.testing.assert_close(got.out, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_infinite_gradients_stay_where_they_belong(method: str) -> None:
    """A sample that mixes nothing in gives nothing back, not even 0 * inf."""
    recipe = Recipe(switch_prob=METHODS[method], pairing=FLIP)
    plan = expect(torch.zeros(2, 1, 4, 4), None, recipe, lam=torch.tensor([1.0, 1.0]))[1]
    packed = torch.zeros(2, 8, dtype=torch.int32)
    packed[:, 0], packed[:, 2], packed[:, 3] = plan.method, plan.partner, plan.mate
    packed.view(torch.float32)[:, 1] = 1.0
    grad = torch.ones(2, 1, 4, 4)
    grad[1] = float("inf")
    got = run("kernel", grad, None, recipe._replace(adjoint=True), replay=packed)
    assert torch.equal(got.out, grad)
    assert torch.equal(image_adjoint(grad, packed, None, recipe, torch.float32, False), grad)


def test_samples_beyond_31_bits_are_refused() -> None:
    huge = Shape(
        Recipe(), False, torch.Size((2, 3, 40_000, 40_000)), 0, torch.uint8, 0, torch.uint8, False, False, False, None,
        None, False, False, False, False, False, -1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="31 bits"):
        prepare(huge)
