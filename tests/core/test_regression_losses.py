"""Losses of distributions, quantiles and censored labels against their definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.autograd import gradcheck

from matfm.core.objectives import class_loss, sum_over_labels
from matfm.core.regression_losses import gaussian_loss, one_sided, quantile_loss, zero_loss


def doubles(*values, grad=True):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


MEAN, VARIANCE = [[0.3, -1.0, 2.0]], [[0.5, 2.0, 0.1]]
TARGET, SIDE = [[1.0, -0.5, 1.5]], [[0, -1, 1]]


def test_the_normal_likelihood_is_that_of_scipy_and_of_tobin_where_censored():
    found = gaussian_loss(doubles(*MEAN), doubles(*VARIANCE), doubles(*TARGET), torch.tensor(SIDE))[0].tolist()
    std = np.sqrt(VARIANCE[0])
    expected = [
        -norm.logpdf(1.0, 0.3, std[0]),
        -norm.logcdf(-0.5, -1.0, std[1]),  # the true value is below -0.5
        -norm.logsf(1.5, 2.0, std[2]),  # above 1.5
    ]
    assert found == pytest.approx(expected, rel=1e-10)


def test_a_label_far_on_the_wrong_side_has_a_finite_gradient():
    mean = doubles([50.0])
    gaussian_loss(mean, doubles([0.01], grad=False), doubles([0.0], grad=False), torch.tensor([[-1]])).sum().backward()
    assert mean.grad.isfinite().all()
    assert mean.grad.item() > 0


@pytest.mark.parametrize("side", [None, SIDE])
def test_gradients(side):
    side = None if side is None else torch.tensor(side)
    target = doubles(*TARGET, grad=False)
    assert gradcheck(lambda mean, var: gaussian_loss(mean, var, target, side), (doubles(*MEAN), doubles(*VARIANCE)))
    levels = doubles(0.1, 0.5, 0.9, grad=False)
    quantiles = doubles([[0.1, 0.2, 0.7], [0.3, -0.4, 1.0], [0.0, 2.0, 3.0]])
    assert gradcheck(lambda q: quantile_loss(q, target, levels), (quantiles,))
    assert gradcheck(lambda logit: zero_loss(logit, target), (doubles(*MEAN),))


def test_a_met_bound_costs_nothing_and_a_broken_one_what_a_label_costs():
    predicted, target = torch.tensor([[3.0, 7.0, 3.0, 7.0, 3.0]]), torch.full((1, 5), 5.0)
    side = torch.tensor([[-1, -1, 1, 1, 0]])
    loss = one_sided((predicted - target).abs(), predicted, target, side)
    assert loss.tolist() == [[0, 2, 2, 0, 2]]


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_pinball_loss_is_smallest_at_the_quantile(level):
    sample = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=2001))
    grid = torch.linspace(0, 8, 1601, dtype=torch.float64)
    losses = [quantile_loss(q.expand(2001, 1), sample, torch.tensor([level])).mean() for q in grid]
    assert float(grid[int(torch.stack(losses).argmin())]) == pytest.approx(float(sample.quantile(level)), abs=0.01)


def test_the_loss_of_zero_is_the_log_probability():
    loss = zero_loss(torch.tensor([[2.0, 2.0]]), torch.tensor([[0.0, 3.0]]))
    p = 1 / (1 + math.exp(-2))
    assert loss[0].tolist() == pytest.approx([-math.log(p), -math.log(1 - p)])


def test_a_weight_of_two_is_a_row_that_comes_twice():
    loss, present = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[True, True], [True, False]])
    weighted = sum_over_labels(loss, present, torch.tensor([2.0, 1.0]))
    twice = sum_over_labels(loss[[0, 0, 1]], present[[0, 0, 1]])
    assert [float(v) for v in weighted] == [float(v) for v in twice] == [9.0, 5.0]
    logits, labels = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, math.nan, 3.0])
    weighted = class_loss(logits, labels, 0.1, torch.tensor([2.0, 5.0, 1.0]))
    twice = class_loss(logits[[0, 0, 1, 2]], labels[[0, 0, 1, 2]], 0.1)
    assert [float(v) for v in weighted] == pytest.approx([float(v) for v in twice])
