"""A pseudo-random order of any number of rows that takes no memory."""

from __future__ import annotations

import math

import numpy as np

# X positions or rows

_ROUNDS = 6


class RandomOrder:
    """A bijection of range(size), drawn by the seed: position in the order to row.

    A Feistel network over the pairs (left, right) of numbers below ceil(sqrt(size)); values beyond `size` are put
    through it again until they fall inside ("cycle walking"; Black & Rogaway 2002, Ciphers with Arbitrary Finite
    Domains, methods 2 and 3). Nothing is stored but six keys, so an order of 10^9 rows costs as much as one of 10.
    """

    def __init__(self, size: int, *seed: int) -> None:
        """Order of `size` rows (at least 1) for any non-negative integers, such as (seed, epoch)."""
        if size < 1:
            raise ValueError(f"there is no order of {size} rows")
        self.size = size
        self._side = np.uint64(math.isqrt(size - 1) + 1)
        self._keys = np.random.SeedSequence(seed).generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions_X: np.ndarray) -> np.ndarray:
        """Rows (int64) at these positions of the order, each in [0, size)."""
        rows_X = self._encrypt(np.asarray(positions_X, np.uint64))
        while (outside := np.flatnonzero(rows_X >= self.size)).size:
            rows_X[outside] = self._encrypt(rows_X[outside])
        return rows_X.astype(np.int64)

    def _encrypt(self, values_X: np.ndarray) -> np.ndarray:
        left_X: np.ndarray = values_X // self._side
        right_X: np.ndarray = values_X % self._side
        for key in self._keys:
            left_X, right_X = right_X, (left_X + mixed_bits(right_X ^ key) % self._side) % self._side
        return left_X * self._side + right_X


def mixed_bits(values_X: np.ndarray) -> np.ndarray:
    """A bijection of uint64: every bit of the result depends on every bit of the value (Steele et al. 2014)."""
    values_X = (values_X ^ (values_X >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values_X = (values_X ^ (values_X >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values_X ^ (values_X >> np.uint64(31))
