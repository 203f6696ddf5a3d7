"""The best rows of a stream, in memory that does not grow with it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

# B rows of a chunk


class TopRows:
    """The `size` rows with the highest keys so far. Of equal keys the row with the lower number is better."""

    def __init__(self, size: int) -> None:
        self.size = size
        # The worst row is first. Row numbers differ, so what comes behind them is never compared.
        self._heap: list[tuple[float, int, dict[str, Any]]] = []

    def candidates(self, keys_B: np.ndarray, numbers_B: np.ndarray) -> list[int]:
        """Positions of the given rows (numbers higher than all before) that may enter, the best first.

        What belongs to these is then given to `keep`.
        """
        better = np.arange(len(keys_B))
        if len(self._heap) == self.size:
            better = np.flatnonzero(keys_B > self._heap[0][0])
        order = np.lexsort((numbers_B[better], -keys_B[better]))
        entering: list[int] = better[order][: self.size].tolist()
        return entering

    def keep(self, key: float, number: int, record: dict[str, Any]) -> None:
        """Put a row (its record is JSON) in the place of the worst one, if it is better."""
        entry = (key, -number, record)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def ranked(self) -> list[dict[str, Any]]:
        """Records, the best row first."""
        return [record for _, _, record in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]

    def state(self) -> list[Any]:
        """As JSON."""
        return [list(entry) for entry in self._heap]

    @classmethod
    def of_state(cls, size: int, state: Sequence[Any]) -> TopRows:
        """From what `state` gave."""
        top = cls(size)
        top._heap = [(key, number, record) for key, number, record in state]
        return top
