"""Conformal prediction: intervals, and sets of classes, whose coverage is guaranteed for exchangeable rows.

A score says how badly a label fits a prediction; the scores of rows that were held out tell which scores a new row may
have (Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005)). Nothing is assumed of model or labels,
only that held-out and new rows come in no particular order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# R rows, C classes, M models of which each held out other rows, n held-out rows

_ENTRIES = 1 << 22
"""Shifted residuals that are in memory at a time (32 MiB)."""


def conformal_rank(rows: int, level: float) -> int:
    """Which of the ascending scores of n held-out rows bounds a new one with probability `level`: ⌈(n + 1) · level⌉.

    More than `rows` where these are too few for the level.
    """
    return math.ceil(round((rows + 1) * level, 9))  # 20 · 0.55 is a rounding error above 11


def conformal_quantile(scores_R: np.ndarray, level: float) -> float:
    """Score that a new row exceeds with probability at most 1 - `level`; infinite where the rows are too few."""
    rank = conformal_rank(len(scores_R), level)
    return float(np.partition(scores_R, rank - 1)[rank - 1]) if rank <= len(scores_R) else math.inf


def group_quantiles(scores_R: np.ndarray, group_R: np.ndarray, level: float) -> dict[str, float]:
    """The quantile of every group on its own, so that each group is covered (Mondrian; Vovk et al. 2005, §4.5)."""
    return {str(group): conformal_quantile(scores_R[group_R == group], level) for group in np.unique(group_R)}


def cross_interval(
    value_MR: np.ndarray, residuals: Sequence[np.ndarray], level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (R,) of CV+ intervals (Barber, Candès, Ramdas & Tibshirani, Ann. Stat. 49, 486 (2021)).

    They cover at least 2 · `level` - 1 - O(√(1/n)) by proof, and about `level` in practice.

    Args:
        value_MR: prediction of each model.
        residuals: absolute errors of each model on the rows that it did not see.
        level: wanted coverage.
    """
    upper_R = _shifted_quantile(value_MR, residuals, level)
    return -_shifted_quantile(-value_MR, residuals, level), upper_R


def _shifted_quantile(shift_MR: np.ndarray, residuals: Sequence[np.ndarray], level: float) -> np.ndarray:
    """Conformal quantile, for each row, of all residuals, each shifted by its model's prediction."""
    count = sum(len(of_model) for of_model in residuals)
    rank = conformal_rank(count, level)
    rows = shift_MR.shape[1]
    if rank > count:
        return np.full(rows, math.inf)
    quantile_R = np.empty(rows)
    step = max(1, _ENTRIES // count)
    for start in range(0, rows, step):
        block = slice(start, start + step)
        shifted = [shift[block, None] + of_model for shift, of_model in zip(shift_MR, residuals, strict=True)]
        quantile_R[block] = np.partition(np.concatenate(shifted, axis=1), rank - 1, axis=1)[:, rank - 1]
    return quantile_R


def lac_scores(probability_RC: np.ndarray) -> np.ndarray:
    """1 - p of every class (R, C): smallest sets (Sadinle, Lei & Wasserman, J. Am. Stat. Assoc. 114, 223 (2019))."""
    return 1 - probability_RC


def aps_scores(probability_RC: np.ndarray) -> np.ndarray:
    """Probability of the class and all likelier ones (R, C): sets that adapt to each row.

    Romano, Sesia & Candès, NeurIPS 2020, without its random part: sets are a little larger, and always the same.
    """
    order_RC = np.argsort(-probability_RC, axis=1, kind="stable")
    summed_RC = np.minimum(np.cumsum(np.take_along_axis(probability_RC, order_RC, axis=1), axis=1), 1.0)
    scores_RC = np.empty_like(summed_RC)
    np.put_along_axis(scores_RC, order_RC, summed_RC, axis=1)
    return scores_RC


SET_SCORES = {"lac": lac_scores, "aps": aps_scores}
"""Name to scores of all classes from their probabilities."""


def sets_below(scores_RC: np.ndarray, threshold_R: np.ndarray | float) -> np.ndarray:
    """Classes (R, C), bool, whose score is at most the threshold; the best one always, so that no set is empty."""
    threshold_R1 = np.broadcast_to(threshold_R, len(scores_RC))[:, None]
    return _with_best(scores_RC <= threshold_R1, scores_RC)


def cross_sets(scores_MRC: np.ndarray, held_out: Sequence[np.ndarray], level: float) -> np.ndarray:
    """Classes (R, C), bool, of CV+ sets (Romano et al. 2020, eq. 10); the one of the best mean score always.

    A class belongs to the set unless its score, from each model, exceeds too many of that model's held-out scores.
    """
    count = sum(len(of_model) for of_model in held_out)
    below_RC = sum(
        np.searchsorted(np.sort(of_model), scores_RC, side="left")
        for scores_RC, of_model in zip(scores_MRC, held_out, strict=True)
    )
    return _with_best(below_RC < conformal_rank(count, level), scores_MRC.mean(axis=0))


def _with_best(inside_RC: np.ndarray, scores_RC: np.ndarray) -> np.ndarray:
    inside_RC[np.arange(len(scores_RC)), scores_RC.argmin(axis=1)] = True
    return inside_RC
