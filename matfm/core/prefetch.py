"""Batches read ahead in a thread, while the model computes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from matfm.core.batching import TokenBatch

if TYPE_CHECKING:  # the loop may wrap its batches itself
    from matfm.core.trainer import Batches


class PrefetchedBatches:
    """The batches of another source, in its order; the position is that of the last batch handed out.

    One thread reads, so nothing is drawn twice or out of order, and an error of the source is raised by `next`.
    """

    def __init__(self, source: Batches, ahead: int = 2) -> None:
        """Take over `source` (which must not be used directly any more), `ahead` (at least 1) batches in advance."""
        if ahead < 1:
            raise ValueError(f"ahead is {ahead}; at least one batch is read in advance")
        self.source = source
        self.ahead = ahead
        self._state = source.state_dict()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._waiting: deque[Future[tuple[TokenBatch, dict[str, int]]]] = deque()

    def next(self) -> TokenBatch:
        """The next batch; moves the position."""
        while len(self._waiting) <= self.ahead:
            self._waiting.append(self._pool.submit(self._read))
        batch, self._state = self._waiting.popleft().result()
        return batch

    def state_dict(self) -> dict[str, int]:
        """The position after the last batch handed out, in the source's terms."""
        return self._state

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position; batches read in advance are dropped."""
        self._drop()
        self.source.load_state_dict(state)
        self._state = self.source.state_dict()

    def close(self) -> None:
        """End the thread; a closed source gives no more batches."""
        self._drop()
        self._pool.shutdown()

    def _read(self) -> tuple[TokenBatch, dict[str, int]]:
        return self.source.next(), dict(self.source.state_dict())

    def _drop(self) -> None:
        for future in self._waiting:
            future.cancel()
        for future in self._waiting:
            if not future.cancelled():
                future.exception()  # waits for the batch being read
        self._waiting.clear()
