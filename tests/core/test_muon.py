"""Muon: orthogonal updates, stacked maps one by one, batched as single."""

import torch

from matfm.core.muon import Muon, orthogonalised


def test_singular_values_come_close_to_one():
    torch.manual_seed(0)
    for shape in ((40, 40), (30, 60), (60, 30)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_direction_is_that_of_the_polar_factor():
    torch.manual_seed(0)
    matrix = torch.randn(30, 50)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(orthogonalised(matrix).flatten(), (left @ right).flatten(), dim=0)
    assert cosine > 0.97


def updated(weights, gradients, **group):
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer = Muon([{"params": parameters, "lr": 0.1, **group}], 0.1)
    optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_a_batch_of_matrices_equals_one_at_a_time():
    torch.manual_seed(0)
    weights, gradients = torch.randn(3, 8, 6), torch.randn(3, 8, 6)
    together = updated(weights, gradients, weight_decay=0.1)
    alone = [updated([w], [g], weight_decay=0.1)[0] for w, g in zip(weights, gradients, strict=True)]
    torch.testing.assert_close(torch.stack(together), torch.stack(alone))


def test_stacked_maps_are_orthogonalised_one_by_one():
    torch.manual_seed(0)
    weight, gradient = torch.randn(18, 6), torch.randn(18, 6)
    stacked = updated([weight], [gradient], stacked=3)[0]
    apart = updated(weight.view(3, 6, 6), gradient.view(3, 6, 6))
    torch.testing.assert_close(stacked, torch.cat(apart))


def test_update_has_the_size_of_an_adam_update():
    torch.manual_seed(0)
    weight = torch.zeros(64, 32)
    change = updated([weight], [torch.randn(64, 32)])[0] / 0.1
    assert 0.1 < change.square().mean().sqrt() < 0.25
