"""Magpie features of compositions (Ward et al., npj Comput. Mater. 2, 16028 (2016)).

Statistics of element properties over a composition as in matminer's preset (minimum, maximum, range, mean, average
deviation, mode), and the stoichiometric norms.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matfm.chem.compositions import RaggedCompositions
from matfm.chem.elements import ATOMIC_NUMBER, SYMBOLS
from matfm.errors import MatfmError

# R rows, N elements of all rows, P properties of an element

NORMS = (2, 3, 5, 7, 10)
_BLOCK_ROWS = 50_000
"""Rows at a time, which bounds the memory."""


@dataclass(frozen=True)
class ElementTable:
    """Properties of elements."""

    properties: tuple[str, ...]
    """Names of the P properties."""
    values: np.ndarray
    """Shape (119, P), by atomic number; NaN where the table lacks the element."""


def read_element_table(text: str) -> ElementTable:
    """From CSV text: a line of names, then symbol and numbers of one element a line.

    Raises:
        MatfmError: naming the line that holds something else.
    """
    header, *lines = list(csv.reader(io.StringIO(text))) or [[]]
    values = np.full((len(SYMBOLS) + 1, max(len(header) - 1, 0)), np.nan)
    for number, cells in enumerate(lines, start=2):
        try:
            values[ATOMIC_NUMBER[cells[0]]] = [float(cell) for cell in cells[1:]]
        except (KeyError, ValueError, IndexError) as error:
            raise MatfmError(f"element table, line {number}: it must hold a symbol and numbers, not {cells}") from error
    return ElementTable(tuple(header[1:]), values)


def magpie_features(formulas: Sequence[str], table: ElementTable, rows: Sequence[int] | None = None) -> np.ndarray:
    """Features, shape (R, 6 P + 6): 138 with Magpie's 22 properties.

    Columns: minimum, maximum, range, mean, average deviation and mode of each property (the six blocks one after the
    other; where several elements are commonest the mode is the smallest of their values), the number of elements, and
    the norms p = 2, 3, 5, 7, 10 of the atomic fractions. `rows` are the numbers by which messages name the rows.

    Raises:
        MatfmError: naming the row and the element that the table lacks, or what cannot be read in the formula.
    """
    compositions = RaggedCompositions.from_formulas(formulas, rows)
    lacking = np.flatnonzero(np.isnan(table.values[compositions.numbers_N]).any(axis=1))
    if len(lacking):
        position = int(np.searchsorted(compositions.offsets, lacking[0], side="right")) - 1
        symbol = SYMBOLS[compositions.numbers_N[lacking[0]] - 1]
        row = position if rows is None else rows[position]
        raise MatfmError(f"row {row}: {formulas[position]!r} holds {symbol}, which the table of elements lacks")
    starts = range(0, len(compositions), _BLOCK_ROWS)
    width = 6 * len(table.properties) + 1 + len(NORMS)
    blocks = [_features(compositions.between(s, min(s + _BLOCK_ROWS, len(compositions))), table) for s in starts]
    return np.concatenate(blocks) if blocks else np.zeros((0, width))


def _features(compositions: RaggedCompositions, table: ElementTable) -> np.ndarray:
    starts, row_N = compositions.offsets[:-1], compositions.row_of_entry()
    shares_N1 = compositions.fractions_N[:, None]
    values_NP = table.values[compositions.numbers_N]
    low_RP = np.minimum.reduceat(values_NP, starts)
    high_RP = np.maximum.reduceat(values_NP, starts)
    mean_RP = np.add.reduceat(shares_N1 * values_NP, starts)
    deviation_RP = np.add.reduceat(shares_N1 * np.abs(values_NP - mean_RP[row_N]), starts)
    commonest_N1 = shares_N1 >= np.maximum.reduceat(shares_N1, starts)[row_N] - 1e-9
    mode_RP = np.minimum.reduceat(np.where(commonest_N1, values_NP, np.inf), starts)
    powers = np.array(NORMS, np.float64)
    norms = np.add.reduceat(shares_N1**powers, starts) ** (1 / powers)
    count_R1 = np.diff(compositions.offsets)[:, None]
    return np.concatenate([low_RP, high_RP, high_RP - low_RP, mean_RP, deviation_RP, mode_RP, count_R1, norms], axis=1)
