"""Table cells to model inputs: tokens that can be read, and reasons where they cannot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from matfm.chem.composition_encoder import EncodedFormulas, encode_many_fractions
from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.chem.control_tokens import CONTROL_TOKENS, control_tokens, with_control_tokens
from matfm.chem.line_corpus import encode_lines, first_field
from matfm.chem.line_tokenizer import LineNotationTokenizer
from matfm.chem.selfies import selfies_to_smiles
from matfm.chem.selfies_tokenizer import SelfiesTokenizer
from matfm.chem.smiles import parse_smiles
from matfm.chem.smiles_tokenizer import SmilesTokenizer
from matfm.core.batching import RaggedTokens
from matfm.core.token_files import no_amounts
from matfm.errors import MatfmError
from matfm.models.saving import saved_tokenizer

TOKENIZERS: dict[str, type[LineNotationTokenizer]] = {"smiles": SmilesTokenizer, "selfies": SelfiesTokenizer}
KINDS = ("composition", *TOKENIZERS)


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
    unknown: Counter[str] = field(default_factory=Counter)
    """Tokens outside the vocabulary, each with its number of occurrences; the model sees [UNK]."""
    truncated_rows: list[int] = field(default_factory=list)
    """Position in the column of the rows that were longer than the model's limit and lost their end."""

    @property
    def truncated(self) -> int:
        """Number of rows that were longer than the model's limit."""
        return len(self.truncated_rows)


class RowEncoder(Protocol):
    """How the cells of a column of one kind become tokens."""

    @property
    def kind(self) -> str:
        """composition, smiles or selfies."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What a model's folder keeps."""
        ...

    def __call__(self, cells: list[str]) -> EncodedRows:
        """Tokenize a column; unreadable cells are reported, not raised."""
        ...


@dataclass(frozen=True)
class FormulaEncoder:
    """Formulas in the scheme `fraction`."""

    tokenizer: CompositionTokenizer = field(default_factory=CompositionTokenizer)
    kind: str = "composition"
    controlled: bool = False
    """Whether control tokens of class and task stand around every formula; they are the tokenizer's added ones."""

    def __call__(self, cells: list[str]) -> EncodedRows:
        """Tokenize a column of formulas; unreadable ones are reported, not raised."""
        encoded = encode_formulas(cells)
        if not self.controlled:
            return encoded
        tokens = encoded.tokens
        arrays = with_control_tokens(tokens.ids_N, tokens.amounts_N, tokens.offsets)
        return replace(encoded, tokens=RaggedTokens(*arrays, tokens.targets_RK))

    def with_control(self, names: Sequence[str]) -> FormulaEncoder:
        """With control tokens of a task, called by its targets."""
        tokenizer = CompositionTokenizer()
        tokenizer.add_tokens(control_tokens(names), special_tokens=True)
        return FormulaEncoder(tokenizer, controlled=True)


@dataclass(frozen=True)
class MoleculeEncoder:
    """SMILES or SELFIES, each read as a molecule before it is tokenized.

    SMILES are written canonically, so that a molecule gets one prediction however it was written.
    """

    tokenizer: LineNotationTokenizer
    max_length: int | None = None
    """Most tokens of a row, [CLS] and [SEP] included; longer ones lose their end and are counted."""

    @property
    def kind(self) -> str:
        """smiles or selfies."""
        return self.tokenizer.notation.name

    def __call__(self, cells: list[str]) -> EncodedRows:
        """Tokenize a column; cells that are no molecule are reported, not raised."""
        texts, errors = [], {}
        for row, cell in enumerate(cells):
            try:
                texts.append(model_text(cell, self.kind))
            except MatfmError as error:
                texts.append("")
                errors[row] = str(error)
        return replace(self.as_written(texts), errors=errors)

    def as_written(self, texts: list[str]) -> EncodedRows:
        """Tokenize strings without reading them as molecules; empty ones get no row."""
        encoded = encode_lines(texts, self.tokenizer.notation, self.tokenizer.encoder, self.max_length)
        tokens = RaggedTokens(
            encoded.ids_N, no_amounts(len(encoded.ids_N)), encoded.offsets, np.zeros((len(encoded.rows), 0), np.float32)
        )
        return EncodedRows(tokens, encoded.rows, encoded.errors, {}, encoded.unknown, encoded.truncated_rows)


def row_encoder(kind: str, folder: str | Path | None = None, max_length: int | None = None) -> RowEncoder:
    """The encoder of a kind.

    Args:
        kind: composition, smiles or selfies.
        folder: of a saved tokenizer; the shipped vocabulary if None. Compositions have the periodic table.
        max_length: most tokens of a row; formulas are never cut.

    Raises:
        MatfmError: there is no such kind, or the folder holds no readable tokenizer.
    """
    if kind == "composition":
        return FormulaEncoder()
    if kind not in TOKENIZERS:
        raise MatfmError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    return MoleculeEncoder(
        TOKENIZERS[kind]() if folder is None else saved_tokenizer(TOKENIZERS[kind], str(folder)), max_length
    )


def own_tokens(encoder: RowEncoder) -> int:
    """Tokens of an encoder's vocabulary, without control tokens."""
    added = CONTROL_TOKENS if isinstance(encoder, FormulaEncoder) and encoder.controlled else 0
    return len(encoder.tokenizer) - added


def encode_formulas(formulas: list[str]) -> EncodedRows:
    """Tokenize a column of formulas in the scheme `fraction`; unreadable ones are reported, not raised."""
    return as_rows(encode_many_fractions(formulas))


def as_rows(encoded: EncodedFormulas) -> EncodedRows:
    """Formulas without targets."""
    no_targets = np.zeros((len(encoded.rows), 0), np.float32)
    tokens = RaggedTokens(encoded.ids_N, encoded.amounts_N, encoded.offsets, no_targets)
    return EncodedRows(tokens, encoded.rows, encoded.errors, encoded.warnings)


def model_text(cell: str, kind: str) -> str:
    """A cell as its molecule is written for the model. Raises MatfmError for what is no molecule."""
    if kind == "smiles":
        return parse_smiles(cell).canonical
    text = first_field(cell)
    parse_smiles(selfies_to_smiles(text))
    return text


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
