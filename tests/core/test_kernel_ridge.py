"""Kernel regression: the closed forms against refitting without each row, and the choice of kernels."""

import numpy as np
import pytest

from matfm import MatfmError
from matfm.core.kernel_ridge import fit_kernel_ridge, fit_kernel_sum, median_length, rbf_kernel, squared_distances


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 3))
    target = 5 + np.sin(2 * features[:, 0]) + 0.3 * features[:, 1] + 0.05 * generator.normal(size=40)
    return features, target


def refitted(kernel, target, noise, row):
    """Prediction and variance of a row from the others, by the bordered system itself."""
    others = np.arange(len(target)) != row
    count = others.sum()
    system = np.ones((count + 1, count + 1))
    system[:-1, :-1] = kernel[np.ix_(others, others)] + noise * np.eye(count)
    system[-1, -1] = 0
    against = np.append(kernel[row, others], 1.0)
    weights = np.linalg.solve(system, against)
    return weights[:-1] @ target[others], kernel[row, row] + noise - weights @ against


def test_left_out_predictions_and_deviations_equal_refits(rows):
    features, target = rows
    kernel = rbf_kernel(features, features, 1.0)
    fitted = fit_kernel_ridge(kernel, target, [0.05])
    expected = np.array([refitted(kernel, target, 0.05, row) for row in range(len(target))])
    assert fitted.left_out_R == pytest.approx(expected[:, 0], rel=1e-8)
    residual = target - expected[:, 0]
    assert fitted.left_out_error == pytest.approx(np.sqrt(np.mean(residual**2)))
    assert fitted.scale == pytest.approx(np.mean(residual**2 / expected[:, 1]))
    fewer = fit_kernel_ridge(kernel[1:, 1:], target[1:], [0.05])
    assert fewer.predict(kernel[:1, 1:]) == pytest.approx(expected[:1, 0])
    assert fewer.std(kernel[:1, 1:]) == pytest.approx(np.sqrt(fewer.scale * expected[:1, 1]))


def test_a_constant_shifts_predictions_only(rows):
    features, target = rows
    kernel = rbf_kernel(features, features, 1.0)
    one, other = fit_kernel_ridge(kernel, target), fit_kernel_ridge(kernel, target + 100)
    assert other.noise == one.noise
    assert other.predict(kernel[:4]) == pytest.approx(one.predict(kernel[:4]) + 100)


def test_noise_and_kernels_are_those_with_the_smallest_left_out_error(rows):
    features, target = rows
    useful = rbf_kernel(features[:, :2], features[:, :2], 1.0)
    linear = rbf_kernel(features[:, 1:2], features[:, 1:2], 3.0)
    noise = np.eye(len(target))
    fitted = fit_kernel_ridge(useful, target, [1e-3, 1e-2, 1.0])
    errors = {value: fit_kernel_ridge(useful, target, [value]).left_out_error for value in (1e-3, 1e-2, 1.0)}
    assert fitted.noise == min(errors, key=errors.get)
    mixed = fit_kernel_sum([linear, useful, noise], target)
    assert sum(mixed.weights) == pytest.approx(1)
    assert mixed.weights[1] > mixed.weights[2]
    assert mixed.fitted.left_out_error <= fit_kernel_ridge(useful, target).left_out_error
    again = fit_kernel_ridge(mixed.of([linear, useful, noise]), target)
    assert again.left_out_R == pytest.approx(mixed.fitted.left_out_R)
    others = [kernel[:3] for kernel in (linear, useful, noise)]
    assert mixed.predict(others) == pytest.approx(again.predict(mixed.of(others)))


def test_shares_may_be_chosen_on_some_of_the_rows(rows):
    features, target = rows
    kernels = [rbf_kernel(features[:, :2], features[:, :2], 1.0), np.eye(len(target))]
    every, some, again = (fit_kernel_sum(kernels, target, rows=count, seed=1) for count in (40, 20, 20))
    assert some.weights == again.weights
    assert len(some.fitted.weight_R) == len(target)
    assert some.weights[0] > 0.5
    assert every.weights[0] > 0.5


def test_duplicated_rows_are_no_obstacle(rows):
    features, target = (np.concatenate([values, values]) for values in rows)
    fitted = fit_kernel_ridge(rbf_kernel(features, features, 1.0), target, [0.0])
    assert np.isfinite(fitted.left_out_R).all()
    assert fitted.left_out_R == pytest.approx(target, abs=0.05)


def test_distances_and_lengths(rows):
    features, _ = rows
    expected = np.square(features[:, None] - features[None, :5]).sum(axis=2)
    assert squared_distances(features, features[:5]) == pytest.approx(expected, abs=1e-12)
    assert median_length(np.array([[0.0], [1.0], [3.0]])) == 2.0
    assert median_length(np.ones((4, 2))) == median_length(np.ones((1, 2))) == 1.0
    assert rbf_kernel(features[:1], features[1:2], 2.0) == pytest.approx(np.exp(-expected[1, 0] / 8))


@pytest.mark.parametrize(
    ("kernel", "target", "noises", "said"),
    [
        (np.eye(2), np.zeros(2), [0.1], "at least 3 training rows"),
        (np.eye(4), np.zeros(3), [0.1], "must be square"),
        (np.eye(3) * np.nan, np.zeros(3), [0.1], "not finite"),
        (np.eye(3), np.zeros(3), [], "one or more"),
        (np.eye(3), np.zeros(3), [-1.0], "none below 0"),
    ],
)
def test_what_cannot_be_fitted_is_said(kernel, target, noises, said):
    with pytest.raises(MatfmError, match=said):
        fit_kernel_ridge(kernel, target, noises)


def test_a_sum_of_no_kernels_is_refused():
    with pytest.raises(MatfmError, match="no kernel"):
        fit_kernel_sum([], np.zeros(3))
