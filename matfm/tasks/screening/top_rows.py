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


def random_keys(numbers_B: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each row number, as if drawn, but always the same (SplitMix64, Steele et al. 2014).

    The rows with the highest ones are a random sample of a library, whatever its chunks are.
    """
    mixed = (numbers_B.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    drawn: np.ndarray = (mixed >> np.uint64(11)) * 2.0**-53
    return drawn
