"""Rows that are each written in several ways, such as the SMILES of one molecule: an epoch sees one way of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from matfm.core.batching import RaggedTokens

# R rows, S sequences, K targets


@dataclass(frozen=True)
class VariedTokens:
    """Sequences `starts[r]` to `starts[r + 1]` are row r in its different ways. Batches name sequences, not rows."""

    sequences: RaggedTokens
    """All ways of all rows."""
    targets_RK: np.ndarray
    """Of the rows."""
    starts: np.ndarray
    """Shape (R + 1,), from 0 to S; every row has at least one way."""
    seed: int
    """Of the way that each row begins with."""

    @classmethod
    def evenly(cls, sequences: RaggedTokens, targets_RK: np.ndarray, ways: int, seed: int) -> VariedTokens:
        """Rows that all have as many ways."""
        return cls(sequences, targets_RK, np.arange(len(targets_RK) + 1) * ways, seed)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of_epoch(self, epoch: int) -> RaggedTokens:
        """Each row in its next way, so that a row's ways come in turn; `rows_B` of a batch numbers sequences."""
        numbers_R = self.starts[:-1] + (self._first_way_R + epoch) % np.diff(self.starts)
        taken = self.sequences.take(numbers_R)
        return RaggedTokens(taken.ids_N, taken.amounts_N, taken.offsets, self.targets_RK, numbers_R)

    @cached_property
    def _first_way_R(self) -> np.ndarray:  # noqa: N802 - the shape is part of the name
        return np.random.default_rng(self.seed).integers(np.diff(self.starts))
