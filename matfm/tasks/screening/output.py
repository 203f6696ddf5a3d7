"""The tables that a screening writes: rows of the library with what was found of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.tasks.screening.chunk_scorer import ChunkScorer
from matfm.tasks.screening.diversity import maxmin_pick
from matfm.tasks.screening.next_rows import Selection
from matfm.tasks.screening.support_table import SupportTable
from matfm.tasks.tables import table_writer

FIELDS = {
    "rank": pa.int64(),
    "row": pa.int64(),
    "score": pa.float64(),
    "uncertainty": pa.float64(),
    "applicable": pa.string(),
    "nearest_support": pa.string(),
    "nearest_label": pa.string(),
}
"""Columns of the output beside the library's; one of the library with such a name is replaced."""


@dataclass(frozen=True)
class Output:
    """Writes rows of the library with what was found of them."""

    columns: list[str]
    """Of the library."""
    input: str
    """That of the formulas, SMILES or SELFIES."""
    support: SupportTable
    job: ChunkScorer

    def write_best(self, path: str, best: list[dict[str, Any]], diversity: int | None) -> int:
        """A table of rows, the best one first, or of `diversity` of them; returns its number of rows."""
        ranked = list(enumerate(best, start=1))
        if diversity is not None:
            picked = maxmin_pick(self.job.domain.standard(self._vectors(best)).numpy(), diversity)
            ranked = [ranked[position] for position in picked]
        return self._write(path, [{**self._written(record), "rank": rank} for rank, record in ranked], tuple(FIELDS))

    def write_next(self, path: str, pool: list[dict[str, Any]], selection: Selection) -> int:
        """A table of the rows to label next, chosen from a pool; returns its number of rows."""
        if selection.how != "most-uncertain":
            pool = sorted(pool, key=lambda record: record["row"])
        place = 0 if selection.column is None else self.columns.index(selection.column)
        uncertainty_P = np.array([record["uncertainty"] for record in pool])
        chosen = selection.choose(self._vectors(pool), uncertainty_P, [record["cells"][place] for record in pool])
        records = [self._written(pool[position]) for position in chosen]
        return self._write(path, records, tuple(name for name in FIELDS if name != "rank"))

    def _vectors(self, records: list[dict[str, Any]]) -> np.ndarray:
        place = self.columns.index(self.input)
        return self.job.describe.embeddings([record["cells"][place] for record in records])

    def _written(self, record: dict[str, Any]) -> dict[str, Any]:
        return {
            **dict(zip(self.columns, record["cells"], strict=True)),
            **{name: record[name] for name in ("row", "score", "uncertainty", "applicable")},
            "nearest_support": self.support.inputs[record["nearest"]],
            "nearest_label": self.support.cells[record["nearest"]],
        }

    def _write(self, path: str, records: list[dict[str, Any]], fields: tuple[str, ...]) -> int:
        types = {name: FIELDS[name] for name in fields}
        types |= {name: pa.string() for name in self.columns if name not in FIELDS}
        with table_writer(path, pa.schema(list(types.items()))) as append:
            append({name: [record[name] for record in records] for name in types})
        return len(records)
