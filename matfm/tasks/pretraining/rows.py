"""Rows to pretrain on: tokens, and tables beside them that some objectives look up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import torch
from torch import Tensor

from matfm.chem.mask_choice import PackedUnits
from matfm.core.batching import EpochBatches, RaggedTokens, TokenBatch
from matfm.core.layout import PackedLayout
from matfm.core.token_reader import Keep, TokenReader
from matfm.core.varied_tokens import VariedTokens
from matfm.models.inference import length_sorted_batches
from matfm.tasks.pretraining.pairs import Pairs, join_ragged, ragged

# R rows, S sequences (a row may be written in several ways), B sequences of a batch, W bytes of a fingerprint

_END = 2**16 - 1
"""Stands behind the positions of every unit."""


@dataclass(frozen=True)
class SequenceUnits:
    """For each of S sequences the tokens that belong together, as flat positions (see `PackedUnits`)."""

    values: np.ndarray
    """Positions without special tokens, uint16, with `_END` behind each unit."""
    offsets: np.ndarray
    """Where each sequence starts, and the end; (S + 1,)."""

    @classmethod
    def from_lists(cls, units: Sequence[Sequence[Sequence[int]]]) -> SequenceUnits:
        """From lists of positions for every unit of every sequence."""
        flat = [list(chain.from_iterable((*unit, _END) for unit in sequence)) for sequence in units]
        lengths = [len(values) for values in flat]
        return cls(np.fromiter(chain.from_iterable(flat), np.uint16, sum(lengths)), np.cumsum([0, *lengths]))

    def of(self, sequence: int) -> list[list[int]]:
        """Units of one sequence."""
        values = self.values[self.offsets[sequence] : self.offsets[sequence + 1]].tolist()
        return [list(unit) for is_end, unit in groupby(values, _END.__eq__) if not is_end]

    def packed(self, sequences_B: np.ndarray, layout: PackedLayout) -> PackedUnits:
        """Units of the sequences of a batch."""
        return PackedUnits.from_positions([self.of(sequence) for sequence in sequences_B.tolist()], layout)

    def take(self, sequences: np.ndarray) -> SequenceUnits:
        """Those of some sequences, in that order."""
        taken = ragged(self.values, self.offsets).take(sequences)
        return SequenceUnits(taken.ids_N, taken.offsets)


@dataclass(frozen=True)
class Part:
    """Training or held-out rows."""

    tokens: RaggedTokens
    """Every row in the way it is evaluated, with its targets; or a token file."""
    varied: VariedTokens | None = None
    """Every row in every way, the evaluated one first, if there are several."""
    group_R: np.ndarray | None = None
    """Rows of equal numbers are the same molecule or composition; int64."""
    fingerprints_RW: np.ndarray | None = None
    """Packed bits, uint8."""
    units: SequenceUnits | None = None
    """Of every sequence (of every way)."""
    pairs: Pairs | None = None
    """What the objective `translation` translates to and from."""
    keep: Keep | None = None
    """Where `tokens` is a token file: which of its rows are in this part."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ways(self) -> int:
        """In how many ways each row is written."""
        return 1 if self.varied is None else int(self.varied.starts[1])

    def batches(self, tokens: int, seed: int, length_pool: int) -> EpochBatches | TokenReader:
        """Endless training batches; `rows_B` numbers sequences."""
        if self.keep is not None:
            return TokenReader(self.tokens, tokens, seed, length_pool=length_pool, keep=self.keep)
        return EpochBatches(self.varied or self.tokens, tokens, seed, length_pool)

    def evaluated(self) -> Iterator[TokenBatch]:
        """Every row once in the way it is evaluated, numbered as sequences like in training."""
        data, numbers_R = self.tokens, np.arange(len(self)) * self.ways
        return length_sorted_batches(RaggedTokens(data.ids_N, data.amounts_N, data.offsets, data.targets_RK, numbers_R))

    def rows_of(self, batch: TokenBatch) -> np.ndarray:
        """Row of each sequence of a batch of this part, (B,)."""
        return batch.rows_B.cpu().numpy() // self.ways

    def other_way(self, batch: TokenBatch, generator: torch.Generator) -> tuple[TokenBatch, Tensor]:
        """The rows of a batch, each in another way (drawn uniformly), and where in it each sequence is, (B,)."""
        assert self.varied is not None
        numbers_B = batch.rows_B.cpu()
        further_B = torch.randint(1, self.ways, numbers_B.shape, generator=generator)
        others_B = numbers_B - numbers_B % self.ways + (numbers_B % self.ways + further_B) % self.ways
        # Rows are sorted by the length of the other way, stably; the same order here.
        other = self.varied.sequences.batch(others_B.numpy())
        order_B = np.argsort(self.varied.sequences.lengths_of(others_B.numpy()), kind="stable")
        return other.to(batch.ids_N.device), torch.from_numpy(np.argsort(order_B)).to(batch.ids_N.device)

    def take(self, rows: np.ndarray) -> Part:
        """Some of the rows (not of a token file)."""
        sequences = (rows[:, None] * self.ways + np.arange(self.ways)).reshape(-1)
        varied = self.varied and VariedTokens.evenly(
            self.varied.sequences.take(sequences), self.varied.targets_RK[rows], self.ways, self.varied.seed
        )
        return Part(
            self.tokens.take(rows),
            varied,
            None if self.group_R is None else self.group_R[rows],
            None if self.fingerprints_RW is None else self.fingerprints_RW[rows],
            self.units and self.units.take(sequences),
            self.pairs and self.pairs.take(rows, sequences),
        )

    @classmethod
    def joined(cls, parts: Sequence[Part]) -> Part:
        """Rows of several corpora with pairs, one after the other; each row is written in one way."""
        groups = [part.group_R for part in parts if part.group_R is not None]
        pairs = [part.pairs for part in parts if part.pairs is not None]
        tokens = join_ragged([part.tokens for part in parts])
        return cls(tokens, group_R=np.concatenate(groups), pairs=Pairs.joined(pairs))
