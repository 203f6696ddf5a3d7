"""Three ways to write a composition as tokens: `fraction`, `repeat` and `count`.

| scheme | Fe2O3 | any stoichiometry | order matters |
| --- | --- | --- | --- |
| fraction | Fe O, with amounts 0.4 0.6 beside | yes | no |
| repeat | Fe Fe O O O | whole numbers of atoms, also after scaling | only to the model |
| count | Fe 2 O 3 | yes, amounts that are not whole are spelled | yes |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from matfm.chem.elements import SYMBOLS
from matfm.chem.formula import Formula, read_formula
from matfm.chem.formula_text import format_amount, formula_text, order_symbols, reduced_amounts
from matfm.chem.vocabulary import SPECIAL_TOKENS, token_ids
from matfm.errors import MatfmError

PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL_TOKENS))
FIRST_ELEMENT = len(SPECIAL_TOKENS)
VOCABULARY: dict[str, int] = token_ids(SYMBOLS)
"""123 tokens: 5 special ones, then the elements in order of atomic number. Those of `count` follow after them."""

SPECIAL_AMOUNT = 0.0
"""The amount channel of special tokens; elements always have a fraction in (0, 1]."""
LARGEST_COUNT = 99
"""Whole amounts up to here are one token of the scheme `count`."""
MOST_REPEATED = 512
"""Atoms that the scheme `repeat` writes for one formula at most."""

_WHOLE = tuple(str(number) for number in range(1, LARGEST_COUNT + 1))
_SPELLED = tuple(f"#{character}" for character in "0123456789.")


class Scheme(Protocol):
    """A composition as tokens, and back."""

    name: str
    vocabulary: tuple[str, ...]
    """Tokens beside the special ones."""

    def tokens(self, formula: Formula, order: str) -> tuple[list[str], list[float] | None]:
        """Tokens, and their amounts if the scheme has that channel. `order` is one of `formula_text.ORDERS`."""

    def text(self, tokens: Sequence[str], amounts: Sequence[float] | None) -> str:
        """The formula; text that `parse_formula` rejects where the tokens are none."""


class Fraction:
    """One token per element and its atomic fraction in a channel of its own (Wang et al. 2021, CrabNet)."""

    name = "fraction"
    vocabulary = SYMBOLS

    def tokens(self, formula: Formula, order: str) -> tuple[list[str], list[float] | None]:
        """Elements and atomic fractions."""
        symbols = order_symbols(formula.amounts, order)
        return symbols, [formula.fractions[symbol] for symbol in symbols]

    def text(self, tokens: Sequence[str], amounts: Sequence[float] | None) -> str:
        """Smallest whole amounts, or the fractions where there are none; only the elements without amounts."""
        if amounts is None or not tokens:
            return "".join(tokens)
        if not all(0.0 < amount < math.inf for amount in amounts):
            raise MatfmError(f"amounts {list(amounts)[:10]} are not all positive numbers; decode those of a formula")
        return formula_text(reduced_amounts(dict(zip(tokens, amounts, strict=True))))


class Repeat:
    """One token per atom, as language models of compositions use it (Fu et al. 2023, Materials Transformers)."""

    name = "repeat"
    vocabulary = SYMBOLS

    def tokens(self, formula: Formula, order: str) -> tuple[list[str], list[float] | None]:
        """Every element as often as it has atoms; amounts that are not whole are scaled until they are.

        Raises:
            MatfmError: that takes more than 512 atoms.
        """
        amounts = formula.amounts
        if not all(amount.is_integer() for amount in amounts.values()):
            amounts = reduced_amounts(amounts)
        atoms = sum(amounts.values())
        if atoms > MOST_REPEATED or not all(amount.is_integer() for amount in amounts.values()):
            raise MatfmError(
                formula.text,
                0,
                f"the scheme 'repeat' writes one token per atom and at most {MOST_REPEATED} atoms, which this formula "
                "exceeds or has no whole number of; use 'fraction' or 'count'",
            )
        return [symbol for symbol in order_symbols(amounts, order) for _ in range(int(amounts[symbol]))], None

    def text(self, tokens: Sequence[str], _: Sequence[float] | None) -> str:
        """Runs of the same element as one amount."""
        amounts: dict[str, float] = {}
        for token in tokens:
            amounts[token] = amounts.get(token, 0.0) + 1.0
        return formula_text(amounts)


class Count:
    """Every element followed by its amount: one token up to 99 if whole, else spelled (`#0 #. #2 #5`)."""

    name = "count"
    vocabulary = (*SYMBOLS, *_WHOLE, *_SPELLED)

    def tokens(self, formula: Formula, order: str) -> tuple[list[str], list[float] | None]:
        """Elements and amounts as written in the formula (12 significant digits)."""
        tokens: list[str] = []
        for symbol in order_symbols(formula.amounts, order):
            amount = format_amount(formula.amounts[symbol])
            tokens += [symbol, amount] if amount in _WHOLE else [symbol, *(f"#{character}" for character in amount)]
        return tokens, None

    def text(self, tokens: Sequence[str], _: Sequence[float] | None) -> str:
        """The amounts as written. Tokens that are no formula stay apart and are rejected when read."""
        pieces: list[str] = []
        for spelled, group in groupby(tokens, _SPELLED.__contains__):
            run = list(group)
            pieces += [_spelled_amount("".join(run).replace("#", ""))] if spelled else run
        amounts = dict(zip(pieces[::2], pieces[1::2], strict=False))
        well_formed = len(pieces) == 2 * len(amounts) and all(
            symbol in SYMBOLS and amount[:1].isdigit() for symbol, amount in amounts.items()
        )
        return formula_text({s: float(a) for s, a in amounts.items()}) if well_formed else " ".join(pieces)


def _spelled_amount(written: str) -> str:
    """An amount spelled with `#` tokens; it keeps a `#` if the scheme would not have written it so."""
    canonical = written not in _WHOLE and written.count(".") <= 1 and written.strip(".") == written
    return written if canonical and float(written) > 0 and format_amount(float(written)) == written else f"#{written}"


SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (Fraction(), Repeat(), Count())}


def encode_fractions(formula: str) -> tuple[list[int], list[float]]:
    """Token ids and atomic fractions of one formula in the scheme `fraction`, `[CLS]` first (its amount is 0).

    Raises:
        MatfmError: the formula cannot be read.
    """
    return fraction_ids(read_formula(formula))


def fraction_ids(formula: Formula) -> tuple[list[int], list[float]]:
    """`encode_fractions` of a formula that was read."""
    fractions = formula.fractions
    return (
        [CLS, *(VOCABULARY[symbol] for symbol in fractions)],
        [SPECIAL_AMOUNT, *fractions.values()],
    )
