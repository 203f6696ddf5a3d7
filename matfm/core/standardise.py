"""Features on one scale, which training rows give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# R training rows, S other rows, D features


@dataclass(frozen=True)
class Standardiser:
    """Mean 0 and standard deviation 1 on the training rows; features that are constant there are left out.

    Values of other rows are cut where they lie further out than the training rows do by more than their whole range.
    """

    low_D: np.ndarray
    high_D: np.ndarray
    """Where values are cut."""
    mean_D: np.ndarray
    spread_D: np.ndarray
    """Standard deviations; 1 of what is left out."""
    kept_D: np.ndarray
    """bool."""

    @classmethod
    def fit(cls, train_RD: np.ndarray) -> Standardiser:
        """From one training row or more, finite."""
        train = train_RD.astype(np.float64)
        low_D, high_D = train.min(axis=0), train.max(axis=0)
        reach_D = high_D - low_D
        mean_D, spread_D = train.mean(axis=0), train.std(axis=0)
        kept_D = (high_D > low_D) & (spread_D > 1e-9 * np.maximum(1.0, np.abs(mean_D)))
        return cls(low_D - reach_D, high_D + reach_D, mean_D, np.where(kept_D, spread_D, 1.0), kept_D)

    def __call__(self, values_SD: np.ndarray) -> np.ndarray:
        """(S, kept), float64."""
        cut = values_SD.astype(np.float64).clip(self.low_D, self.high_D)
        return ((cut - self.mean_D) / self.spread_D)[:, self.kept_D]
