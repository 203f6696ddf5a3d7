"""Scores of uncertainties on laws whose true values are known, and temperature scaling."""

import math

import numpy as np
import pytest
import torch

from matfm.core.temperature import at_temperature, fit_temperature
from matfm.core.uncertainty_scores import (
    brier_score,
    class_nll,
    coverage,
    ence,
    error_by_std,
    expected_calibration_error,
    gaussian_nll,
    interval_score,
    mean_width,
    reliability,
    std_factor,
)

ROWS = 20_000


@pytest.fixture
def normal():
    """Labels that have the stated means and standard deviations."""
    generator = np.random.default_rng(0)
    mean, std = generator.normal(size=ROWS), generator.uniform(0.2, 3, ROWS)
    return generator.normal(mean, std), mean, std


def test_coverage_width_and_interval_score():
    true, low, high = np.array([0.0, 1.0, 2.0, 5.0]), np.zeros(4), np.full(4, 2.0)
    assert (coverage(true, low, high), mean_width(low, high)) == (0.75, 2.0)
    assert interval_score(true, low, high, 0.9) == pytest.approx(2 + 20 * 3 / 4)


def test_the_interval_score_is_least_at_the_true_quantiles(normal):
    true, mean, std = normal
    scores = {z: interval_score(true, mean - z * std, mean + z * std, 0.9) for z in (1.2, 1.645, 2.2)}
    assert min(scores, key=scores.get) == 1.645


def test_gaussian_likelihood_is_torchs(normal):
    true, mean, std = (torch.from_numpy(values) for values in normal)
    theirs = torch.nn.functional.gaussian_nll_loss(mean, true, std.square(), full=True)
    assert gaussian_nll(*normal) == pytest.approx(float(theirs))
    true, mean, std = normal
    assert gaussian_nll(true, mean, std) < min(gaussian_nll(true, mean, std * factor) for factor in (0.7, 1.4))


def test_ence_is_small_for_true_and_known_for_wrong_standard_deviations(normal):
    true, mean, std = normal
    assert ence(true, mean, std) < 0.03
    assert ence(true, mean, std / 2) == pytest.approx(1, abs=0.05)  # errors are twice what was said
    assert ence(true, mean, std * 2) == pytest.approx(0.5, abs=0.03)
    expected, observed = error_by_std(true[:35], mean[:35], std[:35])
    assert len(expected) == len(observed) == 3
    assert (np.diff(expected) > 0).all()


def test_the_factor_undoes_a_wrong_scale(normal):
    true, mean, std = normal
    assert std_factor(true, mean, std / 3) == pytest.approx(3, rel=0.03)
    assert std_factor(true, mean, np.zeros(ROWS)) == std_factor(true, true, std) == 1.0


@pytest.fixture
def classes():
    """Labels that have the stated probabilities."""
    generator = np.random.default_rng(1)
    probability = generator.dirichlet([0.5, 1, 1], ROWS)
    return (generator.random((ROWS, 1)) > probability.cumsum(axis=1)).sum(axis=1), probability


def test_calibration_error_of_true_and_overconfident_probabilities(classes):
    label, probability = classes
    assert expected_calibration_error(label, probability) < 0.02
    assert expected_calibration_error(label, at_temperature(probability, 0.3)) > 0.08
    rows, confidence, accuracy = reliability(label, probability)
    assert rows.sum() == ROWS
    assert np.abs(confidence - accuracy).max() < 0.04
    sure = np.eye(3)[[0, 1, 2, 2]]
    assert expected_calibration_error(np.array([0, 1, 0, 2]), sure) == pytest.approx(0.25)


def test_likelihood_and_brier_score_by_hand():
    label, probability = np.array([0, 1]), np.array([[0.8, 0.2], [0.6, 0.4]])
    assert class_nll(label, probability) == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    assert brier_score(label, probability) == pytest.approx((0.2**2 * 2 + 0.6**2 * 2) / 2)
    assert class_nll(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(-math.log(1e-12))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_scaling_finds_the_temperature_back(classes, temperature):
    label, probability = classes
    wrong = at_temperature(probability, 1 / temperature)
    found = fit_temperature(label, wrong)
    assert found == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(at_temperature(wrong, temperature), probability, atol=1e-4)  # the least logarithm
    right = at_temperature(wrong, found)
    assert (right.argmax(axis=1) == wrong.argmax(axis=1)).all()
    nearby = (class_nll(label, at_temperature(wrong, found * factor)) for factor in (0.9, 1.1))
    assert class_nll(label, right) <= min(nearby)


def test_temperature_of_nothing_and_of_perfect_or_hopeless_classes():
    sure = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(np.array([]), sure[:0]) == 1.0
    assert fit_temperature(np.array([0, 1]), sure) < 0.05  # colder is no likelier in 64 bits
    assert fit_temperature(np.array([1, 0]), sure) == pytest.approx(100)
