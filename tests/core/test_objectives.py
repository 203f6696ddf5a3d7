"""Losses: gradients by finite differences, missing labels, weights."""

import math

import pytest
import torch

from matfm.core.objectives import REGRESSION_LOSSES, class_loss, masked_lm_loss, multi_property_loss


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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_is_the_cross_entropy_to_the_mixed_target(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    target = (1 - smoothing) * torch.nn.functional.one_hot(labels, 5) + smoothing / 5
    expected = -(target * logits.log_softmax(dim=-1)).sum()
    torch.testing.assert_close(masked_lm_loss(logits, labels, smoothing)[0], expected)
    torch.testing.assert_close(class_loss(logits, labels.float(), smoothing)[0], expected)
