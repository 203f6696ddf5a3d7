"""Cells of a labelled table to numbers: labels (censored ones too), classes, weights and conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from matfm.errors import MatfmError
from matfm.tasks.encoding import parse_number
from matfm.tasks.tables import Chunk

# R rows of the table, K targets, C conditions

_CENSORED = re.compile(r"\s*(<=|>=|<|>|≤|≥)(.*)", re.DOTALL)
_SIDE = {"<": -1, "<=": -1, "≤": -1, ">": 1, ">=": 1, "≥": 1}
_FEWEST_CLASSES, _MANY_CLASSES = 2, 20


@dataclass
class TableLabels:
    """What a table says beside its input column, one entry for each row."""

    targets_RK: np.ndarray
    """Labels or class indices; NaN where missing or unreadable."""
    side_RK: np.ndarray
    """-1 where the true value is below the label (`<5`), +1 where above, 0 where it is exact; int8."""
    classes: tuple[tuple[str, ...], ...] | None
    """Names of the classes of each target of a classification."""
    weight_R: np.ndarray | None = None
    """Weights in the loss; NaN where unreadable."""
    conditions_RC: np.ndarray | None = None
    """Conditions; NaN where missing or unreadable."""
    reasons: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Row that cannot be used, to the column and what is wrong there."""

    def reject(self, row: int, column: str, reason: str) -> None:
        """Note why a row cannot be used; the first reason stays."""
        self.reasons.setdefault(row, (column, reason))


def read_labels(
    table: Chunk,
    source: str,
    targets: Sequence[str],
    task: str,
    conditions: Sequence[str] = (),
    weight: str = "",
    unreadable: Collection[int] = (),
) -> TableLabels:
    """Read the columns of labels, conditions and weights; unreadable cells are reported, not raised.

    A row with no label at all is reported; a missing one among several is NaN. Classes are those of rows that can be
    used: not of the `unreadable` ones, nor of those without a condition or weight.

    Raises:
        MatfmError: there is no such column, or the target of a classification is no list of classes.
    """
    cells = {name: table.column(name, source) for name in targets}
    shape = (table.rows, len(targets))
    labels = TableLabels(np.full(shape, np.nan), np.zeros(shape, np.int8), None)
    beside: dict[int, tuple[str, str]] = {}
    if weight:
        labels.weight_R, beside = _numbers(table.column(weight, source), weight, "weight", _positive)
    if conditions:
        labels.conditions_RC, wrong = read_conditions(table, source, conditions)
        beside = {**beside, **wrong}
    if task == "classification":
        _read_classes(labels, cells, {*unreadable, *beside})
    else:
        _read_numbers(labels, cells)
    for row in np.flatnonzero(np.isnan(labels.targets_RK).all(axis=1)).tolist():
        if not any(column[row].strip() for column in cells.values()):
            labels.reject(row, targets[0], "no label: the target cell is empty")
    for row, (name, reason) in beside.items():
        labels.reject(row, name, reason)
    return labels


def _read_numbers(labels: TableLabels, cells: dict[str, list[str]]) -> None:
    for k, (name, column) in enumerate(cells.items()):
        for row, cell in enumerate(column):
            try:
                labels.targets_RK[row, k], labels.side_RK[row, k] = parse_label(cell)
            except MatfmError as error:
                labels.reject(row, name, str(error))


def _read_classes(labels: TableLabels, cells: dict[str, list[str]], unusable: Collection[int]) -> None:
    names = []
    for k, (name, column) in enumerate(cells.items()):
        names.append(class_names([cell for row, cell in enumerate(column) if row not in unusable], name))
        index = {label: number for number, label in enumerate(names[-1])}
        labels.targets_RK[:, k] = [index.get(cell.strip(), np.nan) for cell in column]
    labels.classes = tuple(names)


def read_conditions(table: Chunk, source: str, names: Sequence[str]) -> tuple[np.ndarray, dict[int, tuple[str, str]]]:
    """Conditions (R, C) float32 in the units of their columns, and row to column and reason where one is missing.

    Raises:
        MatfmError: there is no such column.
    """
    columns: list[np.ndarray] = []
    wrong: dict[int, tuple[str, str]] = {}
    for name in names:
        values_R, reasons = _numbers(table.column(name, source), name, "condition", lambda value: None)
        columns.append(values_R)
        wrong = {**reasons, **wrong}
    return np.stack(columns, axis=1).astype(np.float32), wrong


def parse_label(cell: str) -> tuple[float, int]:
    """A label and its side: (5, -1) for `<5` or `≤ 5`, (10, +1) for `>10`, (5, 0) for `5`, (NaN, 0) for nothing.

    Raises:
        MatfmError: the cell is not a finite number, or a sign stands alone.
    """
    match = _CENSORED.fullmatch(cell)
    if match is None:
        return parse_number(cell), 0
    if not match[2].strip():
        raise MatfmError(f"{cell[:40]!r} is not a number")
    return parse_number(match[2]), _SIDE[match[1]]


def class_names(cells: list[str], target: str) -> tuple[str, ...]:
    """The different cells, sorted; empty ones are missing labels.

    Raises:
        MatfmError: there is only one, or so many that these look like numbers.
    """
    names = tuple(sorted({cell.strip() for cell in cells if cell.strip()}))
    if len(names) < _FEWEST_CLASSES:
        raise MatfmError(f"classification needs at least two classes; the target {target!r} has {len(names)}")
    if len(names) > max(_MANY_CLASSES, len(cells) // 5):
        raise MatfmError(
            f"the target {target!r} has {len(names)} different values; is it a regression? Use --task regression"
        )
    return names


def _numbers(
    cells: list[str], name: str, what: str, complaint: Callable[[float], str | None]
) -> tuple[np.ndarray, dict[int, tuple[str, str]]]:
    """Numbers of a column in which none may be missing, and row to column and reason."""
    values_R = np.full(len(cells), np.nan)
    wrong: dict[int, tuple[str, str]] = {}
    for row, cell in enumerate(cells):
        try:
            values_R[row] = parse_number(cell)
        except MatfmError as error:
            wrong[row] = (name, str(error))
            continue
        reason = f"the {what} {name!r} is missing" if np.isnan(values_R[row]) else complaint(values_R[row])
        if reason:
            wrong[row] = (name, reason)
    return values_R, wrong


def _positive(weight: float) -> str | None:
    return None if weight > 0 else f"the weight is {weight:g}; it must be positive"
