"""Percentages of elements to atomic percent: `Fe 70 wt%, Cr 18 wt%, Ni 12 wt%`, `Ti-6Al-4V wt%`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from matfm.chem.elements import ATOMIC_NUMBER
from matfm.chem.formula_ends import normalise
from matfm.chem.formula_reasons import unreadable
from matfm.errors import MatfmError

_UNIT = re.compile(r"(?<![A-Za-z])(?:(?P<weight>wt|weight|mass)|at|atomic|mol|mole)(?:\.?-?\s?|\.\s?-)%", re.IGNORECASE)
_TOKEN = re.compile(
    r"(?P<balance>(?i:balance|bal\.|bal|rest)(?![A-Za-z]))|(?P<symbol>[A-Z][a-z]?)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(?P<separator>[,;/\n-])|(?P<space>[^\S\n]+)"
)
_BALANCE = "balance"
_COMPOUNDS = "percentages are of elements, not of compounds"
_TOLERANCE = 1.0
"""Percent by which a sum may miss 100: rounded tables do."""


def names_percentages(text: str) -> bool:
    """Whether `text` says wt%, at% or mol% (a dopant, with a colon, is none of this)."""
    return "%" in text and ":" not in text and _UNIT.search(text) is not None


def read_percentages(text: str) -> dict[str, float]:
    """Atomic percent by element, summing to 100. Weight percent are divided by RDKit's atomic weights.

    Items are separated by comma, semicolon, slash, line break or hyphen; one element may be the balance
    (`Fe bal.`), and the first one of several is, if it carries no number (`Fe-18Cr-12Ni`).

    Raises:
        MatfmError: mixed units, an element twice or without number, not an element, or a sum away from 100.
    """
    plain = normalise(text)
    units = list(_UNIT.finditer(plain))
    by_weight = units[0]["weight"] is not None
    for unit in units:
        if (unit["weight"] is not None) != by_weight:
            raise MatfmError(text, unit.start(), "weight and atomic percent are mixed; give all in one of them")
    percents = _with_balance(text, _pairs(text, _without_units(plain, units)))
    if by_weight:
        percents = {symbol: percent / _atomic_weight(symbol) for symbol, percent in percents.items()}
    total = sum(percents.values())
    return {symbol: 100.0 * percent / total for symbol, percent in percents.items()}


def _without_units(text: str, units: list[re.Match[str]]) -> str:
    """`text` with blanks in place of the units and of brackets around them, so that positions stay."""
    characters = list(text)
    for unit in units:
        start, end = unit.span()
        if text[start - 1 : start] + text[end : end + 1] in ("()", "[]"):
            start, end = start - 1, end + 1
        characters[start:end] = " " * (end - start)
    return "".join(characters)


def _pairs(text: str, plain: str) -> dict[str, tuple[str, int]]:
    """Symbol to its number (or "balance") and position."""
    found: dict[str, tuple[str, int]] = {}
    items = list(_items(text, plain))
    for item, separator in items:
        if len(item) == 1 and item is items[0][0] and item[0].kind == "symbol" and separator == "-":
            item.append(_Token(_BALANCE, _BALANCE, item[0].position))
        pairs = list(zip(item[::2], item[1::2], strict=False))
        if len(pairs) > 1 and (len(items) > 1 or len({one.end == other.position for one, other in pairs}) > 1):
            raise MatfmError(text, item[0].position, f"{_COMPOUNDS}; separate the elements by commas")
        for one, other in pairs:
            symbol, number = (one, other) if one.kind == "symbol" else (other, one)
            if number.kind == "symbol" or symbol.text not in ATOMIC_NUMBER:
                raise MatfmError(text, symbol.position, f"'{symbol.text}' is not one element with one percentage")
            if symbol.text in found:
                raise MatfmError(text, symbol.position, f"'{symbol.text}' is given twice; add the percentages up")
            found[symbol.text] = (_BALANCE if number.kind == _BALANCE else number.text, symbol.position)
        if len(item) % 2:
            last = item[-1]
            what = "has no percentage; write one, or 'bal.'" if last.kind == "symbol" else "belongs to no element"
            raise MatfmError(text, last.position, f"'{last.text[:20]}' {what}")
    return found


class _Token(NamedTuple):
    kind: str
    text: str
    position: int

    @property
    def end(self) -> int:
        return self.position + len(self.text)


def _items(text: str, plain: str) -> Iterator[tuple[list[_Token], str]]:
    """The tokens between two separators, with the latter one; nothing between them is no item."""
    item: list[_Token] = []
    position = 0
    while position < len(plain):
        token = _TOKEN.match(plain, position)
        if token is None:
            raise MatfmError(text, position, _COMPOUNDS if plain[position] in "()[]{}" else unreadable(plain, position))
        if token.lastgroup == "separator":
            if item:
                yield item, token.group()
            item = []
        elif token.lastgroup != "space":
            item.append(_Token(str(token.lastgroup), token.group(), position))
        position = token.end()
    if item:
        yield item, ""


def _with_balance(text: str, pairs: dict[str, tuple[str, int]]) -> dict[str, float]:
    """Percent by element, the balance worked out, the sum checked."""
    if not pairs:
        raise MatfmError(text, 0, "no element was found")
    percents: dict[str, float] = {}
    balance: str | None = None
    for symbol, (number, position) in pairs.items():
        if number != _BALANCE:
            percents[symbol] = float(number)
            if not 0.0 < percents[symbol] <= 100.0 + _TOLERANCE:
                raise MatfmError(text, position, f"{symbol}: {number[:20]} is no percentage above 0 and up to 100")
        elif balance is not None:
            raise MatfmError(text, position, f"'{balance}' and '{symbol}' cannot both be the balance")
        else:
            balance = symbol
            percents[symbol] = 0.0
    total = sum(percents.values())
    if balance is not None:
        if total >= 100.0:
            raise MatfmError(text, pairs[balance][1], f"the others sum to {total:.6g}; nothing is left for '{balance}'")
        percents[balance] = 100.0 - total
    elif abs(total - 100.0) > _TOLERANCE + 1e-9:
        reason = f"the percentages sum to {total:.6g}, not 100; correct them, or mark one element 'bal.'"
        raise MatfmError(text, None, reason)
    return percents


def _atomic_weight(symbol: str) -> float:
    from rdkit import Chem

    return float(Chem.GetPeriodicTable().GetAtomicWeight(symbol))
