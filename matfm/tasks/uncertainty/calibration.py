"""Rows that were held out of training with their predictions: what intervals and probabilities are calibrated on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from matfm.core.files import write_json
from matfm.core.temperature import at_temperature, fit_temperature
from matfm.core.uncertainty_scores import std_factor
from matfm.errors import MatfmError
from matfm.tasks.predictions import Predicted
from matfm.tasks.targets import Targets

# R rows, C classes, M members, K targets

CALIBRATION = "calibration.json"
FORMAT = 2
CROSS = "cross-validation"
"""Where held-out rows come from if each member was trained without some of the rows."""
_QUANTILE = "q"


@dataclass(frozen=True)
class TargetRows:
    """Predictions of one target, and what intervals may depend on."""

    value_R: np.ndarray
    """Predictions, or probabilities (R, C) of classes."""
    std_R: np.ndarray | None = None
    quantiles: dict[float, np.ndarray] = field(default_factory=dict)
    """Level to predicted quantile (R,)."""
    distance_R: np.ndarray | None = None
    """Distance to the training rows."""
    group_R: np.ndarray | None = None
    """Name of each row's group."""
    members_MR: np.ndarray | None = None
    """Predictions of each member, (M, R) or (M, R, C)."""

    def take(self, rows: np.ndarray) -> TargetRows:
        """The given rows."""
        return TargetRows(
            self.value_R[rows],
            None if self.std_R is None else self.std_R[rows],
            {level: values[rows] for level, values in self.quantiles.items()},
            None if self.distance_R is None else self.distance_R[rows],
            None if self.group_R is None else self.group_R[rows],
            None if self.members_MR is None else self.members_MR[:, rows],
        )


@dataclass(frozen=True)
class HeldOut:
    """Rows of one target that were not trained on, with their labels (class indices for classes)."""

    true_R: np.ndarray
    rows: TargetRows
    fold_R: np.ndarray | None = None
    """Number of the member that was trained without the row; None where no member saw it."""

    def temperature(self) -> float:
        """Of the probabilities of classes."""
        return fit_temperature(self.true_R, self.rows.value_R)

    def std_factor(self) -> float:
        """Of the standard deviations; 1 where there are none."""
        return 1.0 if self.rows.std_R is None else std_factor(self.true_R, self.rows.value_R, self.rows.std_R)

    def calibrated(self, rows: TargetRows) -> TargetRows:
        """With the probabilities of classes at the temperature, or else with standard deviations times the factor."""
        if rows.value_R.ndim == 1:
            return replace(rows, std_R=None if rows.std_R is None else rows.std_R * self.std_factor())
        temperature, members = self.temperature(), rows.members_MR
        return replace(
            rows,
            value_R=at_temperature(rows.value_R, temperature),
            members_MR=None if members is None else np.stack([at_temperature(m, temperature) for m in members]),
        )


@dataclass(frozen=True)
class Calibration:
    """Held-out rows of every target."""

    source: str
    """Where they come from: valid (these also chose the epoch), calibration, or cross-validation."""
    targets: dict[str, HeldOut]


def rows_of_target(
    targets: Targets, predicted: Predicted, k: int, distance_R: np.ndarray | None, group_R: np.ndarray | None
) -> TargetRows:
    """What is predicted for target `k`, or for its classes."""
    if targets.classes:
        value_RC, members_MRK = targets.of_each(predicted.value)[k], predicted.members_MRK
        members_MRC = None if members_MRK is None else targets.of_each(members_MRK)[k]
        return TargetRows(value_RC, None, {}, distance_R, group_R, members_MRC)
    quantiles = {
        float(name.removeprefix(_QUANTILE)): values[:, k]
        for name, values in predicted.further.items()
        if name.startswith(_QUANTILE)
    }
    std_R = predicted.std[:, k] if predicted.has_std else None
    members = None if predicted.members_MRK is None else predicted.members_MRK[..., k]
    return TargetRows(predicted.value[:, k], std_R, quantiles, distance_R, group_R, members)


def by_target(
    targets: Targets,
    true_RK: np.ndarray,
    predicted: Predicted,
    distance_R: np.ndarray | None = None,
    group_R: np.ndarray | None = None,
    fold_R: np.ndarray | None = None,
) -> dict[str, HeldOut]:
    """Predictions with their labels, by target; rows without a label (NaN) are left out of that target."""
    found = {}
    for k, known in enumerate(targets.properties):
        labelled = np.flatnonzero(~np.isnan(true_RK[:, k]))
        rows = rows_of_target(targets, predicted, k, distance_R, group_R).take(labelled)
        found[known.name] = HeldOut(true_RK[labelled, k], rows, None if fold_R is None else fold_R[labelled])
    return found


def out_of_fold(targets: Targets, true_RK: np.ndarray, predicted: Predicted, fold_R: np.ndarray) -> Calibration:
    """Rows each as the one member predicts it that did not see it: `fold_R` is that member's number."""
    assert predicted.members_MRK is not None
    value = predicted.members_MRK[fold_R, np.arange(len(fold_R))]
    of_others = Predicted(value, np.zeros_like(value), has_std=False)
    return Calibration(CROSS, by_target(targets, true_RK, of_others, fold_R=fold_R))


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write `calibration.json`."""
    targets = {name: _to_columns(of_target) for name, of_target in calibration.targets.items()}
    content = {"format": FORMAT, "source": calibration.source, "targets": targets}
    write_json(folder / CALIBRATION, content)


def load_calibration(folder: Path) -> Calibration:
    """What `save_calibration` wrote.

    Raises:
        MatfmError: the run has none, or the file is damaged or of another format.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        raise MatfmError(f"{folder} has no {CALIBRATION}; intervals and calibration need a run of matfm finetune")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MatfmError(f"{path} is not readable JSON ({error}); fine-tune again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise MatfmError(f"{path} has format {found!r}; this version reads {FORMAT}: fine-tune again")
    try:
        targets = {name: _of_columns(columns) for name, columns in content["targets"].items()}
        return Calibration(str(content["source"]), targets)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MatfmError(f"{path} does not hold rows as they are written ({error}); fine-tune again") from error


def _to_columns(of_target: HeldOut) -> dict[str, Any]:
    rows = of_target.rows
    columns: dict[str, np.ndarray | None] = {
        "true": of_target.true_R,
        "value": rows.value_R,
        "std": rows.std_R,
        **{f"{_QUANTILE}{level:g}": values for level, values in rows.quantiles.items()},
        "distance": rows.distance_R,
    }
    texts = {"group": rows.group_R, "fold": of_target.fold_R}
    return {
        **{name: _nine_digits(values) for name, values in columns.items() if values is not None},
        **{name: values.tolist() for name, values in texts.items() if values is not None},
    }


def _of_columns(columns: dict[str, Any]) -> HeldOut:
    def of(name: str) -> np.ndarray | None:
        return np.array(columns[name], dtype=np.float64) if name in columns else None

    quantiles = {
        float(name.removeprefix(_QUANTILE)): np.array(values, dtype=np.float64)
        for name, values in columns.items()
        if name.startswith(_QUANTILE)
    }
    group_R = np.array(columns["group"], dtype=object) if "group" in columns else None
    fold_R = np.array(columns["fold"], dtype=np.int64) if "fold" in columns else None
    value_R = np.array(columns["value"], dtype=np.float64)
    rows = TargetRows(value_R, of("std"), quantiles, of("distance"), group_R)
    return HeldOut(np.array(columns["true"], dtype=np.float64), rows, fold_R)


def _nine_digits(values: np.ndarray) -> Any:
    """As lists of numbers; nine digits hold every float32."""
    if values.ndim > 1:
        return [_nine_digits(row) for row in values]
    return [float(f"{value:.9g}") if math.isfinite(value) else None for value in values.tolist()]
