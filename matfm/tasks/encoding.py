"""Table cells to model inputs: tokens that can be read, and reasons where they cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from matfm.chem.composition_tokenizer import encode_fractions
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


def encode_formulas(formulas: list[str], label: str | None = None) -> EncodedRows:
    """Tokenize a column of formulas; unreadable ones are reported, not raised. `label` shows progress."""
    sequences, rows, errors = [], [], {}
    for row, formula in enumerate(tqdm(formulas, desc=label, disable=None if label else True, leave=False)):
        try:
            sequences.append(encode_fractions(formula))
            rows.append(row)
        except MatfmError as error:
            errors[row] = str(error)
    return EncodedRows(RaggedTokens.from_sequences(sequences), np.array(rows, dtype=np.int64), errors)


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
