"""The `compat` presets against the libraries (extra `bench`): in distribution, and exactly when fed alike."""

import random
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch
from cases import images
from scipy import stats

from bench.peers import import_torchvision
from fusedmix import fused_cutmix, fused_mixup, fused_random_erasing

X = images((6, 3, 32, 24), torch.float32)
Y = torch.tensor([0, 1, 2, 3, 4, 0])
SIDE, N = 48, 3000


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def peer(name: str) -> ModuleType:
    """A module of torchvision or timm, skipped where it is not installed."""
    for package in {"torchvision", name.partition(".")[0]}:  # timm needs torchvision
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    import_torchvision()
    return import_module(name)


def sizes_of_ours(compat: str) -> tuple[np.ndarray, np.ndarray]:
    _, plan = fused_random_erasing(torch.zeros(N, 1, SIDE, SIDE), compat=compat, p=1.0, return_plan=True)
    y0, x0, y1, x1 = plan.box.unbind(1)
    return (y1 - y0).numpy(), (x1 - x0).numpy()


def assert_alike(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert stats.ks_2samp(a[a > 0], b[b > 0]).pvalue > 1e-4


def test_torchvision_erases_boxes_of_the_same_sizes() -> None:
    v2 = peer("torchvision.transforms.v2")
    theirs = v2.RandomErasing(p=1.0)
    drawn = [theirs.make_params([torch.zeros(1, SIDE, SIDE)]) for _ in range(N)]
    height, width = (np.array([params[name] for params in drawn if params["v"] is not None]) for name in ("h", "w"))
    assert_alike(sizes_of_ours("torchvision"), (height, width))


def test_torchvision_erases_the_same_pixels() -> None:
    functional = peer("torchvision.transforms.v2.functional")
    out, plan = fused_random_erasing(X, compat="torchvision", p=1.0, value=3.0, return_plan=True)
    for image, result, box in zip(X, out, plan.box.tolist(), strict=True):
        y0, x0, y1, x1 = box
        assert torch.equal(functional.erase(image, y0, x0, y1 - y0, x1 - x0, torch.tensor(3.0)), result)


def test_timm_erases_boxes_of_the_same_sizes() -> None:
    module = peer("timm.data.random_erasing")
    random.seed(0)
    erased = module.RandomErasing(probability=1.0, mode="const", device="cpu")(torch.ones(N, 1, SIDE, SIDE)) == 0
    height, width = erased[:, 0].any(2).sum(1).numpy(), erased[:, 0].any(1).sum(1).numpy()
    assert_alike(sizes_of_ours("timm"), (height, width))


def test_timm_mixes_alike() -> None:
    module = peer("timm.data.mixup")
    theirs = module.Mixup(mixup_alpha=1.0, cutmix_alpha=0.0, num_classes=5, label_smoothing=0.1)
    theirs._params_per_batch = lambda: (0.3, False)
    want, rows = theirs(X.clone(), Y)
    got, target = fused_mixup(X, Y, compat="timm", lam=0.3, num_classes=5, smoothing=0.1)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(target, rows)


def test_timm_pastes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    module = peer("timm.data.mixup")
    monkeypatch.setattr(module, "cutmix_bbox_and_lam", lambda *_, **__: ((3, 20, 5, 24), 1 - 17 * 19 / (32 * 24)))
    theirs = module.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=5, label_smoothing=0.0)
    theirs._params_per_batch = lambda: (0.3, True)
    want, rows = theirs(X.clone(), Y)
    box = torch.tensor([[3, 5, 20, 24]]).int().expand(6, -1)
    got, target = fused_cutmix(X, Y, compat="timm", box=box, num_classes=5)
    assert torch.equal(got, want)
    torch.testing.assert_close(target, rows)


def test_timm_draws_the_same_boxes() -> None:
    module = peer("timm.data.mixup")
    lam = np.random.beta(1.0, 1.0, N)
    theirs = np.array([module.rand_bbox((1, 3, SIDE, SIDE), value) for value in lam])  # yl, yh, xl, xh
    _, plan = fused_cutmix(torch.zeros(N, 1, SIDE, SIDE), compat="timm", mode="pair", return_plan=True)
    # mode="pair" for as many draws as pairs: compat sets the mode only where it is left at its default.
    box = plan.box[: N // 2].numpy()
    for ours, other in ((box[:, 2] - box[:, 0], theirs[:, 1] - theirs[:, 0]), (box[:, 1], theirs[:, 2])):
        assert stats.ks_2samp(ours, other).pvalue > 1e-4


def test_torchvision_mixes_and_pastes_alike() -> None:
    v2 = peer("torchvision.transforms.v2")
    for lam in (0.2, 0.7):
        theirs = v2.MixUp(num_classes=5)
        theirs.make_params = lambda _, lam=lam: {"labels": Y, "batch_size": 6, "lam": lam}
        want, rows = theirs(X, Y)
        got, target = fused_mixup(X, Y, compat="torchvision", lam=lam, num_classes=5)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(target, rows)
    theirs = v2.CutMix(num_classes=5)
    params = {"labels": Y, "batch_size": 6, "box": (5, 3, 24, 20), "lam_adjusted": 1 - 17 * 19 / (32 * 24)}
    theirs.make_params = lambda _: params
    want, rows = theirs(X, Y)
    box = torch.tensor([[3, 5, 20, 24]]).int().expand(6, -1)
    got, target = fused_cutmix(X, Y, compat="torchvision", box=box, num_classes=5)
    assert torch.equal(got, want)
    torch.testing.assert_close(target, rows)


def test_kornia_draws_lam_alike() -> None:
    augmentation = pytest.importorskip("kornia.augmentation")
    theirs = augmentation.RandomMixUpV2(p=1.0)
    params = theirs.forward_parameters(torch.Size((N, 1, 2, 2)))
    _, plan = fused_mixup(torch.zeros(N, 1, 2, 2), compat="kornia", return_plan=True)
    lam = plan.lam[plan.method == 1].numpy()
    assert stats.ks_2samp(lam, params["mixup_lambdas"].numpy()).pvalue > 1e-4
    assert len(set(plan.mate.tolist())) == N  # a permutation


def test_kornia_mixes_and_pastes_alike() -> None:
    """kornia's lam is the partner's weight."""
    augmentation = pytest.importorskip("kornia.augmentation")
    theirs = augmentation.RandomMixUpV2(p=1.0, data_keys=["input", "class"])
    want, labels = theirs(X, Y)
    partner = theirs._params["mixup_pairs"]
    got, target = fused_mixup(X, Y, compat="kornia", partner=partner, lam=1 - theirs._params["mixup_lambdas"])
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(labels, torch.stack([target.y_a.float(), target.y_b.float(), 1 - target.lam], 1))
    theirs = augmentation.RandomCutMixV2(p=1.0, data_keys=["input", "class"])
    want, labels = theirs(X, Y)
    corners, partner = theirs._params["crop_src"][0], theirs._params["mix_pairs"][0]  # x, y; the last included
    box = torch.cat([corners[:, 0].flip(1), corners[:, 2].flip(1) + 1], 1).int()
    got, target = fused_cutmix(X, Y, compat="kornia", partner=partner, box=box)
    assert torch.equal(got, want)
    torch.testing.assert_close(labels[0], torch.stack([target.y_a.float(), target.y_b.float(), 1 - target.lam], 1))
