"""Tables of any size through a model, row by row: what `predict` and `embed` share.

One output row for each input row, in order; a row that cannot be read keeps its place, with empty outputs and the
reason in the column `error`. Memory does not grow with the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from matfm.tasks.encoding import EncodedRows, RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.labels import read_conditions
from matfm.tasks.readings import SHOWN, readings_to_check, vocabulary_report
from matfm.tasks.tables import Chunk, iterate_table, table_writer

ERROR = "error"
Compute = Callable[[Examples, list[str]], Mapping[str, np.ndarray]]
"""Readable rows and their cells to output columns, each with one entry (or vector) a row."""


@dataclass(frozen=True)
class RowStream:
    """A table to read and one to write."""

    table: str
    """Path, or - for CSV on standard input."""
    input: str
    """Column with the formulas, SMILES or SELFIES."""
    out: str
    encoder: RowEncoder
    fields: Mapping[str, pa.DataType]
    """Output columns; an input column of the same name is replaced."""
    conditions: tuple[str, ...] = ()
    """Numeric columns that every row must have."""
    label: str = "rows"
    """Name on the progress bar."""
    group: str = ""
    """Column with the name of each row's group; none if empty."""

    def run(self, compute: Compute) -> dict[str, Any]:
        """Write the table; returns counts and the first reasons, for the summary."""
        chunks = iterate_table(self.table)
        first = next(chunks)
        for name in (self.input, *self.conditions, *([self.group] if self.group else [])):
            first.column(name, self.table)
        types = {**dict.fromkeys(first.columns, pa.string()), **self.fields, ERROR: pa.string()}
        schema = pa.schema(list(types.items()))
        tally = _Tally(self.encoder.kind)
        with (
            table_writer(self.out, schema) as append,
            tqdm(desc=self.label, unit="row", disable=None, leave=False) as bar,
        ):
            chunk: Chunk | None = first
            while chunk is not None:
                encoded = self.encoder(chunk.columns[self.input])
                columns, errors = self._outputs(chunk, encoded, compute)
                append({**chunk.columns, **columns})
                tally.add(chunk, encoded, errors)
                bar.update(chunk.rows)
                chunk = next(chunks, None)
        return tally.summary()

    def _outputs(self, chunk: Chunk, encoded: EncodedRows, compute: Compute) -> tuple[dict[str, Any], dict[int, str]]:
        """Output columns of a chunk, and what is wrong with its rows by position."""
        errors = {**encoded.errors, **chunk.errors}
        beside = None
        if self.conditions:
            beside, wrong = read_conditions(chunk, self.table, self.conditions)
            errors = {**{row: reason for row, (_, reason) in wrong.items()}, **errors}
        readable = np.flatnonzero([row not in errors for row in encoded.rows])
        rows = encoded.rows[readable]
        values: Mapping[str, np.ndarray] = {}
        if len(rows):
            conditions = None if beside is None else beside[rows]
            groups = np.array(chunk.columns[self.group], dtype=object)[rows] if self.group else None
            examples = Examples(encoded.tokens.take(readable), conditions_SC=conditions, group_S=groups)
            cells = chunk.columns[self.input]
            values = compute(examples, [cells[row] for row in rows])
        columns: dict[str, Any] = {
            name: _placed(values.get(name), rows, chunk.rows, kind) for name, kind in self.fields.items()
        }
        columns[ERROR] = [errors.get(row) for row in range(chunk.rows)]
        return columns, errors


@dataclass
class _Tally:
    """What the rows were, over all chunks."""

    kind: str
    rows: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    to_check: int = 0
    warnings: dict[int, str] = field(default_factory=dict)
    """The first ones; the count says how many there are."""
    unknown: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    first_truncated: list[int] = field(default_factory=list)

    def add(self, chunk: Chunk, encoded: EncodedRows, errors: dict[int, str]) -> None:
        self.to_check += len(encoded.warnings)
        for row, reading in islice(sorted(encoded.warnings.items()), SHOWN - len(self.warnings)):
            self.warnings[chunk.first_row + row] = reading
        self.unknown.update(encoded.unknown)
        self.truncated += encoded.truncated
        cut = encoded.truncated_rows[: SHOWN - len(self.first_truncated)]
        self.first_truncated += [chunk.first_row + row for row in cut]
        for row, reason in sorted(errors.items()):
            self.failed += 1
            if len(self.reasons) < SHOWN:
                self.reasons.setdefault(reason, chunk.first_row + row)
        self.rows += chunk.rows

    def summary(self) -> dict[str, Any]:
        return {
            "rows_in": self.rows,
            "rows_done": self.rows - self.failed,
            "rows_with_error": self.failed,
            **readings_to_check(self.warnings, self.to_check),
            **vocabulary_report(self.kind, self.unknown, self.first_truncated, self.truncated),
            "first_errors": [{"row": row, "reason": reason} for reason, row in self.reasons.items()],
        }


def _placed(values: np.ndarray | None, rows: np.ndarray, count: int, kind: pa.DataType) -> Any:
    """Values of the readable rows at their places among all; the others are empty."""
    if pa.types.is_fixed_size_list(kind):
        whole = np.zeros((count, kind.list_size), np.float32)
        empty = np.ones(count, dtype=bool)
        if values is not None:
            whole[rows], empty[rows] = values, False
        return pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), type=kind, mask=pa.array(empty))
    cells: list[Any] = [None] * count
    if values is not None:
        for row, value in zip(rows.tolist(), values.tolist(), strict=True):
            cells[row] = value
    return cells
