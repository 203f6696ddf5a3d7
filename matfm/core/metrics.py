"""Scores of predictions, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Score = Callable[[np.ndarray, np.ndarray], float]
_RESAMPLES = 1000


def bootstrap_interval(
    score: Score, true: np.ndarray, predicted: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a score over resampled rows (Efron 1979), seeded."""
    generator = np.random.default_rng(0)
    rows = generator.integers(0, len(true), (_RESAMPLES, len(true)))
    scores = [score(true[sample], predicted[sample]) for sample in rows]
    tail = (1 - level) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def regression_scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """mae (with its 95 % interval), rmse and r2, in the target's unit; NaN targets are left out."""
    present = ~np.isnan(true)
    true, predicted = true[present].astype(np.float64), predicted[present].astype(np.float64)
    if len(true) == 0:
        return {"n": 0}
    low, high = bootstrap_interval(mean_absolute_error, true, predicted)
    spread = float(np.square(true - true.mean()).sum())
    residual = float(np.square(true - predicted).sum())
    scores = {
        "n": len(true),
        "mae": mean_absolute_error(true, predicted),
        "mae_low": low,
        "mae_high": high,
        "rmse": float(np.sqrt(residual / len(true))),
    }
    return {**scores, "r2": 1 - residual / spread} if spread > 0 else scores


def classification_scores(true: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """accuracy, balanced accuracy (mean recall of the classes present) and, for two classes, ROC area."""
    from sklearn.metrics import roc_auc_score

    present = ~np.isnan(true)
    true, probabilities = true[present].astype(int), probabilities[present]
    if len(true) == 0:
        return {"n": 0}
    chosen = probabilities.argmax(axis=1)
    scores = {
        "n": len(true),
        "accuracy": float((chosen == true).mean()),
        "balanced_accuracy": balanced_accuracy(true, chosen),
    }
    if probabilities.shape[1] == 2 and len(np.unique(true)) == 2:
        scores["roc_auc"] = float(roc_auc_score(true, probabilities[:, 1]))
    return scores


def balanced_accuracy(true: np.ndarray, chosen: np.ndarray) -> float:
    """Mean recall of the classes that are present."""
    return float(np.mean([(chosen[true == label] == label).mean() for label in np.unique(true)]))


def mean_absolute_error(true: np.ndarray, predicted: np.ndarray) -> float:
    """In the unit of the labels."""
    return float(np.abs(true - predicted).mean())
