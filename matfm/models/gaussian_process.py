"""Gaussian processes on a few examples, whose kernel and noise are weighed by leave-one-out densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# S support examples, Q queries, K columns of values, M candidate kernels

NOISES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Variances of the noise, in units of that of the signal."""
_SMALLEST_SHARE = 1e-3
"""Candidates with less weight are left out: they cost as much as the others."""


@dataclass(frozen=True)
class _Candidate:
    """One kernel with one noise."""

    kernel: int
    share: float
    inverse_SS: np.ndarray
    weights_SK: np.ndarray
    scale_K: np.ndarray
    """Variance of the signal."""


@dataclass(frozen=True)
class LooGaussianProcess:
    """Regression of K columns with a mixture of kernels and noises.

    Each candidate is weighed by its leave-one-out predictive density (Rasmussen and Williams 2006, eq. 5.10 to 5.12),
    its signal variance being the one that makes leave-one-out errors as large as expected. With few examples a mixture
    (pseudo-BMA, Yao et al. 2018) is steadier than the best candidate alone.
    """

    candidates: tuple[_Candidate, ...]
    mean_K: np.ndarray
    error_K: np.ndarray
    """Root of the mean squared leave-one-out error."""

    @classmethod
    def fit(
        cls, kernels: Sequence[np.ndarray], values_SK: np.ndarray, noises: Sequence[float] = NOISES
    ) -> LooGaussianProcess:
        """From M kernels (S, S) with ones on the diagonal, and values of the S examples."""
        mean_K = values_SK.mean(axis=0)
        centred_SK = values_SK - mean_K
        found: list[tuple[float, np.ndarray, _Candidate]] = []
        for number, kernel_SS in enumerate(kernels):
            eigenvalues, vectors = np.linalg.eigh(kernel_SS)
            for noise in noises:
                inverse_SS = (vectors / (eigenvalues.clip(0) + noise)) @ vectors.T
                weights_SK = inverse_SS @ centred_SK
                density, scale_K, squared_K = _leave_one_out(inverse_SS, weights_SK)
                found.append((density, squared_K, _Candidate(number, 0.0, inverse_SS, weights_SK, scale_K)))
        densities = np.array([density for density, _, _ in found])
        shares = np.exp(densities - densities.max())
        shares[shares < _SMALLEST_SHARE * shares.sum()] = 0
        shares /= shares.sum()
        kept = [replace(one, share=float(share)) for share, (_, _, one) in zip(shares, found, strict=True) if share]
        squared_K = shares @ np.array([squared for _, squared, _ in found])
        return cls(tuple(kept), mean_K, np.sqrt(squared_K))

    def used(self) -> dict[int, float]:
        """Number of each kernel that is needed to predict, to its share."""
        shares: dict[int, float] = {}
        for one in self.candidates:
            shares[one.kernel] = shares.get(one.kernel, 0.0) + one.share
        return shares

    def predict(self, kernels_QS: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (Q, K) of the signal, from the kernels `used` between queries and support."""
        first = second = np.zeros(())
        for one in self.candidates:
            kernel_QS = kernels_QS[one.kernel]
            mean_QK = kernel_QS @ one.weights_SK
            left = (1 - np.einsum("qs,st,qt->q", kernel_QS, one.inverse_SS, kernel_QS, optimize=True)).clip(0)
            first = first + one.share * mean_QK
            second = second + one.share * (left[:, None] * one.scale_K + mean_QK**2)
        return self.mean_K + first, np.sqrt((second - first**2).clip(0))


def _leave_one_out(inverse_SS: np.ndarray, weights_SK: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log density of each example given the others, summed; the variance of the signal; the mean squared error."""
    variance_S1 = 1 / np.diag(inverse_SS)[:, None]
    errors_SK = weights_SK * variance_S1
    scale_K = (errors_SK**2 / variance_S1).mean(axis=0).clip(1e-12)
    return float(-0.5 * (np.log(2 * np.pi * scale_K * variance_S1) + 1).sum()), scale_K, (errors_SK**2).mean(axis=0)
