"""One vocabulary for SMILES, SELFIES, compositions and texts on properties, with a token for each task of translation.

| written | tokens |
| --- | --- |
| `<to_selfies>CC(=O)Cl` | as `SmilesTokenizer` |
| `<to_smiles>[C][C][=Branch1][C][=O][Cl]` | as `SelfiesTokenizer` |
| `<to_text> Fe2 O3` | every element with the blank before it, and its count: those of the scheme `count` |
| `<to_composition> semiconductor, band gap 2.0 eV` | words with the blank before them, digits, signs |
| `<answer> Fe2 O3; band gap? volume?` | both |

Molecules have no blanks and everything else begins with one, so one regular expression cuts all four, and what is
spelled alike (the dot, `[C]`, ring numbers and digits) is one token; the task says what it means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from matfm.chem import smiles
from matfm.chem.composition_schemes import LARGEST_COUNT
from matfm.chem.elements import SYMBOLS
from matfm.chem.formula import Formula, read_formula
from matfm.chem.formula_text import format_amount, order_symbols
from matfm.chem.line_tokenizer import LineNotationTokenizer
from matfm.chem.notations import SMILES, LineNotation
from matfm.chem.property_text import WORDS, questions
from matfm.chem.vocabulary import load_vocabulary
from matfm.errors import MatfmError

TO_SELFIES, TO_SMILES, TO_TEXT, TO_COMPOSITION, ANSWER = TASKS = (
    "<to_selfies>",
    "<to_smiles>",
    "<to_text>",
    "<to_composition>",
    "<answer>",
)
ORDER = "electronegativity"
"""Order of the elements of a composition."""

_BLANK_WORDS = tuple(f" {word}" for word in dict.fromkeys((*SYMBOLS, *WORDS)))
_SIGNS = (" ", " -", *"0123456789.,;?-")
_COMPOSITION = re.compile(r"(?: [A-Z][a-z]?[0-9]+(?:\.[0-9]+)?)+")
_ALTERNATIVES = "|".join(re.escape(word[1:]) for word in sorted(_BLANK_WORDS, key=len, reverse=True))
_AFTER_ELEMENT = r"(?:(?<= [A-Z])|(?<= [A-Z][a-z]))"
_PATTERN = "|".join(
    (
        rf" (?:{_ALTERNATIVES})(?![A-Za-z])",
        rf"{_AFTER_ELEMENT}[1-9][0-9]?(?![0-9.])",
        r" -?(?=[0-9])",
        smiles.SPLIT_PATTERN,
    )
)
JOINT = LineNotation("joint", _PATTERN, SMILES.pairs, ring_numbers=True)
"""How all four are cut; its fast encoder is for molecules."""


class JointTokenizer(LineNotationTokenizer):
    """Tokenizer of molecules, compositions and texts, for models that translate between them."""

    notation = JOINT

    def __init__(self, vocabulary: Sequence[str] | None = None, **kwargs: Any) -> None:
        if vocabulary is None and not kwargs.keys() & {"tokenizer_file", "tokenizer_object"}:
            vocabulary = joint_vocabulary()
        kwargs.setdefault("extra_special_tokens", list(TASKS))
        super().__init__(vocabulary, **kwargs)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As the base; texts with blanks or tasks go through the pipeline, which is slower."""
        if not any(" " in text or text.startswith("<") for text in texts):
            return self.encoder.encode(texts)
        rows = [encoding.ids for encoding in self.backend_tokenizer.encode_batch(list(texts))]
        offsets = np.cumsum([0, *map(len, rows)])
        return np.fromiter((index for row in rows for index in row), np.uint16, int(offsets[-1])), offsets


def joint_vocabulary() -> list[str]:
    """Tokens without the special ones: tasks, the shipped vocabularies of molecules, elements, counts, words, signs."""
    counts = (str(count) for count in range(1, LARGEST_COUNT + 1))
    parts = (TASKS, load_vocabulary("smiles"), load_vocabulary("selfies"), counts, _SIGNS, _BLANK_WORDS)
    return list(dict.fromkeys(token for part in parts for token in part))


def composition_line(formula: Formula) -> str:
    """A composition as it is written for the joint vocabulary: ` Fe2 O3`, every amount written, 1 too."""
    amounts = formula.amounts
    return "".join(f" {symbol}{format_amount(amounts[symbol])}" for symbol in order_symbols(amounts, ORDER))


def read_composition_line(line: str) -> Formula:
    """A composition that was written so.

    Raises:
        MatfmError: these are no elements with an amount each, or an element comes twice.
    """
    if not _COMPOSITION.fullmatch(line):
        raise MatfmError(line, 0, "this is no composition: elements with a blank before and an amount behind each")
    formula = read_formula(line.replace(" ", ""))
    if len(formula.amounts) != line.count(" "):
        raise MatfmError(line, 0, "an element comes twice, or has no atoms")
    return formula


def text_line(text: str) -> str:
    """A text on properties as it is written for the joint vocabulary."""
    return f" {text}"


def question_line(formula: Formula, asked: Sequence[str]) -> str:
    """An instruction: a composition and the properties that are asked for, ` Fe2 O3; band gap? volume?`."""
    return f"{composition_line(formula)}; {questions(asked)}"


def line_ids(line: str, ids: Mapping[str, int], unknown: int) -> list[int]:
    """Token ids of a line without tasks and special tokens: the plain twin of the pipeline, fast for single lines."""
    return [ids.get(token, unknown) for token in JOINT.split(line)]
