"""Which candidates a support can speak of: those about as near to it as its examples are to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# S support examples, B candidates, R rows of a reference, D width

REFERENCE_ROWS = 2_000
"""Rows at the beginning of a library that, with the support, say which distances are large."""
_EXACT = "donot_use_mm_for_euclid_dist"
"""Distances that do not depend on which rows are computed together."""


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
        between_SS = torch.cdist(support_SD, support_SD, compute_mode=_EXACT)
        nearest_S = between_SS.fill_diagonal_(math.inf).amin(dim=1)
        return cls(standard, support_SD, float(nearest_S.mean() + 0.5 * nearest_S.std(correction=0)))

    def covers(self, vectors_BD: np.ndarray) -> np.ndarray:
        """Which candidates lie within the limit of an example; bool."""
        apart_BS = torch.cdist(self.standard(vectors_BD), self.support_SD, compute_mode=_EXACT)
        covered: np.ndarray = (apart_BS <= self.limit).any(dim=1).numpy()
        return covered
