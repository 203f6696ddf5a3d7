"""`FewShotScreener`: a few labelled inputs in, a library ranked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.few_shot.features import EMBEDDING, Described, Featuriser, trained_head
from matfm.tasks.few_shot.scorers import KernelScorer, PrototypeScorer, named_scorer
from matfm.tasks.few_shot.support import labels_curve
from matfm.tasks.few_shot.support_report import SupportReport, support_report
from matfm.tasks.few_shot.support_scorer import SupportScores, is_binary
from matfm.tasks.screening.support_domain import REFERENCE_ROWS, SupportDomain

# S support examples, R rows, B rows of a part

_PART = 4096
"""Rows of the library described at a time, which bounds the memory."""


@dataclass(frozen=True)
class Hit:
    """A row of the library."""

    input: str
    row: int
    """Its number in the library, from 0."""
    score: float
    """Probability that the label is 1, or the expected number."""
    uncertainty: float
    """One standard deviation, in the unit of the score."""
    nearest: str
    """The known example most like it."""
    applicable: bool
    """Whether it is about as near to the known examples as they are to each other."""


class FewShotScreener(BaseEstimator):  # type: ignore[misc]
    """Ranks compositions or molecules by a handful of labelled ones.

    Args:
        backbone: bundled name, folder or Hub id; one that `matfm fewshot` trained compares as it learned to.
        scorer: kernel (a Gaussian process on embedding and classical features) or prototypes.
        classical: auto (ECFP counts of molecules, atomic fractions of compositions), none, ecfp, fractions or magpie.
        kind: composition, smiles or selfies; None is what the backbone reads.
        cache: folder that keeps embeddings, found again by the content of weights and inputs; None keeps none.
        device: auto, cpu, cuda or mps.
        distance: of prototypes: euclidean, cosine or mahalanobis. None is what `matfm fewshot` learned, mahalanobis
            for other backbones.
    """

    def __init__(
        self,
        backbone: str = "matbert-small",
        scorer: str = "kernel",
        classical: str = "auto",
        kind: str | None = None,
        cache: str | Path | None = None,
        device: str = "auto",
        distance: str | None = None,
    ) -> None:
        self.backbone = backbone
        self.scorer = scorer
        self.classical = classical
        self.kind = kind
        self.cache = cache
        self.device = device
        self.distance = distance

    def fit(self, X: Sequence[str], y: Any) -> Self:
        """`X`: known inputs, (S,); `y`: labels, (S,): booleans or 0 and 1, or numbers where more is better.

        Raises:
            MatfmError: an input cannot be read, labels are missing or all equal, or there are too few.
        """
        labels = np.asarray(y, dtype=np.float64).reshape(-1)
        if len(labels) != len(X):
            raise MatfmError(f"there are {len(X)} inputs but {len(labels)} labels")
        if not np.isfinite(labels).all():
            raise MatfmError("labels must be finite; leave examples without a label out")
        cache = None if self.cache is None else Path(self.cache)
        self.featuriser_ = Featuriser.load(self.backbone, self.kind, self.classical, resolve_device(self.device), cache)
        self.inputs_, self.labels_ = list(X), labels
        self.support_ = self.featuriser_(self.inputs_).all_of(X)
        self.scorer_ = self._new_scorer().fit(self.support_.vectors_RW, labels)
        return self

    def rank(self, library: Iterable[str], top: int = 100) -> list[Hit]:
        """The `top` rows with the highest scores, best first; the earlier of equal ones.

        The library is read once and in parts, so it may be a generator. Rows that cannot be read are in `rejects_`
        afterwards: row number to reason.
        """
        if top < 1:
            raise MatfmError(f"top is {top}; it must be at least 1")
        self.rejects_: dict[int, str] = {}
        best: list[Hit] = []
        for part in self._parts(library):
            best = nsmallest(top, [*best, *part], key=lambda hit: (-hit.score, hit.row))
        return best

    def score(self, X: Sequence[str]) -> SupportScores:
        """Score, uncertainty and number of the nearest known example of each input, (B,) each.

        Raises MatfmError at inputs that cannot be read.
        """
        check_is_fitted(self, "scorer_")
        return self.scorer_.score(self.featuriser_(list(X)).all_of(X).vectors_RW)

    def report(self, library: Sequence[str]) -> SupportReport:
        """How the known examples lie in a library (which fits in memory), by the embedding."""
        check_is_fitted(self, "scorer_")
        beside = self.featuriser_(list(library))
        vectors_LD, numbers = beside.features.block(EMBEDDING).vectors_RW, not is_binary(self.labels_)
        return support_report(self._embedded, self.labels_, vectors_LD, beside.rows, numbers)

    def labels_curve(self, sizes: Sequence[int], repeats: int = 20, seed: int = 0) -> list[dict[str, float]]:
        """How well parts of the known examples predict the others; see `matfm.tasks.few_shot.support.labels_curve`."""
        check_is_fitted(self, "scorer_")
        numbers = isinstance(self.scorer_, KernelScorer) and self.scorer_.numeric_
        return labels_curve(self.support_.vectors_RW, self.labels_, self._new_scorer, sizes, repeats, seed, numbers)

    def _parts(self, library: Iterable[str]) -> Iterator[list[Hit]]:
        check_is_fitted(self, "scorer_")
        if isinstance(library, str):
            raise MatfmError("the library is one text; give a list of formulas or molecules")
        rows, first, domain = iter(library), 0, None
        while part := list(islice(rows, _PART)):
            described = self.featuriser_(part)
            self.rejects_ |= {first + row: reason for row, reason in described.errors.items()}
            domain = domain or self._domain(described)
            if len(described.rows):
                scores = self.scorer_.score(described.features.vectors_RW)
                covered = domain.covers(described.features.block(EMBEDDING).vectors_RW)
                yield [
                    Hit(part[row], first + int(row), float(score), float(std), self.inputs_[nearest], bool(applicable))
                    for row, score, std, nearest, applicable in zip(described.rows, *scores, covered, strict=True)
                ]
            first += len(part)

    @property
    def _embedded(self) -> np.ndarray:
        """Vectors (S, D) of the known examples."""
        return self.support_.block(EMBEDDING).vectors_RW

    def _domain(self, beginning: Described) -> SupportDomain:
        """How far the known examples reach, on the scale of the beginning of a library."""
        reference_RD = beginning.features.block(EMBEDDING).vectors_RW[beginning.rows < REFERENCE_ROWS]
        return SupportDomain.of(self._embedded, np.concatenate([self._embedded, reference_RD]))

    def _new_scorer(self) -> KernelScorer | PrototypeScorer:
        head = trained_head(self.featuriser_.model, self.backbone)
        return named_scorer(self.scorer, self.distance, self.support_.blocks, head, self.labels_)
