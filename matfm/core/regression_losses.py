"""Losses of regression heads beyond the pointwise ones, label by label; `side` marks censored labels.

A label with side -1 says that the true value is below it (`<5`), +1 above it, 0 that it is exact.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# B rows, K targets, Q quantile levels


def one_sided(loss_BK: Tensor, predicted_BK: Tensor, target_BK: Tensor, side_BK: Tensor) -> Tensor:
    """A pointwise loss that costs nothing where a censored label is met: a prediction of 3 for `<5`."""
    return loss_BK.masked_fill((predicted_BK - target_BK) * side_BK > 0, 0.0)


def gaussian_loss(mean_BK: Tensor, variance_BK: Tensor, target_BK: Tensor, side_BK: Tensor | None = None) -> Tensor:
    """Negative log-likelihood (nats) of a normal distribution (Nix & Weigend 1994), shape (B, K).

    Censored labels get the probability of their side, as in Tobin's regression (Econometrica 26, 24 (1958)).
    Variances are positive.
    """
    deviation = (target_BK - mean_BK) / variance_BK.sqrt()
    exact = 0.5 * (deviation.square() + variance_BK.log() + math.log(2 * math.pi))
    if side_BK is None:
        return exact
    return torch.where(side_BK == 0, exact, -torch.special.log_ndtr(-side_BK * deviation))


def quantile_loss(predicted_BKQ: Tensor, target_BK: Tensor, levels_Q: Tensor) -> Tensor:
    """Mean over the levels of the pinball loss (Koenker & Bassett, Econometrica 46, 33 (1978)), shape (B, K)."""
    short_BKQ = target_BK[..., None] - predicted_BKQ
    return torch.maximum(levels_Q * short_BKQ, (levels_Q - 1) * short_BKQ).mean(dim=-1)


def zero_loss(logit_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Binary cross-entropy (nats) of "the target is exactly 0", shape (B, K)."""
    return F.binary_cross_entropy_with_logits(logit_BK, (target_BK == 0).to(logit_BK.dtype), reduction="none")
