"""Temperature scaling: one number that makes the probabilities of classes as sure as they are right.

Guo, Pleiss, Sun & Weinberger, ICML 2017. The likeliest class stays the same.
"""

from __future__ import annotations

import numpy as np

# R rows, C classes

_COLDEST, _HOTTEST = 0.01, 100.0
_LEAST_PROBABILITY = 1e-12
_HALVINGS = 60


def at_temperature(probability_RC: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (R, C) with their logarithms divided by the temperature, normalised again.

    For one model these are its scores divided by the temperature; of an ensemble it is the mean that is scaled.
    """
    return _softmax(_logarithm(probability_RC) / temperature)


def fit_temperature(label_R: np.ndarray, probability_RC: np.ndarray) -> float:
    """Temperature, within 0.01 and 100, at which class indices are likeliest; 1 without rows.

    The likelihood is concave in 1 / temperature, so the zero of its slope is found by halving.
    """
    if len(label_R) == 0:
        return 1.0
    logarithm_RC = _logarithm(probability_RC)
    of_label = float(logarithm_RC[np.arange(len(label_R)), label_R.astype(int)].mean())

    def slope(inverse: float) -> float:
        return of_label - float((_softmax(inverse * logarithm_RC) * logarithm_RC).sum(axis=1).mean())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    if slope(low) <= 0:
        return 1 / low
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return 1 / low


def _logarithm(probability_RC: np.ndarray) -> np.ndarray:
    logarithm_RC: np.ndarray = np.log(probability_RC.astype(np.float64).clip(_LEAST_PROBABILITY))
    return logarithm_RC


def _softmax(score_RC: np.ndarray) -> np.ndarray:
    grown_RC = np.exp(score_RC - score_RC.max(axis=1, keepdims=True))
    probability_RC: np.ndarray = grown_RC / grown_RC.sum(axis=1, keepdims=True)
    return probability_RC
