"""Episodes: small tasks drawn from a table of tasks, each with a few labelled examples and queries.

Episode i depends on the seed and i alone, so that any position can be resumed and every method sees the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from matfm.chem.augment import jitter_amounts
from matfm.core.batching import RaggedTokens, TokenBatch
from matfm.errors import MatfmError

# R rows, T tasks, S support examples, Q queries, B sequences of a batch

RATIOS = ("balanced", "natural")
LABEL, IS_QUERY = 0, 1
"""Columns of a batch's targets."""
_FEWEST_QUERIES = 2


@dataclass(frozen=True)
class Episode:
    """Rows of one small task."""

    task: int
    support_S: np.ndarray
    query_Q: np.ndarray
    support_labels_S: np.ndarray
    """Class numbers 0, 1, … of this episode, or values; float64."""
    query_labels_Q: np.ndarray
    classes: int
    """0 in regression."""


@dataclass(frozen=True)
class TaskTable:
    """Labels (R, T) of every row in every task, NaN where missing."""

    names: tuple[str, ...]
    labels_RT: np.ndarray
    regression: bool = False
    """Labels are numbers; else they are class numbers 0, 1, …"""

    def only(self, names: Sequence[str]) -> TaskTable:
        """Some of the tasks."""
        columns = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), labels_RT=self.labels_RT[:, columns])


def median_classes(values_RT: np.ndarray, reference_RT: np.ndarray | None = None) -> np.ndarray:
    """1 where a value is above its task's median, 0 elsewhere, NaN where missing.

    The median is that of `reference_RT` (training rows, for example) where it is given.
    """
    medians = np.nanmedian(values_RT if reference_RT is None else reference_RT, axis=0)
    return np.where(np.isnan(values_RT), np.nan, (values_RT > medians).astype(float))


def quantile_classes(values_RT: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers by quantile of the task: equally many rows in each, lowest values in class 0; NaN where missing.

    Equal values share a class, so tasks in which a value is very common have fewer classes.
    """
    result = np.full(values_RT.shape, np.nan)
    for task, values_R in enumerate(values_RT.T):
        present = ~np.isnan(values_R)
        if present.any():
            edges = np.quantile(values_R[present], np.arange(1, classes) / classes)
            found = np.searchsorted(edges, values_R[present], side="left")
            result[present, task] = np.unique(found, return_inverse=True)[1]
    return result


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws episodes from a table of tasks.

    N-way K-shot episodes have `ways` N, ratio balanced and N·K support examples.
    """

    table: TaskTable
    support: tuple[int, ...] = (16, 32, 64)
    """Support examples of an episode in all; one of these sizes is drawn each time."""
    queries: int = 64
    """At most so many queries."""
    ways: int = 2
    """Classes of an episode; of tasks with more, so many are drawn."""
    ratio: str = "natural"
    """natural (classes as common in the support as in the task, at least one example each) or balanced."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ratio not in RATIOS:
            raise MatfmError(f"ratio is {self.ratio!r}; choose one of {', '.join(RATIOS)}")
        fewest = 2 if self.table.regression else max(2, self.ways)
        if not self.support or min(self.support) < fewest:
            raise MatfmError(f"support is {list(self.support)}; an episode needs at least {fewest} examples")
        if self.queries < _FEWEST_QUERIES or (self.ways < 2 and not self.table.regression):
            raise MatfmError(f"queries is {self.queries} and ways {self.ways}; both must be at least 2")

    def eligible(self, support: int) -> list[int]:
        """Tasks with enough labelled rows (of enough classes) for that many support examples and two queries."""
        return [task for task in range(len(self.table.names)) if self._fits(task, support)]

    def episode(self, index: int) -> Episode:
        """Episode number `index` of a task that is drawn too.

        Raises:
            MatfmError: no task has enough rows.
        """
        generator = np.random.default_rng([self.seed, index])
        support = int(generator.choice(self.support))
        tasks = self.eligible(support)
        if not tasks:
            raise MatfmError(
                f"no task has rows for {support} support examples in {self.ways} classes and {_FEWEST_QUERIES} "
                "queries; choose a smaller support"
            )
        return self._draw(int(generator.choice(tasks)), support, generator)

    def of_task(self, task: int, support: int, index: int) -> Episode:
        """Episode number `index` of one task with one size of support.

        Raises:
            MatfmError: the task has too few rows.
        """
        if not self._fits(task, support):
            raise MatfmError(
                f"task {self.table.names[task]!r} has too few rows for {support} support examples in {self.ways} "
                f"classes ({self.ratio}) and {_FEWEST_QUERIES} queries; choose a smaller support"
            )
        return self._draw(task, support, np.random.default_rng([self.seed, task, support, index]))

    def _fits(self, task: int, support: int) -> bool:
        labels_R = self.table.labels_RT[:, task]
        labels_R = labels_R[~np.isnan(labels_R)]
        if self.table.regression:
            return len(labels_R) >= support + _FEWEST_QUERIES and np.ptp(labels_R) > 0
        counts = np.sort(np.unique(labels_R, return_counts=True)[1])[::-1][: self.ways]
        if len(counts) < self.ways:
            return False
        each = -(-support // self.ways) + 1 if self.ratio == "balanced" else 2
        return bool(counts[-1] >= each and counts.sum() >= support + max(_FEWEST_QUERIES, self.ways))

    def _draw(self, task: int, support: int, generator: np.random.Generator) -> Episode:
        labels_R = self.table.labels_RT[:, task]
        rows = generator.permutation(np.flatnonzero(~np.isnan(labels_R)))
        if self.table.regression:
            chosen, rest = rows[:support], rows[support : support + self.queries]
            return Episode(task, chosen, rest, labels_R[chosen], labels_R[rest], 0)
        classes, members = self._classes(rows, labels_R, support, generator)
        sizes = self._sizes(np.array([len(m) for m in members]), support, generator)
        chosen = np.concatenate([member[:size] for member, size in zip(members, sizes, strict=True)])
        spare = [member[size:] for member, size in zip(members, sizes, strict=True)]
        if self.ratio == "balanced":
            each = max(1, self.queries // len(spare))
            rest = np.concatenate([member[:each] for member in spare])
        else:  # one query of each class, so that every score is defined, and the others as they come
            first = [member[:1] for member in spare]
            others = generator.permutation(np.concatenate([member[1:] for member in spare]))
            rest = np.concatenate([*first, others])[: max(self.queries, len(spare))]
        number = {label: position for position, label in enumerate(classes)}
        told, asked = (np.array([float(number[labels_R[row]]) for row in part]) for part in (chosen, rest))
        return Episode(task, chosen, rest, told, asked, len(classes))

    def _classes(
        self, rows: np.ndarray, labels_R: np.ndarray, support: int, generator: np.random.Generator
    ) -> tuple[list[float], list[np.ndarray]]:
        """Classes of the episode, ascending, and the shuffled rows of each."""
        each = -(-support // self.ways) + 1 if self.ratio == "balanced" else 2
        labels, counts = np.unique(labels_R[rows], return_counts=True)
        large = labels[counts >= each]
        classes = np.sort(generator.choice(large, self.ways, replace=False)) if len(large) > self.ways else large
        members = [rows[labels_R[rows] == label] for label in classes]
        if sum(map(len, members)) < support + max(_FEWEST_QUERIES, self.ways):  # the largest ones have enough
            classes = np.sort(labels[np.argsort(-counts, kind="stable")[: self.ways]])
            members = [rows[labels_R[rows] == label] for label in classes]
        return classes.tolist(), members

    def _sizes(self, counts: np.ndarray, support: int, generator: np.random.Generator) -> np.ndarray:
        """Support examples of each class; remainders go to classes at random."""
        shares = (
            np.full(len(counts), support / len(counts)) if self.ratio == "balanced" else support * counts / counts.sum()
        )
        sizes = np.clip(np.floor(shares).astype(int), 1, counts - 1)
        order = generator.permutation(len(counts))
        while sizes.sum() != support:
            step = 1 if sizes.sum() < support else -1
            movable = (sizes < counts - 1) if step > 0 else (sizes > 1)
            best = max((c for c in order if movable[c]), key=lambda c: step * (shares[c] - sizes[c]))
            sizes[best] += step
        return sizes


@dataclass
class EpisodeBatches:
    """Endless batches for the trainer, one episode each; sequences of support and queries packed together.

    Support examples can come in `copies` forms: the first as it is, the others as other strings of the molecule (where
    `forms` says which sequences those are) or with noise on the amounts. `rows_B` of a batch numbers rows.
    """

    sampler: EpisodeSampler
    sequences: RaggedTokens
    forms: np.ndarray | None = None
    """Where the written forms of each row start, (R + 1,); None if every sequence is a row of its own."""
    copies: int = 1
    jitter: float = 0.0
    """Relative deviation of the amounts of further copies."""
    index: int = 0

    def next(self) -> TokenBatch:
        """The next episode; targets are label and whether the sequence is a query."""
        episode = self.sampler.episode(self.index)
        generator = np.random.default_rng([self.sampler.seed, self.index, 1])
        self.index += 1
        return episode_batch(episode, self.sequences, self.forms, self.copies, self.jitter, generator)

    def state_dict(self) -> dict[str, int]:
        """Number of the next episode."""
        return {"episode": self.index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position."""
        self.index = state["episode"]


def episode_batch(
    episode: Episode,
    sequences: RaggedTokens,
    forms: np.ndarray | None,
    copies: int,
    jitter: float,
    generator: np.random.Generator,
) -> TokenBatch:
    """Tokens of an episode, as `EpisodeBatches` gives them."""
    rows = np.concatenate([np.repeat(episode.support_S, copies), episode.query_Q])
    copy = np.concatenate([np.tile(np.arange(copies), len(episode.support_S)), np.zeros(len(episode.query_Q), int)])
    labels = np.concatenate([np.repeat(episode.support_labels_S, copies), episode.query_labels_Q])
    is_query = np.arange(len(rows)) >= copies * len(episode.support_S)
    starts, count = (rows, np.ones(len(rows), int)) if forms is None else (forms[rows], np.diff(forms)[rows])
    others = generator.integers(1, np.maximum(count, 2), len(rows))
    numbers = starts + np.where((copy > 0) & (count > 1), others, 0)
    order = np.argsort(sequences.lengths_of(numbers), kind="stable")
    batch = sequences.batch(numbers[order])  # sorted already, so it keeps the order
    targets = np.stack([labels, is_query], axis=1)[order]
    amounts_N = batch.amounts_N
    if jitter and copies > 1:
        amounts_N = _jittered(batch, copy[order] > 0, jitter, generator)
    return TokenBatch(
        batch.ids_N,
        amounts_N,
        batch.layout,
        torch.from_numpy(targets.astype(np.float32)),
        torch.from_numpy(rows[order]),
    )


def _jittered(batch: TokenBatch, chosen_B: np.ndarray, scale: float, generator: np.random.Generator) -> torch.Tensor:
    lengths = np.array(batch.layout.lengths())
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    amounts_N = batch.amounts_N.numpy()
    noisy_N = jitter_amounts(amounts_N, offsets, scale, generator)
    return torch.from_numpy(np.where(np.repeat(chosen_B, lengths), noisy_N, amounts_N))
