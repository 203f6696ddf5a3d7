"""Conformal prediction: coverage on synthetic laws, exact finite-sample ranks, slow twins of the fast paths."""

import math

import numpy as np
import pytest

from matfm.core.conformal import (
    aps_scores,
    conformal_quantile,
    conformal_rank,
    cross_interval,
    cross_sets,
    group_quantiles,
    lac_scores,
    sets_below,
)

SEED = np.random.default_rng


def test_the_quantile_is_the_smallest_score_of_the_corrected_rank():
    scores = SEED(0).permutation(np.arange(1.0, 20.0))  # 1 … 19
    assert conformal_quantile(scores, 0.9) == 18
    assert conformal_quantile(scores, 0.95) == 19
    assert conformal_quantile(scores, 0.951) == math.inf
    assert conformal_quantile(scores[:0], 0.5) == math.inf
    assert [conformal_rank(19, level) for level in (0.55, 0.35, 0.1)] == [11, 7, 2]  # 20 · 0.55 = 11.000000000000002


@pytest.mark.parametrize("rows", [9, 19, 50])
def test_coverage_over_many_draws_is_exactly_the_corrected_share(rows):
    """With continuous scores a new row is covered with probability rank / (n + 1), which is at least the level."""
    generator = SEED(rows)
    level, draws = 0.9, 10_000
    scores = generator.standard_exponential((draws, rows + 1))
    covered = np.mean([of[-1] <= conformal_quantile(of[:-1], level) for of in scores])
    expected = conformal_rank(rows, level) / (rows + 1)
    assert level <= expected <= level + 1 / (rows + 1)
    assert covered == pytest.approx(expected, abs=4 * math.sqrt(0.09 / draws))


def test_every_group_is_covered_on_its_own():
    generator = SEED(1)
    group = generator.choice(["calm", "wild"], 6000, p=[0.8, 0.2])
    error = np.abs(generator.normal(size=6000)) * np.where(group == "wild", 10, 1)
    known, new = np.arange(6000) < 3000, np.arange(6000) >= 3000
    whole = conformal_quantile(error[known], 0.9)
    of_group = group_quantiles(error[known], group[known], 0.9)
    wild = new & (group == "wild")
    assert (error[wild] <= whole).mean() < 0.75
    for name, quantile in of_group.items():
        assert (error[new & (group == name)] <= quantile).mean() == pytest.approx(0.9, abs=0.04)
    assert group_quantiles(error[:4], np.array(["a", "b", "b", "b"]), 0.75)["a"] == math.inf


def slow_cross_interval(values, residuals, level):
    """Barber et al. 2021, as written: quantiles of all value - residual and value + residual."""
    ends = []
    for row in range(values.shape[1]):
        low = sorted(v - r for v, of in zip(values[:, row], residuals, strict=True) for r in of)
        high = sorted(v + r for v, of in zip(values[:, row], residuals, strict=True) for r in of)
        rank = math.ceil((len(low) + 1) * level)
        ends.append((low[len(low) - rank], high[rank - 1]))
    return np.array(ends).T


def test_cross_intervals_are_those_of_the_definition(monkeypatch):
    generator = SEED(2)
    values = generator.normal(size=(3, 23))
    residuals = [np.abs(generator.normal(size=count)) for count in (7, 11, 0)]
    slow = slow_cross_interval(values, residuals, 0.8)
    for entries in (1 << 22, 40):  # also in blocks of two rows
        monkeypatch.setattr("matfm.core.conformal._ENTRIES", entries)
        np.testing.assert_allclose(np.stack(cross_interval(values, residuals, 0.8)), slow)
    low, high = cross_interval(values, residuals, 0.99)
    assert np.isinf(low).all()
    assert np.isinf(high).all()


def test_cross_intervals_cover_a_noisy_line_fitted_without_each_fold():
    generator = SEED(3)
    covered = []
    for _ in range(60):
        x, noise = generator.uniform(-1, 1, 260), generator.standard_t(3, 260)
        y, known, fold = 3 * x + noise, np.arange(60), np.arange(60) % 5
        lines = [np.polyfit(x[known][fold != k], y[known][fold != k], 1) for k in range(5)]
        residuals = [np.abs(y[known] - np.polyval(line, x[known]))[fold == k] for k, line in enumerate(lines)]
        low, high = cross_interval(np.stack([np.polyval(line, x[60:]) for line in lines]), residuals, 0.9)
        covered.append(((low <= y[60:]) & (y[60:] <= high)).mean())
    assert 0.88 < np.mean(covered) < 0.94


def classes(rows, seed):
    """Rows of three classes with their true probabilities."""
    generator = SEED(seed)
    probability = generator.dirichlet([0.6, 1.0, 1.5], rows)
    return probability, (generator.random((rows, 1)) > probability.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("scores", [lac_scores, aps_scores])
def test_sets_of_classes_cover(scores):
    probability, label = classes(8000, 4)
    of_label = scores(probability)[np.arange(8000), label]
    inside = sets_below(scores(probability[4000:]), conformal_quantile(of_label[:4000], 0.9))
    covered = inside[np.arange(4000), label[4000:]].mean()
    assert covered == pytest.approx(0.9, abs=0.02)
    assert inside.any(axis=1).all()
    order = np.argsort(-probability[4000:], axis=1)
    ranked = np.take_along_axis(inside, order, axis=1)
    assert (np.diff(ranked.astype(int), axis=1) <= 0).all(), "a set holds the likeliest classes"


def test_adaptive_scores_are_sums_of_likelier_classes():
    assert aps_scores(np.array([[0.5, 0.2, 0.3]])).round(9).tolist() == [[0.5, 1.0, 0.8]]
    assert lac_scores(np.array([[0.5, 0.2, 0.3]])).round(9).tolist() == [[0.5, 0.8, 0.7]]


def test_cross_sets_of_one_model_are_plain_sets_and_cover():
    probability, label = classes(4000, 5)
    scores = lac_scores(probability)
    of_label = scores[np.arange(4000), label]
    known, new = of_label[:2000], scores[2000:]
    one = cross_sets(new[None], [known], 0.9)
    assert (one == sets_below(new, conformal_quantile(known, 0.9))).all()
    two = cross_sets(np.stack([new, new]), [known[:900], known[900:]], 0.9)
    assert (two == one).all(), "models that agree are one model"
    assert one[np.arange(2000), label[2000:]].mean() == pytest.approx(0.9, abs=0.03)
