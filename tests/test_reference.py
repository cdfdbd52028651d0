"""Literal expected answers for the reference, worked out by hand."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from fusedmix.recipe import FLIP, Recipe
from fusedmix.reference import mix
from fusedmix.reference.labels import dense_rows, mix_rows
from fusedmix.reference.masks import inside
from fusedmix.reference.pixel import emulated_fma, fma, lerp, normalise, round_to
from fusedmix.reference.sampling import below, clip_box, cut_box, kept_fraction, matching, unit


def test_mixup_of_two_samples() -> None:
    x = torch.tensor([[[[0.0, 4.0]]], [[[8.0, 0.0]]]])
    recipe = Recipe(switch_prob=0.0, pairing=FLIP, num_classes=3)
    out, rows, plan = mix(x, torch.tensor([2, 0]), recipe, lam=torch.tensor([0.25, 0.75]))
    assert torch.equal(out, torch.tensor([[[[6.0, 1.0]]], [[[6.0, 1.0]]]]))
    assert torch.equal(rows, torch.tensor([[0.75, 0.0, 0.25], [0.75, 0.0, 0.25]]))
    assert plan.partner.tolist() == [1, 0]
    assert plan.box.tolist() == [[0, 0, 0, 0]] * 2


def test_cutmix_of_two_samples() -> None:
    x = torch.stack([torch.full((1, 3, 4), 1.0), torch.full((1, 3, 4), 2.0)])
    box = torch.tensor([[0, 1, 2, 4], [2, 0, 3, 1]]).int()
    out, rows, plan = mix(x, torch.tensor([0, 1]), Recipe(pairing=FLIP, num_classes=2), box=box)
    assert out[0, 0].tolist() == [[1, 2, 2, 2], [1, 2, 2, 2], [1, 1, 1, 1]]
    assert out[1, 0].tolist() == [[2, 2, 2, 2], [2, 2, 2, 2], [1, 2, 2, 2]]
    assert plan.lam.tolist() == [0.5, torch.tensor(11 / 12).item()]
    assert rows[0].tolist() == [0.5, 0.5]


def test_uint8_rounds_to_nearest() -> None:
    x = torch.tensor([[[[0, 1, 10]]], [[[1, 2, 20]]]], dtype=torch.uint8)
    recipe = Recipe(switch_prob=0.0, pairing=FLIP)
    out, _, _ = mix(x, None, recipe, lam=torch.tensor([0.26, 0.5]))
    assert out.flatten().tolist() == [1, 2, 17, 0, 2, 15]  # .74, 1.74, 17.4; halves go to even: .5 -> 0, 1.5 -> 2


def test_classes_without_a_number_of_classes() -> None:
    _, classes, _ = mix(torch.zeros(2, 1, 1, 1), torch.tensor([7, 9]), Recipe(switch_prob=0.0, pairing=FLIP))
    assert classes.tolist() == [9, 7]


def test_p_zero_leaves_everything() -> None:
    x = torch.rand(4, 1, 2, 2)
    out, _, plan = mix(x, None, Recipe(p=0.0, switch_prob=0.5))
    assert torch.equal(out, x)
    assert plan.method.tolist() == [0] * 4
    assert plan.lam.tolist() == [1.0] * 4
    assert plan.partner.tolist() == [0, 1, 2, 3]


def test_cut_box() -> None:
    half = torch.tensor([2**31])  # the middle of the range of a word
    assert cut_box(torch.tensor([0.75]), half, half, 8, 12).tolist() == [[2, 3, 6, 9]]  # sides 4 and 6, centre (4, 6)
    zero = torch.tensor([0])
    assert cut_box(torch.tensor([0.75]), zero, zero, 8, 12).tolist() == [[0, 0, 2, 3]]  # clipped at the corner
    assert cut_box(torch.tensor([1.0]), half, half, 8, 12).tolist() == [[4, 6, 4, 6]]  # empty
    assert cut_box(torch.tensor([0.0]), half, half, 8, 12).tolist() == [[0, 0, 8, 12]]  # everything


def test_small_helpers() -> None:
    assert matching(torch.tensor(1), torch.arange(4), 4).tolist() == [2, 3, 0, 1]
    assert matching(torch.tensor(0), torch.arange(3), 3).tolist() == [0, 2, 1]
    assert kept_fraction(torch.tensor([[0, 0, 2, 3], [1, 1, 1, 4]]), 4, 6).tolist() == [0.75, 1.0]
    assert clip_box(torch.tensor([[-1, 2, 9, 1]]), 4, 6).tolist() == [[0, 2, 4, 2]]
    assert unit(torch.tensor([0, 2**31, 2**32 - 1])).tolist() == [0.0, 0.5, 1 - 2**-24]
    assert below(torch.tensor([0, 2**31, 2**32 - 1]), 10).tolist() == [0, 5, 9]
    assert inside(torch.tensor([[0, 1, 1, 3]]), 2, 3).tolist() == [[[False, True, True], [False, False, False]]]
    assert lerp(torch.tensor(1.0), torch.tensor(5.0), torch.tensor(0.75)).item() == 2.0
    assert round_to(torch.tensor([0.5, 1.5, 254.6]), torch.uint8).tolist() == [0, 2, 255]
    norm = torch.tensor([[1.0, 2.0], [0.5, 2.0]])
    assert normalise(torch.tensor([[3.0, 3.0]]), norm).tolist() == [[1.0, 2.0]]


def nearest_float32(exact: Fraction) -> float:
    """Halves to even."""
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    return float(min(around, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.int32)) % 2)))


@pytest.mark.parametrize("function", [fma, emulated_fma])
def test_fma_rounds_once(function: Callable) -> None:
    """Also where float64 would round a sum to the middle between two float32, and that to even."""
    near_one = 2.0**-20
    hard = (2.0**-24 * (1 + near_one), 1 - near_one, 1 + 2.0**-23)
    assert function(*(torch.tensor(v) for v in hard)).item() == 1 + 2.0**-23
    assert np.float32(hard[0] * hard[1] + hard[2]) == np.float32(1 + 2.0**-22)  # twice: one unit more
    a, b, c = torch.randn(3, 300, generator=torch.Generator().manual_seed(1)).mul(2.0 ** torch.arange(-30, 0, 0.1))
    numbers = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    want = [nearest_float32(Fraction(u) * Fraction(v) + Fraction(w)) for u, v, w in numbers]
    assert function(a, b, c).tolist() == want
    infinite = torch.tensor(torch.inf)
    assert function(infinite, torch.tensor(2.0), torch.tensor(1.0)) == infinite
    assert function(infinite, torch.tensor(0.0), torch.tensor(1.0)).isnan()


def test_fma_of_any_layout() -> None:
    x = torch.randn(3, 5, 7, 33, generator=torch.Generator().manual_seed(1))
    factor, summand = torch.randn(2, 5, 1, 1, generator=torch.Generator().manual_seed(2))
    for value in (x, x[:, :, 1:, ::2], x.transpose(1, 3).contiguous().transpose(1, 3), x[0, :, 0]):
        shape = (-1, 1) if value.dim() == 2 else (-1, 1, 1)
        scale, shift = factor.view(shape), summand.view(shape)
        assert torch.equal(fma(value, scale, shift), emulated_fma(value, scale, shift))
        assert torch.equal(fma(scale, value, value), emulated_fma(scale, value, value))


def test_dense_rows() -> None:
    smoothed = dense_rows(torch.tensor([1]), 4, 0.2)
    torch.testing.assert_close(smoothed, torch.tensor([[0.05, 0.85, 0.05, 0.05]]))  # timm: off = s/K, on = 1 - s + off
    assert dense_rows(torch.tensor([-1, 4]), 4, 0.0).sum() == 0  # unknown classes have no entry
    assert dense_rows(torch.tensor([[2.0, 0.0]]), 2, 0.5).tolist() == [[1.25, 0.25]]
    same = mix_rows(dense_rows(torch.tensor([1, 1]), 3, 0.0), torch.tensor([1, 0]), torch.tensor([0.3, 0.7]))
    assert same.tolist() == [[0, 1, 0], [0, 1, 0]]  # the same class twice adds up to 1
