"""A few labelled examples to a score of every candidate: the protocol of scorers, and what a support must have."""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import numpy as np

from matfm.errors import MatfmError

# S support examples, B candidates, D width

MAX_SUPPORT = 2_000
"""Examples that a Gaussian process takes; its matrices have as many rows and columns."""


class SupportScores(NamedTuple):
    """What a scorer says of B candidates."""

    score_B: np.ndarray
    """Probability that the label is 1, or the expected value in the unit of the labels; float64."""
    uncertainty_B: np.ndarray
    """One standard deviation of the score, in its unit; float64."""
    nearest_B: np.ndarray
    """The support example that is nearest to each candidate, an index below S; int64."""


class SupportScorer(Protocol):
    """Learns from a few examples and scores any number of candidates, each independently of the others.

    A fitted scorer can be pickled: worker processes get a copy. Whoever needs equal results on every one of them
    computes with torch, whose number of threads the workers share.
    """

    def fit(self, support_vectors_SD: np.ndarray, labels_S: np.ndarray) -> Self:
        """Learn from embeddings and their labels: 0 and 1 for two classes, else finite numbers."""
        ...

    def score(self, vectors_BD: np.ndarray) -> SupportScores:
        """Scores, uncertainties and nearest examples of embeddings."""
        ...


def is_binary(labels_S: np.ndarray) -> bool:
    """Whether labels are the classes 0 and 1."""
    return bool(np.isin(labels_S, (0.0, 1.0)).all())


def check_support(labels_S: np.ndarray) -> None:
    """Raise MatfmError where there is nothing to learn from, or too much for a Gaussian process."""
    if not 2 <= len(labels_S) <= MAX_SUPPORT:
        raise MatfmError(
            f"the support has {len(labels_S)} examples that can be used; give 2 to {MAX_SUPPORT:,} "
            "(matfm finetune and matfm predict take more)"
        )
    if len(np.unique(labels_S)) < 2:
        raise MatfmError(f"all examples of the support have the label {labels_S[0]:g}; give at least two different")
