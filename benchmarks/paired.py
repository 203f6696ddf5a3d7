"""Paired tests of two models on the same folds or data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Of a model with a peer."""

    difference: float
    """Mean score of the model minus that of the peer, on the splits that both have."""
    p_value: float
    """Two-sided."""
    test: str
    splits: int
    better: int
    """Splits on which the model is better."""


def folds_compared(
    ours: Mapping[Any, float], peers: Mapping[Any, float], test_to_train: float, smaller_is_better: bool = True
) -> Comparison | None:
    """Corrected resampled t test (Nadeau and Bengio, Machine Learning 52, 239 (2003), doi 10.1023/A:1024068626366).

    Folds share training rows, so their differences are not independent: the variance grows by test over train rows.

    Args:
        ours: fold to score.
        peers: likewise; folds that only one has are left out.
        test_to_train: test rows over training rows, 1/4 in five-fold cross-validation.
        smaller_is_better: whether scores are errors.
    """
    from scipy import stats

    differences = _differences(ours, peers)
    count = len(differences)
    if count < 3:
        return None
    spread = float(differences.var(ddof=1)) * (1 / count + test_to_train)
    mean = float(differences.mean())
    p_value = float(2 * stats.t.sf(abs(mean) / spread**0.5, count - 1)) if spread > 0 else float(mean == 0)
    return Comparison(mean, p_value, "corrected t (Nadeau–Bengio)", count, _better(differences, smaller_is_better))


def sets_compared(ours: Mapping[Any, float], peers: Mapping[Any, float]) -> Comparison | None:
    """Wilcoxon's signed-rank test over data sets, of which at least six must be shared; scores are errors."""
    from scipy import stats

    differences = _differences(ours, peers)
    if len(differences) < 6:
        return None
    p_value = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    better = _better(differences, smaller_is_better=True)
    return Comparison(float(differences.mean()), p_value, "Wilcoxon signed-rank", len(differences), better)


def _differences(ours: Mapping[Any, float], peers: Mapping[Any, float]) -> np.ndarray:
    return np.array([ours[split] - peers[split] for split in sorted(ours.keys() & peers.keys())])


def _better(differences: np.ndarray, smaller_is_better: bool) -> int:
    return int((differences < 0).sum() if smaller_is_better else (differences > 0).sum())
