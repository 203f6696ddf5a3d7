"""Losses: gradients by finite differences, missing labels, weights."""

import math

import pytest
import torch

from matfm.core.layout import PackedLayout
from matfm.core.objectives import (
    REGRESSION_LOSSES,
    class_loss,
    masked_lm_loss,
    multi_property_loss,
    next_token_labels,
    next_token_loss,
    token_loss,
)


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
def test_regression_losses_pass_gradcheck(name):
    torch.manual_seed(0)
    predicted = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 3, dtype=torch.float64)
    target[0, 1] = target[3, 2] = math.nan
    assert torch.autograd.gradcheck(lambda p: multi_property_loss(p, target, REGRESSION_LOSSES[name])[0], predicted)


def test_token_and_class_losses_pass_gradcheck():
    torch.manual_seed(0)
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    assert torch.autograd.gradcheck(lambda x: masked_lm_loss(x, labels)[0], logits)
    targets = torch.tensor([0.0, math.nan, 2.0, 1.0, math.nan, 4.0])
    assert torch.autograd.gradcheck(lambda x: class_loss(x, targets)[0], logits)


def test_missing_labels_have_no_weight_and_no_gradient():
    predicted = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    target = torch.tensor([[0.0, math.nan], [math.nan, 6.0]])
    total, weight = multi_property_loss(predicted, target, REGRESSION_LOSSES["l1"])
    total.backward()
    assert (total.item(), weight.item()) == (3.0, 2.0)
    assert predicted.grad.tolist() == [[1.0, 0.0], [0.0, -1.0]]


def test_task_weights_scale_loss_and_weight():
    predicted, target = torch.zeros(2, 2), torch.ones(2, 2)
    total, weight = multi_property_loss(predicted, target, REGRESSION_LOSSES["l2"], torch.tensor([1.0, 3.0]))
    assert (total.item(), weight.item()) == (8.0, 8.0)


def test_nothing_masked_is_zero_not_nan():
    total, weight = masked_lm_loss(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))
    assert (total.item(), weight.item()) == (0.0, 0.0)


def test_next_token_labels_stay_within_their_sequence():
    layout = PackedLayout.from_lengths([1, 3, 3, 2])
    labels = next_token_labels(torch.arange(9) + 10, layout)
    assert labels.tolist() == [-100, 12, 13, -100, 15, 16, -100, 18, -100]


def test_token_loss_counts_and_sums_the_labels_that_are_there():
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, -100, 4], [-100, -100, 0]])
    total, weight = token_loss(logits, labels)
    expected = -sum(logits[row, place].log_softmax(0)[labels[row, place]] for row, place in ((0, 0), (0, 2), (1, 2)))
    torch.testing.assert_close(total, expected)
    assert weight == 3
    assert torch.autograd.gradcheck(lambda given: token_loss(given, labels)[0], logits)
    shifted, weight = next_token_loss(logits, labels)
    torch.testing.assert_close(shifted, token_loss(logits[:, :-1], labels[:, 1:])[0])
    assert weight == 2
