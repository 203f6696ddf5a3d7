"""The kernel of one part of a view, with the training rows that other rows are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from matfm.chem.tanimoto import count_tanimoto
from matfm.core.kernel_ridge import fit_kernel_ridge, median_length, rbf_kernel
from matfm.core.standardise import Standardiser
from matfm.errors import MatfmError
from matfm.tasks.kernels.views import ATOM_PAIRS, DESCRIPTORS, MORGAN, TORSIONS
from matfm.tasks.pretraining.molecule_targets import Winsor

# R training rows, S other rows, D features

TANIMOTO = (MORGAN, ATOM_PAIRS, TORSIONS)
LENGTHS = (0.25, 0.5, 1.0, 2.0)
"""Lengths that are tried, in units of the median distance."""
_ROWS = 1000
"""Training rows by which the length is chosen at most."""


class PartKernel(Protocol):
    """Ones on the diagonal."""

    @property
    def length(self) -> float | None:
        """Of the RBF kernel, in units of the standardised features; None of a kernel without one."""
        ...

    def own(self) -> np.ndarray:
        """Of the training rows with each other, (R, R)."""
        ...

    def __call__(self, values_SD: np.ndarray) -> np.ndarray:
        """Of other rows with the training rows, (S, R)."""
        ...


@dataclass(frozen=True)
class TanimotoKernel:
    """On counts."""

    train_RD: np.ndarray
    length: None = None

    def own(self) -> np.ndarray:
        """(R, R)."""
        return count_tanimoto(self.train_RD, self.train_RD)

    def __call__(self, values_SD: np.ndarray) -> np.ndarray:
        """(S, R)."""
        return count_tanimoto(values_SD, self.train_RD)


@dataclass(frozen=True)
class BoundedDescriptors:
    """RDKit's descriptors within bounds found on training rows, medians of these where there is no number."""

    winsor: Winsor
    median_D: np.ndarray

    @classmethod
    def fit(cls, train_RD: np.ndarray) -> BoundedDescriptors:
        """From training rows, NaN where there is no number."""
        winsor = Winsor.fit(train_RD)
        return cls(winsor, np.nanmedian(winsor.apply(train_RD), axis=0))

    def __call__(self, values_SD: np.ndarray) -> np.ndarray:
        """(S, kept), finite."""
        bounded = self.winsor.apply(values_SD)
        return np.ascontiguousarray(np.where(np.isnan(bounded), self.median_D, bounded))


@dataclass(frozen=True)
class ScaledRbf:
    """RBF on standardised features."""

    bounds: BoundedDescriptors | None
    standardise: Standardiser
    train_RD: np.ndarray
    """Standardised."""
    length: float

    @classmethod
    def of(cls, train_RD: np.ndarray, bounded: bool, length: float) -> ScaledRbf:
        """With a known length; `bounded` as of descriptors."""
        bounds = BoundedDescriptors.fit(train_RD) if bounded else None
        finite = train_RD if bounds is None else bounds(train_RD)
        standardise = Standardiser.fit(finite)
        return cls(bounds, standardise, standardise(finite), length)

    @classmethod
    def fit(cls, train_RD: np.ndarray, bounded: bool, target_R: np.ndarray, seed: int) -> ScaledRbf:
        """The length of the smallest leave-one-out error, on up to 1,000 rows that are drawn at random."""
        kernel = cls.of(train_RD, bounded, 1.0)
        drawn = np.random.default_rng(seed).permutation(len(target_R))[:_ROWS]
        some, target = kernel.train_RD[drawn], target_R[drawn]
        lengths = [factor * median_length(some) for factor in LENGTHS]
        errors = [fit_kernel_ridge(rbf_kernel(some, some, length), target).left_out_error for length in lengths]
        return cls(kernel.bounds, kernel.standardise, kernel.train_RD, lengths[int(np.argmin(errors))])

    def own(self) -> np.ndarray:
        """(R, R)."""
        return rbf_kernel(self.train_RD, self.train_RD, self.length)

    def __call__(self, values_SD: np.ndarray) -> np.ndarray:
        """(S, R)."""
        finite = values_SD if self.bounds is None else self.bounds(values_SD)
        return rbf_kernel(self.standardise(finite), self.train_RD, self.length)


def fit_part(part: str, train_RD: np.ndarray, target_R: np.ndarray, seed: int) -> PartKernel:
    """The kernel of a part; a length is chosen by leave-one-out."""
    if part in TANIMOTO:
        return TanimotoKernel(train_RD)
    return ScaledRbf.fit(train_RD, part == DESCRIPTORS, target_R, seed)


def known_part(part: str, train_RD: np.ndarray, length: float | None) -> PartKernel:
    """The kernel of a part whose length was chosen before. Raises MatfmError where an RBF kernel has none."""
    if part in TANIMOTO:
        return TanimotoKernel(train_RD)
    if length is None:
        raise MatfmError(f"the kernel of {part} has no length; fit again")
    return ScaledRbf.of(train_RD, part == DESCRIPTORS, length)
