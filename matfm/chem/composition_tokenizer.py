"""Formulas to tokens: one token per distinct element and a real amount channel (scheme `fraction`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizer

from matfm.chem.elements import SYMBOLS
from matfm.chem.formula import read_formula
from matfm.core.bundled import bundled_or_same

SPECIAL_TOKENS: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY: dict[str, int] = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *SYMBOLS))}
"""123 tokens: 5 special ones, then the elements in order of atomic number."""

PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL_TOKENS))
FIRST_ELEMENT = len(SPECIAL_TOKENS)
_VOCABULARY_FILE = "vocab.json"
_SPECIAL_AMOUNT = 0.0
"""The amount channel of special tokens; elements always have a fraction in (0, 1]."""


def encode_fractions(formula: str) -> tuple[list[int], list[float]]:
    """Token ids and atomic fractions of one formula, `[CLS]` first (its amount is 0).

    Raises:
        MatfmError: the formula cannot be read.
    """
    fractions = read_formula(formula).fractions
    return (
        [CLS, *(VOCABULARY[symbol] for symbol in fractions)],
        [_SPECIAL_AMOUNT, *fractions.values()],
    )


class CompositionTokenizer(PreTrainedTokenizer):
    """Hugging Face tokenizer for chemical formulas.

    Calling it returns `input_ids`, `attention_mask` and `amounts` (atomic fractions, 0 for special
    tokens). The order of tokens is that of the formula; models with this input ignore order.
    """

    vocab_files_names = {"vocab_file": _VOCABULARY_FILE}
    model_input_names = ["input_ids", "attention_mask", "amounts"]

    def __init__(self, vocab_file: str | None = None, scheme: str = "fraction", **kwargs: Any) -> None:
        self._vocabulary = json.loads(Path(vocab_file).read_text("utf-8")) if vocab_file else dict(VOCABULARY)
        self._tokens = {index: token for token, index in self._vocabulary.items()}
        for role, token in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True):
            kwargs.setdefault(f"{role}_token", token)
        super().__init__(scheme=scheme, **kwargs)

    @classmethod
    def from_pretrained(cls, name: Any, *arguments: Any, **options: Any) -> CompositionTokenizer:
        """By bundled name, folder or Hub id."""
        tokenizer: CompositionTokenizer = super().from_pretrained(bundled_or_same(str(name)), *arguments, **options)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self._vocabulary)

    def get_vocab(self) -> dict[str, int]:
        """Token to id."""
        return {**self._vocabulary, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(read_formula(text).amounts)

    def _convert_token_to_id(self, token: str) -> int:
        return self._vocabulary.get(token, UNK)

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens.get(index, SPECIAL_TOKENS[UNK])

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join element symbols; amounts live in their own channel."""
        return "".join(tokens)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`[CLS]` before a formula; pairs are separated by `[SEP]`."""
        return [CLS, *token_ids_0, *([SEP, *token_ids_1] if token_ids_1 else [])]

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        if isinstance(text, (list, tuple)) or text_pair is not None:
            return super()._encode_plus(text, text_pair, **kwargs)
        tensors = kwargs.pop("return_tensors", None)
        encoded = super()._encode_plus(text, **kwargs)
        fractions = list(read_formula(text).fractions.values())
        special = 1 if kwargs.get("add_special_tokens", True) else 0
        amounts = [_SPECIAL_AMOUNT] * special + fractions
        ids = encoded["input_ids"]
        amounts = amounts[: len(ids)]
        missing = [_SPECIAL_AMOUNT] * (len(ids) - len(amounts))
        encoded["amounts"] = missing + amounts if ids and ids[0] == PAD else amounts + missing
        return BatchEncoding(encoded.data, tensor_type=tensors, prepend_batch_axis=True)

    def pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Pad ids, mask and amounts alike."""
        tensors = kwargs.pop("return_tensors", None)
        padded = super().pad(encoded_inputs, *args, **kwargs)
        if "amounts" in padded:
            rows, amounts = padded["input_ids"], padded["amounts"]
            single = bool(rows) and isinstance(rows[0], int)
            filled = [
                _fill(list(row_amounts), len(row), self.padding_side)
                for row, row_amounts in zip([rows] if single else rows, [amounts] if single else amounts, strict=True)
            ]
            padded["amounts"] = filled[0] if single else filled
        return BatchEncoding(padded.data, tensor_type=tensors)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Write `vocab.json`."""
        path = Path(save_directory) / "-".join(filter(None, (filename_prefix, _VOCABULARY_FILE)))
        path.write_text(json.dumps(self._vocabulary, indent=1), "utf-8")
        return (str(path),)


def _fill(amounts: list[float], length: int, side: str) -> list[float]:
    missing = [_SPECIAL_AMOUNT] * (length - len(amounts))
    return missing + amounts if side == "left" else amounts + missing
