"""Means of the metrics between two records of the log."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from matfm.core.distributed import Ranks


class Window:
    """Sums and weights since the last record, and tokens per second."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.sums: dict[str, list[Tensor]] = {}
        self.tokens = 0
        self.started = time.perf_counter()

    def add(self, metrics: dict[str, tuple[Tensor, Tensor]], tokens: int) -> None:
        """One batch: name to (sum, weight), and its number of tokens."""
        self.tokens += tokens
        for name, (total, weight) in metrics.items():
            sums = self.sums.setdefault(name, [torch.zeros(()), torch.zeros(())])
            sums[0] = sums[0] + total.detach().cpu()
            sums[1] = sums[1] + weight.detach().cpu()

    def close(self) -> dict[str, float]:
        """`tokens_per_s` and the means over all processes; begins anew."""
        now = time.perf_counter()
        # Every process has the same metrics: they all run one step function.
        totals = {name: self.ranks.total(torch.stack(pair)) for name, pair in self.sums.items()}
        means = {name: float(total / weight) for name, (total, weight) in totals.items() if weight > 0}
        rate = round(float(self.ranks.total(torch.tensor(float(self.tokens)))) / (now - self.started))
        self.sums, self.tokens, self.started = {}, 0, now
        return {"tokens_per_s": rate, **means}
