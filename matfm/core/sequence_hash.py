"""A number for each token sequence that depends on the sequence alone: equal ones stay together when data is split."""

from __future__ import annotations

import numpy as np

from matfm.core.batching import RaggedTokens
from matfm.core.random_order import mixed_bits

# R rows, N their tokens

_ID_BITS = np.uint64(17)
_DECIMALS = 1e6


def sequence_hashes(data: RaggedTokens, rows_R: np.ndarray, ordered: bool) -> np.ndarray:
    """Hashes (R,), uint64, uniform over all numbers.

    Args:
        data: sequences of at least one token.
        rows_R: which of them.
        ordered: whether order matters (strings); else amounts do, to six decimals, and order does not (formulas).
    """
    if len(rows_R) == 0:
        return np.zeros(0, np.uint64)
    taken = data.take(rows_R)
    starts, lengths = taken.offsets[:-1], taken.lengths_R
    if ordered:
        beside_N = np.arange(len(taken.ids_N)) - np.repeat(starts, lengths)
    else:
        beside_N = np.rint(taken.amounts_N * _DECIMALS)
    pairs_N = mixed_bits(taken.ids_N.astype(np.uint64) + (beside_N.astype(np.uint64) << _ID_BITS))
    return mixed_bits(np.add.reduceat(pairs_N, starts) + lengths.astype(np.uint64))


def shares_of(hashes_R: np.ndarray) -> np.ndarray:
    """Hashes as numbers in [0, 1]."""
    return hashes_R / 2.0**64
