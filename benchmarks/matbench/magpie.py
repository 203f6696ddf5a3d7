"""Magpie features of compositions (Ward et al. 2016), for the classical baseline.

Element properties come from the table in the same package file as the data; statistics over a
composition are those of matminer's preset: minimum, maximum, range, mean, average deviation, mode,
and the stoichiometric norms.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from matfm import read_formula
from matfm.tasks.sources import read_member

MEMBER = "crabnet/data/element_properties/magpie.csv"
NORMS = (2, 3, 5, 7, 10)


def element_table(archive: Path) -> dict[str, np.ndarray]:
    """Symbol to its 22 properties."""
    rows = list(csv.reader(io.StringIO(read_member(archive, MEMBER))))[1:]
    return {row[0]: np.array([float(cell) for cell in row[1:]]) for row in rows}


def features(formulas: list[str], table: dict[str, np.ndarray]) -> np.ndarray:
    """(rows, 138) features."""
    return np.stack([_features(formula, table) for formula in formulas])


def _features(formula: str, table: dict[str, np.ndarray]) -> np.ndarray:
    fractions = read_formula(formula).fractions
    shares = np.array(list(fractions.values()))
    values = np.stack([table[symbol] for symbol in fractions])
    mean = shares @ values
    commonest = shares >= shares.max() - 1e-9
    statistics = [
        values.min(axis=0),
        values.max(axis=0),
        values.max(axis=0) - values.min(axis=0),
        mean,
        shares @ np.abs(values - mean),
        values[commonest].min(axis=0),
    ]
    norms = [float(len(shares)), *(float((shares**p).sum() ** (1 / p)) for p in NORMS)]
    return np.concatenate([*statistics, norms])
