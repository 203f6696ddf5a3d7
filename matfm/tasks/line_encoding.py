"""Columns of SMILES or SELFIES to token ids: fast, with unknown tokens and cut strings counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from matfm.chem.line_encoder import LineEncoder
from matfm.chem.notations import LineNotation
from matfm.core.batching import RaggedTokens
from matfm.core.token_files import no_amounts
from matfm.errors import MatfmError
from matfm.tasks.encoding import EncodedRows

_MISSING = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "-"})


@dataclass
class TokenCounts:
    """What the vocabulary and the length limit made of the strings."""

    unknown: Counter[str] = field(default_factory=Counter)
    """Tokens outside the vocabulary, each with its number of occurrences; they are [UNK]."""
    truncated: int = 0
    """Strings that were longer than the limit."""

    def add(self, other: TokenCounts) -> None:
        """Count another part of the corpus too."""
        self.unknown.update(other.unknown)
        self.truncated += other.truncated


def encode_lines(
    cells: list[str], notation: LineNotation, encoder: LineEncoder, max_length: int | None = None
) -> tuple[EncodedRows, TokenCounts]:
    """Tokenize a column. Empty cells and missing values are reported, not raised; nothing else is refused.

    Args:
        cells: SMILES or SELFIES; what follows a blank (the name on a line of a .smi file) is left out.
        notation: of the cells.
        encoder: of the vocabulary.
        max_length: most tokens of a string, [CLS] and [SEP] included; longer ones lose their end (not [SEP]).
    """
    texts, rows, errors = [], [], {}
    for row, cell in enumerate(cells):
        text = (cell.split(maxsplit=1) or [""])[0]
        if not text or text.lower() in _MISSING:
            errors[row] = str(MatfmError(cell, 0, f"this is a missing value, not {notation.name.upper()}"))
        else:
            texts.append(text)
            rows.append(row)
    ids_N, offsets = encoder.encode(texts)
    counts = TokenCounts(_unknown(ids_N, offsets, texts, notation, encoder))
    if max_length is not None:
        ids_N, offsets, counts.truncated = _truncate(ids_N, offsets, max_length)
    tokens = RaggedTokens(ids_N, no_amounts(len(ids_N)), offsets, np.zeros((len(texts), 0), np.float32))
    return EncodedRows(tokens, np.array(rows, dtype=np.int64), errors), counts


def _unknown(
    ids_N: np.ndarray, offsets: np.ndarray, texts: list[str], notation: LineNotation, encoder: LineEncoder
) -> Counter[str]:
    """Unknown tokens as they are written; only strings that have one are cut again."""
    counts: Counter[str] = Counter()
    positions = np.flatnonzero(ids_N == encoder.unknown)
    for position, row in zip(positions, np.searchsorted(offsets, positions, "right") - 1, strict=True):
        counts[notation.split(texts[row])[position - offsets[row] - 1]] += 1
    return counts


def _truncate(ids_N: np.ndarray, offsets: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Keep the first `max_length` tokens of every string, the last of which is its [SEP]."""
    lengths = np.diff(offsets)
    long = lengths > max_length
    if not long.any():
        return ids_N, offsets, 0
    ids_N = ids_N.copy()
    ids_N[offsets[:-1][long] + max_length - 1] = ids_N[-1]
    within = np.arange(len(ids_N)) - np.repeat(offsets[:-1], lengths)
    return (
        ids_N[within < max_length],
        np.concatenate([[0], np.cumsum(np.minimum(lengths, max_length))]),
        int(long.sum()),
    )
