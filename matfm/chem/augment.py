"""Augmentation of training rows: other SMILES of the same molecule, and amounts with noise."""

from __future__ import annotations

import math

import numpy as np

from matfm.chem.smiles import parse_smiles
from matfm.errors import MatfmError

# R rows, N amounts of all rows

_DRAWS = 8
"""Times that random SMILES are drawn before a molecule is taken to have no more."""
_LARGEST_SEED = 2**31 - 1


def enumerate_smiles(smiles: str, count: int, generator: np.random.Generator) -> list[str]:
    """Up to `count` different random SMILES of one molecule, in the order drawn (Bjerrum, arXiv:1703.07076).

    Each was read back and has the canonical SMILES of the molecule, so stereo, isotopes, charges and atom maps are
    kept. Small molecules have fewer than `count`; there is always at least one. The one given may be among them.

    Args:
        smiles: read by `parse_smiles`.
        count: at least 1.
        generator: gives RDKit its seeds; the same state gives the same list.

    Raises:
        MatfmError: what `parse_smiles` rejects, or a count below 1.
    """
    from rdkit.Chem import MolToRandomSmilesVect

    if count < 1:
        raise MatfmError(f"{count} SMILES were asked for; ask for at least 1")
    parsed = parse_smiles(smiles)
    tried: set[str] = set()
    same: list[str] = []
    for _ in range(_DRAWS):
        seed = int(generator.integers(1, _LARGEST_SEED))
        drawn = dict.fromkeys(MolToRandomSmilesVect(parsed.molecule, count, randomSeed=seed))
        new = [text for text in drawn if text not in tried]
        tried.update(new)
        same.extend(text for text in new if _canonical(text) == parsed.canonical)
        if len(same) >= count or not new:
            break
    return same[:count] or [parsed.text]


def _canonical(text: str) -> str | None:
    try:
        return parse_smiles(text).canonical
    except MatfmError:  # a random SMILES that RDKit writes and does not read again
        return None


def jitter_amounts(
    fractions_N: np.ndarray, offsets: np.ndarray, scale: float, generator: np.random.Generator
) -> np.ndarray:
    """Atomic fractions with multiplicative log-normal noise, each row brought back to the sum 1; shape (N,).

    Args:
        fractions_N: fractions of all rows, which sum to 1 in each; they stay positive.
        offsets: shape (R + 1,), from 0 to N: row r is at `offsets[r]:offsets[r + 1]` and not empty.
        scale: relative standard deviation of the factors, whose mean is 1; at least 0, and 0 changes nothing.
        generator: of the noise.

    Raises:
        MatfmError: a negative or infinite scale.
        ValueError: offsets that are no such partition.
    """
    if not 0 <= scale < math.inf:
        raise MatfmError(f"the scale of the jitter is {scale}; it is a relative standard deviation, at least 0")
    if offsets[0] != 0 or offsets[-1] != len(fractions_N) or (np.diff(offsets) < 1).any():
        raise ValueError("offsets must rise from 0 to the number of fractions, with at least one in each row")
    if scale == 0:
        return fractions_N.copy()
    variance = math.log1p(scale**2)
    factors_N = np.exp(generator.normal(-variance / 2, math.sqrt(variance), len(fractions_N)))
    noisy_N = fractions_N * factors_N
    totals_R = np.add.reduceat(noisy_N, offsets[:-1])
    return (noisy_N / np.repeat(totals_R, np.diff(offsets))).astype(fractions_N.dtype)
