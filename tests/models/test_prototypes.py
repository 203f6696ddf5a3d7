"""Distances to classes: against plain formulas, in values and gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from matfm import MatfmError
from matfm.models.prototypes import DISTANCES, KernelHead, PrototypeHead, class_means, mahalanobis

WIDTH, CLASSES = 6, 3


@pytest.fixture
def episode():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    query, support = (torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in (5, len(labels)))
    return query, support, labels, F.one_hot(labels, CLASSES).double()


def plain_mahalanobis(query, support, labels, ridge):
    """Simple CNAPS with whole matrices and inverses."""
    query, support, labels = query.numpy(), support.numpy(), labels.numpy()
    whole = np.cov(support.T, bias=True)
    beta = ridge * np.trace(whole) / WIDTH
    distances = []
    for label in range(CLASSES):
        own = support[labels == label]
        share = len(own) / (len(own) + 1)
        covariance = share * np.cov(own.T, bias=True) + (1 - share) * whole + beta * np.eye(WIDTH)
        away = query - own.mean(axis=0)
        distances.append(np.einsum("qd,de,qe->q", away, np.linalg.inv(covariance), away))
    return np.stack(distances, axis=1)


@pytest.mark.parametrize("ridge", [1.0, 0.1])
def test_mahalanobis_equals_inverting_the_covariance(episode, ridge):
    query, support, labels, weights = episode
    np.testing.assert_allclose(
        mahalanobis(query, support, weights, ridge), plain_mahalanobis(query, support, labels, ridge), rtol=1e-8
    )


def test_euclidean_and_cosine_equal_their_definitions(episode):
    query, support, labels, weights = episode
    means = torch.stack([support[labels == label].mean(dim=0) for label in range(CLASSES)])
    torch.testing.assert_close(class_means(support, weights), means)
    torch.testing.assert_close(DISTANCES["euclidean"](query, support, weights), torch.cdist(query, means) ** 2)
    units = support / support.norm(dim=1, keepdim=True)
    means = torch.stack([units[labels == label].mean(dim=0) for label in range(CLASSES)])
    cosines = F.cosine_similarity(query[:, None], means[None], dim=2)
    torch.testing.assert_close(DISTANCES["cosine"](query, support, weights), 1 - cosines)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("refinements", [0, 1])
def test_gradients_are_those_of_the_function(episode, distance, refinements):
    query, support, labels, _ = episode
    head = PrototypeHead(distance, WIDTH, refinements).double()
    truth = torch.tensor([0, 1, 2, 0, 1])

    def loss(query, support, scale):
        given = (query, support, labels, CLASSES)
        return F.cross_entropy(torch.func.functional_call(head, {"log_scale": scale}, given), truth)

    scale = torch.tensor(-1.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, [part.requires_grad_() for part in (query, support, scale)])


def test_mahalanobis_does_not_depend_on_the_unit(episode):
    query, support, _, weights = episode
    torch.testing.assert_close(mahalanobis(7 * query, 7 * support, weights), mahalanobis(query, support, weights))


def test_one_example_a_class_and_equal_examples_are_finite():
    support = torch.ones(4, WIDTH)
    for distance in DISTANCES:
        logits = PrototypeHead(distance, WIDTH)(torch.randn(3, WIDTH), support, torch.tensor([0, 0, 1, 1]), 2)
        assert logits.isfinite().all()
        logits = PrototypeHead(distance, WIDTH)(torch.randn(3, WIDTH), torch.randn(2, WIDTH), torch.tensor([0, 1]), 2)
        assert logits.isfinite().all()


def test_queries_move_the_prototypes():
    generator = torch.Generator().manual_seed(1)
    truth = torch.arange(200) % 2
    query = torch.randn(200, 2, generator=generator) * 0.4 + torch.stack([4.0 * truth - 2, torch.zeros(200)], dim=1)
    support = torch.tensor([[-2.0, 0.0], [-0.7, 0.3]])  # the second example is an outlier of its class

    def accuracy(refinements):
        head = PrototypeHead("euclidean", 2, refinements)
        head.log_scale.data.fill_(0.0)
        return (head(query, support, torch.tensor([0, 1]), 2).argmax(dim=1) == truth).float().mean()

    assert accuracy(5) > accuracy(0)
    assert accuracy(5) > 0.97


def test_kernel_head_is_the_gaussian_process_of_the_textbook(episode):
    query, support, _, _ = episode
    values = torch.linspace(3.0, 9.0, len(support), dtype=torch.float64)
    head = KernelHead(WIDTH).double()
    head.log_noise.data.fill_(math.log(0.1))
    mean, variance = head(query, support, values)
    points = torch.cat([support, query])
    kernel = torch.exp(-(torch.cdist(points, points) ** 2) / (2 * WIDTH))
    inner = torch.linalg.inv(kernel[:6, :6] + 0.1 * torch.eye(6, dtype=torch.float64))
    spread = values.std(correction=0)
    expected = values.mean() + kernel[6:, :6] @ inner @ (values - values.mean())
    left = 1.1 - torch.einsum("qs,st,qt->q", kernel[6:, :6], inner, kernel[6:, :6])
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(variance, spread**2 * left)
    inputs = (query.requires_grad_(), support.requires_grad_(), values)
    assert torch.autograd.gradcheck(lambda *parts: torch.stack(head(*parts)), inputs)


def test_an_unknown_distance_is_named():
    with pytest.raises(MatfmError, match="distance is 'manhattan'; choose one of euclidean, cosine, mahalanobis"):
        PrototypeHead("manhattan", 3)
