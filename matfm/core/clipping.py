"""Gradients of summed losses to bounded gradients of their mean: by norm, by value, or unit by unit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_SMALLEST_WEIGHTS = 1e-3
"""Norm that weights near zero count as, so that they can grow (Brock et al. 2021)."""

Clipper = Callable[[list[nn.Parameter], float, float, float], None]
"""(parameters that have a gradient, divisor of the gradients, norm after the division, limit), in place."""


def by_norm(parameters: list[nn.Parameter], divisor: float, norm: float, limit: float) -> None:
    """Scale all gradients so that their joint norm is at most `limit`; 0 is no limit (Pascanu et al. 2013)."""
    factor = min(1.0, limit / norm) if limit and norm > 0 else 1.0
    torch._foreach_mul_(_gradients(parameters), factor / divisor)


def by_value(parameters: list[nn.Parameter], divisor: float, norm: float, limit: float) -> None:  # noqa: ARG001
    """Every entry into [-limit, limit]."""
    gradients = _gradients(parameters)
    torch._foreach_mul_(gradients, 1 / divisor)
    for gradient in gradients:
        gradient.clamp_(-limit, limit)


def adaptively(parameters: list[nn.Parameter], divisor: float, norm: float, limit: float) -> None:  # noqa: ARG001
    """Every unit's gradient norm to at most `limit` times the norm of its weights (Brock et al. 2021, eq. 3).

    A unit is a row of a matrix; a vector is one unit.
    """
    torch._foreach_mul_(_gradients(parameters), 1 / divisor)
    for parameter in parameters:
        assert parameter.grad is not None
        allowed = limit * unit_norms(parameter.detach()).clamp_min(_SMALLEST_WEIGHTS)
        found = unit_norms(parameter.grad).clamp_min(torch.finfo(parameter.dtype).tiny)
        parameter.grad.mul_((allowed / found).clamp_max(1.0))


def not_at_all(parameters: list[nn.Parameter], divisor: float, norm: float, limit: float) -> None:  # noqa: ARG001
    """Only divide."""
    torch._foreach_mul_(_gradients(parameters), 1 / divisor)


CLIPPERS: dict[str, Clipper] = {"norm": by_norm, "value": by_value, "adaptive": adaptively, "none": not_at_all}


def unit_norms(tensor: Tensor) -> Tensor:
    """Norm of every row of a matrix, or of the whole vector; shaped to broadcast against it."""
    if tensor.ndim < 2:
        return torch.linalg.vector_norm(tensor)
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
