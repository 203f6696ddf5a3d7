"""What a screening has found so far, in memory that does not grow with the library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from matfm.tasks.few_shot.support_report import SupportSet
from matfm.tasks.screening.chunk_scorer import ScoredChunk
from matfm.tasks.screening.library_distances import DistanceTally
from matfm.tasks.screening.next_rows import Selection
from matfm.tasks.screening.top_rows import TopRows
from matfm.tasks.streaming.tally import RowTally
from matfm.tasks.tables import Chunk

# B readable rows of a chunk, U those that are used


@dataclass
class Findings:
    """The best rows, the pool of rows to label next, how near the library is to the support, and counts."""

    top: TopRows
    pool: TopRows
    distances: DistanceTally
    tally: RowTally
    support: SupportSet
    minimize: bool
    """Whether low scores are the best."""
    selection: Selection | None
    """Of the rows to label next."""

    @classmethod
    def begin(
        cls, top: int, minimize: bool, selection: Selection | None, support: SupportSet, kind: str,
        saved: Mapping[str, Any],
    ) -> Findings:  # fmt: skip
        """Nothing yet, or what `state` gave."""
        pool = 0 if selection is None else selection.pool
        parts = (support, minimize, selection)
        if not saved:
            return cls(TopRows(top), TopRows(pool), DistanceTally(support), RowTally(kind), *parts)
        return cls(
            TopRows.of_state(top, saved["top"]),
            TopRows.of_state(pool, saved["pool"]),
            DistanceTally.of_state(support, saved["distances"]),
            RowTally.of_state(saved["tally"]),
            *parts,
        )

    def state(self) -> dict[str, Any]:
        """As JSON."""
        best = {"top": self.top.state(), "pool": self.pool.state()}
        return {**best, "distances": self.distances.state(), "tally": self.tally.state()}

    def enter(self, chunk: Chunk, scored: ScoredChunk) -> dict[int, str]:
        """Give the rows of a chunk their places; returns what is wrong with its rows by position."""
        errors = {**scored.reading.errors, **chunk.errors}
        finite_B = np.isfinite(scored.score_B)
        errors |= {int(row): "the score is not a finite number" for row in scored.reading.rows[~finite_B]}
        used_U = np.flatnonzero([row not in errors for row in scored.reading.rows.tolist()])
        score_U = scored.score_B[used_U]
        _keep(self.top, -score_U if self.minimize else score_U, used_U, chunk, scored)
        if self.selection is not None:  # what has a label needs no other one
            new_U = used_U[scored.distance_B[used_U] > self.support.same]
            numbers_U = chunk.first_row + scored.reading.rows[new_U]
            _keep(self.pool, self.selection.keys(numbers_U, scored.uncertainty_B[new_U]), new_U, chunk, scored)
        numbers_U = chunk.first_row + scored.reading.rows[used_U]
        self.distances.add(numbers_U, scored.distance_B[used_U], scored.back_S)
        self.tally.add(chunk, scored.reading, errors)
        return errors


def _keep(best: TopRows, keys_U: np.ndarray, used_U: np.ndarray, chunk: Chunk, scored: ScoredChunk) -> None:
    """Offer rows with all that is written of them."""
    rows_U = scored.reading.rows[used_U]
    for position in best.candidates(keys_U, rows_U):
        b, row = used_U[position], int(rows_U[position])
        number = chunk.first_row + row
        record = {
            "row": number,
            "score": float(scored.score_B[b]),
            "uncertainty": float(scored.uncertainty_B[b]),
            "applicable": "yes" if scored.applicable_B[b] else "no",
            "nearest": int(scored.nearest_B[b]),
            "cells": [cells[row] for cells in chunk.columns.values()],
        }
        best.keep(float(keys_U[position]), number, record)
