"""Losses: gradients by finite differences, naive twins, missing labels, weights."""

import math

import pytest
import torch

from matfm.core.layout import PackedLayout
from matfm.core.objectives import (
    REGRESSION_LOSSES,
    causal_lm_loss,
    class_loss,
    info_nce_loss,
    masked_lm_loss,
    multi_property_loss,
    next_token_loss,
    predicting_positions,
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


def test_label_smoothing_spreads_the_label_over_the_vocabulary():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 4, 2, 2, 1, 3])
    logs = logits.log_softmax(dim=-1)
    expected = -0.9 * logs[torch.arange(6), labels].sum() - 0.1 * logs.mean(dim=-1).sum()
    torch.testing.assert_close(masked_lm_loss(logits, labels, 0.1)[0], expected)
    torch.testing.assert_close(class_loss(logits, labels.double(), 0.1)[0], expected)


def slow_causal_loss(logits, ids, lengths):
    """One token at a time, from the definition."""
    total, count, start = torch.zeros((), dtype=logits.dtype), 0, 0
    for length in lengths:
        for place in range(start, start + length - 1):
            total = total - logits[place].log_softmax(dim=-1)[ids[place + 1]]
            count += 1
        start += length
    return total, count


@pytest.mark.parametrize("lengths", [[3, 3, 1, 4], [1], [1, 1], [5]])
def test_causal_loss_shifts_inside_each_sequence(lengths):
    torch.manual_seed(0)
    layout = PackedLayout.from_lengths(lengths)
    logits = torch.randn(layout.tokens, 7, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(7, (layout.tokens,))
    total, weight = causal_lm_loss(logits, ids, layout)
    expected, count = slow_causal_loss(logits, ids, lengths)
    torch.testing.assert_close(total, expected)
    assert weight.item() == count == len(predicting_positions(layout))
    assert torch.autograd.gradcheck(lambda x: causal_lm_loss(x, ids, layout, 0.1)[0], logits)
    (grad,) = torch.autograd.grad(total, logits)
    last = torch.tensor(lengths).cumsum(0) - 1
    assert grad[last].abs().sum() == 0


def slow_info_nce(left, right, temperature, symmetric=True, same_view=False, group=None):
    """Pair by pair, from the definition."""
    rows = len(left)
    group = list(range(rows)) if group is None else group.tolist()

    def similar(a, b):
        return torch.exp((a @ b) / (a.norm() * b.norm()) / temperature)

    def one_way(anchors, others):
        total = 0
        for i in range(rows):
            negatives = [j for j in range(rows) if group[j] != group[i]]
            below = similar(anchors[i], others[i]) + sum(similar(anchors[i], others[j]) for j in negatives)
            if same_view:
                below = below + sum(similar(anchors[i], anchors[j]) for j in negatives)
            total = total - torch.log(similar(anchors[i], others[i]) / below)
        return total

    return (one_way(left, right) + one_way(right, left)) / 2 if symmetric else one_way(left, right)


@pytest.mark.parametrize("group", [None, torch.tensor([0, 1, 0, 2, 1])])
@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_equals_its_definition(symmetric, same_view, group):
    torch.manual_seed(0)
    left = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    right = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def loss(left, right):
        return info_nce_loss(left, right, 0.2, symmetric=symmetric, same_view=same_view, group_B=group)

    total, weight = loss(left, right)
    torch.testing.assert_close(total, slow_info_nce(left, right, 0.2, symmetric, same_view, group))
    assert weight.item() == 5
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b)[0], (left, right))


def test_info_nce_of_equal_and_of_single_rows():
    one = torch.ones(4, 3, dtype=torch.float64)
    assert info_nce_loss(one, one, 0.1)[0].item() == pytest.approx(4 * math.log(4))
    assert info_nce_loss(one, one, 0.1, group_B=torch.zeros(4))[0].item() == pytest.approx(0, abs=1e-12)
    assert info_nce_loss(one[:1], one[:1], 0.1, same_view=True)[0].item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="temperature is 0"):
        info_nce_loss(one, one, 0)
