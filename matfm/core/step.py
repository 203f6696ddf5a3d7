"""What a training method is: a step function from a batch to a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from matfm.core.batching import TokenBatch
from matfm.core.precision import autocast


@dataclass(frozen=True)
class StepOutput:
    """What a step function returns for one batch."""

    loss_sum: Tensor
    """Differentiable sum of the loss; the loop divides by the total weight of all batches of the step."""
    weight: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Name to (sum, weight), for the log."""


StepFunction = Callable[[Any, TokenBatch, torch.Generator], StepOutput]
Evaluation = Callable[[nn.Module], dict[str, float]]
OnEvaluation = Callable[[int, int, float], None]
"""Told of every evaluation: the step, all steps, the score. What it raises ends the run: a search prunes."""


class Batches(Protocol):
    """An endless source of batches with a position."""

    def next(self) -> TokenBatch:
        """The next batch; moves the position."""
        ...

    def state_dict(self) -> dict[str, int]:
        """The position."""
        ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position."""
        ...


class StepModule(nn.Module):
    """A step function with its model as one module, which DDP and FSDP2 can wrap: they act on `forward`."""

    def __init__(self, model: nn.Module, step_function: StepFunction, precision: str, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.step_function = step_function
        self.precision = precision
        self.device = device

    def forward(
        self, batch: TokenBatch, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """The fields of a StepOutput, as a tuple: the wrappers look for tensors in tuples and dicts."""
        with autocast(self.precision, self.device):
            output = self.step_function(self.model, batch, rng)
        return output.loss_sum, output.weight, output.metrics
