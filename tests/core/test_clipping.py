"""Clipping against slow twins, and as laws."""

import math

import pytest
import torch

from matfm.core.clipping import CLIPPERS, unit_norms

SHAPES = ((4, 3), (5,), (2, 3, 2))


@pytest.fixture
def parameters():
    torch.manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for parameter in made:
        parameter.grad = 8 * torch.randn_like(parameter)
    return made


def clipped(parameters, kind, divisor, limit):
    gradients = [p.grad.clone() / divisor for p in parameters]
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    CLIPPERS[kind](parameters, divisor, norm, limit)
    return gradients, norm


def test_by_norm_keeps_the_direction_and_meets_the_limit(parameters):
    gradients, norm = clipped(parameters, "norm", 4.0, 1.5)
    assert norm > 1.5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * 1.5 / norm)


@pytest.mark.parametrize(("kind", "limit"), [("norm", 0.0), ("norm", 1e9), ("none", 0.0), ("value", 1e9)])
def test_without_a_reached_limit_gradients_are_only_divided(parameters, kind, limit):
    gradients, _ = clipped(parameters, kind, 4.0, limit)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_by_value_bounds_every_entry(parameters):
    gradients, _ = clipped(parameters, "value", 4.0, 0.7)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient.clamp(-0.7, 0.7))


def test_adaptive_equals_a_loop_over_units(parameters):
    with torch.no_grad():
        parameters[0][1] = 0.0  # a unit that has not begun to learn may still move
    gradients, _ = clipped(parameters, "adaptive", 4.0, 0.1)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        weights = parameter.detach()
        units = (
            zip(weights, gradient, parameter.grad, strict=True)
            if weights.ndim > 1
            else [(weights, gradient, parameter.grad)]
        )
        for weight, before, after in units:
            allowed = 0.1 * max(float(weight.norm()), 1e-3)
            torch.testing.assert_close(after, before * min(1.0, allowed / float(before.norm())))


def test_unit_norms_broadcast():
    assert unit_norms(torch.ones(4, 9)).tolist() == [[3.0]] * 4
    assert unit_norms(torch.ones(16)).item() == 4.0
