"""Defects of other libraries that this one is proof against, one test each."""

import pytest
import torch

from fusedmix import FusedMix, fused_cutmix, fused_mixup
from fusedmix.cpu.sampling import draw
from fusedmix.recipe import Recipe


def test_elem_mode_on_uint8_keeps_the_own_label() -> None:
    """timm casts lam to the dtype of uint8 images, so that every own label weighs 0."""
    x = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    y = torch.arange(64)
    for call in (fused_mixup, fused_cutmix, FusedMix(num_classes=64)):
        options = {} if isinstance(call, FusedMix) else {"num_classes": 64}
        _, rows, plan = call(x, y, return_plan=True, **options)
        torch.testing.assert_close(rows[y, y], plan.lam)
        assert 0.2 < float(rows[y, y].mean()) < 0.9


def test_soft_targets_are_mixed_row_by_row() -> None:
    """timm treats soft targets [8, 8] as 64 class indices."""
    _, rows = fused_mixup(torch.rand(8, 3, 4, 4), torch.eye(8))
    assert rows.shape == (8, 8)
    torch.testing.assert_close(rows.sum(1), torch.ones(8))


def test_equal_labels_add_up_to_one() -> None:
    """FFCV's second one-hot write overwrites the first where both labels agree."""
    _, rows = fused_mixup(torch.rand(64, 3, 4, 4), torch.zeros(64, dtype=torch.int64), num_classes=3)
    assert torch.equal(rows[:, 0], torch.ones(64))


def test_uint8_mixup_has_no_bias() -> None:
    """FFCV and Ultralytics truncate: half a grey level darker on average."""
    x = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    out, plan = fused_mixup(x, return_plan=True)
    exact = plan.apply(x.float())
    assert abs(float((out.float() - exact).mean())) < 0.005
    assert float((out.float() - exact).abs().max()) <= 0.5 + 1e-4


def test_p_is_applied_once() -> None:
    """kornia#4649: p = 0.5 mixes a quarter of the samples."""
    _, plan = FusedMix(prob=0.5)(torch.zeros(4000, 1, 4, 4), return_plan=True)
    assert float((plan.method != 0).float().mean()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_do_not_depend_on_the_image_dtype(dtype: torch.dtype) -> None:
    """kornia#4587: positions computed in half precision fall outside the image."""
    x = torch.zeros(8, 1, 515, 2049, dtype=dtype)
    drawn = [
        fused_cutmix(t, generator=torch.Generator().manual_seed(4), return_plan=True)[1].box for t in (x, x.float())
    ]
    assert torch.equal(*drawn)
    assert int(drawn[0][:, 2].max()) <= 515
    assert int(drawn[0][:, 3].max()) <= 2049


def test_odd_batches_are_mixed() -> None:
    """timm#1304 refuses them. One sample of each odd batch stays alone, and says so."""
    for batch in (1, 3, 7):
        x = torch.rand(batch, 3, 8, 8)
        out, plan = fused_mixup(x, return_plan=True)
        alone = plan.partner == torch.arange(batch)
        assert int(alone.sum()) == 1
        assert torch.equal(out[alone], x[alone])
        assert plan.lam[alone].tolist() == [1.0]
        assert plan.method[alone].tolist() == [0]


def test_mean_and_std_stay_float32() -> None:
    """In bf16, 123.675 is 123.5: two thirds of a level off."""
    x = torch.full((2, 3, 4, 4), 124, dtype=torch.uint8)
    out = fused_mixup(x, mean=123.675, std=1.0, out_dtype=torch.bfloat16)
    assert torch.equal(out, torch.full_like(out, 0.325))


def test_targets_are_float32_beside_half_images() -> None:
    """Label smoothing of 0.1 over 1000 classes does not survive bf16."""
    _, rows = fused_mixup(torch.rand(4, 3, 4, 4).bfloat16(), torch.arange(4), num_classes=1000, smoothing=0.1)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.sum(1), torch.ones(4), atol=1e-5, rtol=0)
    assert float(rows.min()) == pytest.approx(0.1 / 1000, rel=1e-6)


def test_lam_is_not_folded_or_clipped() -> None:
    """fastai keeps max(lam, 1 - lam), composer clips to 1/2, kornia draws lam uniformly: alpha = 0.4 tells."""
    lam = torch.from_numpy(draw(Recipe(switch_prob=0.0, mixup_alpha=0.4), 20_000, 1, 1, 0, 0).lam)
    assert float((lam < 0.5).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(lam.var()) == pytest.approx(1 / (4 * 1.8), rel=0.05)  # uniform: 1/12


def test_boxes_differ_within_a_batch_and_are_not_square_in_oblong_images() -> None:
    """torchvision cuts one box for the whole batch; some ports swap the axes of oblong images."""
    _, plan = fused_cutmix(torch.zeros(64, 1, 20, 200), return_plan=True)
    assert len({tuple(box) for box in plan.box.tolist()}) > 50
    assert int(plan.box[:, 2].max()) == 20
    assert int(plan.box[:, 3].max()) > 150


def test_minmax_with_equal_ends_and_the_last_row() -> None:
    """timm's randint crashes on equal ends and its origin never reaches the last row or column (timm#2739)."""
    _, plan = fused_cutmix(torch.zeros(2000, 1, 8, 8), minmax=(0.5, 0.5), return_plan=True)
    assert set((plan.box[:, 2] - plan.box[:, 0]).tolist()) == {4}
    assert int(plan.box[:, 2].max()) == 8
