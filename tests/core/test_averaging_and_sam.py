"""Weight averages against sums over the recorded weights; SAM against its two passes written out."""

import copy

import pytest
import torch

from matfm.core.averaging import WeightAverage
from matfm.core.sam import Ascent


def walk(average, parameter, values):
    for step, value in enumerate(values, start=1):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(step)


def averaged(kind, values, decay=0.9, start=0):
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(kind, model, decay, start)
    walk(average, model.weight, values)
    with average.applied():
        inside = model.weight.item()
    assert model.weight.item() == pytest.approx(values[-1])
    average.keep()
    assert model.weight.item() == inside
    return inside


def test_swa_is_the_mean_after_its_start():
    assert averaged("swa", [5.0, 100.0, 2.0, 4.0, 9.0], start=2) == pytest.approx(5.0)


def test_before_its_start_an_average_changes_nothing():
    assert averaged("swa", [5.0, 100.0], start=2) == 100.0


def test_ema_is_the_recursion_with_a_rising_decay():
    values = [float(v) for v in torch.randn(150, generator=torch.Generator().manual_seed(0))]
    expected = values[0]
    for count, value in enumerate(values[1:], start=1):
        decay = min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * value
    assert averaged("ema", values) == pytest.approx(expected, abs=1e-5)


def test_tied_weights_are_averaged_once_and_frozen_ones_left_alone():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    assert set(WeightAverage("ema", model, 0.9, 0).values) == {"0.weight", "1.bias"}


def test_sam_climbs_by_its_radius_and_comes_back_exactly():
    torch.manual_seed(0)
    parameters = [
        torch.nn.Parameter(torch.randn(3, 3)),
        torch.nn.Parameter(torch.randn(3)),
        torch.nn.Parameter(torch.ones(1)),
    ]
    for parameter in parameters[:2]:
        parameter.grad = torch.randn_like(parameter)
    before = copy.deepcopy([p.detach() for p in parameters])
    norm = float(torch.cat([p.grad.flatten() for p in parameters[:2]]).norm())
    ascent = Ascent(0.3)
    ascent.climb(parameters, norm)
    for parameter, value in zip(parameters[:2], before, strict=False):
        torch.testing.assert_close(parameter.detach(), value + 0.3 * parameter.grad / norm)
    assert parameters[2].item() == 1.0
    ascent.descend()
    assert all(torch.equal(parameter, value) for parameter, value in zip(parameters, before, strict=True))


@pytest.mark.parametrize("norm", [0.0, float("nan"), float("inf")])
def test_sam_does_not_move_without_a_direction(norm):
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.zeros(2)
    Ascent(0.1).climb([parameter], norm)
    assert parameter.tolist() == [1.0, 1.0]
