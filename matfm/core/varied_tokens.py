"""Rows that are each written in several ways, such as the SMILES of one molecule: an epoch sees one way of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from matfm.core.batching import RaggedTokens

# R rows, S = R · ways sequences, K targets


@dataclass(frozen=True)
class VariedTokens:
    """Sequence `row · ways + way` is a row in one of its ways. Batches name sequences, not rows."""

    sequences: RaggedTokens
    """All ways of all rows."""
    targets_RK: np.ndarray
    """Of the rows."""
    ways: int
    """At least 1."""
    seed: int
    """Of the way that each row begins with."""

    def __len__(self) -> int:
        return len(self.sequences) // self.ways

    def of_epoch(self, epoch: int) -> RaggedTokens:
        """Each row in its next way, so that `ways` epochs see all of them; `rows_B` of a batch numbers sequences."""
        numbers_R = np.arange(len(self)) * self.ways + (self._first_way_R + epoch) % self.ways
        taken = self.sequences.take(numbers_R)
        return RaggedTokens(taken.ids_N, taken.amounts_N, taken.offsets, self.targets_RK, numbers_R)

    @cached_property
    def _first_way_R(self) -> np.ndarray:  # noqa: N802 - the shape is part of the name
        return np.random.default_rng([self.seed, self.ways]).integers(self.ways, size=len(self))
