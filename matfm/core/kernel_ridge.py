"""Exact Gaussian-process regression with a given kernel; noise and kernel are chosen by leave-one-out.

The mean is an unknown constant (ordinary kriging), so the left-out residuals in closed form (Dubrule, Math. Geol. 15,
687 (1983), doi 10.1007/BF01033232) are exactly those of n fits without the row. Nothing but training rows decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matfm.errors import MatfmError

# R training rows, S other rows, D features

NOISES = tuple(float(noise) for noise in np.geomspace(1e-3, 3.0, 15))
"""Variances of the noise that are tried, in units of the kernel (whose diagonal is 1)."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of a further kernel that are tried."""
_SPAN = 1e-10
"""Smallest eigenvalue plus noise that counts, relative to the largest."""


@dataclass(frozen=True)
class KernelRidge:
    """A fitted regression."""

    weight_R: np.ndarray
    """Of the training rows in a prediction."""
    intercept: float
    noise: float
    """Variance of the noise, in units of the kernel."""
    scale: float
    """Variance of the target for one unit of the kernel, so that left-out residuals have the variance they claim."""
    left_out_R: np.ndarray
    """Each training row as predicted by the others."""
    left_out_error: float
    """Root mean square of the left-out residuals."""
    precision_RR: np.ndarray
    """Inverse of kernel plus noise."""

    def predict(self, kernel_SR: np.ndarray) -> np.ndarray:
        """Means (S,) for the kernel between other rows and the training rows."""
        means: np.ndarray = kernel_SR @ self.weight_R + self.intercept
        return means

    def std(self, kernel_SR: np.ndarray, kernel_S: np.ndarray | float = 1.0) -> np.ndarray:
        """Standard deviations (S,) of a measurement, noise and unknown constant included.

        Args:
            kernel_SR: between other rows and the training rows.
            kernel_S: of every other row with itself.
        """
        explained_S = np.einsum("sr,rq,sq->s", kernel_SR, self.precision_RR, kernel_SR, optimize=True)
        row_sums_R = self.precision_RR.sum(axis=1)
        unknown_S = (1 - kernel_SR @ row_sums_R) ** 2 / row_sums_R.sum()
        variance_S = self.scale * (kernel_S + self.noise - explained_S + unknown_S)
        deviations: np.ndarray = np.sqrt(np.maximum(variance_S, 0))
        return deviations


def fit_kernel_ridge(kernel_RR: np.ndarray, target_R: np.ndarray, noises: Sequence[float] = NOISES) -> KernelRidge:
    """The regression whose noise has the smallest left-out residuals.

    One eigendecomposition serves all noises: 9 R³ operations.

    Args:
        kernel_RR: symmetric, positive semidefinite.
        target_R: finite numbers.
        noises: variances to choose from, in units of the kernel.

    Raises:
        MatfmError: fewer than three rows, shapes that disagree, numbers that are not finite, a noise below 0.
    """
    _check(kernel_RR, target_R, noises)
    values_R, vectors_RR = np.linalg.eigh(kernel_RR)
    values_R = np.maximum(values_R, 0)
    best: tuple[float, float, _Solution] | None = None
    for noise in noises:
        solution = _solve(values_R, vectors_RR, target_R, noise)
        error = float(np.sqrt(np.mean(solution.residual_R**2)))
        if best is None or error < best[0]:
            best = error, float(noise), solution
    assert best is not None
    error, noise, solution = best
    return KernelRidge(
        solution.weight_R,
        solution.intercept,
        noise,
        float(np.mean(solution.residual_R**2 * solution.diagonal_R)),
        target_R - solution.residual_R,
        error,
        _inverse(values_R, vectors_RR, noise),
    )


def inverse_of(kernel_RR: np.ndarray, noise: float) -> np.ndarray:
    """`KernelRidge.precision_RR` of a regression with that kernel and noise, made again."""
    values_R, vectors_RR = np.linalg.eigh(kernel_RR)
    return _inverse(np.maximum(values_R, 0), vectors_RR, noise)


def _inverse(values_R: np.ndarray, vectors_RR: np.ndarray, noise: float) -> np.ndarray:
    inverse: np.ndarray = (vectors_RR * _inverse_spectrum(values_R, noise)) @ vectors_RR.T
    return inverse


@dataclass(frozen=True)
class _Solution:
    weight_R: np.ndarray
    intercept: float
    residual_R: np.ndarray
    """Target minus left-out prediction."""
    diagonal_R: np.ndarray
    """One over the variance of the left-out residual, in units of the kernel."""


def _inverse_spectrum(values_R: np.ndarray, noise: float) -> np.ndarray:
    raised = values_R + noise
    inverse: np.ndarray = 1 / np.maximum(raised, _SPAN * raised[-1])
    return inverse


def _solve(values_R: np.ndarray, vectors_RR: np.ndarray, target_R: np.ndarray, noise: float) -> _Solution:
    """The bordered system [[K + noise, 1], [1, 0]] and the diagonal of its inverse."""
    spectrum_R = _inverse_spectrum(values_R, noise)
    sums_R = vectors_RR @ (spectrum_R * vectors_RR.sum(axis=0))
    weighed_R = vectors_RR @ (spectrum_R * (target_R @ vectors_RR))
    total = sums_R.sum()
    intercept = float(weighed_R.sum() / total)
    weight_R = weighed_R - intercept * sums_R
    diagonal_R = np.square(vectors_RR) @ spectrum_R - sums_R**2 / total
    return _Solution(weight_R, intercept, weight_R / diagonal_R, diagonal_R)


def _check(kernel_RR: np.ndarray, target_R: np.ndarray, noises: Sequence[float]) -> None:
    rows = len(target_R)
    if rows < 3:
        raise MatfmError(f"kernel regression needs at least 3 training rows; there are {rows}")
    if kernel_RR.shape != (rows, rows):
        raise MatfmError(f"the kernel has shape {kernel_RR.shape} and there are {rows} targets; it must be square")
    if not (np.isfinite(kernel_RR).all() and np.isfinite(target_R).all()):
        raise MatfmError("kernel or targets hold numbers that are not finite; leave such rows out")
    if not noises or min(noises) < 0:
        raise MatfmError(f"noises are {list(noises)}; give one or more, none below 0")


@dataclass(frozen=True)
class KernelSum:
    """A weighted sum of kernels, weights summing to 1, and the regression with it."""

    weights: tuple[float, ...]
    fitted: KernelRidge

    def of(self, kernels: Sequence[np.ndarray]) -> np.ndarray:
        """The sum for kernels in the order of those it was fitted to."""
        return weighted_sum(kernels, self.weights)

    def predict(self, kernels: Sequence[np.ndarray]) -> np.ndarray:
        """Means (S,) for the kernels, each (S, R), between other rows and the training rows."""
        return self.fitted.predict(self.of(kernels))


def fit_kernel_sum(
    kernels: Sequence[np.ndarray],
    target_R: np.ndarray,
    noises: Sequence[float] = NOISES,
    shares: Sequence[float] = SHARES,
    rows: int = 1000,
    seed: int = 0,
) -> KernelSum:
    """Start from the best kernel alone; mix the others in, best first, each with the share that helps most.

    A kernel that does not lower the left-out error gets no weight. Kernels should have a diagonal of 1.

    Args:
        kernels: each (R, R).
        target_R: finite numbers.
        noises: as for `fit_kernel_ridge`.
        shares: of a further kernel, between 0 and 1, to choose from.
        rows: most training rows on which shares are chosen, drawn at random; noise and weights take them all.
        seed: of that draw.

    Raises:
        MatfmError: no kernel, or as `fit_kernel_ridge`.
    """
    if not kernels:
        raise MatfmError("there is no kernel to fit")
    if len(kernels) == 1:
        return KernelSum((1.0,), fit_kernel_ridge(kernels[0], target_R, noises))
    for kernel in kernels:
        _check(kernel, target_R, noises)
    drawn = np.arange(len(target_R))
    if len(drawn) > rows:
        drawn = np.sort(np.random.default_rng(seed).choice(drawn, rows, replace=False))
    some = [kernel[np.ix_(drawn, drawn)] for kernel in kernels]
    weights = _mixed(some, target_R[drawn], noises, shares)
    return KernelSum(weights, fit_kernel_ridge(weighted_sum(kernels, weights), target_R, noises))


def _mixed(
    kernels: Sequence[np.ndarray], target_R: np.ndarray, noises: Sequence[float], shares: Sequence[float]
) -> tuple[float, ...]:
    alone = [fit_kernel_ridge(kernel, target_R, noises).left_out_error for kernel in kernels]
    order = np.argsort(alone, kind="stable")
    weights = np.zeros(len(kernels))
    weights[order[0]], smallest = 1.0, alone[order[0]]
    for number in order[1:]:
        base = weights
        for share in shares:
            tried = (1 - share) * base
            tried[number] = share
            error = fit_kernel_ridge(weighted_sum(kernels, tried), target_R, noises).left_out_error
            if error < smallest:
                smallest, weights = error, tried
    return tuple(float(weight) for weight in weights)


def weighted_sum(kernels: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Σ weight · kernel, float64."""
    total = np.zeros_like(kernels[0], dtype=np.float64)
    for weight, kernel in zip(weights, kernels, strict=True):
        if weight:
            total += weight * kernel
    return total


def squared_distances(left_RD: np.ndarray, right_SD: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (R, S), float64."""
    left, right = left_RD.astype(np.float64), right_SD.astype(np.float64)
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)[None, :]
    distances: np.ndarray = np.maximum(squares - 2 * left @ right.T, 0)
    return distances


def median_length(train_RD: np.ndarray) -> float:
    """Median distance of two different training rows; 1 where most are equal."""
    squares = squared_distances(train_RD, train_RD)[np.triu_indices(len(train_RD), 1)]
    median = float(np.sqrt(np.median(squares))) if len(squares) else 0.0
    return median or 1.0


def rbf_kernel(left_RD: np.ndarray, right_SD: np.ndarray, length: float) -> np.ndarray:
    """exp(−distance² / (2 length²)), shape (R, S); `length` in units of the features."""
    kernel: np.ndarray = np.exp(-squared_distances(left_RD, right_SD) / (2 * length**2))
    return kernel
