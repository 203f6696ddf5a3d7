"""Formulas to tokens as a Hugging Face tokenizer, in the schemes `fraction`, `repeat` and `count`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizer

from matfm.chem.composition_schemes import CLS, SCHEMES, SEP, SPECIAL_AMOUNT, UNK
from matfm.chem.formula import read_formula
from matfm.chem.formula_text import ORDERS
from matfm.chem.vocabulary import SPECIAL_TOKENS, token_ids
from matfm.core.bundled import bundled_or_same
from matfm.errors import MatfmError

_VOCABULARY_FILE = "vocab.json"
_CHANNEL = "amounts"


class CompositionTokenizer(PreTrainedTokenizer):
    """Hugging Face tokenizer for chemical formulas.

    Calling it returns `input_ids`, `attention_mask` and, in the scheme `fraction`, `amounts` (atomic fractions, 0 for
    special tokens). Decoding gives the formula back; in the scheme `fraction` it needs the amounts too:
    `decode(ids, amounts=…)`, or `decode(encoding)` with what a call returned.

    Args:
        vocab_file: of a saved tokenizer.
        scheme: `fraction` (element tokens and a real amount channel), `repeat` (one token per atom) or `count`
            (elements and numbers, for generation); see `matfm.chem.composition_schemes`.
        order: of the elements: `written`, `hill`, `electronegativity` or `alphabetical`.
    """

    vocab_files_names = {"vocab_file": _VOCABULARY_FILE}
    model_input_names = ["input_ids", "attention_mask", _CHANNEL]

    def __init__(
        self, vocab_file: str | None = None, scheme: str = "fraction", order: str = "written", **kwargs: Any
    ) -> None:
        if scheme not in SCHEMES:
            raise MatfmError(f"scheme is {scheme!r}; choose one of {', '.join(SCHEMES)}")
        if order not in ORDERS:
            raise MatfmError(f"order is {order!r}; choose one of {', '.join(ORDERS)}")
        self._scheme = SCHEMES[scheme]
        self._order = order
        fixed = token_ids(self._scheme.vocabulary)
        self._vocabulary = json.loads(Path(vocab_file).read_text("utf-8")) if vocab_file else fixed
        self._tokens = {index: token for token, index in self._vocabulary.items()}
        for role, token in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True):
            kwargs.setdefault(f"{role}_token", token)
        super().__init__(scheme=scheme, order=order, **kwargs)
        if scheme != "fraction":
            self.model_input_names = [name for name in self.model_input_names if name != _CHANNEL]

    @classmethod
    def from_pretrained(cls, name: Any, *arguments: Any, **options: Any) -> CompositionTokenizer:
        """By bundled name, folder or Hub id."""
        tokenizer: CompositionTokenizer = super().from_pretrained(bundled_or_same(str(name)), *arguments, **options)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self._vocabulary)

    @property
    def scheme_name(self) -> str:
        """fraction, repeat or count."""
        return self._scheme.name

    @property
    def order(self) -> str:
        """Order of the elements."""
        return self._order

    def get_vocab(self) -> dict[str, int]:
        """Token to id."""
        return {**self._vocabulary, **self.added_tokens_encoder}

    def decode(self, token_ids: Any, *args: Any, amounts: Sequence[float] | None = None, **kwargs: Any) -> Any:
        """Text of ids. With amounts, or given what a call returned, formulas without special tokens."""
        if isinstance(token_ids, Mapping):
            return self._formulas(token_ids["input_ids"], token_ids.get(_CHANNEL))
        return super().decode(token_ids, *args, **kwargs) if amounts is None else self.to_formula(token_ids, amounts)

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Texts of several sequences of ids, or formulas of what a call returned."""
        if isinstance(sequences, Mapping):
            return self._formulas(sequences["input_ids"], sequences.get(_CHANNEL))
        return super().batch_decode(sequences, *args, **kwargs)

    def _formulas(self, ids: Any, amounts: Any) -> Any:
        """One formula of a flat list of ids, a list of formulas of nested ones."""
        if not hasattr(ids[0], "__len__") or getattr(ids, "ndim", 2) == 1:
            return self.to_formula(ids, amounts)
        return [self.to_formula(row, None if amounts is None else amounts[i]) for i, row in enumerate(ids)]

    def to_formula(self, ids: Sequence[int], amounts: Sequence[float] | None = None) -> str:
        """The formula of one sequence of ids, special tokens left out.

        Args:
            ids: (T,) token ids.
            amounts: (T,) atomic fractions of the scheme `fraction`.
        """
        left_out = {*self.all_special_ids, *self.added_tokens_decoder}
        kept = [position for position, index in enumerate(ids) if int(index) not in left_out]
        tokens = [self._convert_id_to_token(int(ids[position])) for position in kept]
        return self._scheme.text(tokens, None if amounts is None else [float(amounts[p]) for p in kept])

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return self._scheme.tokens(read_formula(text), self._order)[0]

    def _convert_token_to_id(self, token: str) -> int:
        return self._vocabulary.get(token, UNK)

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens.get(index, SPECIAL_TOKENS[UNK])

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The formula; in the scheme `fraction` only its elements, as amounts live in their own channel."""
        return self._scheme.text(tokens, None)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`[CLS]` first; `[SEP]` between pairs and, where order matters (`repeat`, `count`), at the end."""
        end = [] if self._scheme.name == "fraction" else [SEP]
        return [CLS, *token_ids_0, *([SEP, *token_ids_1] if token_ids_1 else []), *end]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for special tokens, 0 for those of the formula."""
        built = (
            token_ids_0
            if already_has_special_tokens
            else self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)
        )
        return [int(index in self.all_special_ids) for index in built]

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        if isinstance(text, str) and not text.strip():
            read_formula(text)  # raises: an empty text has no tokens, and would not be looked at
        is_batch = isinstance(text, (list, tuple)) and not kwargs.get("is_split_into_words")
        if self._scheme.name != "fraction" or is_batch:
            return super()._encode_plus(text, text_pair, **kwargs)
        if text_pair is not None or not isinstance(text, str):
            raise MatfmError("the scheme 'fraction' encodes one formula at a time: no pairs, no split words")
        tensors = kwargs.pop("return_tensors", None)
        encoded = super()._encode_plus(text, **kwargs)
        formula = read_formula(self._without_added_tokens(text)).fractions
        of_token = {self._vocabulary[symbol]: fraction for symbol, fraction in formula.items()}
        encoded[_CHANNEL] = [of_token.get(index, SPECIAL_AMOUNT) for index in encoded["input_ids"]]
        return BatchEncoding(encoded.data, tensor_type=tensors, prepend_batch_axis=True)

    def _without_added_tokens(self, text: str) -> str:
        """The formula alone, where control tokens stand around it."""
        for token in self.added_tokens_encoder:
            text = text.replace(token, " ")
        return text

    def pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Pad ids, mask and amounts alike."""
        tensors = kwargs.pop("return_tensors", None)
        side = kwargs.get("padding_side") or self.padding_side
        padded = super().pad(encoded_inputs, *args, **kwargs)
        if _CHANNEL in padded:
            rows, amounts = padded["input_ids"], padded[_CHANNEL]
            single = bool(rows) and isinstance(rows[0], int)
            filled = [
                _fill(list(row_amounts), len(row), side)
                for row, row_amounts in zip([rows] if single else rows, [amounts] if single else amounts, strict=True)
            ]
            padded[_CHANNEL] = filled[0] if single else filled
        return BatchEncoding(padded.data, tensor_type=tensors)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Write `vocab.json`."""
        path = Path(save_directory) / "-".join(filter(None, (filename_prefix, _VOCABULARY_FILE)))
        path.write_text(json.dumps(self._vocabulary, indent=1), "utf-8")
        return (str(path),)


def _fill(amounts: list[float], length: int, side: str) -> list[float]:
    missing = [SPECIAL_AMOUNT] * (length - len(amounts))
    return missing + amounts if side == "left" else amounts + missing
