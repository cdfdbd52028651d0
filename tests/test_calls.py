"""The public calls: forms of input and output, and a clear error for each bad one, with nothing written."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import fusedmix
from fusedmix import FusedMix, MixedTarget, fused_cutmix, fused_mixup

X = torch.rand(6, 3, 8, 10, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("call", [fused_mixup, fused_cutmix, FusedMix()])
def test_returns(call) -> None:
    assert isinstance(call(X), torch.Tensor)
    _, plan = call(X, return_plan=True)
    assert isinstance(plan, fusedmix.Plan)
    _, y = call(X, Y)
    assert isinstance(y, MixedTarget)
    assert torch.equal(y.y_a, Y)
    _, y, plan = call(X, Y, return_plan=True)
    assert torch.equal(y.y_b, Y[plan.partner])
    assert torch.equal(y.lam, plan.lam)
    assert plan.method.dtype == torch.int32
    assert plan.lam.dtype == torch.float32
    assert plan.partner.dtype == torch.int64
    assert plan.box.dtype == torch.int32
    assert plan.box.shape == (6, 4)
    assert len(plan) == 6


def test_mixed_target_dense_and_loss() -> None:
    _, y = fused_mixup(X, Y)
    rows = y.dense(5, smoothing=0.1)
    torch.manual_seed(0)
    _, direct = fused_mixup(X, Y, num_classes=5, smoothing=0.1)
    assert torch.equal(rows, direct)
    logits = torch.randn(6, 5)
    torch.testing.assert_close(y.loss(logits), F.cross_entropy(logits, y.dense(5)))


def test_soft_targets_keep_their_shape() -> None:
    soft = torch.rand(6, 7).half()
    _, y, plan = fused_cutmix(X, soft, return_plan=True)
    assert y.shape == (6, 7)
    assert y.dtype == torch.float32
    expected = plan.lam[:, None] * soft.float() + (1 - plan.lam[:, None]) * soft.float()[plan.partner]
    torch.testing.assert_close(y, expected)


def test_mixup_of_any_rank() -> None:
    for shape in ((5, 7), (5, 2, 9), (4, 2, 3, 5, 6)):
        x = torch.rand(shape)
        out, plan = fused_mixup(x, return_plan=True)
        lam = plan.lam.view(-1, *[1] * (x.dim() - 1))
        torch.testing.assert_close(out, lam * x + (1 - lam) * x[plan.partner])


def test_out_and_inplace() -> None:
    out = torch.full_like(X, float("nan"))
    returned, plan = fused_cutmix(X, out=out, return_plan=True)
    assert returned is out
    assert torch.equal(out, plan.apply(X))
    x = X.clone()
    returned, plan = fused_mixup(x, inplace=True, return_plan=True)
    assert returned is x
    assert torch.equal(x, plan.apply(X))
    half = torch.empty(X.shape, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
    assert torch.equal(fused_mixup(X, plan=plan, out=half), plan.apply(X, out_dtype=torch.float16))


def test_plan_goes_along_with_other_tensors() -> None:
    _, plan = fused_cutmix(X, return_plan=True)
    depth = torch.rand(6, 1, 8, 10)
    mixed = plan.apply(depth)
    y0, x0, y1, x1 = plan.box[0].tolist()
    assert torch.equal(mixed[0, :, y0:y1, x0:x1], depth[plan.partner[0], :, y0:y1, x0:x1])
    assert torch.equal(plan.to("cpu").packed, plan.packed)
    assert "6 cutmix" in repr(plan)


def test_normalise() -> None:
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    out, plan = fused_mixup(x, mean=mean, std=std, return_plan=True)
    assert out.dtype == torch.float32
    m, s = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    torch.testing.assert_close(out, plan.apply((x.float() - m) / s), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plan.apply(x, mean=torch.tensor(mean), std=list(std)), out)
    assert torch.equal(plan.apply(x, mean=0.0, std=1.0), plan.apply(x, out_dtype=torch.float32))
    last = plan.apply(x, memory_format=torch.channels_last, mean=mean, std=std, out_dtype=torch.bfloat16)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, out.bfloat16())


def test_layout_of_the_result_follows_x() -> None:
    last = X.contiguous(memory_format=torch.channels_last)
    assert fused_cutmix(last).is_contiguous(memory_format=torch.channels_last)
    assert fused_cutmix(X.transpose(2, 3)).is_contiguous()  # neither layout: copied, then contiguous
    out, plan = fused_cutmix(X.transpose(2, 3), return_plan=True)
    assert torch.equal(out, plan.apply(X.transpose(2, 3).contiguous()))


def test_policy_module() -> None:
    mix = FusedMix(mixup_alpha=0.2, num_classes=5, smoothing=0.1, mode="pair", inplace=True)
    assert repr(mix) == "FusedMix(mixup_alpha=0.2, mode='pair', num_classes=5, smoothing=0.1, inplace=True)"
    for twin in (pickle.loads(pickle.dumps(mix)), copy.deepcopy(mix)):
        assert repr(twin) == repr(mix)
        torch.manual_seed(1)
        a = mix(X.clone(), Y)
        torch.manual_seed(1)
        b = twin(X.clone(), Y)
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    mix.eval()
    x, y = mix(X, Y)
    assert x is X
    assert y is Y
    assert mix(X) is X
    methods = FusedMix()(torch.zeros(200, 1, 4, 4), return_plan=True)[1].method
    assert set(methods.tolist()) == {1, 2}
    assert set(FusedMix(cutmix_alpha=0)(X, return_plan=True)[1].method.tolist()) == {1}
    assert set(FusedMix(mixup_alpha=0)(X, return_plan=True)[1].method.tolist()) == {2}


def test_pair_and_batch_modes_share_draws() -> None:
    _, plan = FusedMix(mode="pair")(torch.zeros(20, 1, 8, 8), return_plan=True)
    assert torch.equal(plan.lam, plan.lam[plan.partner])
    assert torch.equal(plan.box, plan.box[plan.partner])
    assert len(set(plan.lam.tolist())) > 2
    _, plan = FusedMix(mode="batch")(torch.zeros(20, 1, 8, 8), return_plan=True)
    assert len(set(plan.lam.tolist())) == 1
    assert len(set(plan.method.tolist())) == 1


OTHER = torch.rand(6, 3, 8, 10)
LEAF = torch.rand(6, 3, 8, 10, requires_grad=True)
_, PLAN = fused_cutmix(X, return_plan=True)
_, PERMUTED = fused_mixup(X, partner="permute", return_plan=True)
BAD = [
    # call, arguments, error, words that the message must hold: the argument, what came, what is allowed
    (fused_cutmix, dict(x=[1, 2]), TypeError, ["x", "list", "Tensor"]),
    (fused_cutmix, dict(x=torch.rand(3, 8, 10)), ValueError, ["x", "[B, C, H, W]", "[3, 8, 10]"]),
    (fused_cutmix, dict(x=torch.rand(2, 3, 0, 5)), ValueError, ["x", "H and W", "[2, 3, 0, 5]"]),
    (fused_mixup, dict(x=torch.rand(8)), ValueError, ["x", "[B, ...]", "[8]"]),
    (fused_mixup, dict(x=torch.rand(2, 3).double()), TypeError, ["x", "float32", "float64"]),
    (fused_mixup, dict(x=torch.rand(2, 3, device="meta"), y=torch.zeros(2).long()), ValueError, ["y", "meta", "cpu"]),
    (fused_mixup, dict(alpha=0.0), ValueError, ["alpha", "> 0", "0.0"]),
    (fused_mixup, dict(alpha=-1), ValueError, ["alpha", "> 0", "-1"]),
    (fused_mixup, dict(alpha=float("nan")), ValueError, ["alpha", "nan"]),
    (fused_mixup, dict(alpha=float("inf")), ValueError, ["alpha", "inf"]),
    (fused_mixup, dict(alpha="1"), TypeError, ["alpha", "number", "str"]),
    (fused_mixup, dict(alpha=[1.0]), TypeError, ["alpha", "number", "list"]),
    (fused_mixup, dict(p=1.5), ValueError, ["p ", "[0, 1]", "1.5"]),
    (fused_mixup, dict(p=-0.1), ValueError, ["p ", "[0, 1]", "-0.1"]),
    (fused_mixup, dict(p=True), TypeError, ["p ", "number", "bool"]),
    (fused_mixup, dict(mode="sample"), ValueError, ["mode", "'elem'", "'sample'"]),
    (fused_mixup, dict(partner="random"), ValueError, ["partner", "'matching'", "'random'"]),
    (fused_mixup, dict(mode="pair", partner="permute"), ValueError, ["pair", "'permute'"]),
    (fused_mixup, dict(mode="pair", partner=torch.arange(6)), ValueError, ["pair", "tensor"]),
    (fused_mixup, dict(y=Y, num_classes=0), ValueError, ["num_classes", "0"]),
    (fused_mixup, dict(y=Y, num_classes=4), ValueError, ["num_classes", "4", "0 to 3"]),
    (fused_mixup, dict(y=Y - 1, num_classes=5), ValueError, ["num_classes", "-1", "0 to 4"]),
    (fused_mixup, dict(y=Y, num_classes=2.5), TypeError, ["num_classes", "int", "float"]),
    (fused_mixup, dict(y=Y, smoothing=0.1), ValueError, ["num_classes", "missing", "0.1"]),
    (fused_mixup, dict(y=Y, num_classes=5, smoothing=1.1), ValueError, ["smoothing", "[0, 1]", "1.1"]),
    (fused_mixup, dict(y=torch.rand(6, 4), num_classes=5), ValueError, ["num_classes", "5", "4"]),
    (fused_mixup, dict(y=Y[:5]), ValueError, ["y", "6", "[5]"]),
    (fused_mixup, dict(y=torch.rand(5, 4)), ValueError, ["y", "6", "[5, 4]"]),
    (fused_mixup, dict(y=Y.int()), TypeError, ["y", "int64", "int32"]),
    (fused_mixup, dict(y=[0] * 6), TypeError, ["y", "Tensor", "list"]),
    (fused_mixup, dict(lam=1.5), ValueError, ["lam", "[0, 1]", "1.5"]),
    (fused_mixup, dict(lam=torch.tensor([0.5] * 5)), ValueError, ["lam", "[6]", "[5]"]),
    (fused_mixup, dict(lam=torch.tensor([0.5] * 5 + [2.0])), ValueError, ["lam", "[0, 1]", "2.0"]),
    (fused_mixup, dict(lam=torch.tensor([1] * 6)), TypeError, ["lam", "float", "int64"]),
    (fused_mixup, dict(partner=torch.arange(5)), ValueError, ["partner", "[6]", "[5]"]),
    (fused_mixup, dict(partner=torch.arange(6) + 1), ValueError, ["partner", "[0, 6)", "6"]),
    (fused_mixup, dict(partner=torch.arange(6).int()), TypeError, ["partner", "int64", "int32"]),
    (fused_mixup, dict(partner=torch.arange(6, device="meta")), ValueError, ["partner", "cpu", "meta"]),
    (fused_cutmix, dict(box=torch.zeros(6, 3).int()), ValueError, ["box", "[6, 4]", "[6, 3]"]),
    (fused_cutmix, dict(box=torch.zeros(6, 4)), TypeError, ["box", "int32", "float32"]),
    (fused_cutmix, dict(box=torch.tensor([[0, 0, 9, 10]] * 6)), ValueError, ["box", "y1 <= 8", "x1 <= 10"]),
    (fused_cutmix, dict(minmax=0.5), TypeError, ["minmax", "0.5", "pair"]),
    (fused_cutmix, dict(minmax=(0.8, 0.2)), ValueError, ["minmax[1]", "[0.8, 1]", "0.2"]),
    (fused_cutmix, dict(minmax=(-0.1, 0.2)), ValueError, ["minmax[0]", "-0.1"]),
    (fused_cutmix, dict(plan="last"), TypeError, ["plan", "Plan", "str"]),
    (fused_cutmix, dict(plan=PLAN, lam=0.5), ValueError, ["plan", "lam"]),
    (fused_cutmix, dict(x=torch.rand(5, 3, 8, 10), plan=PLAN), ValueError, ["plan", "6", "5"]),
    (fused_cutmix, dict(x=torch.rand(6, 3, 9, 10), plan=PLAN), ValueError, ["plan", "(8, 10)", "[6, 3, 9, 10]"]),
    (fused_cutmix, dict(sample_offset=-1), ValueError, ["sample_offset", "-1"]),
    (fused_cutmix, dict(sample_offset=2**31), ValueError, ["sample_offset", str(2**31)]),
    (fused_cutmix, dict(sample_offset=0.5), TypeError, ["sample_offset", "int", "float"]),
    (fused_cutmix, dict(out_dtype="half"), TypeError, ["out_dtype", "torch.dtype", "str"]),
    (fused_cutmix, dict(out_dtype=torch.float64), ValueError, ["out_dtype", "float32", "float64"]),
    (fused_cutmix, dict(out_dtype=torch.uint8), ValueError, ["out_dtype", "uint8", "float32"]),
    (fused_cutmix, dict(memory_format="NHWC"), ValueError, ["memory_format", "channels_last", "NHWC"]),
    (fused_cutmix, dict(memory_format=torch.channels_last_3d), ValueError, ["memory_format", "channels_last_3d"]),
    (fused_mixup, dict(x=torch.rand(4, 5), memory_format=torch.channels_last), ValueError, ["memory_format", "[4, 5]"]),
    (fused_cutmix, dict(mean=(1.0, 2.0)), ValueError, ["mean", "(3)", "[2]"]),
    (fused_cutmix, dict(std=0.0), ValueError, ["std", "> 0", "0.0"]),
    (fused_cutmix, dict(std=(1.0, -1.0, 1.0)), ValueError, ["std", "> 0", "-1.0"]),
    (fused_cutmix, dict(out=torch.zeros(5, 3, 8, 10)), ValueError, ["out", "[6, 3, 8, 10]", "[5, 3, 8, 10]"]),
    (fused_cutmix, dict(out=OTHER.half(), out_dtype=torch.float32), ValueError, ["out", "float32", "float16"]),
    (fused_cutmix, dict(out=OTHER.double()), ValueError, ["out.dtype", "float64"]),
    (fused_cutmix, dict(out="x"), TypeError, ["out", "Tensor", "str"]),
    (fused_cutmix, dict(out=OTHER.to("meta")), ValueError, ["out", "cpu", "meta"]),
    (fused_cutmix, dict(out=torch.zeros(6, 3, 10, 8).transpose(2, 3)), ValueError, ["out", "dense", "strides"]),
    (fused_cutmix, dict(out=OTHER, inplace=True), ValueError, ["inplace", "out="]),
    (fused_cutmix, dict(x=LEAF, out=OTHER), ValueError, ["out", "grad"]),
    (fused_cutmix, dict(x=LEAF, inplace=True), ValueError, ["x", "leaf", "requires grad"]),
    (fused_cutmix, dict(inplace=True, partner="roll"), ValueError, ["inplace", "pairs"]),
    (fused_cutmix, dict(inplace=True, partner=torch.arange(6)), ValueError, ["inplace", "pairs"]),
    (fused_mixup, dict(inplace=True, plan=PERMUTED), ValueError, ["inplace", "pairs"]),
    (fused_cutmix, dict(inplace=True, out_dtype=torch.float16), ValueError, ["inplace", "float16"]),
    (fused_cutmix, dict(inplace=True, memory_format=torch.channels_last), ValueError, ["inplace", "memory"]),
    (fused_cutmix, dict(x=X[:1].expand(6, 3, 8, 10), inplace=True), ValueError, ["x", "dense", "strides"]),
    (FusedMix, dict(mixup_alpha=-1.0), ValueError, ["mixup_alpha", "-1.0"]),
    (FusedMix, dict(mixup_alpha=0, cutmix_alpha=0), ValueError, ["mixup_alpha", "cutmix_alpha"]),
    (FusedMix, dict(prob=2.0), ValueError, ["prob", "[0, 1]", "2.0"]),
    (FusedMix, dict(switch_prob=-1), ValueError, ["switch_prob", "[0, 1]", "-1"]),
]


@pytest.mark.parametrize(("call", "arguments", "error", "said"), BAD, ids=[" ".join(case[3]) for case in BAD])
def test_bad_input(call, arguments: dict, error: type[Exception], said: list[str]) -> None:
    arguments = dict(arguments)
    if call is not FusedMix:
        arguments.setdefault("x", X)
    watched = [t for t in arguments.values() if isinstance(t, torch.Tensor) and t.device.type == "cpu"]
    before = [t.detach().clone() for t in watched]
    with pytest.raises(error) as caught:
        call(**arguments)
    for words in said:
        assert words in str(caught.value), f"{words!r} not in {caught.value}"
    for tensor, copied in zip(watched, before, strict=True):
        assert torch.equal(tensor.detach(), copied)


def test_out_overlapping_x_is_refused() -> None:
    both = torch.rand(12, 3, 8, 10)
    before = both.clone()
    for out in (both[:6], both[3:9]):
        with pytest.raises(ValueError, match="out overlaps x"):
            fused_cutmix(both[:6], out=out)
    assert torch.equal(both, before)
    fused_cutmix(both[:6], out=both[6:])  # neighbours do not overlap


def test_eval_has_no_plan() -> None:
    with pytest.raises(ValueError, match="eval"):
        FusedMix().eval()(X, return_plan=True)


def test_debug_switch() -> None:
    fusedmix.debug(True)
    fusedmix.debug(False)
    with pytest.raises(ValueError, match="num_classes is 3"):  # on the CPU values are always checked
        fused_cutmix(X, Y, num_classes=3)
