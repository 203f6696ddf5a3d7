"""Cells to the tokens of any Hugging Face tokenizer: read as materials or molecules first, nothing lost silently."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from matfm.chem.composition_encoder import encode_many_fractions
from matfm.core.batching import RaggedTokens
from matfm.core.token_files import no_amounts
from matfm.errors import MatfmError
from matfm.models.huggingface_backbone import load_tokenizer, longest_input
from matfm.tasks.encoding import EncodedRows, model_text

_NO_TOKEN = "the tokenizer of the backbone makes no token of it"  # noqa: S105  (no password)


@dataclass(frozen=True)
class HuggingFaceEncoder:
    """Cells in the tokenizer of a foreign model.

    Every cell is read before: what is no material or molecule is reported, and SMILES are written canonically, so
    that a molecule gets one prediction however it was written. Formulas and SELFIES stay as they are written.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: str
    """composition, smiles or selfies."""
    max_length: int | None = None
    """Most tokens of a row, special ones included; longer ones are cut by the tokenizer and counted."""
    reserved: int = 0
    """Positions that a prompt takes from the rows."""

    def __call__(self, cells: list[str]) -> EncodedRows:
        """Tokenize a column; unreadable cells are reported, not raised."""
        errors, warnings = {}, {}
        if self.kind == "composition":
            read = encode_many_fractions(cells)
            errors, warnings = read.errors, read.warnings
            texts = ["" if row in errors else cell.strip() for row, cell in enumerate(cells)]
        else:
            texts = [""] * len(cells)
            for row, cell in enumerate(cells):
                try:
                    texts[row] = model_text(cell, self.kind)
                except MatfmError as error:
                    errors[row] = str(error)
        encoded = self.as_written(texts)
        return replace(encoded, errors={**encoded.errors, **errors}, warnings=warnings)

    def as_written(self, texts: list[str]) -> EncodedRows:
        """Tokenize strings without reading them; empty ones get no row."""
        rows = [row for row, text in enumerate(texts) if text]
        written = [texts[row] for row in rows]
        ids, unknown = self._tokens(written) if written else ([], Counter[str]())
        longest = None if self.max_length is None else self.max_length - self.reserved
        too_long = [] if longest is None else [k for k, of in enumerate(ids) if len(of) > longest]
        if too_long:
            cut = self._call([written[k] for k in too_long], truncation=True, max_length=longest)["input_ids"]
            for k, of_row in zip(too_long, cut, strict=True):
                ids[k] = of_row
        made = [k for k, of_row in enumerate(ids) if of_row]
        lengths = np.array([len(ids[k]) for k in made], np.int64)
        tokens = RaggedTokens(
            np.fromiter((i for k in made for i in ids[k]), np.int32, int(lengths.sum())),
            no_amounts(int(lengths.sum())),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.zeros((len(made), 0), np.float32),
        )
        errors = {rows[k]: _NO_TOKEN for k, of_row in enumerate(ids) if not of_row}
        kept = np.array([rows[k] for k in made], np.int64)
        return EncodedRows(tokens, kept, errors, {}, unknown, [rows[k] for k in too_long])

    def _tokens(self, texts: list[str]) -> tuple[list[list[int]], Counter[str]]:
        """Token ids of every text, and the pieces that the vocabulary lacks."""
        fast = bool(self.tokenizer.is_fast)
        encoded = self._call(texts, **({"return_offsets_mapping": True} if fast else {}))
        ids: list[list[int]] = encoded["input_ids"]
        unknown: Counter[str] = Counter()
        lacking = self.tokenizer.unk_token_id
        for k, text in enumerate(texts):
            spans: list[Any] = encoded["offset_mapping"][k] if fast else [None] * len(ids[k])
            unknown.update(
                str(self.tokenizer.unk_token) if span is None else text[slice(*span)]
                for token, span in zip(ids[k], spans, strict=True)
                if token == lacking
            )
            if fast:
                unknown.update(_left_out(text, spans))
        return ids, unknown

    def _call(self, texts: list[str], **options: Any) -> Any:
        return self.tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, verbose=False, **options)


def huggingface_encoder(name: str, architecture: dict[str, Any], kind: str) -> HuggingFaceEncoder:
    """The encoder of a folder or Hub id, cut where the positions of its model end.

    `architecture` is the configuration of the model itself.

    Raises:
        MatfmError: there is no tokenizer, or no such architecture.
    """
    tokenizer = load_tokenizer(name)
    return HuggingFaceEncoder(tokenizer, kind, longest_input(architecture, tokenizer))


def _left_out(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """Characters that are in no token: some tokenizers drop what they do not know."""
    if sum(end - start for start, end in spans) >= len(text):
        return []
    inside = np.zeros(len(text), dtype=bool)
    for start, end in spans:
        inside[start:end] = True
    return [text[position] for position in np.flatnonzero(~inside) if not text[position].isspace()]
