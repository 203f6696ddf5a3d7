"""Tables of any size through a model, row by row: what `predict`, `embed` and `translate` share.

One output row for each input row, in order; a row that cannot be read keeps its place, with empty outputs and the
reason in the column `error`. Memory does not grow with the table: finished chunks wait as parts on disk until the last
one is there, which is also what an interrupted run goes on from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from matfm.core.files import atomic_path
from matfm.tasks.encoding import EncodedRows, RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.labels import read_conditions
from matfm.tasks.streaming.journal import Journal, resumable
from matfm.tasks.streaming.tally import RowTally
from matfm.tasks.tables import Chunk, iterate_table, output_format, table_writer

ERROR = "error"
Compute = Callable[[Examples, list[str]], Mapping[str, np.ndarray]]
"""Readable rows and their cells to output columns, each with one entry (or vector) a row."""
Count = Callable[[Mapping[str, np.ndarray]], Mapping[str, int]]
"""Output columns of readable rows to numbers that the summary adds up."""


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
    """Name on the progress bar and in messages."""
    begun_with: Mapping[str, Any] = field(default_factory=dict)
    """What else decides the output, as JSON: a run can only be resumed with the same."""
    group: str = ""
    """Column with the name of each row's group; none if empty."""
    count: Count | None = None
    """What the summary counts beside the rows."""

    def run(self, compute: Compute, resume: bool = False) -> dict[str, Any]:
        """Write the table; returns counts and the first reasons, for the summary. `resume` goes on where it ended."""
        with resumable(self.out):
            return self._run(compute, resume)

    def _run(self, compute: Compute, resume: bool) -> dict[str, Any]:
        as_arrow = output_format(self.out) == "parquet"
        chunks = iterate_table(self.table)
        first = next(chunks)
        for name in (self.input, *self.conditions, *([self.group] if self.group else [])):
            first.column(name, self.table)
        types = {**dict.fromkeys(first.columns, pa.string()), **self.fields, ERROR: pa.string()}
        schema = pa.schema(list(types.items()))
        begun_with = {**self.begun_with, "input": self.input, "columns": [f"{n} {t}" for n, t in types.items()]}
        journal = Journal.open(self.out, self.label, begun_with, resume)
        tally = RowTally.of_state(journal.saved) if journal.saved else RowTally(self.encoder.kind)
        with tqdm(desc=self.label, unit="row", initial=journal.rows, disable=None, leave=False) as bar:
            for chunk in journal.pending(chain([first], chunks)):
                encoded = self.encoder(chunk.columns[self.input])
                columns, errors, counted = self._outputs(chunk, encoded, compute)
                _write_part(_part(journal, journal.chunks), pa.table({**chunk.columns, **columns}, schema=schema))
                tally.add(chunk, encoded, errors, counted)
                journal.record(chunk, tally.state())
                bar.update(chunk.rows)
        with table_writer(self.out, schema) as append:
            for number in range(journal.chunks):
                part = pq.ParquetFile(_part(journal, number)).read()
                append({name: part[name] if as_arrow else part[name].to_pylist() for name in types})
        journal.close()
        return tally.summary()

    def _outputs(
        self, chunk: Chunk, encoded: EncodedRows, compute: Compute
    ) -> tuple[dict[str, Any], dict[int, str], Mapping[str, int]]:
        """Output columns of a chunk, what is wrong with its rows by position, and what is counted of the others."""
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
        counted = self.count(values) if self.count is not None and len(rows) else {}
        return columns, errors, counted


def _part(journal: Journal, number: int) -> Path:
    """File of a finished chunk."""
    return journal.folder / f"{number:06d}.parquet"


def _write_part(path: Path, part: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(part, temporary)


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
