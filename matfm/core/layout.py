"""How sequences of different lengths lie in one tensor without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

# N tokens of all sequences, B sequences, T padded length, D width


@dataclass(frozen=True)
class PackedLayout:
    """Consecutive sequences in a packed `(N, D)` tensor, as runs of equal length.

    `runs` holds pairs (number of sequences, their length). Batches sorted by length have few runs,
    and every run is a dense `(sequences, length, D)` block: nothing is padded and nothing is masked.
    """

    runs: tuple[tuple[int, int], ...]

    @classmethod
    def from_lengths(cls, lengths: Iterable[int]) -> PackedLayout:
        """Layout of sequences in the given order. Raises ValueError for an empty sequence."""
        runs = tuple((sum(1 for _ in group), int(length)) for length, group in groupby(lengths))
        if any(length < 1 for _, length in runs):
            raise ValueError("a packed sequence needs at least one token")
        return cls(runs)

    @property
    def sequences(self) -> int:
        """B."""
        return sum(count for count, _ in self.runs)

    @property
    def tokens(self) -> int:
        """N."""
        return sum(count * length for count, length in self.runs)

    def sizes(self) -> list[int]:
        """Tokens in each run."""
        return [count * length for count, length in self.runs]

    def lengths(self) -> list[int]:
        """Length of each sequence."""
        return [length for count, length in self.runs for _ in range(count)]

    def first_tokens(self, device: torch.device | None = None) -> Tensor:
        """Index of the first token of every sequence, shape (B,)."""
        return torch.cat([start + torch.arange(count) * length for start, count, length in self._starts()]).to(device)

    def positions(self, device: torch.device | None = None) -> Tensor:
        """Position of every token in its sequence, from 0, shape (N,)."""
        return torch.cat([torch.arange(length, device=device).repeat(count) for count, length in self.runs])

    def mean(self, hidden_ND: Tensor, skip: int = 0) -> Tensor:
        """Mean over each sequence's tokens, the first `skip` left out where others remain. Shape (B, D)."""
        return torch.cat([block_BTD.mean(dim=1) for block_BTD in self._blocks(hidden_ND, skip)])

    def maximum(self, hidden_ND: Tensor, skip: int = 0) -> Tensor:
        """Largest value of each channel over the same tokens, (B, D)."""
        return torch.cat([block_BTD.amax(dim=1) for block_BTD in self._blocks(hidden_ND, skip)])

    def _blocks(self, hidden_ND: Tensor, skip: int) -> Iterator[Tensor]:
        for block, (count, length) in zip(hidden_ND.split(self.sizes()), self.runs, strict=True):
            yield block.view(count, length, -1)[:, min(skip, length - 1) :]

    def _starts(self) -> Iterator[tuple[int, int, int]]:
        start = 0
        for count, length in self.runs:
            yield start, count, length
            start += count * length


@dataclass(frozen=True)
class PaddedIndex:
    """Where the real tokens of a padded `(B, T)` batch are, ordered so that lengths ascend."""

    flat_N: Tensor
    """Positions of the packed tokens in the flattened (B·T) batch."""
    layout: PackedLayout
    shape: tuple[int, int]

    @classmethod
    def from_mask(cls, mask_BT: Tensor) -> PaddedIndex:
        """From an attention mask (1 = real token, anywhere in the row). Rows without tokens are allowed."""
        lengths_B = mask_BT.sum(dim=1)
        order_B = torch.argsort(lengths_B, stable=True)
        rows, columns = mask_BT[order_B].nonzero(as_tuple=True)
        flat_N = order_B[rows] * mask_BT.shape[1] + columns
        lengths = [length for length in lengths_B[order_B].tolist() if length > 0]
        return cls(flat_N, PackedLayout.from_lengths(lengths), (mask_BT.shape[0], mask_BT.shape[1]))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, …) to (N, …)."""
        return padded.flatten(0, 1)[self.flat_N]

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, …) to (B, T, …) with zeros at padding."""
        padded = packed.new_zeros((self.shape[0] * self.shape[1], *packed.shape[1:]))
        return padded.index_copy(0, self.flat_N, packed).view(*self.shape, *packed.shape[1:])
