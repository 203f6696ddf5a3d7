"""Scores from a few labelled vectors: laws of the Gaussian process, and of what is in its domain."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import LogisticRegression

from matfm.errors import MatfmError
from matfm.tasks.support_scorer import GaussianProcessScorer, SupportDomain, _kernel, _laplace, _regression

WIDTH = 6


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32)


def values_of(vectors):
    return (3 * vectors[:, 0] - vectors[:, 1] + 7).astype(np.float64)


def test_values_are_learned_in_the_unit_of_the_labels(vectors):
    scorer = GaussianProcessScorer(vectors).fit(vectors[:25], values_of(vectors[:25]))
    score, uncertainty, nearest = scorer.score(vectors)
    assert np.abs(score[25:] - values_of(vectors[25:])).mean() < 0.2 * values_of(vectors).std()
    assert (nearest[:25] == np.arange(25)).all()
    assert uncertainty[:25].mean() < uncertainty[25:].mean()
    shifted = GaussianProcessScorer(vectors).fit(vectors[:25], 10 * values_of(vectors[:25]) - 3).score(vectors)
    assert shifted.score_B == pytest.approx(10 * score - 3)
    assert shifted.uncertainty_B == pytest.approx(10 * uncertainty)


def test_classes_get_probabilities_that_rank_them(vectors):
    labels = (vectors[:, 0] > 0).astype(float)
    scorer = GaussianProcessScorer(vectors).fit(vectors[:20], labels[:20])
    score, uncertainty, _ = scorer.score(vectors)
    assert ((score > 0) & (score < 1) & (uncertainty >= 0)).all()
    positive, negative = score[20:][labels[20:] == 1], score[20:][labels[20:] == 0]
    assert (positive[:, None] > negative).mean() > 0.9
    mirrored = GaussianProcessScorer(vectors).fit(vectors[:20], 1 - labels[:20]).score(vectors)
    assert mirrored.score_B == pytest.approx(1 - score, abs=1e-6)


def test_scores_do_not_depend_on_the_other_candidates_or_on_the_order_of_the_support(vectors):
    labels = values_of(vectors)
    scorer = GaussianProcessScorer(vectors).fit(vectors[:10], labels[:10])
    whole = scorer.score(vectors)
    assert scorer.score(vectors[13:14]).score_B[0] == pytest.approx(whole.score_B[13], rel=1e-9)
    turned = GaussianProcessScorer(vectors).fit(vectors[:10][::-1].copy(), labels[:10][::-1]).score(vectors)
    assert turned.score_B == pytest.approx(whole.score_B)
    assert (turned.nearest_B == 9 - whole.nearest_B).all()


def test_regression_equals_scikit_learn_with_the_same_kernel(vectors):
    import torch

    values = values_of(vectors[:12])
    scorer = GaussianProcessScorer(vectors)
    z = scorer.standard(vectors)
    fit = _regression(_kernel(z[:12], z[:12], 0.5), torch.from_numpy(values), 0.1, 0.5)
    kernel = ConstantKernel(fit.amplitude) * (ConstantKernel(1.0) + RBF(0.5 * (2 * WIDTH) ** 0.5))
    peer = GaussianProcessRegressor(kernel, alpha=0.1 * fit.amplitude, optimizer=None).fit(z[:12].numpy(), values)
    mean, std = peer.predict(z.numpy(), return_std=True)
    at = fit.amplitude * _kernel(z, z[:12], 0.5)
    assert (at @ fit.weights_S).numpy() == pytest.approx(mean)
    assert (2 * fit.amplitude - ((at @ fit.inverse_SS) * at).sum(dim=1)).numpy() == pytest.approx(std**2)
    assert fit.evidence == pytest.approx(peer.log_marginal_likelihood(kernel.theta))


def test_linear_classes_equal_ridge_logistic_regression(vectors):
    import torch

    labels = (vectors[:15, 0] > 0).astype(float)
    z = GaussianProcessScorer(vectors).standard(vectors)
    fit = _laplace(_kernel(z[:15], z[:15], None), torch.from_numpy(labels), 4.0, None)
    # The kernel is that of features (1, z / √D), whose weights have the prior variance 4.
    features = np.column_stack([np.ones(len(z)), z.numpy() / WIDTH**0.5])
    peer = LogisticRegression(C=4.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(features[:15], labels)
    assert (4 * _kernel(z, z[:15], None) @ fit.weights_S).numpy() == pytest.approx(
        peer.decision_function(features), abs=1e-4
    )


def test_the_domain_holds_the_support_and_not_what_is_far_away(vectors):
    domain = SupportDomain.of(vectors[:10], vectors)
    nearest = np.arange(10)
    assert domain.covers(vectors[:10], nearest).all()
    assert not domain.covers(vectors[:10] + 100, nearest).any()
    assert 0 < domain.limit < np.inf


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1.0], "has 1 examples"), ([1.0, 1.0, 1.0], "all examples of the support have the label 1"), ([], "has 0 exam")],
)
def test_a_support_without_information_is_refused(vectors, labels, message):
    with pytest.raises(MatfmError, match=message):
        GaussianProcessScorer().fit(vectors[: len(labels)], np.array(labels))


def test_two_examples_and_constant_columns_are_enough(vectors):
    flat = vectors.copy()
    flat[:, 2] = 5.0
    for labels in ([0.0, 1.0], [2.5, -3.0]):
        score, uncertainty, _ = GaussianProcessScorer(flat).fit(flat[:2], np.array(labels)).score(flat)
        assert np.isfinite(score).all()
        assert np.isfinite(uncertainty).all()
        assert (score[1] > score[0]) == (labels[1] > labels[0])
