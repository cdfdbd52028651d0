"""The public calls: forms of input and output, and a clear error for each bad one, with nothing written."""

import copy
import mmap
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fusedmix
from fusedmix import (
    CutMix,
    Cutout,
    FMix,
    FusedMix,
    Linear,
    MixedTarget,
    Mixup,
    RandomErasing,
    Until,
    fused_cutmix,
    fused_cutout,
    fused_fmix,
    fused_gridmask,
    fused_gridmix,
    fused_hide_and_seek,
    fused_mixup,
    fused_random_erasing,
    fused_resizemix,
    fused_smoothmix,
    layout,
)

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


def test_new_results_ask_for_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages that lie in them, where they are large; nothing is asked for the caller's own memory."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(layout, "ask_for_large_pages", lambda: lambda *what: asked.append(what))
    x, y = torch.rand(8, 3, 224, 224), torch.arange(8)
    out, rows = fused_cutmix(x, y, num_classes=1 << 18)
    for result, (start, size) in zip((out, rows), asked, strict=True):
        assert result.nbytes >= layout.LARGE
        assert start % mmap.PAGESIZE == 0
        assert 0 <= start - result.data_ptr() < mmap.PAGESIZE
        assert start + size == result.data_ptr() + result.nbytes
    asked.clear()
    fused_cutmix(x, out=out)
    fused_cutmix(x[:4], y[:4], num_classes=10)
    fused_cutmix(x, inplace=True)
    assert not asked


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no large pages to ask for")
def test_large_pages_are_advised() -> None:
    """As the kernel lists the mapping that the result lies in: "hg" among its flags."""
    out = fused_cutmix(torch.rand(64, 3, 224, 224))
    address, inside, flags = out.data_ptr() + out.nbytes // 2, False, ""
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            flags = line
    assert " hg" in flags


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
    (FusedMix, dict(methods=0.8), TypeError, ["methods", "pairs", "0.8"]),
    (FusedMix, dict(methods=[]), TypeError, ["methods", "pairs", "()"]),
    (FusedMix, dict(methods=[CutMix()]), TypeError, ["methods[0]", "pair", "CutMix"]),
    (FusedMix, dict(methods=[("cutmix", 1.0)]), TypeError, ["methods[0]", "spec", "cutmix"]),
    (FusedMix, dict(methods=[(CutMix(), 0.8), (Mixup(), 0.3)]), ValueError, ["methods", "at most 1", "1.1"]),
    (FusedMix, dict(methods=[(CutMix(), 1.5)]), ValueError, ["probability of methods[0]", "[0, 1]", "1.5"]),
    (FusedMix, dict(methods=[(None, 1.0)]), ValueError, ["methods", "only None"]),
    (FusedMix, dict(methods=[(CutMix(mode="pair"), 1.0)]), ValueError, ["methods[0]", "mode", "list"]),
    (FusedMix, dict(methods=[(CutMix(), 1.0)], mixup_alpha=0.2), ValueError, ["mixup_alpha", "list of methods"]),
    (FusedMix, dict(methods=[(CutMix(), 1.0)], erase=CutMix()), TypeError, ["erase", "drops", "CutMix"]),
    (FusedMix, dict(methods=[(FMix(), 0.5), (FMix(2.0), 0.5)]), ValueError, ["methods", "FMix twice"]),
    (fused_cutout, dict(length=-1), ValueError, ["length", "[0, 32768]", "-1"]),
    (fused_cutout, dict(n_holes=9), ValueError, ["n_holes", "[1, 8]", "9"]),
    (fused_cutout, dict(value="black"), TypeError, ["value", "number", "str"]),
    (fused_cutout, dict(value=(1.0, 2.0)), ValueError, ["value", "one per channel (3)", "2"]),
    (fused_cutout, dict(value=300, x=X.byte()), ValueError, ["value of uint8 images", "[0, 255]", "300"]),
    (fused_cutout, dict(space="middle"), ValueError, ["space", "'input', 'output'", "middle"]),
    (fused_cutout, dict(x=X[:, 0]), ValueError, ["x", "[B, C, H, W]", "[6, 8, 10]"]),
    (fused_cutout, dict(lam=0.5), ValueError, ["lam", "Cutout has none"]),
    (fused_cutout, dict(alpha=0.5), TypeError, ["alpha is no option", "inplace"]),
    (fused_cutout, dict(p=1.2), ValueError, ["p", "[0, 1]", "1.2"]),
    (fused_random_erasing, dict(area=(0.5, 0.1)), ValueError, ["area", "(lowest, highest)", "(0.5, 0.1)"]),
    (fused_random_erasing, dict(area=0.5), TypeError, ["area", "pair", "0.5"]),
    (fused_random_erasing, dict(aspect_scale="square"), ValueError, ["aspect_scale", "'log', 'linear'", "square"]),
    (fused_random_erasing, dict(fill_mode="black"), ValueError, ["fill_mode", "'const', 'rand', 'pixel'", "black"]),
    (fused_random_erasing, dict(fill_mode="pixel", sigma=(1, -1, 1)), ValueError, ["sigma", "[0", "-1"]),
    (fused_random_erasing, dict(min_count=2), ValueError, ["min_count", "[1, 1]", "2"]),
    (fused_random_erasing, dict(compat="kornia"), ValueError, ["compat", "'paper', 'timm', 'torchvision'", "kornia"]),
    (fused_gridmask, dict(d=(1, 5)), ValueError, ["d[0]", "[2, 32768]", "1"]),
    (fused_gridmask, dict(ratio=1.5), ValueError, ["ratio", "[0, 1]", "1.5"]),
    (fused_gridmask, dict(rule="old"), ValueError, ["rule", "'ceil', 'round'", "old"]),
    (fused_hide_and_seek, dict(sizes=()), ValueError, ["sizes", "1 to 8", "()"]),
    (fused_hide_and_seek, dict(sizes=(4, -1)), ValueError, ["sizes[1]", "[0, 32768]", "-1"]),
    (fused_gridmix, dict(cells=0), ValueError, ["cells", "[1, 32]", "0"]),
    (fused_gridmix, dict(alpha=0), ValueError, ["alpha", "> 0", "0"]),
    (fused_resizemix, dict(inplace=True), ValueError, ["inplace=True", "ResizeMix"]),
    (fused_resizemix, dict(interpolation="cubic"), ValueError, ["interpolation", "'nearest', 'bilinear'", "cubic"]),
    (fused_smoothmix, dict(sigma=(0.0, 0.5)), ValueError, ["sigma[0]", "0.0"]),
    (fused_smoothmix, dict(lam=0.5), ValueError, ["lam", "SmoothMix has none"]),
    (fused_fmix, dict(spectrum="white"), ValueError, ["spectrum", "'fixed', 'official'", "white"]),
    (fused_mixup, dict(compat="fastai"), ValueError, ["compat", "'paper', 'timm', 'torchvision', 'kornia'", "fastai"]),
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


def test_compat_sets_what_is_left_at_its_default() -> None:
    _, plan = fused_cutmix(X, compat="timm", return_plan=True)
    assert plan.mate.tolist() == [5, 4, 3, 2, 1, 0]
    assert len(set(plan.box.tolist()[0])) >= 1
    assert all(box == plan.box[0].tolist() for box in plan.box.tolist())  # one box for the batch
    _, plan = fused_mixup(X, compat="torchvision", partner="flip", return_plan=True)
    assert plan.mate.tolist() == [5, 4, 3, 2, 1, 0]  # what is said explicitly stays
    _, plan = fused_random_erasing(torch.rand(400, 1, 32, 32), compat="paper", p=1.0, return_plan=True)
    height, width = (plan.box[:, 2] - plan.box[:, 0]).float(), (plan.box[:, 3] - plan.box[:, 1]).float()
    assert float((height > width).float().mean()) > 0.68


def test_drops_return_labels_as_they_came() -> None:
    x, y = fused_cutout(X, Y, length=4)
    assert y is Y
    soft = torch.rand(6, 3)
    assert torch.equal(fused_cutout(X, soft, length=4)[1], soft)
    rows = fused_cutout(X, Y, length=4, num_classes=5, smoothing=0.1)[1]
    assert rows.shape == (6, 5)
    assert torch.allclose(rows.max(1).values, torch.tensor(0.92))
    assert x.shape == X.shape


def test_fills_in_both_spaces() -> None:
    x = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    options = dict(length=40, mean=(100.0, 110.0, 120.0), std=(10.0, 20.0, 30.0), out_dtype=torch.float32)
    out = fused_cutout(x, value=(110, 110, 90), **options)  # in the units of x
    assert torch.allclose(out[0, :, 4, 4], torch.tensor([1.0, 0.0, -1.0]), atol=1e-6)
    out = fused_cutout(x, value=0.0, space="output", **options)  # after normalisation
    assert out[:, :, 4, 4].abs().max() < 1e-6  # value / std and mean / std are rounded
    assert (fused_cutout(x, value=7, length=40)[:, :, 4, 4] == 7).all()


def test_a_plan_of_the_family_replays_on_another_tensor() -> None:
    mix = FusedMix([(CutMix(), 0.3), (FMix(), 0.3), (Cutout(4, value=0.5), 0.4)], erase=RandomErasing(p=0.5))
    out, plan = mix(X, return_plan=True)
    assert torch.equal(plan.apply(X), out)
    assert torch.equal(plan.to("cpu").apply(X), out)
    depth = torch.rand(6, 1, 8, 10)
    again = plan.apply(depth)
    assert again.shape == depth.shape
    with pytest.raises(ValueError, match="plan has boxes"):
        plan.apply(torch.rand(6, 3, 4, 4))


def test_progress_moves_a_schedule() -> None:
    mix = FusedMix([(Cutout(length=40), Linear(0.0, 1.0, until=0.5))])
    x = torch.ones(200, 1, 4, 4)
    shares = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        mix.set_progress(progress)
        shares.append(float((mix(x).amax((1, 2, 3)) == 0).float().mean()))
    assert shares[0] == 0.0
    assert 0.3 < shares[1] < 0.7
    assert shares[2:] == [1.0, 1.0]
    off = FusedMix([(Mixup(), Until(0.9, 1.0))])
    off.set_progress(0.95)
    assert torch.equal(off(X), X)
    with pytest.raises(ValueError, match=r"progress must be in \[0, 1\], got 1.5"):
        mix.set_progress(1.5)
    with pytest.raises(ValueError, match="list of methods"):
        FusedMix().set_progress(0.5)
    with pytest.raises(ValueError, match="until"):
        Linear(0.0, 1.0, until=0.0)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 2"):
        Cutout(p=Linear(0.0, 2.0))


def test_timm_s_words_with_erase() -> None:
    mix = FusedMix(mixup_alpha=0.2, switch_prob=0.5, erase=RandomErasing(p=1.0), num_classes=5)
    _, _, plan = mix(torch.rand(200, 1, 8, 8), torch.zeros(200, dtype=torch.int64), return_plan=True)
    assert set(plan.method.tolist()) == {1, 2}
    assert bool(plan.erased.all())
    assert "erase=RandomErasing(p=1.0" in repr(mix)


def test_eval_has_no_plan() -> None:
    with pytest.raises(ValueError, match="eval"):
        FusedMix().eval()(X, return_plan=True)


def test_debug_switch() -> None:
    fusedmix.debug(True)
    fusedmix.debug(False)
    with pytest.raises(ValueError, match="num_classes is 3"):  # on the CPU values are always checked
        fused_cutmix(X, Y, num_classes=3)
