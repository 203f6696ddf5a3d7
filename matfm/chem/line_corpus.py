"""Columns of SMILES or SELFIES to token ids: fast, with unknown tokens and cut strings counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from matfm.chem.line_encoder import LineEncoder
from matfm.chem.missing import is_missing
from matfm.chem.notations import LineNotation
from matfm.errors import MatfmError

# N tokens, R strings


@dataclass
class EncodedLines:
    """Strings of a column as flat arrays, and what the vocabulary and the length limit made of them."""

    ids_N: np.ndarray
    """Token ids, uint16, [CLS] and [SEP] around every string."""
    offsets: np.ndarray
    """Where each string starts, and the end; int64, (R + 1,)."""
    rows: np.ndarray
    """Position in the column of each string, int64."""
    errors: dict[int, str]
    """Position in the column of the missing values, to reason."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Tokens outside the vocabulary, each with its number of occurrences; they are [UNK]."""
    truncated_rows: list[int] = field(default_factory=list)
    """Position in the column of the strings that were longer than the limit."""

    @property
    def truncated(self) -> int:
        """Number of strings that were longer than the limit."""
        return len(self.truncated_rows)


def encode_lines(
    cells: list[str], notation: LineNotation, encoder: LineEncoder, max_length: int | None = None
) -> EncodedLines:
    """Tokenize a column. Empty cells and missing values are reported, not raised; nothing else is refused.

    Args:
        cells: SMILES or SELFIES; what follows a blank (the name on a line of a .smi file) is left out.
        notation: of the cells.
        encoder: of the vocabulary.
        max_length: most tokens of a string, [CLS] and [SEP] included; longer ones lose their end (not [SEP]).
    """
    texts, rows, errors = [], [], {}
    for row, cell in enumerate(cells):
        text = first_field(cell)
        if not text:
            errors[row] = str(MatfmError(cell, 0, f"this is a missing value, not {notation.name.upper()}"))
        else:
            texts.append(text)
            rows.append(row)
    ids_N, offsets = encoder.encode(texts)
    unknown = _unknown(ids_N, offsets, texts, notation, encoder)
    positions = np.array(rows, dtype=np.int64)
    truncated: list[int] = []
    if max_length is not None:
        truncated = positions[np.diff(offsets) > max_length].tolist()
        ids_N, offsets = _truncate(ids_N, offsets, max_length)
    return EncodedLines(ids_N, offsets, positions, errors, unknown, truncated)


def first_field(cell: str) -> str:
    """What stands before the first blank; nothing for a missing value."""
    text = (cell.split(maxsplit=1) or [""])[0]
    return "" if is_missing(text) else text


def _unknown(
    ids_N: np.ndarray, offsets: np.ndarray, texts: list[str], notation: LineNotation, encoder: LineEncoder
) -> Counter[str]:
    """Unknown tokens as they are written; only strings that have one are cut again."""
    counts: Counter[str] = Counter()
    positions = np.flatnonzero(ids_N == encoder.unknown)
    for position, row in zip(positions, np.searchsorted(offsets, positions, "right") - 1, strict=True):
        counts[notation.split(texts[row])[position - offsets[row] - 1]] += 1
    return counts


def _truncate(ids_N: np.ndarray, offsets: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the first `max_length` tokens of every string, the last of which is its [SEP]."""
    lengths = np.diff(offsets)
    long = lengths > max_length
    if not long.any():
        return ids_N, offsets
    ids_N = ids_N.copy()
    ids_N[offsets[:-1][long] + max_length - 1] = ids_N[-1]
    within = np.arange(len(ids_N)) - np.repeat(offsets[:-1], lengths)
    ends = np.cumsum(np.minimum(lengths, max_length))
    return ids_N[within < max_length], np.concatenate([[0], ends])
