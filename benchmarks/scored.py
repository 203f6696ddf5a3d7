"""Predictions that are kept beside the results, so that another score of them needs no second run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.tuned import Predictions
from matfm.core.files import atomic_path

# T test rows


def slug(text: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^A-Za-z0-9.×]+", "-", text).strip("-")


def kept(path: Path, predict: Callable[[], Predictions]) -> Predictions:
    """The predictions in a file, or new ones, which are written there."""
    if path.is_file():
        with np.load(path) as file:
            return Predictions(file["value_T"], float(file["seconds"]))
    made = predict()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, value_T=made.value_T, seconds=made.seconds)
    return made


def timed(predict: Callable[[], np.ndarray]) -> Predictions:
    """Predictions and how long fitting and predicting took."""
    started = time.perf_counter()
    value_T = predict()
    return Predictions(np.asarray(value_T, float), round(time.perf_counter() - started, 1))


def regression_errors(true_T: np.ndarray, predicted_T: np.ndarray) -> dict[str, float]:
    """mae and rmse."""
    errors_T = predicted_T - true_T
    return {"mae": float(np.abs(errors_T).mean()), "rmse": float(np.sqrt(np.mean(errors_T**2)))}


def class_scores(true_T: np.ndarray, probability_T: np.ndarray) -> dict[str, float]:
    """Balanced accuracy at 0.5, and the area under the ROC curve of the probabilities; both need both classes."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    if len(np.unique(true_T)) < 2:
        return {}
    return {
        "balanced_accuracy": float(balanced_accuracy_score(true_T, probability_T > 0.5)),
        "roc_auc": float(roc_auc_score(true_T, probability_T)),
    }
