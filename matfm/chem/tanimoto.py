"""The min–max (count Tanimoto) kernel, and fingerprints that count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matfm.chem.fingerprints import BITS, RADIUS

# R rows, S other rows, F = 2048 features, U levels: one for every feature and count that both sides reach

_LARGEST = 2**16 - 1
"""Count above which a feature is not told from one more."""
_BLOCK = 2048
"""Levels of a matrix product, which bounds the memory."""


def morgan_counts(molecules: Sequence[Any], chiral: bool = True) -> np.ndarray:
    """How often each Morgan environment (radius 2, folded to 2048) occurs in RDKit molecules: (R, F), uint16.

    Args:
        molecules: RDKit molecules.
        chiral: whether environments with another tag of their stereo centre are others.
    """
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS, includeChirality=chiral)
    return _counts(generator, molecules)


def atom_pair_counts(molecules: Sequence[Any]) -> np.ndarray:
    """How often each pair of atom types at each distance in bonds occurs, folded to 2048, with stereo: (R, F), uint16.

    Carhart et al., J. Chem. Inf. Comput. Sci. 25, 64 (1985), doi 10.1021/ci00046a002.
    """
    from rdkit.Chem import rdFingerprintGenerator

    return _counts(rdFingerprintGenerator.GetAtomPairGenerator(fpSize=BITS, includeChirality=True), molecules)


def torsion_counts(molecules: Sequence[Any]) -> np.ndarray:
    """How often each path of four atom types occurs, folded to 2048, with stereo: (R, F), uint16.

    Nilakantan et al., J. Chem. Inf. Comput. Sci. 27, 82 (1987), doi 10.1021/ci00054a008.
    """
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetTopologicalTorsionGenerator(fpSize=BITS, includeChirality=True)
    return _counts(generator, molecules)


def _counts(generator: Any, molecules: Sequence[Any]) -> np.ndarray:
    counts_RF = np.zeros((len(molecules), BITS), np.uint16)
    for row, molecule in enumerate(molecules):
        counts_RF[row] = np.minimum(generator.GetCountFingerprintAsNumPy(molecule), _LARGEST)
    return counts_RF


def count_tanimoto(left_RF: np.ndarray, right_SF: np.ndarray) -> np.ndarray:
    """Sum of the smaller counts over the sum of the larger ones, shape (R, S), float64; 1 for two without any.

    A positive definite kernel (Ralaivola et al., Neural Networks 18, 1093 (2005), doi 10.1016/j.neunet.2005.07.009)
    that equals the Tanimoto similarity where all counts are 0 or 1. The smaller of two counts is the number of levels
    1, 2, … that both reach, so the sum of the smaller ones is a matrix product of zeros and ones, exact in float32.

    Args:
        left_RF: whole numbers, 0 or more.
        right_SF: likewise.
    """
    smaller = np.zeros((len(left_RF), len(right_SF)), np.float64)
    if len(left_RF) and len(right_SF):
        highest_F = np.minimum(left_RF.max(axis=0), right_SF.max(axis=0)).astype(np.int64)
        feature_U = np.repeat(np.arange(len(highest_F)), highest_F)
        level_U = np.arange(len(feature_U)) - np.repeat(np.cumsum(highest_F) - highest_F, highest_F) + 1
        for start in range(0, len(feature_U), _BLOCK):
            features, levels = feature_U[start : start + _BLOCK], level_U[start : start + _BLOCK]
            left, right = ((side[:, features] >= levels).astype(np.float32) for side in (left_RF, right_SF))
            smaller += left @ right.T
    totals = left_RF.sum(axis=1, dtype=np.float64)[:, None] + right_SF.sum(axis=1, dtype=np.float64)[None, :]
    larger = totals - smaller
    return np.divide(smaller, larger, out=np.ones_like(smaller), where=larger > 0)


def min_max_similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`count_tanimoto` of any numbers that are not negative: Σ min / Σ max, (R, S), float64; 1 for two rows of zeros.

    Args:
        left: shape (R, W).
        right: shape (S, W), few rows that are mostly zero: only their other columns are read.
    """
    by_column = np.ascontiguousarray(left.T)
    common = np.empty((len(left), len(right)))
    for column, row in enumerate(right):
        present = np.flatnonzero(row)
        common[:, column] = np.minimum(by_column[present], row[present, None]).sum(axis=0, dtype=np.float64)
    union = left.sum(axis=1, dtype=np.float64)[:, None] + right.sum(axis=1, dtype=np.float64)[None, :] - common
    return np.divide(common, union, out=np.ones_like(common), where=union > 0)
