"""Scorers: fitted on a few labelled vectors, they score any number of others, with uncertainty and nearest example."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Self

import numpy as np
import torch

from matfm.errors import MatfmError
from matfm.models.gaussian_process import NOISES, LooGaussianProcess
from matfm.models.prototypes import DISTANCES, PrototypeHead
from matfm.tasks.few_shot.classical_features import KERNELS, FeatureBlock, euclidean, median_distance, split_blocks
from matfm.tasks.few_shot.support_scorer import SupportScores, is_binary

# S support examples, B rows, C classes, W columns of the vectors

SCORERS = ("kernel", "prototypes")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the first of two blocks in the kernel."""
LENGTHS = (0.5, 1.0, 2.0)
"""Length scales, in medians of the distance between support examples."""
_SMALLEST_ERROR = 0.15
"""Error of an estimated membership that a few examples can show; with less, certain rows would all have score 1."""


@dataclass
class PrototypeScorer:
    """A prototypical network on fixed vectors. The score is the probability of the highest class, for labels 0 and 1.

    Blocks are brought to unit length each, so that they count alike. With a `head` that was trained over tasks the
    first one alone, the embedding, is taken as it is.
    """

    distance: str = "mahalanobis"
    """euclidean, cosine or mahalanobis."""
    blocks: tuple[FeatureBlock, ...] = ()
    """Of the columns; one block of all of them if empty."""
    head: PrototypeHead | None = None
    """Trained over tasks: its distance and temperature are used."""
    refinements: int | None = None
    """Rounds in which the scored rows move the prototypes (transductive): scores then depend on their company.

    None is as the head was trained, 0 without one."""

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise MatfmError(f"distance is {self.distance!r}; choose one of {', '.join(DISTANCES)}")

    def fit(self, support_vectors_SD: np.ndarray, labels_S: np.ndarray) -> Self:
        """Labels are classes. Raises MatfmError if there is only one."""
        self.classes_, numbers = np.unique(labels_S, return_inverse=True)
        if len(self.classes_) < 2:
            raise MatfmError(
                f"all {len(numbers)} support examples have the label {self.classes_[0].item()!r}; give both classes"
            )
        self.support_ = self._prepared(support_vectors_SD)
        self.labels_ = torch.from_numpy(numbers.reshape(-1))
        self.head_ = PrototypeHead(self.distance, self.support_.shape[1]) if self.head is None else self.head
        if self.head is None and self.distance != "cosine":
            with torch.no_grad():  # a temperature of the mean distance, as nothing was learned
                self.head_.log_scale.zero_()
                mean = -self._logits(self.support_).mean()
                self.head_.log_scale.copy_(-mean.clamp_min(1e-6).log())
        return self

    def class_scores(self, vectors_BD: np.ndarray) -> np.ndarray:
        """Probabilities (B, C), in the order of `classes_`."""
        with torch.no_grad():
            logits_BC = self._logits(self._prepared(vectors_BD), self.refinements)
        probabilities: np.ndarray = logits_BC.double().softmax(dim=1).numpy()
        return probabilities

    def score(self, vectors_BD: np.ndarray) -> SupportScores:
        """Probability p of the highest class, √(p (1 − p)), nearest example by the Euclidean distance."""
        high = self.class_scores(vectors_BD)[:, -1]
        nearest = euclidean(self._prepared(vectors_BD).numpy(), self.support_.numpy()).argmin(axis=1)
        return SupportScores(high, np.sqrt(high * (1 - high)), nearest)

    def _logits(self, rows_BD: torch.Tensor, refinements: int | None = 0) -> torch.Tensor:
        logits_BC: torch.Tensor = self.head_(rows_BD, self.support_, self.labels_, len(self.classes_), refinements)
        return logits_BC

    def _prepared(self, vectors_BW: np.ndarray) -> torch.Tensor:
        parts = split_blocks(vectors_BW, self.blocks) if self.blocks else [vectors_BW]
        if self.head is not None:
            return torch.from_numpy(np.asarray(parts[0], np.float32))
        return torch.from_numpy(np.concatenate([_unit(part) for part in parts], axis=1))


@dataclass
class KernelScorer:
    """A Gaussian process on the sum of one kernel a block; shares, length scales and noise by leave-one-out density.

    Labels are regressed; of classes 0 and 1 the score is the probability that the estimate, with a normal error as
    large as in leaving one out, is nearer to 1.
    """

    blocks: tuple[FeatureBlock, ...] = ()
    """Of the columns; one block of all of them, compared by distance, if empty."""
    noises: tuple[float, ...] = NOISES
    regression: bool | None = None
    """Labels are numbers; else classes, of which each is told from the others. None: numbers unless all are 0 or 1."""
    _lengths: list[float] = field(default_factory=list, init=False)

    def fit(self, support_vectors_SD: np.ndarray, labels_S: np.ndarray) -> Self:
        """Labels are numbers or classes. Raises MatfmError if they are all equal."""
        self.classes_, numbers = np.unique(labels_S, return_inverse=True)
        if len(self.classes_) < 2:
            raise MatfmError(
                f"all {len(numbers)} support examples have the label {self.classes_[0].item()!r}; give others too"
            )
        self.numeric_ = not np.isin(labels_S, (0, 1)).all() if self.regression is None else self.regression
        memberships = np.eye(len(self.classes_))[numbers.reshape(-1)][:, -1 if len(self.classes_) == 2 else 0 :]
        values_SK = np.asarray(labels_S, np.float64).reshape(-1, 1) if self.numeric_ else memberships
        self.blocks_ = self.blocks or (FeatureBlock("vectors", support_vectors_SD.shape[1], "rbf"),)
        self.support_ = split_blocks(np.asarray(support_vectors_SD), self.blocks_)
        self._lengths = [median_distance(part) if b.kernel == "rbf" else 1.0 for part, b in self._parts(self.support_)]
        self.candidates_ = _candidates(self.blocks_)
        kernels = [self._kernel(candidate, self.support_) for candidate in self.candidates_]
        self.process_ = LooGaussianProcess.fit(kernels, values_SK, self.noises)
        return self

    def predict(self, vectors_BD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (B, 1), or (B, C) of more than two classes."""
        return self._predict(split_blocks(np.asarray(vectors_BD), self.blocks_))[:2]

    def class_scores(self, vectors_BD: np.ndarray) -> np.ndarray:
        """Estimates (B, C) of the membership of each class, in the order of `classes_`; they need not lie in 0 to 1.

        Raises:
            MatfmError: the labels were taken as numbers.
        """
        if self.numeric_:
            raise MatfmError("the labels were taken as numbers, not as classes; set regression to False")
        mean, _ = self.predict(vectors_BD)
        return np.concatenate([1 - mean, mean], axis=1) if mean.shape[1] == 1 else mean

    def score(self, vectors_BD: np.ndarray) -> SupportScores:
        """Estimated number, or probability of the highest class; its standard deviation; the most similar example."""
        mean, std, similarity_BS = self._predict(split_blocks(np.asarray(vectors_BD), self.blocks_))
        nearest = similarity_BS.argmax(axis=1)
        if self.numeric_:
            return SupportScores(mean[:, 0], std[:, 0], nearest)
        error = max(float(self.process_.error_K[-1]), _SMALLEST_ERROR)
        score_B, slope_B = _normal((mean[:, -1] - 0.5) / error)
        return SupportScores(score_B, slope_B * std[:, -1] / error, nearest)

    def _predict(self, parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shares = self.process_.used()
        # Candidates share their blocks' kernels: each is computed once.
        made = {
            key: KERNELS[self.blocks_[key[0]].kernel](
                parts[key[0]], self.support_[key[0]], self._lengths[key[0]] * key[1]
            )
            for key in {(b, length) for n in shares for b, (share, length) in enumerate(self.candidates_[n]) if share}
        }
        kernels = {
            n: _sum([share * made[b, length] for b, (share, length) in enumerate(self.candidates_[n]) if share])
            for n in shares
        }
        mean, std = self.process_.predict(kernels)
        return mean, std, _sum([shares[n] * kernels[n] for n in shares])

    def _kernel(self, candidate: _Candidate, parts: list[np.ndarray]) -> np.ndarray:
        terms = []
        for number, (share, length) in enumerate(candidate):
            if share:
                kernel = KERNELS[self.blocks_[number].kernel]
                terms.append(share * kernel(parts[number], self.support_[number], self._lengths[number] * length))
        return _sum(terms)

    def _parts(self, parts: list[np.ndarray]) -> list[tuple[np.ndarray, FeatureBlock]]:
        return list(zip(parts, self.blocks_, strict=True))


def check_scorer(name: str, distance: str | None) -> None:
    """Raise MatfmError for a scorer or a distance that there is not, or a distance that is not used."""
    if name not in SCORERS:
        raise MatfmError(f"scorer is {name!r}; choose one of {', '.join(SCORERS)}")
    if distance is not None and distance not in DISTANCES:
        raise MatfmError(f"distance is {distance!r}; choose one of {', '.join(DISTANCES)}")
    if distance is not None and name != "prototypes":
        raise MatfmError(f"distance is {distance!r}, which only the scorer prototypes takes; leave it out")


def named_scorer(
    name: str, distance: str | None, blocks: tuple[FeatureBlock, ...], head: PrototypeHead | None, labels_S: np.ndarray
) -> KernelScorer | PrototypeScorer:
    """A scorer to be fitted, which scores every candidate independently of the others.

    Args:
        name: kernel or prototypes.
        distance: of prototypes; None is what the head learned, mahalanobis without one.
        blocks: of the features, the embedding first.
        head: of a model that was trained over tasks.
        labels_S: that it will be fitted to.

    Raises:
        MatfmError: name, distance, head and labels do not go together.
    """
    check_scorer(name, distance)
    if name == "kernel":
        return KernelScorer(blocks)
    if not is_binary(labels_S):
        raise MatfmError("the scorer prototypes is for two classes (0 and 1) and the labels are numbers; choose kernel")
    if head is None:
        return PrototypeScorer(distance or "mahalanobis", blocks)
    if distance not in (None, head.distance):
        raise MatfmError(f"distance is {distance!r} and this model learned {head.distance}; leave distance out")
    own = copy.deepcopy(head).cpu().requires_grad_(False)  # the encoder may be elsewhere; vectors are here
    return PrototypeScorer(head.distance, blocks, own, refinements=0)


_Candidate = tuple[tuple[float, float], ...]
"""Share and length scale of each block."""


def _candidates(blocks: Sequence[FeatureBlock]) -> list[_Candidate]:
    """Every mixture of the blocks (alone, in equal parts, and in the shares of two) with every length scale."""
    mixtures: list[tuple[float, ...]]
    if len(blocks) == 1:
        mixtures = [(1.0,)]
    elif len(blocks) == 2:
        mixtures = [(share, 1 - share) for share in SHARES]
    else:
        mixtures = [tuple(row) for row in (*np.eye(len(blocks)), np.full(len(blocks), 1 / len(blocks)))]
    lengths = [LENGTHS if block.kernel == "rbf" else (1.0,) for block in blocks]
    found: dict[_Candidate, None] = {}
    for mixture in mixtures:
        for combination in product(*lengths):
            used = [(share, length if share else 1.0) for share, length in zip(mixture, combination, strict=True)]
            found[tuple(used)] = None
    return list(found)


def _sum(terms: Sequence[np.ndarray]) -> np.ndarray:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _normal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative probability and density of the standard normal distribution."""
    cumulative = torch.special.ndtr(torch.from_numpy(values)).numpy()
    return cumulative, np.exp(-(values**2) / 2) / np.sqrt(2 * np.pi)


def _unit(vectors: np.ndarray) -> np.ndarray:
    values = np.asarray(vectors, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-12)
