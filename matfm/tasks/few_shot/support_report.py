"""How good a support set is: copies, classes, and how much of the library that it shall rank lies near it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from matfm.errors import MatfmError
from matfm.tasks.few_shot.classical_features import euclidean

# S support examples, L rows of the library, B rows of a part, K rows of a sample, D width

FARTHEST = 10
"""Library rows that a report names."""
_SAME = 1e-4
"""Distance, in units of the largest vector, below which two vectors are one: rounding depends on the batch."""
_REACH = 0.9
_LEVELS = (0.1, 0.5, 0.9)
_BLOCK = 4096


@dataclass(frozen=True)
class SupportReport:
    """What a support set is, beside the library that it shall rank."""

    examples: int
    classes: dict[str, int]
    """Examples of each label; empty where labels are numbers."""
    values: dict[str, float]
    """Least, median and largest label (0, 0.5, 1), where labels are numbers."""
    duplicates: int
    """Examples whose vector another one has already."""
    conflicts: int
    """Duplicates with another label than the first of them."""
    support_distance: float
    """Median distance of an example to the nearest other one."""
    library_rows: int
    coverage: float | None
    """Share of the library that is no farther from an example than examples are from each other (90 % quantile)."""
    library_distance: dict[str, float]
    """Quantiles of the distance of library rows to the nearest example."""
    quantile_rows: int
    """Rows that the quantiles below 1 are of: all, or a random sample of a library that was streamed."""
    in_library: int
    """Examples whose vector is in the library."""
    farthest: list[int]
    """The ten library rows farthest from any example: labels there would widen the coverage."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def told(self) -> str:
        """In a few lines of text."""
        labels = ", ".join(f"{count} of {label}" for label, count in self.classes.items())
        if self.values:
            low, middle, high = (self.values[level] for level in ("0", "0.5", "1"))
            labels = f"labels {low:g} to {high:g}, median {middle:g}"
        support = (
            f"support: {self.examples} examples ({labels}); {self.duplicates} copies, {self.conflicts} of them with "
            f"another label; {self.in_library} are in the library"
        )
        if self.coverage is None:
            return support
        return (
            f"{support}\nlibrary: {self.coverage:.1%} of {self.library_rows:,} rows are as near to an example as "
            f"examples are to each other; farthest from all examples are the rows {', '.join(map(str, self.farthest))}"
        )


@dataclass(frozen=True)
class LibraryDistances:
    """How near the rows of a library are to the examples of a support set."""

    rows: int
    covered: int
    """Rows within the reach of the support."""
    sample_K: np.ndarray
    """Distances to the nearest example, of all rows or of a random sample."""
    farthest: list[int]
    """Numbers of the farthest rows, the farthest first."""
    largest: float
    """Distance of the farthest row."""
    back_S: np.ndarray
    """Distance of each example to the nearest row."""


@dataclass(frozen=True)
class SupportSet:
    """The vectors of a support and their distances from each other; Euclidean, so they should have one scale."""

    vectors_SD: np.ndarray
    nearest_S: np.ndarray
    """Distances of examples to the nearest other one that is no copy; a single 0 if all are copies."""
    copies: np.ndarray
    """Examples whose vector another one has already."""
    first: np.ndarray
    """The first with the same vector, of each copy."""
    same: float
    """Distance up to which two vectors are one."""

    @classmethod
    def of(cls, vectors_SD: np.ndarray) -> SupportSet:
        """Of two examples or more."""
        among_SS = euclidean(vectors_SD, vectors_SD)
        same = _SAME * float(np.linalg.norm(vectors_SD, axis=1).max())
        same_SS = np.tril(among_SS <= same, -1)
        copies = np.flatnonzero(same_SS.any(axis=1))
        first = same_SS[copies].argmax(axis=1)
        among_SS[np.eye(len(among_SS), dtype=bool) | same_SS | same_SS.T] = np.inf
        nearest_S = among_SS.min(axis=1)
        nearest_S = nearest_S[np.isfinite(nearest_S)] if np.isfinite(nearest_S).any() else np.zeros(1)
        return cls(vectors_SD, nearest_S, copies, first, same)

    @property
    def reach(self) -> float:
        """Distance up to which a row is covered."""
        return float(np.quantile(self.nearest_S, _REACH))

    def measure(self, vectors_BD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of each row to the nearest example (B,), and of each example to the nearest row (S,)."""
        parts, back_S = [np.zeros(0)], np.full(len(self.vectors_SD), np.inf)
        for start in range(0, len(vectors_BD), _BLOCK):
            block = euclidean(vectors_BD[start : start + _BLOCK], self.vectors_SD)
            parts.append(block.min(axis=1))
            back_S = np.fmin(back_S, np.fmin.reduce(block, axis=0))
        return np.concatenate(parts), back_S

    def report(self, labels_S: Sequence[Any] | np.ndarray, library: LibraryDistances, numbers: bool) -> SupportReport:
        """The support beside a library; `numbers` says that labels are no classes."""
        labels = np.asarray(labels_S)
        names, counts = np.unique(labels, return_counts=True)
        classes = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
        distance = {f"{level:g}": float(np.quantile(library.sample_K, level)) for level in _LEVELS if library.rows}
        return SupportReport(
            examples=len(self.vectors_SD),
            classes={} if numbers else classes,
            values={f"{level:g}": float(np.quantile(labels, level)) for level in (0, 0.5, 1)} if numbers else {},
            duplicates=len(self.copies),
            conflicts=int((labels[self.copies] != labels[self.first]).sum()),
            support_distance=float(np.median(self.nearest_S)),
            library_rows=library.rows,
            coverage=library.covered / library.rows if library.rows else None,
            library_distance={**distance, "1": library.largest} if library.rows else {},
            quantile_rows=len(library.sample_K),
            in_library=int((library.back_S <= self.same).sum()),
            farthest=library.farthest,
        )


def support_report(
    support_SD: np.ndarray,
    labels_S: Sequence[Any] | np.ndarray,
    library_LD: np.ndarray,
    rows_L: np.ndarray | None = None,
    numbers: bool = False,
) -> SupportReport:
    """Measured by the Euclidean distance of the vectors, of a library in memory.

    Args:
        support_SD: vectors of the examples.
        labels_S: their labels.
        library_LD: vectors of the library.
        rows_L: what its rows are called in the report; 0, 1, … if None.
        numbers: labels are numbers, no classes.

    Raises:
        MatfmError: fewer than two examples, or an empty library.
    """
    if len(support_SD) < 2 or len(library_LD) == 0:
        raise MatfmError(f"{len(support_SD)} examples and {len(library_LD)} library rows; at least 2 and 1 are needed")
    support = SupportSet.of(support_SD)
    distance_L, back_S = support.measure(library_LD)
    far = np.argsort(-distance_L, kind="stable")[:FARTHEST]
    named = far if rows_L is None else rows_L[far]
    covered = int((distance_L <= support.reach).sum())
    library = LibraryDistances(len(distance_L), covered, distance_L, named.tolist(), float(distance_L[far[0]]), back_S)
    return support.report(labels_S, library, numbers)
