"""Endless batches from a token file of any size: shuffled without an index in memory, resumable, shared by processes.

The file is read in a pseudo-random order of its sequences (`RandomOrder`). A pool is a stretch of that order of about
`length_pool` batches; only the lengths of one pool are ever in memory. Within a pool the sequences are sorted by
length and cut into batches, so that a batch has few different lengths and its packed layout few runs.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable

import numpy as np

from matfm.core.batching import RaggedTokens, TokenBatch, groups_of_similar_length
from matfm.core.random_order import RandomOrder
from matfm.errors import MatfmError

Keep = Callable[[np.ndarray], np.ndarray]
"""Rows to whether they are read, for rows that depend on nothing but the file."""

# R sequences, W sequences of a pool


class TokenReader:
    """Batches of the sequences of a token file, each exactly once per epoch over all processes.

    The global batches depend only on (data, tokens, seed, length_pool): with more processes each takes every
    `world`-th sequence of the same batches, and a run may be resumed with another number of processes. Where the loop
    deals whole batches out to its processes, `world` stays 1 on all of them.

    Sequences are never joined or cut: a batch is packed, and a sequence longer than `tokens` is a batch of its own.
    """

    def __init__(
        self,
        data: RaggedTokens,
        tokens: int,
        seed: int,
        *,
        length_pool: int = 64,
        rank: int = 0,
        world: int = 1,
        keep: Keep | None = None,
    ) -> None:
        """Start at the first batch of epoch 0.

        Args:
            data: as from `open_tokens`.
            tokens: budget of a global batch, that is of all processes together.
            seed: of the order.
            length_pool: batches' worth of sequences that are sorted by length together.
            rank: which of the processes this is, 0 to world - 1.
            world: number of processes.
            keep: which rows are read (at least one must be); None for all.

        Raises:
            MatfmError: the token file has fewer sequences than there are processes.
        """
        if tokens < 1 or length_pool < 1 or not 0 <= rank < world:
            raise ValueError(f"tokens {tokens}, length_pool {length_pool}, rank {rank}, world {world} do not fit")
        if len(data) < world:
            raise MatfmError(f"the token file has {len(data)} sequences, too few for {world} processes")
        self.data = data
        self.tokens = tokens
        self.seed = seed
        self.rank, self.world = rank, world
        self.keep = keep
        self.total_tokens = int(data.offsets[-1])
        self.pools = min(len(data), max(1, round(self.total_tokens / (tokens * length_pool))))
        self._advise("MADV_RANDOM")
        self._go_to(0, 0, 0)

    @property
    def batches_per_epoch(self) -> int:
        """About: how the pools are cut is known only when they are reached, and so are the rows that are kept."""
        return math.ceil(self.total_tokens / self.tokens)

    def next(self) -> TokenBatch:
        """This process's part of the next global batch; moves the position."""
        while self.index == len(self._plan):
            pool = self.pool + 1
            self._go_to(self.epoch + pool // self.pools, pool % self.pools, 0)
        rows = self._plan[self.index]
        self.index += 1
        batch = self.data.batch(rows[self.rank :: self.world])
        self._advise("MADV_DONTNEED")
        return batch

    def state_dict(self) -> dict[str, int]:
        """The position: epoch, pool in the epoch, and index of the next batch in the pool."""
        return {"epoch": self.epoch, "pool": self.pool, "index": self.index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position, at the cost of planning one pool.

        Raises:
            MatfmError: the position is not in this file (the data, the budget or the pools are others).
        """
        self._go_to(state["epoch"], state["pool"], state["index"])

    def _go_to(self, epoch: int, pool: int, index: int) -> None:
        if not 0 <= pool < self.pools:
            raise MatfmError(f"the saved position is in pool {pool} but there are {self.pools}: the token file changed")
        self.epoch, self.pool, self.index = epoch, pool, index
        self._plan = self._plan_pool(epoch, pool)
        if not 0 <= index <= len(self._plan):
            raise MatfmError(f"the saved position is batch {index} of {len(self._plan)}: the token file changed")

    def _plan_pool(self, epoch: int, pool: int) -> list[np.ndarray]:
        """The global batches of a pool, as rows."""
        start, stop = (len(self.data) * p // self.pools for p in (pool, pool + 1))
        rows_W = RandomOrder(len(self.data), self.seed, epoch)(np.arange(start, stop))
        if self.keep is not None:
            rows_W = rows_W[self.keep(rows_W)]
        plan = [rows_W[group] for group in groups_of_similar_length(self.data.lengths_of(rows_W), self.tokens)]
        if self.world > 1 and (smallest := min(map(len, plan), default=self.world)) < self.world:
            raise MatfmError(
                f"a batch of {self.tokens} tokens holds {smallest} of these sequences, too few for {self.world} "
                "processes; give more tokens per batch"
            )
        generator = np.random.default_rng([self.seed, epoch, pool])
        return [plan[i] for i in generator.permutation(len(plan))]

    def _advise(self, advice: str) -> None:
        """Tell the system how the maps are used: no reading ahead; and pages read do not stay resident here."""
        for array in (self.data.ids_N, self.data.amounts_N, self.data.offsets):
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, advice):
                array.base.madvise(getattr(mmap, advice))
