"""One target: a Gaussian process whose kernel is a weighted sum over the parts of the views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from matfm.core.kernel_ridge import KernelRidge, fit_kernel_sum, inverse_of, weighted_sum
from matfm.tasks.kernels.part_kernels import PartKernel, fit_part

# R training rows, S other rows, D features of a part

Parts = Mapping[str, np.ndarray]
"""Part to features, (R, D) or (S, D)."""
_BLOCK = 2048
"""Rows predicted at a time, which bounds the memory."""


@dataclass(frozen=True)
class SummedKernel:
    """A fitted regression on views. Everything about the training rows that a prediction needs is in it."""

    kernels: Mapping[str, PartKernel]
    """Of the parts that have a weight, in the order of the sum."""
    weights: Mapping[str, float]
    """Of all parts; they sum to 1."""
    weight_R: np.ndarray
    """Of the training rows in a prediction."""
    intercept: float
    noise: float
    """Variance of the noise, in units of the kernel."""
    scale: float
    """Variance of the target for one unit of the kernel."""
    left_out_R: np.ndarray
    """Each training row as predicted by the others."""

    def predict(self, described: Parts) -> np.ndarray:
        """Means (S,), in the unit of the target."""
        blocks = _blocks(described)
        return np.concatenate([self._sum(block) @ self.weight_R + self.intercept for block in blocks])

    def std(self, described: Parts) -> np.ndarray:
        """Standard deviations (S,) of a measurement, noise included, in the unit of the target."""
        ridge = KernelRidge(
            self.weight_R, self.intercept, self.noise, self.scale, self.left_out_R, 0.0, self._precision
        )
        return np.concatenate([ridge.std(self._sum(block)) for block in _blocks(described)])

    def _sum(self, described: Parts) -> np.ndarray:
        """(S, R)."""
        return self._weighted({part: kernel(described[part]) for part, kernel in self.kernels.items()})

    @cached_property
    def _precision(self) -> np.ndarray:
        """Made when first asked for, as means need none: it is as large as a kernel and costs as much as the fit."""
        return inverse_of(self._weighted({part: kernel.own() for part, kernel in self.kernels.items()}), self.noise)

    def _weighted(self, kernels: Mapping[str, np.ndarray]) -> np.ndarray:
        return weighted_sum(list(kernels.values()), [self.weights[part] for part in kernels])


def fit_summed(described: Parts, target_R: np.ndarray, seed: int) -> SummedKernel:
    """Lengths, weights and noise are those of the smallest leave-one-out error.

    Args:
        described: features of the training rows, one entry a part, in the order in which kernels are summed.
        target_R: finite numbers.
        seed: of the rows by which lengths and weights are chosen, where there are more than 1,000.

    Raises:
        MatfmError: fewer than three rows.
    """
    kernels = {part: fit_part(part, values_RD, target_R, seed) for part, values_RD in described.items()}
    fitted = fit_kernel_sum([kernel.own() for kernel in kernels.values()], target_R, seed=seed)
    weights = dict(zip(kernels, fitted.weights, strict=True))
    ridge = fitted.fitted
    return SummedKernel(
        {part: kernel for part, kernel in kernels.items() if weights[part]},
        weights,
        ridge.weight_R,
        ridge.intercept,
        ridge.noise,
        ridge.scale,
        ridge.left_out_R,
    )


def _blocks(described: Parts) -> list[Parts]:
    rows = len(next(iter(described.values())))
    return [
        {part: values[start : start + _BLOCK] for part, values in described.items()} for start in range(0, rows, _BLOCK)
    ]
