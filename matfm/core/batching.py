"""Ragged token data, and batches of it by token budget: deterministic, resumable, without padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from matfm.core.layout import PackedLayout
from matfm.core.packed_index import rows_of_tokens

# R rows, N tokens, K targets


@dataclass(frozen=True)
class TokenBatch:
    """Packed sequences with their labels. Rows are sorted by length."""

    ids_N: Tensor
    amounts_N: Tensor
    """A real-valued channel beside each token (for formulas, the atomic fraction)."""
    layout: PackedLayout
    targets_BK: Tensor
    """NaN where a label is missing."""
    rows_B: Tensor
    """Index of each sequence in the data set (see `RaggedTokens.numbers_R`)."""

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on a device (the layout stays on the host)."""
        return TokenBatch(
            self.ids_N.to(device),
            self.amounts_N.to(device),
            self.layout,
            self.targets_BK.to(device),
            self.rows_B.to(device),
        )

    def take(self, chosen_B: Tensor) -> TokenBatch:
        """The sequences that are true in a mask on the host, in their order."""
        chosen_N = chosen_B[rows_of_tokens(self.layout)].to(self.ids_N.device)
        lengths_B = torch.tensor(self.layout.lengths())
        on_device_B = chosen_B.to(self.rows_B.device)
        return TokenBatch(
            self.ids_N[chosen_N],
            self.amounts_N[chosen_N],
            PackedLayout.from_lengths(lengths_B[chosen_B].tolist()),
            self.targets_BK[on_device_B],
            self.rows_B[on_device_B],
        )


class RaggedTokens:
    """Sequences of token ids and amounts in two flat arrays, with a table of targets beside.

    `numbers_R` are the numbers by which batches name the rows; None for 0, 1, …
    """

    def __init__(
        self,
        ids_N: np.ndarray,
        amounts_N: np.ndarray,
        offsets: np.ndarray,
        targets_RK: np.ndarray,
        numbers_R: np.ndarray | None = None,
    ) -> None:
        self.ids_N = ids_N
        self.amounts_N = amounts_N
        self.offsets = offsets
        self.targets_RK = targets_RK
        self.numbers_R = numbers_R

    @cached_property
    def lengths_R(self) -> np.ndarray:  # noqa: N802 - the shape is part of the name
        """Tokens of every sequence. Of a file too big for that, see `lengths_of`."""
        return np.diff(self.offsets)

    @classmethod
    def from_sequences(
        cls, sequences: list[tuple[list[int], list[float]]], targets_RK: np.ndarray | None = None
    ) -> RaggedTokens:
        """From one (ids, amounts) pair a row; without targets the table has no column."""
        lengths = np.fromiter((len(ids) for ids, _ in sequences), np.int64, len(sequences))
        total = int(lengths.sum())
        return cls(
            np.fromiter((i for ids, _ in sequences for i in ids), np.uint16, total),
            np.fromiter((a for _, amounts in sequences for a in amounts), np.float32, total),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.zeros((len(sequences), 0), np.float32) if targets_RK is None else targets_RK.astype(np.float32),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of_epoch(self, _: int) -> RaggedTokens:
        """What an epoch sees: always the same."""
        return self

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of the given rows; reads their offsets only."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def take(self, rows: np.ndarray) -> RaggedTokens:
        """The given rows, in that order, numbered anew."""
        index, offsets = self._token_index(rows)
        return RaggedTokens(self.ids_N[index], self.amounts_N[index], offsets, self.targets_RK[rows])

    def batch(self, rows: np.ndarray) -> TokenBatch:
        """Collate rows (sorted by length here) without a Python step per token."""
        rows = rows[np.argsort(self.lengths_of(rows), kind="stable")]
        index, offsets = self._token_index(rows)
        return TokenBatch(
            torch.from_numpy(self.ids_N[index].astype(np.int64)),
            torch.from_numpy(self.amounts_N[index]),
            PackedLayout.from_lengths(np.diff(offsets).tolist()),
            torch.from_numpy(self.targets_RK[rows]),
            torch.from_numpy(rows if self.numbers_R is None else self.numbers_R[rows]),
        )

    def _token_index(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat token positions of the rows, and the offsets they get when laid side by side."""
        lengths = self.lengths_of(rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return index, offsets


def budget_slices(lengths_R: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Cut rows 0…R-1, in order, into consecutive groups of about `tokens` tokens each."""
    if len(lengths_R) == 0:
        return []
    middle = np.cumsum(lengths_R) - lengths_R / 2
    return [
        group for group in np.split(np.arange(len(lengths_R)), _changes((middle // tokens).astype(int))) if len(group)
    ]


def groups_of_similar_length(lengths_W: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Cut W sequences, sorted by length, into the fewest groups of at most about `tokens` tokens, all about as large.

    Returns indices into `lengths_W`, short sequences first.
    """
    order_W = np.argsort(lengths_W, kind="stable")
    total = int(lengths_W.sum())
    return [order_W[group] for group in budget_slices(lengths_W[order_W], -(-total // max(1, -(-total // tokens))))]


def _changes(values: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(values)) + 1


class EpochTokens(Protocol):
    """Rows that may be written in another way in every epoch."""

    def __len__(self) -> int:
        """Number of rows, the same in every epoch."""
        ...

    def of_epoch(self, epoch: int) -> RaggedTokens:
        """The rows as an epoch sees them; depends on the epoch only."""
        ...


class EpochBatches:
    """Endless shuffled batches. Batch `i` of epoch `e` depends only on (seed, e, i), so any position can be resumed.

    `length_pool` > 1 sorts by length within pools of that many batches, which keeps the number of
    different lengths in a batch small where lengths vary widely; 1 leaves batches fully random.

    Where a row can be written in several ways, `VariedTokens` shows every epoch one of them.
    """

    def __init__(self, source: EpochTokens, tokens: int, seed: int, length_pool: int = 1) -> None:
        if len(source) == 0:
            raise ValueError("there is no row to make batches of")
        self.source = source
        self.tokens = tokens
        self.seed = seed
        self.length_pool = length_pool
        self.epoch = 0
        self.index = 0
        self._plan = self._plan_epoch(0)

    @property
    def batches_per_epoch(self) -> int:
        """Of the current epoch; epochs differ by at most a few batches."""
        return len(self._plan)

    def next(self) -> TokenBatch:
        """The next batch; moves the position."""
        if self.index >= len(self._plan):
            self.epoch, self.index = self.epoch + 1, 0
            self._plan = self._plan_epoch(self.epoch)
        rows = self._plan[self.index]
        self.index += 1
        return self.data.batch(rows)

    def state_dict(self) -> dict[str, int]:
        """The position: epoch, and index of the next batch."""
        return {"epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position."""
        self.epoch, self.index = state["epoch"], state["index"]
        self._plan = self._plan_epoch(self.epoch)

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        self.data = self.source.of_epoch(epoch)
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.data))
        if self.length_pool == 1:
            return [order[group] for group in budget_slices(self.data.lengths_R[order], self.tokens)]
        plan: list[np.ndarray] = []
        for pool in budget_slices(self.data.lengths_R[order], self.tokens * self.length_pool):
            rows = order[pool]
            plan.extend(rows[group] for group in groups_of_similar_length(self.data.lengths_R[rows], self.tokens))
        return [plan[i] for i in generator.permutation(len(plan))]
