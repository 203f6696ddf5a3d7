"""Sharpness-aware minimisation: the gradient is taken where the loss is largest nearby (Foret et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Ascent:
    """Moves weights by `radius` along the gradient (eq. 2 with p = 2), and back exactly."""

    def __init__(self, radius: float) -> None:
        self.radius = radius
        self.origin: list[tuple[nn.Parameter, Tensor]] = []

    @torch.no_grad()
    def climb(self, parameters: list[nn.Parameter], norm: float) -> None:
        """Move; `norm` is that of the gradients as they are. A norm of 0, or none, moves nothing."""
        self.origin = [(p, p.detach().clone()) for p in parameters if p.grad is not None]
        if norm > 0 and math.isfinite(norm):
            for parameter, _ in self.origin:
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=self.radius / norm)

    @torch.no_grad()
    def descend(self) -> None:
        """Go back to where `climb` began; the gradients stay."""
        for parameter, value in self.origin:
            parameter.copy_(value)
        self.origin = []
