"""Input embeddings: tokens and, for formulas, a real-valued amount beside each token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LINEAR_PERIODS = (2.0, 0.02)
"""Longest and shortest period of the features of the fraction itself (fractions lie in (0, 1])."""
_LOG_PERIODS = (12.0, 0.2)
"""The same for log10 of the fraction, which separates dopants from one another."""
_SMALLEST = 1e-6


class AmountEmbedding(nn.Module):
    """Fourier features of an atomic fraction, linear and logarithmic, mapped to the model's width.

    The two resolutions follow CrabNet (Wang et al. 2021). An amount of 0 (special tokens) gives zeros.
    """

    def __init__(self, width: int, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.projection = nn.Linear(4 * frequencies, width, bias=False)

    def forward(self, amounts_N: Tensor) -> Tensor:
        """Fractions (N,) to (N, D)."""
        angles = torch.cat(
            [
                amounts_N[:, None] * self._angular(_LINEAR_PERIODS, amounts_N),
                amounts_N.clamp_min(_SMALLEST).log10()[:, None] * self._angular(_LOG_PERIODS, amounts_N),
            ],
            dim=1,
        )
        features = torch.cat([angles.sin(), angles.cos()], dim=1) * (amounts_N > 0)[:, None]
        return self.projection(features)

    def _angular(self, periods: tuple[float, float], like: Tensor) -> Tensor:
        """Angular frequencies, geometrically spaced between the two periods."""
        longest, shortest = (math.log(2 * math.pi / period) for period in periods)
        return torch.linspace(longest, shortest, self.frequencies, device=like.device, dtype=like.dtype).exp()
