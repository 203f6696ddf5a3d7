"""Gradient reversal and its schedules: exactly as published."""

import math

import pytest
import torch

from matfm.core.gradient_reversal import reversal_strength, reverse_gradient


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, -1.0, 7.5])
def test_the_gradient_is_exactly_minus_the_strength_times_the_plain_one(dtype, strength):
    torch.manual_seed(0)
    values, weights = torch.randn(5, 3).to(dtype).requires_grad_(), torch.randn(5, 3).to(dtype)
    (values.tanh() * weights).sum().backward()
    plain, values.grad = values.grad, None
    turned = reverse_gradient(values, strength)
    assert torch.equal(turned, values)
    (turned.tanh() * weights).sum().backward()
    assert torch.equal(values.grad, -strength * plain)


def test_what_lies_behind_the_reversal_learns_as_without_it():
    torch.manual_seed(0)
    encoder, classifier = torch.nn.Linear(4, 4).double(), torch.nn.Linear(4, 2).double()
    inputs = torch.randn(6, 4, dtype=torch.float64)

    def gradients(through):
        encoder.zero_grad(), classifier.zero_grad()
        classifier(through(encoder(inputs))).logsumexp(1).sum().backward()
        return [p.grad.clone() for module in (encoder, classifier) for p in module.parameters()]

    plain, turned = gradients(lambda values: values), gradients(lambda values: reverse_gradient(values, 0.4))
    assert all(torch.allclose(b, -0.4 * a, rtol=1e-14) for a, b in zip(plain[:2], turned[:2], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain[2:], turned[2:], strict=True))


def test_the_schedules_are_those_of_the_paper():
    assert reversal_strength(0.0) == 0.0
    for progress in (0.1, 0.25, 0.5, 1.0):
        assert reversal_strength(progress) == pytest.approx(2 / (1 + math.exp(-10 * progress)) - 1, abs=0)
    assert reversal_strength(1.0) == pytest.approx(0.9999092, abs=1e-7)
