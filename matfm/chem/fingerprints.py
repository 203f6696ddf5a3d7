"""Morgan fingerprints of molecules: Tanimoto similarity in blocks, and Taylor–Butina clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matfm.errors import MatfmError

# R rows, S other rows, W = 256 bytes of a fingerprint

RADIUS, BITS = 2, 2048
BUTINA_CUTOFF = 0.6
"""Largest distance (1 − Tanimoto) from a cluster's centre; the default of DeepChem's `ButinaSplitter`."""
MAX_BUTINA = 20_000
"""Molecules; the distances of all pairs of 20,000 take 1.6 GB."""
_BLOCK = 1024
"""Rows of a block of a similarity matrix."""


def morgan_fingerprints(molecules: Sequence[Any], bits: int = BITS) -> np.ndarray:
    """Packed bits of Morgan fingerprints (radius 2, no stereo) of RDKit molecules: (R, bits / 8), uint8."""
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=bits)
    packed_RW = np.zeros((len(molecules), bits // 8), np.uint8)
    for row, molecule in enumerate(molecules):
        packed_RW[row] = np.packbits(generator.GetFingerprintAsNumPy(molecule))
    return packed_RW


def tanimoto(left_RW: np.ndarray, right_SW: np.ndarray) -> np.ndarray:
    """Tanimoto similarity of packed fingerprints, shape (R, S), float64; 0 for two without any bit.

    Bits in common are counted by a matrix product of zeros and ones, which float32 does exactly.
    """
    left, right = (np.unpackbits(packed, axis=1).astype(np.float32) for packed in (left_RW, right_SW))
    common = left @ right.T
    union = left.sum(axis=1)[:, None] + right.sum(axis=1)[None, :]
    union -= common
    np.maximum(union, 1, out=union)
    return np.divide(common, union, dtype=np.float64)


def butina_clusters(molecules: Sequence[Any], cutoff: float = BUTINA_CUTOFF) -> np.ndarray:
    """Cluster of each molecule, shape (R,), by Taylor–Butina (Butina, J. Chem. Inf. Comput. Sci. 39, 747 (1999)).

    The molecule with most neighbours within `cutoff` (a distance, 1 − Tanimoto) makes a cluster with them, then
    the next of those left, and so on; ties go to the later molecule. Clusters are numbered in that order.

    Raises:
        MatfmError: more than 20,000 molecules, or a cutoff outside of 0 to 1.
    """
    from rdkit.ML.Cluster import Butina

    if len(molecules) > MAX_BUTINA:
        raise MatfmError(
            f"Butina clustering compares all pairs and takes at most {MAX_BUTINA:,} molecules; "
            f"there are {len(molecules):,}: choose split scaffold, or cluster a sample and give it as column:NAME"
        )
    if not 0 <= cutoff <= 1:
        raise MatfmError(f"the Butina cutoff is {cutoff:g}; it is a distance between 0 and 1")
    packed_RW = morgan_fingerprints(molecules)
    rows = len(packed_RW)
    distances = np.empty(rows * (rows - 1) // 2)
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        block = 1 - tanimoto(packed_RW[start:stop], packed_RW[:stop])
        for row in range(start, stop):  # row r of the lower triangle begins at r (r − 1) / 2
            distances[row * (row - 1) // 2 : row * (row + 1) // 2] = block[row - start, :row]
    cluster_R = np.zeros(rows, np.int64)
    for number, members in enumerate(Butina.ClusterData(distances, rows, cutoff, isDistData=True)):
        cluster_R[list(members)] = number
    return cluster_R
