"""Distances between domains, the conditional map, and batches with rows of every domain."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from matfm.core.batching import RaggedTokens
from matfm.core.conditional_map import BINS, ConditionalMap, entropy_weights, soft_bins
from matfm.core.domain_batches import GroupedBatches, RowGroup
from matfm.core.domain_losses import coral, domain_loss, mmd, pairwise


@pytest.mark.parametrize("distance", [coral, mmd])
def test_distances_vanish_for_equal_samples_and_grow_with_the_shift(distance):
    torch.manual_seed(0)
    sample = torch.randn(60, 8)
    assert float(distance(sample, sample)) == pytest.approx(0, abs=1e-6)
    # Covariances do not see a shift of the mean, only of the spread.
    shifted = [float(distance(sample, sample * (1 + s) + (s if distance is mmd else 0))) for s in (0.2, 0.5, 1.0)]
    assert 0 < shifted[0] < shifted[1] < shifted[2]
    assert float(distance(sample, sample + 3)) == pytest.approx(0, abs=1e-5) or distance is mmd


def test_coral_passes_gradcheck():
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(coral, [torch.randn(4, 3, dtype=torch.float64, requires_grad=True)] * 2)
    samples = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5)]
    assert torch.autograd.gradcheck(coral, samples)


@pytest.mark.parametrize("distance", [coral, mmd])
def test_distances_are_finite_in_half_precision_and_for_constant_rows(distance):
    torch.manual_seed(0)
    first, second = (torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    value = distance(first, second)
    assert value.dtype == torch.float32
    value.backward()
    assert first.grad.isfinite().all()
    constant = torch.ones(5, 3, requires_grad=True)
    distance(constant, torch.ones(4, 3)).backward()
    assert constant.grad.isfinite().all()
    assert distance(first[:0], second).item() == 0


def test_coral_is_the_published_formula():
    torch.manual_seed(0)
    first, second = torch.randn(20, 5, dtype=torch.float64), torch.randn(30, 5, dtype=torch.float64) * 2
    difference = torch.cov(first.T) - torch.cov(second.T)
    assert float(coral(first, second)) == pytest.approx(float((difference**2).sum()) / 100)


def test_mmd_and_its_gradient_are_those_of_the_slow_sum_over_pairs():
    torch.manual_seed(0)
    first = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(4, 3, dtype=torch.float64) + 1
    rows = [*first.detach(), *second]
    median = np.sort([float((a - b).square().sum()) for a, b in itertools.combinations(rows, 2)])[(36 - 1) // 2]

    def kernel(a, b):
        squared = (a - b).square().sum()
        return torch.stack([torch.exp(-squared / (f * median)) for f in (0.25, 0.5, 1, 2, 4)]).mean()

    def mean(left, right):
        return torch.stack([kernel(a, b) for a in left for b in right]).mean()

    slow = mean(first, first) + mean(second, second) - 2 * mean(first, second)
    torch.testing.assert_close(mmd(first, second), slow)
    torch.testing.assert_close(
        torch.autograd.grad(mmd(first, second), first), torch.autograd.grad(slow, first), rtol=1e-7, atol=1e-12
    )


def test_pairs_of_domains_are_averaged_and_one_domain_has_none():
    torch.manual_seed(0)
    features, domain = torch.randn(30, 4, requires_grad=True), torch.arange(30) % 3
    wanted = np.mean([mmd(features[domain == a], features[domain == b]).item() for a, b in ((0, 1), (0, 2), (1, 2))])
    assert pairwise(mmd, features, domain).item() == pytest.approx(wanted, rel=1e-5)
    alone = pairwise(coral, features, torch.zeros(30, dtype=torch.long))
    alone.backward()
    assert alone.item() == 0


def test_every_domain_counts_the_same_in_the_classifiers_loss():
    torch.manual_seed(0)
    scores, domain = torch.randn(7, 4), torch.tensor([0, 0, 0, 0, 2, 2, 3])
    means = [F.cross_entropy(scores[domain == d], domain[domain == d]) for d in (0, 2, 3)]
    assert float(domain_loss(scores, domain)) == pytest.approx(float(torch.stack(means).mean()))
    weights = torch.tensor([1.0, 0, 0, 0, 1, 1, 1])
    means[0] = F.cross_entropy(scores[:1], domain[:1])
    assert float(domain_loss(scores, domain, weights)) == pytest.approx(float(torch.stack(means).mean()))


def test_the_conditional_map_is_the_outer_product_or_keeps_its_inner_products():
    torch.manual_seed(0)
    features, predictions = torch.randn(6, 10, dtype=torch.float64), torch.rand(6, 3, dtype=torch.float64)
    outer = torch.einsum("bc,bd->bcd", predictions, features).flatten(1)
    assert torch.equal(ConditionalMap(10, 3)(features, predictions), outer)
    drawn = ConditionalMap(10, 3, largest=29, width=20_000)
    assert drawn.randomised
    mapped = drawn(features, predictions)
    assert (mapped @ mapped.T - outer @ outer.T).abs().max() < 0.15 * (outer @ outer.T).abs().max()


def test_soft_bins_and_entropies_behave_as_probabilities_do():
    scaled = torch.tensor([-1e9, -1.5, 0.0, 1.5, float("inf")])
    bins = soft_bins(scaled)
    assert bins.shape == (5, BINS)
    assert torch.allclose(bins.sum(1), torch.ones(5))
    assert bins.argmax(1).tolist() == [0, 0, 3, 6, 6]
    certain = entropy_weights(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert certain.tolist() == pytest.approx([2.0, 1 + 0.5])


def grouped(seed=0):
    tokens = RaggedTokens.from_sequences([([1] * (1 + r % 3), [0.0] * (1 + r % 3)) for r in range(20)])
    return GroupedBatches(tokens, [RowGroup(np.arange(12), 5), RowGroup(np.arange(12, 20), 3)], seed, 30)


def test_batches_hold_so_many_rows_of_each_group_all_in_turn_and_resume_anywhere():
    batches = grouped()
    drawn = [batches.next().rows_B.tolist() for _ in range(24)]
    assert all(sum(row < 12 for row in rows) == 5 and len(rows) == 8 for rows in drawn)
    seen = [row for rows in drawn for row in rows]
    counts = np.bincount(seen, minlength=20)
    assert set(counts[:12]) == {10}  # 24 batches of 5 rows are ten passes over 12
    assert set(counts[12:]) == {9}
    assert batches.progress == 23 / 30
    for position in (0, 7, 19):
        again = grouped()
        again.load_state_dict({"index": position})
        assert again.next().rows_B.tolist() == drawn[position]
    assert grouped(1).next().rows_B.tolist() != drawn[0]
    with pytest.raises(ValueError, match="cannot be drawn"):
        RowGroup(np.arange(3), 4)
