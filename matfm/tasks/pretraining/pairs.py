"""Pairs for translation: a molecule in two notations; a composition and what is known of it, as text or as answers.

Sources are `[CLS] <task> … [SEP]`, targets `[PAD] … [SEP]`, because MatT5 generates from padding. The SELFIES of a
molecule is made from the very spelling that the SMILES has, so that atoms come in the same order on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from matfm.chem.composition_schemes import CLS, PAD, SEP, UNK
from matfm.chem.joint_tokenizer import (
    ANSWER,
    TASKS,
    TO_COMPOSITION,
    TO_SELFIES,
    TO_SMILES,
    TO_TEXT,
    line_ids,
    text_line,
)
from matfm.chem.property_text import PHRASES, answers, describe, questions
from matfm.core.batching import RaggedTokens
from matfm.core.layout import PackedLayout
from matfm.core.token_files import no_amounts

# R rows, S sequences (a row may be written in several ways), B sequences of a batch, K properties
# N tokens of sources, M tokens of targets

TASK_NAMES: tuple[str, ...] = tuple(task.strip("<>") for task in TASKS)
"""Tasks without their brackets, as configurations and metrics name them."""
_OF_MOLECULES = (TO_SELFIES, TO_SMILES)


@dataclass(frozen=True)
class Pairs:
    """What is known of rows beside their tokens."""

    partners: RaggedTokens
    """SELFIES of all S sequences, [CLS] and [SEP] around each; a composition has an empty one."""
    labels_RK: np.ndarray
    """Properties of the rows in the units of `PHRASES`, NaN where they are missing."""
    properties: tuple[str, ...]
    """Their names."""

    @classmethod
    def of_molecules(cls, partners: RaggedTokens, rows: int) -> Pairs:
        """Molecules have partners, and no labels."""
        return cls(partners, np.zeros((rows, 0), np.float32), ())

    @classmethod
    def of_compositions(cls, labels_RK: np.ndarray, properties: tuple[str, ...]) -> Pairs:
        """Compositions have labels, and no partners."""
        return cls(ragged(np.zeros(0, np.uint16), np.zeros(len(labels_RK) + 1, np.int64)), labels_RK, properties)

    @classmethod
    def joined(cls, several: Sequence[Pairs]) -> Pairs:
        """Rows of several corpora; a property that a corpus lacks is missing in all of its rows."""
        properties = tuple(dict.fromkeys(name for pairs in several for name in pairs.properties))
        labels_RK = np.full((sum(len(pairs.labels_RK) for pairs in several), len(properties)), np.nan, np.float32)
        start = 0
        for pairs in several:
            stop = start + len(pairs.labels_RK)
            labels_RK[start:stop, [properties.index(name) for name in pairs.properties]] = pairs.labels_RK
            start = stop
        return cls(join_ragged([pairs.partners for pairs in several]), labels_RK, properties)

    def take(self, rows: np.ndarray, sequences: np.ndarray) -> Pairs:
        """Those of some rows and of their sequences."""
        return Pairs(self.partners.take(sequences), self.labels_RK[rows], self.properties)

    def tasks(self, wanted: Sequence[str]) -> list[str]:
        """Those of some tasks, by their names, that any row may have a pair for."""
        offered = set()
        if self.partners.offsets[-1] > 0:
            offered |= {TO_SELFIES, TO_SMILES}
        if self.properties:
            offered |= {TO_TEXT, TO_COMPOSITION}
        if any(name in PHRASES for name in self.properties):
            offered.add(ANSWER)
        return [name for task, name in zip(TASKS, TASK_NAMES, strict=True) if task in offered and name in wanted]

    def values(self, row: int) -> dict[str, float]:
        """The labels that a row has."""
        return {
            name: float(value)
            for name, value in zip(self.properties, self.labels_RK[row], strict=True)
            if not np.isnan(value)
        }


@dataclass(frozen=True)
class TranslationBatch:
    """Sources and targets of the same sequences in the same order: by task, then by lengths."""

    source_ids_N: Tensor
    source_layout: PackedLayout
    target_ids_M: Tensor
    target_layout: PackedLayout
    by_task: tuple[tuple[str, PackedLayout], ...]
    """Tasks in turn with the layouts of their targets."""


@dataclass(frozen=True)
class PairWriter:
    """Writes rows as pairs of token ids."""

    pairs: Pairs
    ids: Mapping[str, int]
    """Of the joint vocabulary."""
    tasks: tuple[str, ...]
    """Tasks that are wanted."""

    def tasks_of(self, sequence: int, row: int) -> list[str]:
        """The wanted tasks that a row has a pair for; none for a composition of which nothing is known."""
        if self.pairs.partners.offsets[sequence + 1] > self.pairs.partners.offsets[sequence]:
            return [task for task in self.tasks if task in _OF_MOLECULES]
        known = self.pairs.values(row)
        possible = {TO_TEXT, TO_COMPOSITION} if known else set()
        if any(name in PHRASES for name in known):
            possible.add(ANSWER)
        return [task for task in self.tasks if task in possible]

    def pair(
        self, task: str, own: np.ndarray, sequence: int, row: int, generator: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        """Source and target.

        Args:
            task: one of `tasks_of`.
            own: ids of the sequence as the corpus has it, with [CLS] and [SEP].
            sequence: its number.
            row: number of its row.
            generator: draws which properties are asked for, and their order.
        """
        body = own[1:-1].tolist()
        if task in _OF_MOLECULES:
            offsets = self.pairs.partners.offsets
            partner = self.pairs.partners.ids_N[offsets[sequence] + 1 : offsets[sequence + 1] - 1].tolist()
            return self._framed(task, *((body, partner) if task == TO_SELFIES else (partner, body)))
        values = self.pairs.values(row)
        if task == ANSWER:
            asked = _drawn([name for name in values if name in PHRASES], generator)
            question = body + self._line(f"; {questions(asked)}")
            return self._framed(task, question, self._line(text_line(answers(values, asked))))
        text = self._line(text_line(describe(values)))
        return self._framed(task, *((body, text) if task == TO_TEXT else (text, body)))

    def batch(
        self, own_B: Sequence[np.ndarray], numbers_B: np.ndarray, ways: int, generator: torch.Generator
    ) -> TranslationBatch | None:
        """Each sequence as a pair of a task drawn uniformly from those it has; None if no sequence has any.

        Args:
            own_B: ids of the sequences.
            numbers_B: their numbers in the corpus.
            ways: sequences of a row.
            generator: on the CPU; the same state gives the same pairs.
        """
        drawn = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        made: list[tuple[int, list[int], list[int]]] = []
        for own, number in zip(own_B, numbers_B.tolist(), strict=True):
            share = drawn.random()
            if tasks := self.tasks_of(number, number // ways):
                task = tasks[int(share * len(tasks))]
                made.append((TASKS.index(task), *self.pair(task, own, number, number // ways, drawn)))
        return laid_out(made) if made else None

    def _framed(self, task: str, source: list[int], target: list[int]) -> tuple[list[int], list[int]]:
        return source_ids(task, source, self.ids), [PAD, *target, SEP]

    def _line(self, line: str) -> list[int]:
        return line_ids(line, self.ids, UNK)


def source_ids(task: str, body: Sequence[int], ids: Mapping[str, int]) -> list[int]:
    """[CLS], task, body and [SEP]."""
    return [CLS, ids[task], *body, SEP]


def laid_out(made: list[tuple[int, list[int], list[int]]]) -> TranslationBatch:
    """Packed pairs from (number of the task, source, target); equal lengths lie together, so that runs are few."""
    made = sorted(made, key=lambda pair: (pair[0], len(pair[1]), len(pair[2])))
    sources, targets = [source for _, source, _ in made], [target for _, _, target in made]
    by_task = [
        (TASK_NAMES[task], PackedLayout.from_lengths(len(target) for _, _, target in group))
        for task, group in groupby(made, key=lambda pair: pair[0])
    ]
    return TranslationBatch(
        torch.tensor([index for source in sources for index in source]),
        PackedLayout.from_lengths(map(len, sources)),
        torch.tensor([index for target in targets for index in target]),
        PackedLayout.from_lengths(map(len, targets)),
        tuple(by_task),
    )


def ragged(ids_N: np.ndarray, offsets: np.ndarray) -> RaggedTokens:
    """Sequences without amounts and targets."""
    return RaggedTokens(ids_N, no_amounts(len(ids_N)), offsets, np.zeros((len(offsets) - 1, 0), np.float32))


def join_ragged(several: Sequence[RaggedTokens]) -> RaggedTokens:
    """Sequences of several corpora, one after the other, without amounts and targets."""
    lengths = np.concatenate([np.diff(tokens.offsets) for tokens in several])
    return ragged(
        np.concatenate([tokens.ids_N for tokens in several]), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )


def _drawn(names: list[str], generator: np.random.Generator) -> list[str]:
    """One or more of the names, in random order."""
    order = generator.permutation(len(names))
    return [names[index] for index in order[: int(generator.integers(1, len(names) + 1))]]
