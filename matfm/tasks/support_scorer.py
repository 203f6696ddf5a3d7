"""A few labelled examples to a score of every candidate: the protocol, and a Gaussian process on embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from matfm.errors import MatfmError

# S support examples, B candidates, R rows of a reference, D width

MAX_SUPPORT = 2_000
"""Examples that a Gaussian process takes; its matrices have as many rows and columns."""
_NEWTON_STEPS, _CONVERGED = 50, 1e-9
_LENGTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Length scales that are tried, in units of the distance of two unrelated rows."""
_AMPLITUDES = (1.0, 4.0, 16.0)
"""Prior variances of the log odds that are tried."""
_NOISES = (1e-3, 1e-2, 1e-1, 1.0)
"""Noise variances that are tried, as shares of the prior variance of the values."""


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


@dataclass(frozen=True)
class Standardisation:
    """Shift and scale of every column of embeddings."""

    mean_D: Tensor
    scale_D: Tensor

    @classmethod
    def of(cls, reference_RD: np.ndarray) -> Standardisation:
        """To mean 0 and standard deviation 1 over the reference; columns that are constant there are only shifted."""
        reference = torch.from_numpy(np.ascontiguousarray(reference_RD)).double()
        spread_D = reference.std(dim=0, correction=0)
        constant_D = spread_D <= 1e-9 * reference.abs().amax(dim=0)
        return cls(reference.mean(dim=0), torch.where(constant_D, 1.0, spread_D))

    def __call__(self, vectors_BD: np.ndarray) -> Tensor:
        """(B, D), float64."""
        return (torch.from_numpy(np.ascontiguousarray(vectors_BD)).double() - self.mean_D) / self.scale_D


class GaussianProcessScorer:
    """Gaussian process on standardised embeddings (Rasmussen & Williams 2006): regression, or classes 0 and 1.

    The kernel is a constant with a linear or a squared exponential one; which, its length scale, amplitude and noise
    are those of the highest evidence on the support. With the linear kernel this is ridge regression and ridge
    logistic regression. Classes have a logistic likelihood in Laplace's approximation (algorithms 3.1 and 3.2), and
    the probability is MacKay's average over the posterior (1992).

    Args:
        reference_RD: embeddings that say which differences are large, such as the beginning of the library to be
            scored; the support itself if None.
    """

    def __init__(self, reference_RD: np.ndarray | None = None) -> None:
        self.standard = None if reference_RD is None else Standardisation.of(reference_RD)

    def fit(self, support_vectors_SD: np.ndarray, labels_S: np.ndarray) -> Self:
        """As the protocol says.

        Raises:
            MatfmError: fewer than two examples or too many, or all with the same class.
        """
        check_support(labels_S)
        if self.standard is None:
            self.standard = Standardisation.of(support_vectors_SD)
        self.support_SD = self.standard(support_vectors_SD)
        self.binary = is_binary(labels_S)
        labels = torch.from_numpy(np.ascontiguousarray(labels_S)).double()
        self.centre = 0.0 if self.binary else float(labels.mean())
        self.unit = 1.0 if self.binary else float(labels.std(correction=0)) or 1.0
        fits = [
            fitted
            for length in (None, *_LENGTHS)
            for fitted in self._fits(_kernel(self.support_SD, self.support_SD, length), labels, length)
        ]
        self.best = max(fits, key=lambda fitted: fitted.evidence)  # the first of equal ones
        return self

    def score(self, vectors_BD: np.ndarray) -> SupportScores:
        """As the protocol says."""
        assert self.standard is not None
        vectors = self.standard(vectors_BD)
        best = self.best
        kernel_BS = best.amplitude * _kernel(vectors, self.support_SD, best.length)
        prior_B = best.amplitude * _prior(vectors, best.length)
        mean_B = kernel_BS @ best.weights_S
        variance_B = (prior_B - ((kernel_BS @ best.inverse_SS) * kernel_BS).sum(dim=1)).clamp_min(0.0)
        if self.binary:
            score_B = torch.sigmoid(mean_B / torch.sqrt(1 + math.pi / 8 * variance_B))
            spread_B = score_B * (1 - score_B) * variance_B.sqrt()
        else:
            score_B, spread_B = self.centre + self.unit * mean_B, self.unit * variance_B.sqrt()
        nearest_B = _square_distances(vectors, self.support_SD).argmin(dim=1)
        return SupportScores(score_B.numpy(), spread_B.numpy(), nearest_B.numpy())

    def _fits(self, kernel_SS: Tensor, labels_S: Tensor, length: float | None) -> list[_Fit]:
        if self.binary:
            return [_laplace(kernel_SS, labels_S, amplitude, length) for amplitude in _AMPLITUDES]
        values_S = (labels_S - self.centre) / self.unit
        return [_regression(kernel_SS, values_S, noise, length) for noise in _NOISES]


@dataclass(frozen=True)
class SupportDomain:
    """Whether a candidate is about as near to the support as the examples are to each other.

    The limit is the mean distance of an example to its nearest other one, plus half a standard deviation (Zhang,
    Golbraikh & Tropsha 2006).
    """

    standard: Standardisation
    support_SD: Tensor
    limit: float

    @classmethod
    def of(cls, support_vectors_SD: np.ndarray, reference_RD: np.ndarray) -> SupportDomain:
        """From at least two examples; distances are Euclidean, standardised over the reference."""
        standard = Standardisation.of(reference_RD)
        support_SD = standard(support_vectors_SD)
        between_SS = torch.cdist(support_SD, support_SD, compute_mode="donot_use_mm_for_euclid_dist")
        nearest_S = between_SS.fill_diagonal_(math.inf).amin(dim=1)
        return cls(standard, support_SD, float(nearest_S.mean() + 0.5 * nearest_S.std(correction=0)))

    def covers(self, vectors_BD: np.ndarray, nearest_B: np.ndarray) -> np.ndarray:
        """Which candidates lie within the limit of their nearest example; bool."""
        apart_BD = self.standard(vectors_BD) - self.support_SD[torch.from_numpy(nearest_B)]
        covered: np.ndarray = (apart_BD.square().sum(dim=1).sqrt() <= self.limit).numpy()
        return covered


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


@dataclass(frozen=True)
class _Fit:
    """A kernel with the posterior under it."""

    length: float | None
    amplitude: float
    weights_S: Tensor
    """Mean at x: k(x) · weights."""
    inverse_SS: Tensor
    """Variance at x: k(x, x) − k(x) · inverse · k(x)."""
    evidence: float
    """Logarithm of the marginal likelihood."""


def _square_distances(left_BD: Tensor, right_SD: Tensor) -> Tensor:
    squares = left_BD.square().sum(dim=1)[:, None] + right_SD.square().sum(dim=1) - 2 * left_BD @ right_SD.T
    return squares.clamp_min(0.0)


def _kernel(left_BD: Tensor, right_SD: Tensor, length: float | None) -> Tensor:
    """1 + z · z′ / D without a length scale, else 1 + exp(−|z − z′|² / (2 · length² · 2 D)), shape (B, S).

    2 D is the expected squared distance of two independent standardised rows.
    """
    width = left_BD.shape[1]
    if length is None:
        return 1 + left_BD @ right_SD.T / width
    return 1 + torch.exp(-_square_distances(left_BD, right_SD) / (4 * width * length**2))


def _prior(vectors_BD: Tensor, length: float | None) -> Tensor:
    """The kernel of every row with itself."""
    if length is None:
        return 1 + vectors_BD.square().sum(dim=1) / vectors_BD.shape[1]
    return torch.full((len(vectors_BD),), 2.0, dtype=vectors_BD.dtype)


def _regression(kernel_SS: Tensor, values_S: Tensor, noise: float, length: float | None) -> _Fit:
    """Gaussian noise; the amplitude that maximises the evidence is known in closed form."""
    count = len(values_S)
    noisy = kernel_SS + noise * torch.eye(count, dtype=kernel_SS.dtype)
    factor = torch.linalg.cholesky(noisy)
    weights = torch.cholesky_solve(values_S[:, None], factor)[:, 0]
    amplitude = float(values_S @ weights) / count
    half_logdet = float(factor.diagonal().log().sum())
    evidence = -0.5 * count * (math.log(2 * math.pi * amplitude) + 1) - half_logdet
    return _Fit(length, amplitude, weights / amplitude, torch.cholesky_inverse(factor) / amplitude, evidence)


def _laplace(kernel_SS: Tensor, labels_S: Tensor, amplitude: float, length: float | None) -> _Fit:
    """Laplace's approximation of logistic labels by Newton's method (algorithm 3.1)."""
    kernel = amplitude * kernel_SS
    identity = torch.eye(len(labels_S), dtype=kernel.dtype)
    latent_S, weights_S, objective = torch.zeros_like(labels_S), torch.zeros_like(labels_S), -math.inf
    for _ in range(_NEWTON_STEPS):
        share_S = torch.sigmoid(latent_S)
        root_S = (share_S * (1 - share_S)).sqrt()
        factor = torch.linalg.cholesky(identity + root_S[:, None] * kernel * root_S)
        target_S = root_S.square() * latent_S + labels_S - share_S
        solved = torch.cholesky_solve((root_S * (kernel @ target_S))[:, None], factor)[:, 0]
        weights_S = target_S - root_S * solved
        latent_S = kernel @ weights_S
        log_likelihood = -torch.nn.functional.softplus(-(2 * labels_S - 1) * latent_S).sum()
        before, objective = objective, float(log_likelihood - 0.5 * weights_S @ latent_S)
        if abs(objective - before) < _CONVERGED:
            break
    share_S = torch.sigmoid(latent_S)
    root_S = (share_S * (1 - share_S)).sqrt()
    factor = torch.linalg.cholesky(identity + root_S[:, None] * kernel * root_S)
    inverse_SS = root_S[:, None] * torch.cholesky_inverse(factor) * root_S
    evidence = objective - float(factor.diagonal().log().sum())
    return _Fit(length, amplitude, weights_S, inverse_SS, evidence)
