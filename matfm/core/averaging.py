"""Averages of the weights along training, which are evaluated and kept in place of the last weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from matfm.core.distributed import laid_out_like

SHARES: dict[str, Callable[[int, float], float]] = {
    # The first averages would remember the random start; the decay therefore rises with the count.
    "ema": lambda count, decay: 1 - min(decay, (1 + count) / (10 + count)),
    "swa": lambda count, decay: 1 / (1 + count),
}
"""Share of the newest weights in the average, given how many went in before (and the decay).

ema: exponential moving average (Polyak & Juditsky 1992); swa: plain mean (Izmailov et al. 2018).
"""


class WeightAverage:
    """Average of a model's trainable weights.

    Args:
        kind: a key of `SHARES`.
        model: whose weights are averaged; tied ones once.
        decay: of ema.
        start: number of steps before the first weights go in.
    """

    def __init__(self, kind: str, model: nn.Module, decay: float, start: int) -> None:
        self.share = SHARES[kind]
        self.decay = decay
        self.start = start
        self.count = 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps (1-based)."""
        if step <= self.start:
            return
        share = self.share(self.count, self.decay) if self.count else 1.0
        self.count += 1
        for name, parameter in self.parameters.items():
            self.values[name].mul_(1 - share).add_(parameter.detach(), alpha=share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside, and its own weights again afterwards."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()} if self.count else {}
        self.keep()
        try:
            yield
        finally:
            self._put(own)

    def keep(self) -> None:
        """Put the average into the model; before the first weights went in, leave it alone."""
        self._put(self.values if self.count else {})

    @torch.no_grad()
    def restore(self, values: dict[str, Tensor], count: int) -> None:
        """From a checkpoint: whole tensors."""
        self.count = count
        for name, value in self.values.items():
            value.copy_(laid_out_like(values[name], value))

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)
