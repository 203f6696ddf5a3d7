"""The mixture of Gaussian processes: against refitting without each example, and against one process."""

import numpy as np
import pytest

from matfm.models.gaussian_process import LooGaussianProcess, _leave_one_out


@pytest.fixture
def points():
    generator = np.random.default_rng(0)
    support, query = generator.normal(size=(12, 2)), generator.normal(size=(7, 2))
    return support, query, np.sin(support[:, :1]) + 0.05 * generator.normal(size=(12, 1))


def rbf(left, right):
    return np.exp(-(((left[:, None] - right[None]) ** 2).sum(axis=-1)) / 2)


def test_leave_one_out_equals_refitting(points):
    support, _, values = points
    noisy = rbf(support, support) + 0.1 * np.eye(12)
    inverse = np.linalg.inv(noisy)
    density, scale, squared = _leave_one_out(inverse, inverse @ values)
    errors, variances = [], []
    for row in range(12):
        others = np.arange(12) != row
        weights = np.linalg.solve(noisy[np.ix_(others, others)], noisy[others, row])
        errors.append(values[row, 0] - weights @ values[others, 0])
        variances.append(noisy[row, row] - weights @ noisy[others, row])
    errors, variances = np.array(errors), np.array(variances)
    np.testing.assert_allclose(squared, (errors**2).mean())
    np.testing.assert_allclose(scale, (errors**2 / variances).mean())
    expected = -0.5 * (np.log(2 * np.pi * scale * variances) + errors**2 / (scale * variances)).sum()
    np.testing.assert_allclose(density, expected)


def test_one_candidate_is_one_process(points):
    support, query, values = points
    process = LooGaussianProcess.fit([rbf(support, support)], values, noises=(0.1,))
    mean, std = process.predict({0: rbf(query, support)})
    inner = np.linalg.inv(rbf(support, support) + 0.1 * np.eye(12))
    np.testing.assert_allclose(mean, values.mean() + rbf(query, support) @ inner @ (values - values.mean()))
    left = 1 - np.einsum("qs,st,qt->q", rbf(query, support), inner, rbf(query, support))
    scale = _leave_one_out(inner, inner @ (values - values.mean()))[1]
    np.testing.assert_allclose(std[:, 0] ** 2, left * scale)


def test_the_kernel_that_explains_the_values_gets_the_weight(points):
    support, query, values = points
    noise = np.random.default_rng(1).normal(size=(12, 2))
    process = LooGaussianProcess.fit([rbf(noise, noise), rbf(support, support)], values)
    shares = process.used()
    assert shares[1] > 0.9
    np.testing.assert_allclose(sum(shares.values()), 1)
    mean, _ = process.predict({0: rbf(query, support), 1: rbf(query, support)})
    assert np.abs(mean[:, 0] - np.sin(query[:, 0])).mean() < 0.3
