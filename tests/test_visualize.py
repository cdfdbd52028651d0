"""Pictures of a batch, and plans in words."""

import numpy as np
import pytest
import torch

import fusedmix
from fusedmix import CutMix, Cutout, FusedMix, Mixup, Plan, RandomErasing, visualize
from fusedmix.recipe import Recipe

X = torch.rand(4, 3, 200, 240)
NAMES = ["cat", "dog", "cat", "a_very_long_name_of_a_class"]


def plan_of(rows: list[list[int]]) -> Plan:
    packed = torch.tensor(rows, dtype=torch.int32)
    packed[:, 1] = torch.tensor([0.804, 1.0, 0.25, 0.5]).view(torch.int32)
    return Plan(packed, Recipe(), (200, 240))


PLAN = plan_of(
    [[2, 0, 17, 17, 40, 0, 152, 88], [0, 0, 1, 3, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 1, 1] + [5] * 4]
)


def test_explain_says_what_a_sample_got() -> None:
    assert PLAN.explain(0) == "CutMix, partner 17, box y 40..152 x 0..88, 0.804 own"
    assert PLAN.explain(1) == "untouched"
    assert PLAN.explain(2) == "mixup, partner 0, 0.250 own"
    assert PLAN.explain(3) == "CutMix, partner 1, box empty, 0.500 own"


def test_explain_of_every_method() -> None:
    said = {
        fusedmix.fused_cutout: "Cutout, box y ",
        fusedmix.fused_gridmask: "GridMask, grid of ",
        fusedmix.fused_hide_and_seek: "Hide-and-Seek, cells of ",
        fusedmix.fused_gridmix: "GridMix, partner 1, cells of 50 x 60 px, each with chance ",
        fusedmix.fused_resizemix: "ResizeMix, partner 1, box y ",
        fusedmix.fused_smoothmix: "SmoothMix, partner 1, bell at y ",
        fusedmix.fused_fmix: "FMix, partner 1, ",
    }
    for call, words in said.items():
        torch.manual_seed(0)
        options = {"sizes": (16,)} if call is fusedmix.fused_hide_and_seek else {}
        _, plan = call(X[:2], p=1.0, return_plan=True, **options)
        assert plan.explain(0).startswith(words), plan.explain(0)
    assert fusedmix.fused_hide_and_seek(X, sizes=(0,), return_plan=True)[1].explain(0) == "Hide-and-Seek, no cells"
    _, plan = fusedmix.fused_random_erasing(X[:2], p=1.0, min_count=2, max_count=2, return_plan=True)
    assert plan.explain(0).startswith("Random Erasing, box")
    mix = FusedMix([(Mixup(), 1.0)], erase=Cutout())
    assert "; then Cutout, box y " in mix(X[:2], return_plan=True)[1].explain(0)
    degrees = fusedmix.fused_gridmask(X, p=1.0, d=(8, 9), rotate=1, return_plan=True)[1].explain(0)
    assert degrees.startswith("GridMask, grid of 8 px, keeps stripes of 5, offset y ")
    assert degrees.endswith("turned 0 degrees")


def test_grid_shows_images_boxes_and_insets() -> None:
    plan = plan_of(
        [[2, 0, 1, 1, 40, 0, 152, 88], [0, 0, 1, 3, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 3] + [0] * 5]
    )
    picture = visualize.grid(X, plan=plan, labels=NAMES, originals=X, columns=2)
    gap, foot = visualize.GAP, visualize.FOOT
    assert picture.size == (2 * (240 + gap) + gap, 2 * (200 + foot) + gap)
    pixels = np.asarray(picture)
    want = (X[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(pixels[gap + 160 : gap + 200, gap : gap + 240], want[160:])  # below the box
    assert pixels[gap + 40 + 1, gap + 30].tolist() in ([255, 255, 0], [0, 0, 0])
    inset = pixels[gap + 2 : gap + 52, gap + 178 : gap + 238]
    assert not np.array_equal(inset, want[2:52, 178:238])  # the partner's image lies over it


def test_grid_of_bytes_grey_and_normalised_images() -> None:
    values = (torch.rand(2, 1, 20, 10) * 255).byte()
    one, other = visualize.grid(values), visualize.grid(values.float() / 255)
    assert np.array_equal(np.asarray(one), np.asarray(other))
    normal = (values.float() / 255 - 0.4) / 0.2
    assert np.array_equal(np.asarray(one), np.asarray(visualize.grid(normal, mean=0.4, std=0.2)))
    of_bytes = (values.float() - 100.0) / 50.0
    assert np.array_equal(np.asarray(one), np.asarray(visualize.grid(of_bytes, mean=100.0, std=50.0)))


def test_grid_of_augmented_images_and_their_originals() -> None:
    x = (torch.rand(4, 3, 90, 120) * 255).byte()
    augment = fusedmix.FusedAugment(40, fusedmix.RandomCrop(), mix=CutMix(), mean=127.5, std=60.0)
    torch.manual_seed(0)
    out, plan = augment(x, return_plan=True)
    picture = np.asarray(visualize.grid(out, plan=plan, originals=x, mean=127.5, std=60.0))
    bare = np.asarray(visualize.grid(out, plan=plan, mean=127.5, std=60.0))
    assert picture.shape == bare.shape
    assert not np.array_equal(picture, bare)
    assert np.array_equal(bare, np.asarray(visualize.grid(plan.apply(x, dtype=torch.uint8), plan=plan)))


def test_captions() -> None:
    plan = plan_of([[1, 0, 1, 1] + [0] * 4, [0, 0, 1, 3] + [0] * 4, [1, 0, 0, 0] + [0] * 4, [1, 0, 0, 0] + [0] * 4])
    assert visualize.caption(plan, 0, NAMES) == ["mixup", "0.80 cat", "0.20 dog"]
    assert visualize.caption(plan, 1, NAMES) == ["untouched", "1.00 dog"]
    assert visualize.caption(plan, 2, NAMES) == ["mixup", "1.00 cat"]
    assert visualize.caption(plan, 3, NAMES) == ["mixup", "0.50 a_very_long_name_…", "0.50 cat"]
    assert visualize.caption(plan, 0, None) == ["mixup", "0.80 own, 0.20 of 1"]
    assert visualize.caption(None, 1, torch.tensor([3, 4, 5, 6])) == ["4"]
    torch.manual_seed(3)
    _, drawn = FusedMix([(CutMix(), 1.0)], erase=RandomErasing(p=1.0))(X, return_plan=True)
    assert visualize.caption(drawn, 0, None)[0] == "CutMix + Random Erasing"
    assert len(visualize.boxes_of(drawn, 0)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(x=X[0]), "x must be"),
        (dict(x=X[:, :2]), "x must be"),
        (dict(x=X, plan="plan"), "plan must be"),
        (dict(x=X[:2], plan=PLAN), "plan is for 4"),
        (dict(x=X, labels=["a"]), "labels must be 4"),
        (dict(x=X, originals=X[:2]), "originals must"),
        (dict(x=X, columns=0), "columns must"),
    ],
)
def test_wrong_arguments(arguments: dict, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        visualize.grid(**arguments)
