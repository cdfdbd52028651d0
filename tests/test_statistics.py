"""Distributions, at fixed seeds: each bound is several standard errors wide and was not tuned to the seed."""

import numpy as np
import pytest
import torch
from scipy import stats

from fusedmix.cpu.sampling import draw, mates
from fusedmix.recipe import EXACT, MATCHING, MODE_BATCH, MODE_PAIR, PERMUTE, Recipe

N = 400_000


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 2.0, 8.0, 32.0])
def test_lam_is_beta(alpha: float) -> None:
    lam = draw(Recipe(switch_prob=0.0, mixup_alpha=alpha), N, 1, 1, 11, 0).lam.astype(np.float64)
    # Below 1/2 float32 resolves lam; above, 1 - lam is lost near 1, so the sides are tested by their symmetry.
    small = lam[lam < 0.5]
    assert abs(len(small) / N - 0.5) < 5 * 0.5 / np.sqrt(N)
    # p > 1e-4, but for draws below e**-85, which are lifted to it: at alpha = 0.1, u < e**-8.5, 2e-4 of them.
    statistic = stats.kstest(small, lambda s: 2 * stats.beta.cdf(s, alpha, alpha)).statistic
    assert statistic < 2.2 / np.sqrt(len(small)) + 2e-4 * (alpha <= 0.1)
    for q in (1e-3, 1e-2, 0.1):
        share = float((lam < stats.beta.ppf(q, alpha, alpha)).mean())
        assert abs(share - q) < 5 * np.sqrt(q / N) + 2e-4 * (alpha <= 0.1)
        share = float((1 - lam < stats.beta.ppf(q, alpha, alpha)).mean())
        assert abs(share - q) < 5 * np.sqrt(q / N) + 2e-4 * (alpha <= 0.1) or alpha < 0.4  # 1 - lam rounds to 0


def clovaai_boxes(lam: np.ndarray, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """CutMix's published rule, in float64 and numpy's own generator."""
    ratio = np.sqrt(1 - lam)
    edges = []
    for side in (height, width):
        cut = (side * ratio).astype(int)
        centre = generator.integers(0, side, len(lam))
        edges.append((np.clip(centre - cut // 2, 0, side), np.clip(centre + cut // 2, 0, side)))
    (y0, y1), (x0, x1) = edges
    return np.stack([y0, x0, y1, x1], 1)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 40)])
def test_boxes_follow_the_clovaai_rule(height: int, width: int) -> None:
    n = 100_000
    drawn = draw(Recipe(pairing=PERMUTE), n, height, width, 3, 0)
    boxes = drawn.box[drawn.partner != np.arange(n)]
    generator = np.random.default_rng(0)
    other = clovaai_boxes(generator.beta(1, 1, n), height, width, generator)
    for column, side in ((0, height), (1, width), (2, height), (3, width)):
        counts = [np.bincount(b[:, column], minlength=side + 1) for b in (boxes, other)]
        kept = (counts[0] + counts[1]) > 20
        assert stats.chi2_contingency([c[kept] for c in counts]).pvalue > 1e-4
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, other)]
    assert stats.ks_2samp(*areas).pvalue > 1e-4


def test_mean_lam_of_cutmix_at_224() -> None:
    drawn = draw(Recipe(), N, 224, 224, 1, 0)
    assert drawn.lam.mean() == pytest.approx(0.68, abs=0.005)
    clipped = (drawn.box[:, :2] == 0).any(1) | (drawn.box[:, 2:] == 224).any(1)
    assert clipped.mean() == pytest.approx(0.83, abs=0.01)
    small = draw(Recipe(), N, 32, 32, 1, 0)
    assert (small.lam == 1).mean() == pytest.approx(0.0039, abs=0.0005)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("mode", ["elem", "pair", "batch"])
def test_apply_rate_is_p(p: float, mode: str) -> None:
    """p is applied once: the share of mixed samples is p itself, whatever the mode."""
    modes = {"elem": 2, "pair": MODE_PAIR, "batch": MODE_BATCH}
    recipe = Recipe(p=p, switch_prob=0.5, mode=modes[mode])
    if mode == "batch":
        shares = [(draw(recipe, 4, 8, 8, seed, 0).method != 0).mean() for seed in range(2000)]
        assert set(shares) <= {0.0, 1.0}
    else:
        shares = [(draw(recipe, 100_000, 8, 8, 5, 0).method != 0).mean()]
    n = 2000 if mode == "batch" else 50_000
    assert np.mean(shares) == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / n) + 1e-12)


def test_switch_prob_is_the_share_of_cutmix() -> None:
    drawn = draw(Recipe(switch_prob=0.25), 100_000, 8, 8, 5, 0)
    assert (drawn.method == 2).mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 100_000))
    alphas = draw(Recipe(switch_prob=0.5, mixup_alpha=8.0, cutmix_alpha=0.2, correct_lam=False), 100_000, 64, 64, 5, 0)
    for method, alpha in ((1, 8.0), (2, 0.2)):
        variance = 1 / (4 * (2 * alpha + 1))
        assert alphas.lam[alphas.method == method].var() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("pairing", [MATCHING, EXACT])
@pytest.mark.parametrize("batch", [5, 6])
def test_every_pair_is_equally_likely(pairing: int, batch: int) -> None:
    n = 6000
    counts = np.zeros((batch, batch))
    matchings: dict[tuple[int, ...], int] = {}
    for seed in range(n):
        mate = mates(Recipe(pairing=pairing), seed, 0, 0, batch, None)
        assert (mate[mate] == np.arange(batch)).all()
        counts[np.arange(batch), mate] += 1
        matchings[tuple(mate)] = matchings.get(tuple(mate), 0) + 1
    pairs = counts[np.triu_indices(batch, 1)]
    assert stats.chisquare(pairs).pvalue > 1e-4
    if pairing == EXACT:  # every perfect matching: 15 of 6 samples, 5 * 3 of 5
        assert len(matchings) == 15
        assert stats.chisquare(list(matchings.values())).pvalue > 1e-4


def test_permutations_are_equally_likely() -> None:
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(6000):
        mate = tuple(mates(Recipe(pairing=PERMUTE), seed, 0, 0, 4, None))
        seen[mate] = seen.get(mate, 0) + 1
    assert len(seen) == 24
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


def test_minmax_sides_and_origins_reach_both_ends() -> None:
    drawn = draw(Recipe(minmax_lo=0.25, minmax_hi=0.75), 100_000, 16, 16, 2, 0)
    sides = drawn.box[:, 2] - drawn.box[:, 0]
    assert set(np.unique(sides)) == set(range(4, 12))  # numpy's randint(4, 12), as timm draws
    assert stats.chisquare(np.bincount(sides)[4:]).pvalue > 1e-4
    assert drawn.box[:, 0].min() == 0
    assert drawn.box[:, 2].max() == 16  # the last row and column can be cut (timm#2739)
    assert drawn.box[:, 3].max() == 16
    equal = draw(Recipe(minmax_lo=0.5, minmax_hi=0.5), 1000, 16, 16, 2, 0)  # timm's crashes here
    assert set(np.unique(equal.box[:, 2] - equal.box[:, 0])) == {8}


def test_cutmix_reaches_the_last_row_and_column() -> None:
    box = torch.from_numpy(draw(Recipe(), 20_000, 9, 13, 2, 0).box)
    assert int(box[:, 2].max()) == 9
    assert int(box[:, 3].max()) == 13
