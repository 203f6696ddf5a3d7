"""Labels beside predictions, as a run wrote them: what pictures and scores of a page rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.chem.units import Property
from matfm.tasks.targets import Targets

# R rows of the part that is shown, C classes

PARTS = {
    "test": "test",
    "valid": "validation",
    "train": "training",
    "target_test": "target test",
    "target_valid": "target validation",
    "target_train": "target training",
    "source_test": "source test",
    "source_valid": "source validation",
    "source_train": "source training",
}
"""Parts of a table for people."""
SHOWN_PARTS = ("test", "valid", "train")
"""The first of these that has labels is shown."""
SHOWN_PARTS_OF_SIDES = (
    "target_test",
    "target_valid",
    "source_test",
    "source_valid",
    "target_train",
    "source_train",
)
"""Likewise where rows are of a source or a target (`matfm adapt`)."""


@dataclass(frozen=True)
class Results:
    """Labels and predictions of one target on the rows that are shown: test rows, else validation or training rows."""

    name: str
    unit: str
    classes: tuple[str, ...]
    """Names of the classes; empty for a number."""
    part: str
    """One of `SHOWN_PARTS` or `SHOWN_PARTS_OF_SIDES`."""
    row_R: np.ndarray
    """Row in the table that the run was given, from 0."""
    inputs: list[str]
    true_R: np.ndarray
    """Labels, or indices of classes."""
    value_R: np.ndarray
    """Predictions, or probabilities (R, C)."""
    std_R: np.ndarray | None
    quantiles: dict[float, np.ndarray]
    train_R: np.ndarray
    """Exact labels of the training rows; another R."""
    tables: list[str]
    """Name of each row's table; empty where the run was given one table."""
    control_R: np.ndarray | None
    """What the model without adaptation predicts; None for classes and where there is no such model."""

    @property
    def errors(self) -> np.ndarray:
        """(R,): distance from the label in its unit; of classes, 1 where the likeliest is wrong."""
        if self.classes:
            wrong: np.ndarray = (self.value_R.argmax(axis=1) != self.true_R).astype(np.float64)
            return wrong
        distance: np.ndarray = np.abs(self.true_R - self.value_R)
        return distance

    @property
    def label(self) -> str:
        """Name with unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def part_name(self) -> str:
        """For people: test, source validation, …"""
        return PARTS[self.part]

    @property
    def error_name(self) -> str:
        """What the mean of `errors` is."""
        if self.classes:
            return "share of wrong classes"
        return f"mean absolute error ({self.unit})" if self.unit else "mean absolute error"


def results_of(
    table: pa.Table, input_column: str, names: list[str], units: dict[str, Any], class_names: list[Any] | None
) -> list[Results]:
    """Of every target that has exact labels.

    Args:
        table: `predictions.parquet`.
        input_column: with the formulas, SMILES or SELFIES.
        names: of the targets.
        units: target to unit.
        class_names: of the target's classes, or for several targets a list of each; None for numbers.

    Raises:
        KeyError: a column is missing.
    """
    every_class = _classes(class_names)
    if every_class:
        columns_of = Targets(tuple(Property(name, "") for name in names), every_class).class_columns("probability")
    of_sides = "side" in table.column_names
    parts = np.array(table["part"].to_pylist(), dtype=object)
    is_train = parts == "train"
    if of_sides:
        parts = np.array([f"{side}_{part}" for side, part in zip(table["side"].to_pylist(), parts, strict=True)])
    found = []
    for k, name in enumerate(names):
        true = _numbers(table, name)
        exact = np.isfinite(true)
        if f"{name}_censored" in table.column_names:
            exact &= np.array([not sign for sign in table[f"{name}_censored"].to_pylist()])
        choices = SHOWN_PARTS_OF_SIDES if of_sides else SHOWN_PARTS
        part = next((part for part in choices if (exact & (parts == part)).any()), None)
        if part is None:
            continue
        rows = np.flatnonzero(exact & (parts == part))
        shown = table.take(pa.array(rows))
        value = (
            np.stack([_numbers(shown, column) for column in columns_of[k]], axis=1)
            if every_class
            else _numbers(shown, f"predicted_{name}")
        )
        classes = every_class[k] if every_class else ()
        unit = str(units.get(name) or "")
        further = _further(shown, input_column, name, classes)
        found.append(Results(name, unit, classes, part, **further, true_R=true[rows], value_R=value,
                             train_R=true[exact & is_train]))  # fmt: skip
    return found


def _further(shown: pa.Table, input_column: str, name: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """What rows are called, and what is predicted beside the value."""
    std, control, beginning = f"predicted_{name}_std", f"control_{name}", f"predicted_{name}_q"
    has = set(shown.column_names)
    return {
        "row_R": _numbers(shown, "row").astype(np.int64),
        "inputs": [str(text) for text in shown[input_column].to_pylist()],
        "std_R": _numbers(shown, std) if std in has else None,
        "quantiles": {
            float(column.removeprefix(beginning)): _numbers(shown, column)
            for column in shown.column_names
            if column.startswith(beginning) and _is_number(column.removeprefix(beginning))
        },
        "tables": [str(table) for table in shown["table"].to_pylist()] if {"side", "table"} <= has else [],
        "control_R": _numbers(shown, control) if "side" in has and control in has and not classes else None,
    }


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist(), dtype=np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(names: list[Any] | None) -> tuple[tuple[str, ...], ...]:
    """Names of the classes of every target; none for numbers."""
    if not names:
        return ()
    several = names if isinstance(names[0], list) else [names]
    return tuple(tuple(str(label) for label in labels) for labels in several)
