"""The compositions of many formulas as flat arrays, row after row, for computations without a loop over formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matfm.chem.elements import ATOMIC_NUMBER, SYMBOLS
from matfm.chem.formula import read_formula
from matfm.errors import MatfmError

# R rows, N elements of all rows, E = 118 elements there are


@dataclass(frozen=True)
class RaggedCompositions:
    """Elements and atomic fractions; those of row r are at `offsets[r]:offsets[r + 1]` (at least one)."""

    numbers_N: np.ndarray
    """Atomic numbers, 1 to 118."""
    fractions_N: np.ndarray
    """Atomic fractions, which sum to 1 in each row."""
    offsets: np.ndarray
    """Shape (R + 1,), from 0 to N."""

    @classmethod
    def from_formulas(cls, formulas: Sequence[str], rows: Sequence[int] | None = None) -> RaggedCompositions:
        """Parse formulas. `rows` are the numbers by which messages name the rows (default 0, 1, …).

        Raises:
            MatfmError: naming the row and what cannot be read in it.
        """
        numbers: list[int] = []
        fractions: list[float] = []
        offsets = [0]
        for position, formula in enumerate(formulas):
            try:
                parsed = read_formula(formula).fractions
            except MatfmError as error:
                raise MatfmError(f"row {position if rows is None else rows[position]}: {error}") from error
            numbers.extend(ATOMIC_NUMBER[symbol] for symbol in parsed)
            fractions.extend(parsed.values())
            offsets.append(len(numbers))
        return cls(np.array(numbers, np.int64), np.array(fractions, np.float64), np.array(offsets, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def between(self, start: int, stop: int) -> RaggedCompositions:
        """Rows start to stop (not included)."""
        offsets = self.offsets[start : stop + 1]
        inside = slice(offsets[0], offsets[-1])
        return RaggedCompositions(self.numbers_N[inside], self.fractions_N[inside], offsets - offsets[0])

    def row_of_entry(self) -> np.ndarray:
        """Row of each of the N entries."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def dense(self) -> np.ndarray:
        """Atomic fractions by element, shape (R, 118), float32; hydrogen first."""
        dense_RE = np.zeros((len(self), len(SYMBOLS)), np.float32)
        dense_RE[self.row_of_entry(), self.numbers_N - 1] = self.fractions_N
        return dense_RE
