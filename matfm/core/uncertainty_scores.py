"""How far stated uncertainties can be believed: coverage, sharpness, likelihood and calibration errors."""

from __future__ import annotations

import math

import numpy as np

# R rows, C classes, B bins

_ROWS_PER_BIN = 10
_LEAST_PROBABILITY = 1e-12


def coverage(true_R: np.ndarray, lower_R: np.ndarray, upper_R: np.ndarray) -> float:
    """Share of the labels within their intervals, ends included."""
    return float(((lower_R <= true_R) & (true_R <= upper_R)).mean())


def mean_width(lower_R: np.ndarray, upper_R: np.ndarray) -> float:
    """Sharpness: mean width of the intervals, in the unit of the labels."""
    return float((upper_R - lower_R).mean())


def interval_score(true_R: np.ndarray, lower_R: np.ndarray, upper_R: np.ndarray, level: float) -> float:
    """Width plus 2 / (1 - level) times what labels lie outside: smallest for the true quantiles.

    Gneiting & Raftery, J. Am. Stat. Assoc. 102, 359 (2007), eq. 43; in the unit of the labels.
    """
    outside_R = np.maximum(lower_R - true_R, 0) + np.maximum(true_R - upper_R, 0)
    return float((upper_R - lower_R + 2 / (1 - level) * outside_R).mean())


def gaussian_nll(true_R: np.ndarray, mean_R: np.ndarray, std_R: np.ndarray) -> float:
    """Mean negative log-likelihood (nats) of normal distributions, with its constant; every std must be positive."""
    return float((np.square((true_R - mean_R) / std_R) / 2 + np.log(std_R) + math.log(2 * math.pi) / 2).mean())


def error_by_std(true_R: np.ndarray, mean_R: np.ndarray, std_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean variance and root mean squared error (B,) of bins of equally many rows, in the order of their std.

    There are ten bins, or fewer where they would hold less than ten rows.
    """
    bins = max(1, min(10, len(true_R) // _ROWS_PER_BIN))
    by_std = np.array_split(np.argsort(std_R, kind="stable"), bins)
    expected = [math.sqrt(np.square(std_R[rows]).mean()) for rows in by_std]
    observed = [math.sqrt(np.square(true_R[rows] - mean_R[rows]).mean()) for rows in by_std]
    return np.array(expected), np.array(observed)


def ence(true_R: np.ndarray, mean_R: np.ndarray, std_R: np.ndarray) -> float:
    """Expected normalised calibration error: mean of |RMV - RMSE| / RMV over the bins of `error_by_std`.

    Levi, Gispan, Giladi & Fetaya, Sensors 22, 5540 (2022), eq. 8. Every bin needs a positive std.
    """
    expected_B, observed_B = error_by_std(true_R, mean_R, std_R)
    return float((np.abs(expected_B - observed_B) / expected_B).mean())


def std_factor(true_R: np.ndarray, mean_R: np.ndarray, std_R: np.ndarray) -> float:
    """Factor on all std that makes the labels likeliest: root mean square of error / std.

    Laves et al., Medical Imaging with Deep Learning 2020, eq. 9. Rows of std 0 are left out; 1 where none remains or
    there is no error.
    """
    positive_R = std_R > 0
    if not positive_R.any():
        return 1.0
    ratio_R = (true_R - mean_R)[positive_R] / std_R[positive_R]
    return float(np.sqrt(np.square(ratio_R).mean())) or 1.0


def class_nll(label_R: np.ndarray, probability_RC: np.ndarray) -> float:
    """Mean negative log-likelihood (nats) of class indices."""
    return float(-np.log(_of_label(label_R, probability_RC).clip(_LEAST_PROBABILITY)).mean())


def brier_score(label_R: np.ndarray, probability_RC: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the true class, 0 to 2 (Brier 1950)."""
    squared_R = np.square(probability_RC).sum(axis=1) - 2 * _of_label(label_R, probability_RC) + 1
    return float(squared_R.mean())


def reliability(
    label_R: np.ndarray, probability_RC: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, mean confidence and accuracy (B,) of the likeliest class, in bins of equal width that hold rows."""
    confidence_R = probability_RC.max(axis=1)
    right_R = probability_RC.argmax(axis=1) == label_R
    bin_R = np.minimum((confidence_R * bins).astype(int), bins - 1)
    rows_B = np.bincount(bin_R, minlength=bins)
    held = rows_B > 0
    confidence_B = np.bincount(bin_R, confidence_R, bins)[held] / rows_B[held]
    accuracy_B = np.bincount(bin_R, right_R, bins)[held] / rows_B[held]
    return rows_B[held], confidence_B, accuracy_B


def expected_calibration_error(label_R: np.ndarray, probability_RC: np.ndarray, bins: int = 10) -> float:
    """ECE: mean of |confidence - accuracy| over the rows, in bins (Naeini et al., AAAI 2015; Guo et al., ICML 2017)."""
    rows_B, confidence_B, accuracy_B = reliability(label_R, probability_RC, bins)
    return float((rows_B * np.abs(confidence_B - accuracy_B)).sum() / rows_B.sum())


def _of_label(label_R: np.ndarray, probability_RC: np.ndarray) -> np.ndarray:
    chosen_R: np.ndarray = probability_RC[np.arange(len(label_R)), label_R.astype(int)].astype(np.float64)
    return chosen_R
