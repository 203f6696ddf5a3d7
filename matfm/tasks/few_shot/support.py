"""Which examples to label, and how many more labels would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from matfm.errors import MatfmError
from matfm.tasks.few_shot.classical_features import euclidean
from matfm.tasks.few_shot.evaluation import episode_scores

# L rows of the library, S support examples, D width, K chosen rows

_ROUNDS = 50
_BLOCK = 4096
POOL = 10
"""Uncertain rows looked at for each one chosen."""
_NORMAL = 1.959964


class _Scorer(Protocol):
    def fit(self, support_vectors_SD: np.ndarray, labels_S: np.ndarray) -> Any: ...

    def score(self, vectors_BD: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

    def class_scores(self, vectors_BD: np.ndarray) -> np.ndarray: ...


def medoids(vectors_LD: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Rows (K,), ascending, that stand for the others: those next to the centres of k-means (k-means++ starts).

    Raises:
        MatfmError: there are fewer rows than that.
    """
    if not 1 <= count <= len(vectors_LD):
        raise MatfmError(f"{count} of {len(vectors_LD)} rows were asked for; choose 1 to {len(vectors_LD)}")
    centres_KD = vectors_LD[_spread_out(vectors_LD, count, generator)].astype(np.float64)
    for _ in range(_ROUNDS):
        nearest_L = _nearest(vectors_LD, centres_KD)
        moved = np.array([
            vectors_LD[nearest_L == k].mean(axis=0) if (nearest_L == k).any() else centres_KD[k] for k in range(count)
        ])  # fmt: skip
        if np.allclose(moved, centres_KD):
            break
        centres_KD = moved
    distances_LK = euclidean(vectors_LD, centres_KD)
    chosen: list[int] = []
    for k in range(count):  # a row stands for one centre only
        distances_LK[chosen, k] = np.inf
        chosen.append(int(distances_LK[:, k].argmin()))
    return np.sort(chosen)


def stratified(
    vectors_LD: np.ndarray, groups_L: Sequence[Any], count: int, generator: np.random.Generator
) -> np.ndarray:
    """Medoids of each group (class, chemical system, scaffold), as many as its share, at least one; rows ascending.

    Raises:
        MatfmError: fewer rows are asked for than there are groups, or more than there are rows.
    """
    names, group_L, sizes = np.unique(np.asarray(groups_L), return_inverse=True, return_counts=True)
    if not len(names) <= count <= len(vectors_LD):
        raise MatfmError(
            f"{count} rows of {len(names)} groups were asked for; choose {len(names)} to {len(vectors_LD)}"
        )
    each = np.clip(np.floor(count * sizes / sizes.sum()).astype(int), 1, sizes)
    while each.sum() != count:
        step = 1 if each.sum() < count else -1
        movable = each < sizes if step > 0 else each > 1
        gain = np.where(movable, step * (count * sizes / sizes.sum() - each), -np.inf)
        each[gain.argmax()] += step
    rows = [np.flatnonzero(group_L == group) for group in range(len(names))]
    return np.sort(np.concatenate([r[medoids(vectors_LD[r], k, generator)] for r, k in zip(rows, each, strict=True)]))


def most_uncertain(
    vectors_LD: np.ndarray, uncertainty_L: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Rows (K,), ascending, to label next: medoids of the most uncertain ones, so that they are not all alike."""
    pool = np.argsort(-uncertainty_L, kind="stable")[: POOL * count]
    return np.sort(pool[medoids(vectors_LD[pool], count, generator)])


def labels_curve(
    vectors_SD: np.ndarray,
    labels_S: np.ndarray,
    scorer: Callable[[], _Scorer],
    sizes: Sequence[int],
    repeats: int = 20,
    seed: int = 0,
    regression: bool = False,
) -> list[dict[str, float]]:
    """How scores grow with labels: repeatedly fit on a part of the examples and score the others.

    Of each class (of numbers: from each side of their mean) one example or more is fitted, and one or more scored.

    Returns:
        For each size that leaves two examples or more: `labels`, `repeats`, and mean, low and high (95 % of the mean)
        of each score. Where the last steps still rise by more than the interval, more labels will help.

    Raises:
        MatfmError: labels of one class only, or no size that can be tried.
    """
    labels = np.asarray(labels_S)
    groups, group_S = np.unique(labels > labels.mean() if regression else labels, return_inverse=True)
    told_S = labels.astype(np.float64) if regression else group_S
    possible = [size for size in sizes if len(groups) <= size <= len(labels) - len(groups)]
    if len(groups) < 2 or np.bincount(group_S).min() < 2 or not possible:
        raise MatfmError(
            f"{len(labels)} labels in {len(groups)} classes cannot be tried at the sizes {list(sizes)}; each class "
            "(of numbers: each side of their mean) needs two examples, and each size must leave some"
        )
    rows = []
    for size in possible:
        found: list[dict[str, float]] = []
        for repeat in range(repeats):
            inside = _part_with_all_classes(group_S, size, np.random.default_rng([seed, size, repeat]))
            fitted, rest = scorer().fit(vectors_SD[inside], told_S[inside]), vectors_SD[~inside]
            scores = fitted.score(rest)[0][:, None] if regression else fitted.class_scores(rest)
            found.append(episode_scores(told_S[~inside].astype(np.float64), scores, regression))
        row: dict[str, float] = {"labels": size, "repeats": repeats}
        for metric in found[0]:
            values = np.array([one[metric] for one in found if metric in one])
            half = _NORMAL * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
            row |= {
                metric: values.mean(),
                f"{metric}_low": values.mean() - half,
                f"{metric}_high": values.mean() + half,
            }
        rows.append({name: float(value) for name, value in row.items()})
    return rows


def _part_with_all_classes(numbers_S: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """A random part of the examples, as a mask, with one of each class inside and one outside."""
    order = generator.permutation(len(numbers_S))
    firsts, seconds = [], []
    for label in np.unique(numbers_S):
        one, other = order[numbers_S[order] == label][:2]
        firsts.append(one)
        seconds.append(other)
    free = order[~np.isin(order, [*firsts, *seconds])]
    inside = np.zeros(len(numbers_S), bool)
    inside[[*firsts, *free[: size - len(firsts)]]] = True
    return inside


def _spread_out(vectors_LD: np.ndarray, count: int, generator: np.random.Generator) -> list[int]:
    """Rows of the starts of greedy k-means++ (Arthur and Vassilvitskii 2007): of several draws the best is taken.

    A single draw misses a small cluster too often, and k-means does not recover from that.
    """
    trials = 2 + int(np.log(count))
    chosen = [int(generator.integers(len(vectors_LD)))]
    squared_L = euclidean(vectors_LD, vectors_LD[chosen])[:, 0] ** 2
    while len(chosen) < count:
        left = np.setdiff1d(np.arange(len(vectors_LD)), chosen)
        total = squared_L[left].sum()
        drawn = generator.choice(left, trials, p=None if total <= 0 else squared_L[left] / total)
        nearer_LN = np.minimum(squared_L[:, None], euclidean(vectors_LD, vectors_LD[drawn]) ** 2)
        best = nearer_LN.sum(axis=0).argmin()
        chosen.append(int(drawn[best]))
        squared_L = nearer_LN[:, best]
    return chosen


def _nearest(left_RD: np.ndarray, right_SD: np.ndarray) -> np.ndarray:
    """Nearest row on the right of each on the left; in blocks."""
    starts = range(0, len(left_RD), _BLOCK)
    return np.concatenate([euclidean(left_RD[start : start + _BLOCK], right_SD).argmin(axis=1) for start in starts])
