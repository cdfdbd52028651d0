"""The op boundary: opcheck, compile without a break, gradients for every partner kind, fake and traced tensors."""

import pytest
import torch
from cases import PAIRINGS, images
from family_cases import everything, extras_for
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

import fusedmix
from fusedmix import (
    CutMix,
    Cutout,
    FusedMix,
    GridMask,
    Linear,
    Mixup,
    RandomErasing,
    Until,
    fused_cutmix,
    fused_mixup,
    ops,
    reference,
)  # fmt: skip
from fusedmix.recipe import GIVEN, PARTNERS, PERMUTE, Recipe
from fusedmix.reference.sampling import Draw

Y = torch.tensor([0, 1, 2, 3, 4, 0])
GIVEN_PARTNER = torch.tensor([1, 1, 0, 3, 5, 5])


def arguments(recipe: Recipe, x: torch.Tensor, y: torch.Tensor | None, extras=ops.NO_EXTRAS, **given) -> tuple:
    names = ("norm", "plan", "lam", "box", "partner", "state")
    return (x, y, *(given.get(name) for name in names), 5, 0, 0, *recipe, True, *extras)


@pytest.mark.parametrize("switch_prob", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("pairing", [0, 2, PERMUTE, GIVEN])
def test_opcheck(switch_prob: float, pairing: int) -> None:
    recipe = Recipe(switch_prob=switch_prob, pairing=pairing, num_classes=5)
    partner = GIVEN_PARTNER if pairing == GIVEN else None
    for y in (Y, torch.rand(6, 5), None):
        x = images((6, 3, 4, 5), torch.float32)
        for gradient in (False, True):
            x = x.clone().requires_grad_(gradient)
            opcheck(torch.ops.fusedmix.mix.default, (*arguments(recipe, x, y, partner=partner), None, None))
        if recipe.is_paired:
            opcheck(torch.ops.fusedmix.mix_.default, arguments(recipe, x.detach().clone(), y))
        out = torch.empty(6, 3, 4, 5)
        called = arguments(recipe, x.detach(), y, partner=partner)
        opcheck(torch.ops.fusedmix.mix_out.default, (called[0], out, *called[1:]))


@pytest.mark.parametrize("partner", ["matching", "permute"])
def test_opcheck_of_the_family(partner: str) -> None:
    policy = everything("erasing", num_classes=5, partner=partner)
    for gradient in (False, True):
        x = images((6, 3, 8, 8), torch.float32).requires_grad_(gradient)
        called = arguments(policy.recipe, x, Y, extras_for(policy, x, None))
        opcheck(torch.ops.fusedmix.mix.default, (*called, None, None))
    out = torch.empty(6, 3, 8, 8)
    opcheck(torch.ops.fusedmix.mix_out.default, (x.detach(), out, *called[1:]))


def test_in_place_variants_are_declared_as_mutating() -> None:
    assert torch.ops.fusedmix.mix_.default._schema.is_mutable
    assert torch.ops.fusedmix.mix_out.default._schema.is_mutable
    assert not torch.ops.fusedmix.mix.default._schema.is_mutable


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("method", ["mixup", "cutmix", "policy"])
def test_gradients_are_those_of_the_reference(method: str, pairing: str) -> None:
    call = {"mixup": fused_mixup, "cutmix": fused_cutmix}.get(method)
    partner = GIVEN_PARTNER if pairing == "given" else pairing
    for last in (False, True):
        x = images((6, 3, 5, 4), torch.float32, last).requires_grad_()
        soft = torch.rand(6, 5, requires_grad=True)
        if call is None:
            if pairing == "given":
                return
            out, rows, plan = FusedMix(partner=partner, smoothing=0.1, prob=0.8)(x, soft, return_plan=True)
        else:
            out, rows, plan = call(x, soft, partner=partner, p=0.8, smoothing=0.1, return_plan=True)
        drawn = Draw(plan.method, plan.lam, plan.partner, plan.mate, plan.box)
        want, want_rows, _ = reference.mix(x, soft, plan.recipe, plan=drawn)
        grads = torch.randn_like(out), torch.randn_like(rows)
        got = torch.autograd.grad((out, rows), (x, soft), grads)
        expected = torch.autograd.grad((want, want_rows), (x, soft), grads)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=0)  # two products and a sum, in another order
        assert got[0].stride() == x.stride()


def test_gradients_through_normalise_and_cast() -> None:
    x = images((6, 3, 5, 4), torch.float32).requires_grad_()
    mean, std = (1.0, 2.0, 3.0), (2.0, 4.0, 8.0)
    out, plan = fused_cutmix(x, mean=mean, std=std, out_dtype=torch.bfloat16, return_plan=True)
    grad = torch.randn(out.shape).bfloat16()
    (got,) = torch.autograd.grad(out, x, grad)
    drawn = Draw(plan.method, plan.lam, plan.partner, plan.mate, plan.box)
    norm = torch.tensor([mean, [1 / s for s in std]])
    want, _, _ = reference.mix(x, None, plan.recipe, plan=drawn, norm=norm, out_dtype=torch.bfloat16)
    (expected,) = torch.autograd.grad(want, x, grad)
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)


def test_second_derivative() -> None:
    x = torch.rand(4, 2, 3, 3, dtype=torch.float32).requires_grad_()
    for partner in ("matching", "permute"):
        out = fused_mixup(x, partner=partner)
        (first,) = torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        assert second.abs().sum() > 0


def test_in_place_on_a_tensor_inside_the_graph() -> None:
    leaf = torch.rand(4, 2, 3, 3, requires_grad=True)
    torch.manual_seed(0)
    (fused_mixup(leaf * 2, inplace=True) ** 2).sum().backward()
    got, leaf.grad = leaf.grad, None
    torch.manual_seed(0)
    (fused_mixup(leaf * 2) ** 2).sum().backward()
    assert torch.equal(got, leaf.grad)


def test_no_grad_calls_take_the_direct_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager calls without gradients never enter the dispatcher."""
    x = torch.rand(4, 2, 3, 3)

    def refuse(*_):
        raise AssertionError("dispatched")

    monkeypatch.setattr(torch.ops.fusedmix, "mix", refuse)
    fused_mixup(x)
    with pytest.raises(AttributeError):
        fused_mixup(x.requires_grad_())


COMPILED = {
    "cutmix": lambda x, y: fused_cutmix(x, y, num_classes=5, return_plan=True),
    "classes": lambda x, y: (*fused_mixup(x, y), None),
    "normalised": lambda x, y: (fused_mixup(x, mean=(0.5,) * 3, std=(0.2,) * 3, out_dtype=torch.bfloat16), None, None),
    "policy": FusedMix(num_classes=5, partner="exact"),
    "in place": lambda x, y: (*fused_cutmix(x.clone(), y, num_classes=5, inplace=True), None),
    "out": lambda x, y: (*fused_cutmix(x, y, num_classes=5, out=torch.empty_like(x)), None),
    "cutout": lambda x, y: (*fusedmix.fused_cutout(x, y, length=4), None),
    "erasing": lambda x, y: fusedmix.fused_random_erasing(x, y, p=1.0, fill_mode="rand", return_plan=True),
    "fmix": lambda x, y: fusedmix.fused_fmix(x, y, num_classes=5, return_plan=True),
    "list": FusedMix([(CutMix(1.0), 0.5), (Mixup(0.2), 0.5)], erase=RandomErasing(p=0.5), num_classes=5),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compile_fullgraph(name: str) -> None:
    """No graph break, fresh draws on every call, reproducible under manual_seed."""
    torch._dynamo.reset()
    compiled = torch.compile(COMPILED[name], fullgraph=True, backend="aot_eager")
    x = images((6, 3, 8, 8), torch.float32)

    def image(seed: int | None = None) -> torch.Tensor:
        if seed is not None:
            torch.manual_seed(seed)
        return compiled(x, Y)[0]

    first, second = image(3), image()
    assert not torch.equal(first, second)
    assert torch.equal(image(3), first)


def test_compile_with_inductor_and_gradients() -> None:
    torch._dynamo.reset()
    weight = torch.rand(3, requires_grad=True)

    def step(x: torch.Tensor, y: torch.Tensor) -> tuple:
        out, rows, plan = fused_cutmix(x * weight.view(3, 1, 1), y, num_classes=5, return_plan=True)
        return out, rows, plan

    x = images((6, 3, 8, 8), torch.float32)
    out, rows, plan = torch.compile(step, fullgraph=True)(x, Y)
    torch.testing.assert_close(out, plan.apply(x * weight.view(3, 1, 1)))
    torch.testing.assert_close(rows.sum(1), torch.ones(6))
    out.sum().backward()
    torch.testing.assert_close(weight.grad, plan.apply(x).sum((0, 2, 3)), rtol=1e-4, atol=1e-2)


def test_new_numbers_do_not_recompile() -> None:
    """Seeds and sample offsets are symbols: ten calls with ten of each make at most two graphs."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda x, offset: fused_mixup(x, sample_offset=offset), fullgraph=True, backend=counter)
    for offset in range(0, 100, 10):
        compiled(torch.rand(4, 3, 8, 8), offset)
    assert counter.frame_count <= 3  # the first two offsets, 0 and 10, are constants to dynamo


def test_progress_does_not_recompile() -> None:
    """A ramp of p, of alpha and of a size, and a tensor of one number: one graph for all steps."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    share = torch.tensor(0.0)
    mix = FusedMix(
        [(GridMask((4, 8), p=Linear(0.0, 1.0)), 0.5), (CutMix(Linear(0.2, 1.0)), Until(0.9, 0.5))],
        erase=Cutout(length=Linear(0, 8), p=1.0),
    )
    scalar = FusedMix([(Cutout(length=8), 1.0)], erase=Cutout(length=8, p=share))
    step = torch.compile(lambda x: (mix(x), scalar(x)), fullgraph=True, backend=counter)
    x = torch.ones(64, 1, 8, 8)
    changed, erased = [], []
    for progress in (0.0, 0.3, 0.5, 0.8, 0.95):
        mix.set_progress(progress)
        share.fill_(progress)
        torch.manual_seed(0)  # the same draws: what was erased stays erased
        first, second = step(x)
        changed.append(float((first == 0).float().mean()))
        erased.append(float((second == 0).float().mean()))
    assert counter.frame_count == 1
    assert changed[0] == 0.0
    assert changed == sorted(changed)
    assert erased == sorted(erased)
    assert erased[0] < erased[-1]


@pytest.mark.parametrize("call", [fused_mixup, fused_cutmix, fusedmix.fused_gridmix])
def test_numbers_as_tensors(call) -> None:
    """They draw what Python numbers draw, and one compiled graph serves all their values."""
    x = images((6, 3, 8, 8), torch.float32)
    results = []
    for kind in (float, torch.tensor):
        torch.manual_seed(1)
        results.append(call(x, Y, alpha=kind(0.3), p=kind(0.8), num_classes=5))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=3e-5)  # torch.lerp fuses, the others not
    assert torch.equal(results[0][1], results[1][1])
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda x, p: call(x, alpha=p, p=p), fullgraph=True, backend=counter)
    for p in (0.1, 0.3, 0.5, 0.7):
        compiled(x, torch.tensor(p))
    assert counter.frame_count == 1


def test_changed_numbers_do_not_recompile_the_kernel() -> None:
    """Numbers are data of a launch: new ones leave its key as it is."""
    keys = {FusedMix([(CutMix(alpha), p)]).recipe for alpha in (0.2, 0.5) for p in (0.1, 0.9)}
    assert len(keys) == 1


def test_generator_cannot_be_compiled() -> None:
    torch._dynamo.reset()
    generator = torch.Generator()
    compiled = torch.compile(lambda x: fused_mixup(x, generator=generator), backend="eager")
    with pytest.raises(Exception, match="generator"):
        compiled(torch.rand(4, 3, 8, 8))


def test_fake_tensors_and_make_fx() -> None:
    with FakeTensorMode():
        x = torch.empty(6, 3, 8, 8)
        out, rows = fused_cutmix(x, torch.zeros(6, dtype=torch.int64), num_classes=5)
    assert out.shape == (6, 3, 8, 8)
    assert rows.shape == (6, 5)
    x = torch.rand(6, 3, 8, 8)
    graph = make_fx(lambda x, y: fused_cutmix(x, y, num_classes=5))(x, Y)
    assert "fusedmix.mix.default" in graph.code
    assert not torch.equal(graph(x, Y)[0], graph(x, Y)[0])


def test_export() -> None:
    program = torch.export.export(FusedMix(num_classes=5), (torch.rand(6, 3, 8, 8), Y))
    x, rows = program.module()(torch.rand(6, 3, 8, 8), Y)
    assert x.shape == (6, 3, 8, 8)
    assert rows.shape == (6, 5)


def test_parameter_and_subclass_take_the_op() -> None:
    x = torch.nn.Parameter(torch.rand(4, 3, 4, 4), requires_grad=False)
    assert fused_cutmix(x).shape == x.shape


def test_every_partner_kind_is_known() -> None:
    assert set(PARTNERS.values()) | {GIVEN} == set(PAIRINGS.values())
    assert ops.IMPLEMENTATIONS.keys() == {"cpu", "cuda"}
    assert fusedmix.__version__
