"""Batches with a fixed number of rows of every domain: endless, deterministic, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matfm.core.batching import EpochTokens, TokenBatch


@dataclass(frozen=True)
class RowGroup:
    """Rows that are drawn from together."""

    rows: np.ndarray
    """Positions in the data, at least one."""
    count: int
    """Rows of each batch; no more than there are."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= len(self.rows):
            raise ValueError(f"{self.count} rows of {len(self.rows)} cannot be drawn")


class GroupedBatches:
    """Every batch holds `count` rows of each group; a group begins anew, in another order, when its rows were all seen.

    Batch `i` depends only on (seed, i), so any position can be resumed. Where a row can be written in several ways, an
    epoch, in which the rows of the first group are seen once, has one of them.

    Args:
        source: rows of all groups.
        groups: the first one decides how long an epoch is.
        seed: of the orders.
        batches: of the whole training, to tell its progress.
    """

    def __init__(self, source: EpochTokens, groups: Sequence[RowGroup], seed: int, batches: int) -> None:
        self.source = source
        self.groups = tuple(groups)
        self.seed = seed
        self.batches = batches
        self.index = 0
        self._epoch = -1
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @property
    def progress(self) -> float:
        """Share of the training before the newest batch, in [0, 1)."""
        return max(0, self.index - 1) / self.batches

    def next(self) -> TokenBatch:
        """The next batch; moves the position."""
        epoch = self.index * self.groups[0].count // len(self.groups[0].rows)
        if epoch != self._epoch:
            self._epoch, self._data = epoch, self.source.of_epoch(epoch)
        rows = np.concatenate([self._drawn(number) for number in range(len(self.groups))])
        self.index += 1
        return self._data.batch(rows)

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"index": self.index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position."""
        self.index = state["index"]

    def _drawn(self, number: int) -> np.ndarray:
        group = self.groups[number]
        first = self.index * group.count
        cycle, at = divmod(first, len(group.rows))
        rows = self._order(number, cycle)[at : at + group.count]
        lacking = group.count - len(rows)
        return np.concatenate([rows, self._order(number, cycle + 1)[:lacking]]) if lacking else rows

    def _order(self, number: int, cycle: int) -> np.ndarray:
        key = (number, cycle)
        if key not in self._orders:
            older = (number, cycle - 1)
            self._orders = {kept: order for kept, order in self._orders.items() if kept[0] != number or kept == older}
            rows = self.groups[number].rows
            self._orders[key] = rows[np.random.default_rng([self.seed, number, cycle]).permutation(len(rows))]
        return self._orders[key]
