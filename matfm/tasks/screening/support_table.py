"""The labelled examples of a screening: a small table in, inputs and labels out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from matfm.errors import MatfmError
from matfm.tasks.encoding import parse_number
from matfm.tasks.rejects import Reject
from matfm.tasks.tables import read_table

# S examples

_WORDS = {
    **dict.fromkeys(("active", "yes", "true", "positive", "+"), 1.0),
    **dict.fromkeys(("inactive", "no", "false", "negative", "-", "−"), 0.0),
}
"""What is read as a class without being told, in any case."""


@dataclass(frozen=True)
class SupportTable:
    """Examples that have a label."""

    inputs: list[str]
    """Formulas, SMILES or SELFIES."""
    cells: list[str]
    """Labels as written."""
    labels_S: np.ndarray
    """0 and 1 for two classes, else values; float64."""
    rows: list[int]
    """Row of each example in the table, from 0."""
    rejects: list[Reject]
    """Rows that are not used."""

    def take(self, positions: np.ndarray, rejects: list[Reject]) -> SupportTable:
        """The given examples; `rejects` says why the others are left out."""
        chosen = positions.tolist()
        return SupportTable(
            [self.inputs[s] for s in chosen],
            [self.cells[s] for s in chosen],
            self.labels_S[positions],
            [self.rows[s] for s in chosen],
            sorted([*self.rejects, *rejects], key=lambda reject: reject.row),
        )

    def digest(self) -> str:
        """SHA-256 of the examples and their labels."""
        pairs = [f"{text}\x1f{label!r}" for text, label in zip(self.inputs, self.labels_S.tolist(), strict=True)]
        return hashlib.sha256("\x1e".join(pairs).encode("utf-8", "surrogatepass")).hexdigest()


def read_support(path: str, input_column: str, label_column: str, positive: str | None = None) -> SupportTable:
    """Inputs and labels of a table.

    Labels are numbers, or words for two classes (active / inactive, yes / no, true / false, + / -); with `positive`,
    every cell equal to it is class 1 and every other one class 0. Rows without a label or with one that cannot be read
    are rejected.

    Raises:
        MatfmError: a column is missing, or no label is `positive`.
    """
    table = read_table(path)
    inputs, cells = table.column(input_column, path), table.column(label_column, path)
    labels = np.full(table.rows, np.nan)
    rejects = []
    for row, cell in enumerate(cells):
        reason = table.errors.get(row)
        if reason is None:
            try:
                labels[row] = _label(cell, positive)
                reason = "no label: the cell is empty" if np.isnan(labels[row]) else None
            except MatfmError as error:
                reason = str(error)
        if reason is not None:
            labels[row] = np.nan
            rejects.append(Reject(row, label_column, cell, reason))
    used = np.flatnonzero(~np.isnan(labels))
    if positive is not None and len(used) and not labels[used].any():
        raise MatfmError(f"{path}: no label in column {label_column!r} is {positive!r} (--positive)")
    return SupportTable(inputs, cells, labels, list(range(table.rows)), []).take(used, rejects)


def _label(cell: str, positive: str | None) -> float:
    text = cell.strip()
    if positive is not None and text:
        return float(text == positive)
    known = _WORDS.get(text.lower())
    if known is not None:
        return known
    try:
        return parse_number(cell)
    except MatfmError as error:
        raise MatfmError(f"{error}; name the wanted class with --positive if these are classes") from error
