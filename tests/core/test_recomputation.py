"""Values that the backward pass computes again: equal gradients, less kept, and nothing of it under checkpointing."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from matfm.core.recomputation import computed_again, keeping_all


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.calls = 0

    def halves(self, hidden):
        self.calls += 1
        return torch.cat([part.sin() for part in hidden.split(2)])

    def forward(self, hidden):
        joined = self.halves(hidden)
        with computed_again(joined, lambda: self.halves(hidden)):
            return self.linear(joined)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Layer()


def gradients(layer, forward):
    layer.zero_grad()
    hidden = torch.linspace(-1, 1, 20).view(5, 4).requires_grad_()
    forward(hidden).square().sum().backward()
    return [hidden.grad, *(parameter.grad for parameter in layer.parameters())]


def test_gradients_are_equal_and_the_value_is_computed_twice(layer):
    expected = gradients(layer, lambda hidden: layer.linear(layer.halves(hidden)))
    layer.calls = 0
    found = gradients(layer, layer)
    assert layer.calls == 2
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_the_transpose_of_a_square_value_is_not_taken_for_the_value():
    weight, hidden = (torch.arange(9.0).view(3, 3).sin().requires_grad_() for _ in range(2))
    (weight @ hidden.exp().mT).square().sum().backward()
    expected, weight.grad = weight.grad, None
    value = hidden.exp()
    with computed_again(value, hidden.exp):
        product = weight @ value.mT
    product.square().sum().backward()
    assert torch.equal(weight.grad, expected)


def test_the_value_is_not_kept(layer):
    alive = []

    def halves(hidden):
        joined = torch.cat([hidden.sin()])
        alive.append(weakref.ref(joined.untyped_storage()))
        return joined

    layer.halves = halves
    output = layer(torch.ones(5, 4, requires_grad=True))
    gc.collect()
    assert alive[0]() is None
    output.sum().backward()


def test_checkpointing_keeps_all_within_and_gives_equal_gradients(layer):
    expected = gradients(layer, layer)
    layer.calls = 0
    found = gradients(layer, lambda hidden: checkpoint(keeping_all(layer), hidden, use_reentrant=False))
    assert layer.calls == 2
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_without_gradients_nothing_is_computed_again(layer):
    with torch.no_grad():
        layer(torch.ones(5, 4))
    assert layer.calls == 1
