"""Muon: momentum, orthogonalised, for the weight matrices of hidden layers (Jordan et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration by Jordan et al.; singular values end in about [0.7, 1.2]."""
_ITERATIONS = 5
_ADAM_RMS = 0.2
"""Root mean square of an AdamW update, which Muon's is scaled to (Liu et al. 2025), so that both share a rate."""


class Muon(torch.optim.Optimizer):
    """Momentum SGD whose update of every matrix is replaced by the nearest orthogonal one.

    Groups hold matrices, with `lr`, `weight_decay`, `momentum`, and `stacked`: the number of square
    or rectangular maps that lie one below the other in each matrix (3 for joint query-key-value
    projections), which are orthogonalised one by one.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0, "momentum": momentum, "stacked": 1})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for shape in sorted({tuple(parameter.shape) for parameter in parameters}):
                self._step_alike([parameter for parameter in parameters if tuple(parameter.shape) == shape], group)

    def _step_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices of one shape together, as a batch."""
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            directions.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
        rows, columns = parameters[0].shape
        maps = torch.stack(directions).view(len(parameters) * group["stacked"], rows // group["stacked"], columns)
        update = orthogonalised(maps).view(len(parameters), rows, columns)
        scale = _ADAM_RMS * max(maps.shape[1:]) ** 0.5
        for parameter, change in zip(parameters, update.unbind(), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-group["lr"] * scale)


def orthogonalised(maps: Tensor) -> Tensor:
    """Matrices (…, m, n) with their singular values moved close to 1, by a Newton-Schulz iteration."""
    a, b, c = _QUINTIC
    wide = maps.mT if maps.shape[-2] > maps.shape[-1] else maps
    # bfloat16 is enough for the direction and fast on accelerators; on CPUs it is slower than float32.
    current = wide.to(torch.bfloat16) if maps.is_cuda else wide
    current = current / current.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(_ITERATIONS):
        gram = current @ current.mT
        current = a * current + (b * gram + c * (gram @ gram)) @ current
    current = current.to(maps.dtype)
    return current.mT if maps.shape[-2] > maps.shape[-1] else current
