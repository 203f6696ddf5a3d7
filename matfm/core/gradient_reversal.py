"""Gradient reversal and its schedule (Ganin et al., J. Mach. Learn. Res. 17, 59 (2016))."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

GAMMA = 10.0
"""Steepness of the strength's schedule in the paper."""


class _Reversal(torch.autograd.Function):
    """The identity forwards, -strength times the gradient backwards."""

    @staticmethod
    def forward(context: Any, values: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -context.strength * gradient, None


def reverse_gradient(values: Tensor, strength: float) -> Tensor:
    """`values` unchanged; the gradient that comes back through them is multiplied by exactly `-strength`."""
    reversed_values: Tensor = _Reversal.apply(values, strength)  # type: ignore[no-untyped-call]
    return reversed_values


def reversal_strength(progress: float, gamma: float = GAMMA) -> float:
    """λ = 2 / (1 + exp(-γ p)) - 1 at the progress p of the training, from 0 at its start to nearly 1 at its end."""
    return 2 / (1 + math.exp(-gamma * progress)) - 1
