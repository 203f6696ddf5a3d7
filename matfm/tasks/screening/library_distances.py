"""How near a streamed library is to its support, in one pass and constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from matfm.tasks.few_shot.support_report import FARTHEST, LibraryDistances, SupportSet
from matfm.tasks.screening.top_rows import TopRows, random_keys

# B rows of a chunk, S support examples

SAMPLE = 1_000
"""Rows, drawn at random, whose distances are kept for quantiles; all else is counted over every row."""


class DistanceTally:
    """Counts over all rows, the farthest ones, and the distances of a random sample."""

    def __init__(self, support: SupportSet) -> None:
        self.reach = support.reach
        self.rows = 0
        self.covered = 0
        self.back_S = np.full(len(support.vectors_SD), np.inf)
        self.farthest = TopRows(FARTHEST)
        self.sample = TopRows(SAMPLE)

    def add(self, numbers_B: np.ndarray, distance_B: np.ndarray, back_S: np.ndarray) -> None:
        """Rows of a chunk by their numbers in the library, with what `SupportSet.measure` says of them."""
        self.rows += len(numbers_B)
        self.covered += int((distance_B <= self.reach).sum())
        self.back_S = np.fmin(self.back_S, back_S)
        for rows, keys_B in ((self.farthest, distance_B), (self.sample, random_keys(numbers_B))):
            for b in rows.candidates(keys_B, numbers_B):
                rows.keep(float(keys_B[b]), int(numbers_B[b]), {"row": int(numbers_B[b]), "apart": distance_B[b]})

    def result(self) -> LibraryDistances:
        """Of all rows so far."""
        farthest = self.farthest.ranked()
        return LibraryDistances(
            self.rows,
            self.covered,
            np.array([record["apart"] for record in self.sample.ranked()], np.float64),
            [record["row"] for record in farthest],
            float(farthest[0]["apart"]) if farthest else 0.0,
            self.back_S,
        )

    def state(self) -> dict[str, Any]:
        """As JSON."""
        # An example beside which no row was seen has no distance yet, and JSON has no infinity.
        back = [distance if np.isfinite(distance) else None for distance in self.back_S.tolist()]
        places = {"farthest": self.farthest.state(), "sample": self.sample.state()}
        return {"rows": self.rows, "covered": self.covered, "back": back, **places}

    @classmethod
    def of_state(cls, support: SupportSet, state: Mapping[str, Any]) -> DistanceTally:
        """From what `state` gave."""
        tally = cls(support)
        tally.rows, tally.covered = state["rows"], state["covered"]
        tally.back_S = np.array([np.inf if distance is None else distance for distance in state["back"]])
        tally.farthest = TopRows.of_state(FARTHEST, state["farthest"])
        tally.sample = TopRows.of_state(SAMPLE, state["sample"])
        return tally
