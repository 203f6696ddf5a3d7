"""What the raw outputs of a regression head mean: one number, a normal distribution, or quantiles.

A law turns raw outputs (in scaled units) into a loss for each label, and into statistics of the prediction. Statistics
are computed from scaled units by the head's own map to physical units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from matfm.core.objectives import REGRESSION_LOSSES
from matfm.core.regression_losses import gaussian_loss, one_sided, quantile_loss
from matfm.errors import MatfmError

# B rows, K targets, O raw outputs of a target, S statistics of a target

QUANTILES = (0.1, 0.5, 0.9)
_LEAST_VARIANCE = 1e-6
ToPhysical = Callable[[Tensor], Tensor]
"""Scaled values (B, K) to physical units."""
SpreadToPhysical = Callable[[Tensor, Tensor], Tensor]
"""Scaled means and standard deviations (B, K) to standard deviations in physical units."""


class OutputLaw(Protocol):
    """How raw outputs are trained and read."""

    @property
    def outputs(self) -> int:
        """Raw outputs of each target."""
        ...

    @property
    def statistics(self) -> tuple[str, ...]:
        """What `estimate` gives; `value`, the prediction, comes first."""
        ...

    @property
    def takes_censored(self) -> bool:
        """Whether the loss has a meaning for labels such as `<5`."""
        ...

    def loss(self, raw_BKO: Tensor, target_BK: Tensor, side_BK: Tensor | None) -> Tensor:
        """Loss (B, K) against scaled targets, none of which is missing."""
        ...

    def estimate(self, raw_BKO: Tensor, physical: ToPhysical, spread: SpreadToPhysical, /) -> Tensor:
        """Statistics (B, K, S) in physical units."""
        ...


@dataclass(frozen=True)
class PointLaw:
    """One number, trained by a pointwise loss: the median for l1, the mean for l2, between them for huber."""

    name: str

    outputs = 1
    statistics = ("value",)
    takes_censored = True

    def loss(self, raw_BKO: Tensor, target_BK: Tensor, side_BK: Tensor | None) -> Tensor:
        """Pointwise; one-sided at censored labels."""
        predicted_BK = raw_BKO[..., 0]
        loss_BK = REGRESSION_LOSSES[self.name](predicted_BK, target_BK)
        return loss_BK if side_BK is None else one_sided(loss_BK, predicted_BK, target_BK, side_BK)

    def estimate(self, raw_BKO: Tensor, physical: ToPhysical, _: SpreadToPhysical, /) -> Tensor:
        """The number."""
        return physical(raw_BKO[..., 0])[..., None]


@dataclass(frozen=True)
class GaussianLaw:
    """Mean and variance of a normal distribution; the variance is made positive by softplus."""

    outputs = 2
    statistics = ("value", "std")
    takes_censored = True

    def loss(self, raw_BKO: Tensor, target_BK: Tensor, side_BK: Tensor | None) -> Tensor:
        """Negative log-likelihood."""
        return gaussian_loss(raw_BKO[..., 0], _variance(raw_BKO), target_BK, side_BK)

    def estimate(self, raw_BKO: Tensor, physical: ToPhysical, spread: SpreadToPhysical, /) -> Tensor:
        """Mean and standard deviation."""
        mean_BK = raw_BKO[..., 0]
        return torch.stack([physical(mean_BK), spread(mean_BK, _variance(raw_BKO).sqrt())], dim=-1)


@dataclass(frozen=True)
class QuantileLaw:
    """Quantiles at fixed levels, sorted when read (Chernozhukov et al., Econometrica 78, 1093 (2010))."""

    levels: tuple[float, ...] = QUANTILES

    takes_censored = False

    def __post_init__(self) -> None:
        levels = list(self.levels)
        if sorted(set(levels)) != levels or not all(0 < level < 1 for level in levels):
            raise MatfmError(f"quantiles is {levels}; they are levels between 0 and 1, ascending")
        if 0.5 not in levels:
            raise MatfmError(f"quantiles is {levels}; 0.5, the prediction, must be one of them")

    @property
    def outputs(self) -> int:
        """One for each level."""
        return len(self.levels)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The median as the value, then every level."""
        return ("value", *(f"q{level:g}" for level in self.levels))

    def loss(self, raw_BKO: Tensor, target_BK: Tensor, side_BK: Tensor | None) -> Tensor:
        """Pinball loss."""
        assert side_BK is None
        return quantile_loss(raw_BKO, target_BK, raw_BKO.new_tensor(self.levels))

    def estimate(self, raw_BKO: Tensor, physical: ToPhysical, _: SpreadToPhysical, /) -> Tensor:
        """Median and quantiles."""
        ordered = raw_BKO.sort(dim=-1).values
        quantiles = torch.stack([physical(quantile) for quantile in ordered.unbind(dim=-1)], dim=-1)
        return torch.cat([quantiles[..., self.levels.index(0.5), None], quantiles], dim=-1)


PROPERTY_LOSSES = (*REGRESSION_LOSSES, "gaussian", "quantile")
"""Names of the losses of regression heads."""


def output_law(loss: str, levels: tuple[float, ...] = QUANTILES) -> OutputLaw:
    """The law that belongs to a loss; `levels` are those of `quantile`."""
    if loss == "gaussian":
        return GaussianLaw()
    return QuantileLaw(levels) if loss == "quantile" else PointLaw(loss)


def _variance(raw_BKO: Tensor) -> Tensor:
    return F.softplus(raw_BKO[..., 1]) + _LEAST_VARIANCE
