"""Which rows of a streamed library to label next: chosen from a pool of them that is kept while it streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matfm.errors import MatfmError
from matfm.tasks.few_shot.support import POOL, medoids, most_uncertain, stratified
from matfm.tasks.screening.top_rows import random_keys

# B rows of a chunk, P rows of the pool, D width

SAMPLE = 1_000
"""Rows, drawn at random, that medoids are chosen from (more if more than a tenth of them is asked for)."""
_STRATIFIED = "stratified:"
CHOICES = ("most-uncertain", "medoids", f"{_STRATIFIED}COLUMN")


@dataclass(frozen=True)
class Selection:
    """How many rows, and how they are chosen."""

    count: int
    how: str
    """most-uncertain, medoids or stratified:COLUMN."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise MatfmError(f"--next is {self.count}; choose at least one row")
        if self.how not in CHOICES[:2] and not self.column:
            raise MatfmError(f"--select is {self.how!r}; choose one of {', '.join(CHOICES)}")

    @property
    def column(self) -> str | None:
        """Of the library, whose values are the groups."""
        return self.how.removeprefix(_STRATIFIED) if self.how.startswith(_STRATIFIED) else None

    @property
    def pool(self) -> int:
        """Rows to keep for the choice."""
        return POOL * self.count if self.how == "most-uncertain" else max(SAMPLE, POOL * self.count)

    def keys(self, numbers_B: np.ndarray, uncertainty_B: np.ndarray) -> np.ndarray:
        """What decides which rows come into the pool, those with the highest ones."""
        return uncertainty_B if self.how == "most-uncertain" else random_keys(numbers_B)

    def choose(self, vectors_PD: np.ndarray, uncertainty_P: np.ndarray, groups_P: list[str]) -> list[int]:
        """Positions in the pool, ascending; all of them if there are no more than were asked for.

        Of more groups than rows the smallest are left out.
        """
        generator = np.random.default_rng(0)
        if len(vectors_PD) <= self.count:
            return list(range(len(vectors_PD)))
        if self.how == "most-uncertain":
            return [int(p) for p in most_uncertain(vectors_PD, uncertainty_P, self.count, generator)]
        if self.column is None:
            return [int(p) for p in medoids(vectors_PD, self.count, generator)]
        _, group_P, sizes = np.unique(np.asarray(groups_P), return_inverse=True, return_counts=True)
        largest = np.argsort(-sizes, kind="stable")[: self.count]
        used = np.flatnonzero(np.isin(group_P, largest))
        count = min(self.count, len(used))
        return [int(used[p]) for p in stratified(vectors_PD[used], group_P[used].tolist(), count, generator)]
