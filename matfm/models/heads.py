"""Heads on pooled representations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# B sequences, D width, K targets, V vocabulary


class PropertyHead(nn.Module):
    """Two-layer perceptron that predicts K properties in their own units.

    Target scaling lives here, so predictions come out in eV (or whatever the property's unit is):
    `value = raw * scale + mean`, then clamped into the property's physical bounds outside training.
    """

    mean: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor

    def __init__(self, width: int, targets: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, targets)
        for name, value in (("mean", 0.0), ("scale", 1.0), ("lower", -torch.inf), ("upper", torch.inf)):
            self.register_buffer(name, torch.full((targets,), value))

    def forward(self, pooled_BD: Tensor) -> Tensor:
        """Raw outputs (B, K), in units of `scale` around `mean`; class scores for classification."""
        return self.out(self.dropout(self.activation(self.dense(pooled_BD))))

    def scaled(self, targets_BK: Tensor) -> Tensor:
        """Targets in physical units to raw units."""
        return (targets_BK - self.mean) / self.scale

    def physical(self, raw_BK: Tensor) -> Tensor:
        """Raw outputs to physical units, within bounds."""
        return torch.clamp(raw_BK * self.scale + self.mean, self.lower, self.upper)

    def set_scaling(self, mean_K: Tensor, scale_K: Tensor) -> None:
        """Fix the scaling from training targets. A constant target gets scale 1."""
        self.mean.copy_(mean_K)
        self.scale.copy_(torch.where(scale_K > 0, scale_K, torch.ones_like(scale_K)))

    def set_bounds(self, lower_K: Tensor, upper_K: Tensor) -> None:
        """Fix physical bounds; infinite where there is none."""
        self.lower.copy_(lower_K)
        self.upper.copy_(upper_K)


class MaskedTokenHead(nn.Module):
    """Dense, activation, norm, and a projection to the vocabulary tied to the input embedding (as in BERT)."""

    def __init__(self, width: int, vocabulary: int, epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) to logits (…, V)."""
        return self.decoder(self.norm(self.activation(self.dense(hidden))))
