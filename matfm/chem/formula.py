"""Chemical formulas: text to amounts of elements, with errors that point at the character."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property

from matfm.chem.elements import ATOMIC_NUMBER, HYDROGEN_ISOTOPES
from matfm.errors import MatfmError

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_PLAIN = re.compile(r"(?:[A-Z][a-z]?(?:\d+(?:\.\d+)?)?)+")
_PLAIN_ITEM = re.compile(r"([A-Z][a-z]?)(\d+(?:\.\d+)?)?")
_TOKEN = re.compile(
    rf"(?P<element>[A-Z][a-z]?)|(?P<number>{_NUMBER})|(?P<open>[(\[{{])|(?P<close>[)\]}}])|(?P<space>\s+)"
)
_CHARGE = re.compile(r"\(?(?P<count>\d*)(?P<sign>[+-]+)\)?$")
_SUPERSCRIPT_CHARGE = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]*[⁺⁻]+)$")
_PHASE = re.compile(r"\((?P<phase>aq|s|l|g|cr|am)\)$")
_HYDRATE = re.compile(r"\s*[·•*∙⋅]\s*")
_LEADING_COUNT = re.compile(_NUMBER)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MINUS = str.maketrans({"−": "-", "–": "-", "⁻": "-"})
_MISSING = frozenset({"nan", "none", "null", "n/a", "na", "-"})


@dataclass(frozen=True)
class Formula:
    """A parsed formula.

    `amounts` maps symbol to number of atoms as written, in order of first appearance (all > 0).
    `charge` is in elementary charges; `phase` is the label in parentheses at the end (`aq`, `s`, …).
    """

    text: str
    amounts: dict[str, float] = field(hash=False)
    charge: int = 0
    phase: str | None = None

    @cached_property
    def fractions(self) -> dict[str, float]:
        """Atomic fractions; they sum to 1."""
        total = sum(self.amounts.values())
        return {symbol: amount / total for symbol, amount in self.amounts.items()}


def parse_formula(text: str) -> Formula:
    """Read a chemical formula.

    Accepts nested brackets of all three kinds, fractional amounts, hydrates written with a raised
    dot or an asterisk (`CuSO4·5H2O`), unicode sub- and superscripts, a trailing charge (`Fe3+` is
    iron(III), never three iron atoms) and a trailing phase label. D and T count as hydrogen.

    Raises:
        MatfmError: with text, position and reason, for anything that is not one definite formula.
    """
    if not isinstance(text, str):
        raise MatfmError(repr(text), 0, "a formula is text, for example 'Fe2O3'")
    stripped = text.strip()
    if _PLAIN.fullmatch(stripped):
        amounts = _parse_plain(stripped)
        if amounts is not None:
            return Formula(stripped, amounts)
    return _parse_general(stripped)


def _parse_plain(text: str) -> dict[str, float] | None:
    """The common case without brackets, in one pass; None where the careful parser must decide."""
    amounts: dict[str, float] = {}
    for symbol, number in _PLAIN_ITEM.findall(text):
        amount = float(number) if number else 1.0
        if symbol not in ATOMIC_NUMBER or not 0.0 < amount < float("inf"):
            return None
        amounts[symbol] = amounts.get(symbol, 0.0) + amount
    return amounts


def _parse_general(text: str) -> Formula:
    if not text:
        raise MatfmError(text, 0, "the formula is empty")
    if text.lower() in _MISSING:
        raise MatfmError(text, 0, "this is a missing value, not a formula")
    # A superscript charge is bracketed before normalisation makes it an ordinary number: SO₄²⁻ is SO4(2-).
    text = unicodedata.normalize("NFKC", _SUPERSCRIPT_CHARGE.sub(r"(\1)", text)).translate(_MINUS)
    body, phase = _cut_phase(text)
    body, charge = _cut_charge(body)
    amounts: dict[str, float] = {}
    start = 0
    for part in _HYDRATE.split(body):
        start = body.index(part, start)
        factor, offset = 1.0, 0
        leading = _LEADING_COUNT.match(part)
        if leading and start > 0:
            factor, offset = float(leading.group()), leading.end()
        for symbol, amount in _PartParser(text, part, start).parse(offset).items():
            amounts[symbol] = amounts.get(symbol, 0.0) + factor * amount
        start += len(part)
    for amount in amounts.values():
        if not 0.0 < amount < float("inf"):
            raise MatfmError(text, 0, f"an amount of {amount:g} is not a positive finite number")
    return Formula(text, amounts, charge, phase)


def _cut_phase(text: str) -> tuple[str, str | None]:
    found = _PHASE.search(text)
    return (text[: found.start()].rstrip(), found["phase"]) if found else (text, None)


def _cut_charge(text: str) -> tuple[str, int]:
    """Split a trailing charge off. `Fe3+` and `SO4(2-)` carry a count, `Na+` and `Fe+++` do not."""
    found = _CHARGE.search(text)
    if not found or found.start() == 0:
        return text, 0
    signs, count = found["sign"], found["count"]
    if len(set(signs)) > 1 or (count and len(signs) > 1):
        raise MatfmError(text, found.start(), f"'{found.group()}' is not a charge; write it like 2+ or ++")
    if len(count) > 1 and not found.group().startswith("("):
        raise MatfmError(text, found.start(), f"'{found.group()}' may hold an amount; put the charge in brackets")
    size = int(count) if count else len(signs)
    return text[: found.start()], size if signs[0] == "+" else -size


class _PartParser:
    """Parses one hydrate-free part with an explicit stack (no recursion limit).

    `offset` is where the part starts in `text`, so that errors name positions in the whole text.
    """

    def __init__(self, text: str, part: str, offset: int) -> None:
        self.text = text
        self.part = part
        self.offset = offset
        self.sums: list[dict[str, float]] = [{}]
        self.brackets: list[tuple[str, int]] = []
        self.group: dict[str, float] | None = None  # what a following number multiplies

    def parse(self, position: int) -> dict[str, float]:
        """Amounts of the part, reading from `position` on."""
        while position < len(self.part):
            token = _TOKEN.match(self.part, position)
            if token is None:
                raise self._error(position, _unreadable(self.part[position]))
            length = getattr(self, f"_{token.lastgroup}")(token.group(), position)
            position += length
        if self.brackets:
            bracket, opened = self.brackets[-1]
            raise self._error(opened, f"'{bracket}' is never closed")
        self._flush()
        if not self.sums[0]:
            raise self._error(0, "no element was found")
        return self.sums[0]

    def _element(self, value: str, position: int) -> int:
        symbol = "H" if value in HYDROGEN_ISOTOPES else value
        if symbol not in ATOMIC_NUMBER:
            raise self._error(position, f"'{value}' is not a chemical element")
        self._flush()
        self.group = {symbol: 1.0}
        return len(value)

    def _number(self, value: str, position: int) -> int:
        if self.group is None:
            raise self._error(position, f"the number {value} follows no element or bracket")
        factor = float(value)
        if not 0.0 < factor < float("inf"):
            raise self._error(position, f"an amount of {value} is not a positive finite number")
        self.group = {symbol: amount * factor for symbol, amount in self.group.items()}
        self._flush()
        return len(value)

    def _open(self, value: str, position: int) -> int:
        self._flush()
        self.brackets.append((value, position))
        self.sums.append({})
        return 1

    def _close(self, value: str, position: int) -> int:
        if not self.brackets or _CLOSING[self.brackets[-1][0]] != value:
            raise self._error(position, f"'{value}' closes a bracket that was not opened")
        self._flush()
        self.brackets.pop()
        self.group = self.sums.pop()
        if not self.group:
            raise self._error(position, "the bracket holds no element")
        return 1

    def _space(self, value: str, _: int) -> int:
        self._flush()
        return len(value)

    def _flush(self) -> None:
        for symbol, amount in (self.group or {}).items():
            self.sums[-1][symbol] = self.sums[-1].get(symbol, 0.0) + amount
        self.group = None

    def _error(self, at: int, reason: str) -> MatfmError:
        return MatfmError(self.text, self.offset + at, reason)


def _unreadable(character: str) -> str:
    if character.islower():
        return f"'{character}' starts no element symbol; symbols begin with a capital letter"
    return f"'{character}' (U+{ord(character):04X}) has no meaning in a formula"
