"""What a conditional domain classifier reads: features times predictions (CDAN; Long et al., NeurIPS 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# B rows, D width of the features, C entries of a prediction, M width of the map

LARGEST = 4096
"""Width of the outer product above which it is randomised, as in the paper."""
RANDOM_WIDTH = 1024
BINS = 7
"""Soft bins of a regression."""
_REACH = 1.5
"""Centres of the outermost bins, in standard deviations of the training labels."""


class ConditionalMap(nn.Module):
    """The outer product of features and predictions, or its randomised approximation where that is too wide.

    The randomised multilinear map is (R f) ∘ (R' g) / √M with fixed matrices of independent standard normal entries,
    whose inner products have those of the outer product as expectation (theorem 1 of the paper).

    Args:
        features: D.
        predictions: C.
        largest: D · C above which the map is randomised.
        width: M of the randomised map.
        seed: of the matrices.
    """

    of_features: Tensor | None
    of_predictions: Tensor | None

    def __init__(
        self, features: int, predictions: int, largest: int = LARGEST, width: int = RANDOM_WIDTH, seed: int = 0
    ) -> None:
        super().__init__()
        self.randomised = features * predictions > largest
        self.width = width if self.randomised else features * predictions
        drawn: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.randomised:
            rng = torch.Generator().manual_seed(seed)
            drawn = torch.randn(features, width, generator=rng), torch.randn(predictions, width, generator=rng)
        self.register_buffer("of_features", drawn[0])
        self.register_buffer("of_predictions", drawn[1])

    def forward(self, features_BD: Tensor, predictions_BC: Tensor) -> Tensor:
        """(B, M)."""
        predictions_BC = predictions_BC.to(features_BD.dtype)
        if self.of_features is None or self.of_predictions is None:
            return (predictions_BC[:, :, None] * features_BD[:, None, :]).flatten(1)
        features_BM = features_BD @ self.of_features.to(features_BD.dtype)
        return features_BM * (predictions_BC @ self.of_predictions.to(features_BD.dtype)) / self.width**0.5


def soft_bins(scaled_B: Tensor, bins: int = BINS) -> Tensor:
    """Membership (B, C) of standardised predictions in bins of equal spacing; rows sum to 1.

    A regression has no class probabilities to condition on. The bare number would multiply all features by it, hide
    them near the mean, and tell only a linear dependence; memberships are non-negative and sum to 1 as probabilities
    do, so the classifier compares domains separately at low, middle and high values.

    Args:
        scaled_B: predictions in standard deviations of the training labels, from their mean.
        bins: C, at least 2.
    """
    centres_C = torch.linspace(-_REACH, _REACH, bins, device=scaled_B.device)
    spacing = 2 * _REACH / (bins - 1)
    distance_BC = (scaled_B.float().clamp(-2 * _REACH, 2 * _REACH)[:, None] - centres_C) / spacing
    return (-0.5 * distance_BC.square()).softmax(dim=1)


def entropy_weights(probability_BC: Tensor) -> Tensor:
    """1 + exp(-H) of each prediction (B,), H its entropy in nats: certain predictions count up to twice (CDAN+E)."""
    probability_BC = probability_BC.float()
    return 1 + (-torch.special.entr(probability_BC).sum(dim=1)).exp()
