"""What the tokenizers of SMILES and SELFIES share: everything they do is written into `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from matfm.chem.line_encoder import LineEncoder
from matfm.chem.notations import LineNotation
from matfm.chem.vocabulary import SPECIAL_TOKENS, Coverage, load_vocabulary, measure_coverage, token_ids
from matfm.errors import MatfmError

_ROLES = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
    "bos": "[CLS]",
    "eos": "[SEP]",
}


class LineNotationTokenizer(PreTrainedTokenizerFast):
    """Base of tokenizers that cut text by one regular expression. Every character is in exactly one token.

    Args:
        vocabulary: tokens without the special ones; the shipped vocabulary if None.
        kwargs: those of `PreTrainedTokenizerFast`. Nothing is truncated unless a call asks for it.
    """

    vocab_files_names = {"tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]

    notation: ClassVar[LineNotation]
    """How text is cut; its name is that of the shipped vocabulary."""

    def __init__(self, vocabulary: Sequence[str] | None = None, **kwargs: Any) -> None:
        if not kwargs.keys() & {"tokenizer_file", "tokenizer_object"}:
            tokens = load_vocabulary(self.notation.name) if vocabulary is None else vocabulary
            kwargs["tokenizer_object"] = _pipeline(tokens, self.notation.pattern)
        for role, token in _ROLES.items():
            kwargs.setdefault(f"{role}_token", token)
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(**kwargs)

    @classmethod
    def split(cls, text: str) -> list[str]:
        """Tokens of a text, unknown ones as they are written: the plain twin of the pipeline."""
        return cls.notation.split(text)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of many strings in one array, for corpora: equal to a call on each, about ten times as fast as `split`.

        Returns:
            Ids (N,) uint16 with [CLS] and [SEP] around every string, and where each starts, (R + 1,) int64.

        Raises:
            MatfmError: tokens were added to the pipeline, or there are more than 65,536.
        """
        if len(self.get_added_vocab()) > len(SPECIAL_TOKENS):
            raise MatfmError("tokens were added to this tokenizer; build one with these tokens in its vocabulary")
        return self.encoder.encode(texts)

    @cached_property
    def encoder(self) -> LineEncoder:
        """The fast path of the vocabulary, as `encode_flat` uses it."""
        return self.notation.encoder(self.get_vocab())

    def coverage(self, texts: Iterable[str], max_length: int | None = None) -> Coverage:
        """Unknown tokens and lengths of `texts`; `max_length` counts [CLS] and [SEP], as in a call."""
        return measure_coverage(texts, self.split, self.get_vocab(), max_length)

    def count_unknown(self, texts: Iterable[str]) -> int:
        """Number of tokens of `texts` that become [UNK]."""
        return sum(self.coverage(texts).unknown.values())


def _pipeline(tokens: Sequence[str], pattern: str) -> Tokenizer:
    ids = token_ids(tokens)
    pipeline = Tokenizer(models.WordLevel(vocab=ids, unk_token="[UNK]"))  # noqa: S106  (a token of text)
    pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    pipeline.decoder = decoders.Fuse()
    pipeline.add_special_tokens(list(SPECIAL_TOKENS))
    pipeline.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return pipeline
