"""Table cells to model inputs: tokens that can be read, and reasons where they cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from matfm.chem.composition_encoder import encode_many_fractions
from matfm.core.batching import RaggedTokens
from matfm.errors import MatfmError


@dataclass
class EncodedRows:
    """The readable rows of a column, and why the others are not."""

    tokens: RaggedTokens
    rows: np.ndarray
    """Position in the column of each readable row."""
    errors: dict[int, str] = field(default_factory=dict)
    """Position in the column to reason."""
    warnings: dict[int, str] = field(default_factory=dict)
    """Position in the column to a reading that should be checked; such rows are used."""


def encode_formulas(formulas: list[str]) -> EncodedRows:
    """Tokenize a column of formulas in the scheme `fraction`; unreadable ones are reported, not raised."""
    encoded = encode_many_fractions(formulas)
    no_targets = np.zeros((len(encoded.rows), 0), np.float32)
    tokens = RaggedTokens(encoded.ids_N, encoded.amounts_N, encoded.offsets, no_targets)
    return EncodedRows(tokens, encoded.rows, encoded.errors, encoded.warnings)


def parse_number(text: str) -> float:
    """A finite number from a cell, NaN where the cell is empty. Raises MatfmError for anything else."""
    stripped = text.strip()
    if not stripped:
        return math.nan
    try:
        value = float(stripped)
    except ValueError as error:
        raise MatfmError(f"{text[:40]!r} is not a number") from error
    if not math.isfinite(value):
        raise MatfmError(f"{text[:40]!r} is not a finite number")
    return value
