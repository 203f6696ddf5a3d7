"""What the tokenizers of SMILES and SELFIES share: everything they do is written into `tokenizer.json`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from matfm.chem.vocabulary import SPECIAL_TOKENS, Coverage, load_vocabulary, measure_coverage

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

    notation: ClassVar[str]
    """Name of the shipped vocabulary."""
    split_pattern: ClassVar[str]
    """One token, for Python's `re` and for Oniguruma alike."""

    def __init__(self, vocabulary: Sequence[str] | None = None, **kwargs: Any) -> None:
        if not kwargs.keys() & {"tokenizer_file", "tokenizer_object"}:
            tokens = load_vocabulary(self.notation) if vocabulary is None else vocabulary
            kwargs["tokenizer_object"] = _pipeline(tokens, self.split_pattern)
        for role, token in _ROLES.items():
            kwargs.setdefault(f"{role}_token", token)
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(**kwargs)

    @classmethod
    def split(cls, text: str) -> list[str]:
        """Tokens of a text, unknown ones as they are written: the plain twin of the pipeline."""
        return re.findall(cls.split_pattern, text)

    def coverage(self, texts: Iterable[str], max_length: int | None = None) -> Coverage:
        """Unknown tokens and lengths of `texts`; `max_length` counts [CLS] and [SEP], as in a call."""
        return measure_coverage(texts, self.split, self.get_vocab(), max_length)

    def count_unknown(self, texts: Iterable[str]) -> int:
        """Number of tokens of `texts` that become [UNK]."""
        return sum(self.coverage(texts).unknown.values())


def _pipeline(tokens: Sequence[str], pattern: str) -> Tokenizer:
    ids = {token: index for index, token in enumerate(dict.fromkeys((*SPECIAL_TOKENS, *tokens)))}
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
