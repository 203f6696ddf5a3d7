"""The careful reading of a formula: brackets, hydrates, isotopes, variables, charge and phase.

One pass from the left turns the text into a flat list of elements and brackets; one pass from the
right multiplies. Both are linear in the length of the text, however deep the brackets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from matfm.chem.elements import ATOMIC_NUMBER, HYDROGEN_ISOTOPES, TEMPORARY_SYMBOLS
from matfm.chem.formula_amounts import CONVENTIONAL_NAMES, NUMBER, evaluate, expression_pattern
from matfm.chem.formula_ends import cut_charge, cut_phase, hydrate_stop, normalise
from matfm.chem.formula_reasons import unreadable
from matfm.errors import MatfmError

LARGEST_USUAL_AMOUNT = 100.0
"""A larger number behind an element is read with a warning: it may be meant as an isotope."""

_ELEMENT = re.compile(r"Uu[bhopqst](?![a-z])|[A-Z][a-z]?")
_TOKEN = re.compile(
    rf"(?P<number>{NUMBER})|(?P<open>[(\[{{])|(?P<close>[)\]}}])|(?P<dot>·)|(?P<stop>\.)|(?P<space>[^\S\r\n]+)"
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_OXIDATION_STATE = re.compile(r"\((?:I{2,3}|IV|VI{1,3}|[IV](?=\)(?![0-9.])))\)")
_DEFAULT_EXPRESSION = expression_pattern(CONVENTIONAL_NAMES)
_DECIMAL_COMMA = re.compile(",[0-9]")
_INITIALS = frozenset(name[0] for name in CONVENTIONAL_NAMES)
_NO_ELEMENT = "no element was found"


class Reading(NamedTuple):
    """The parts of a formula, in the order in which `Formula` takes them."""

    text: str
    amounts: dict[str, float]
    charge: int
    phase: str | None
    warnings: tuple[str, ...]


def read_general(shown: str, isotopes: str, values: Mapping[str, Decimal]) -> Reading:
    """Read the stripped text `shown`; `values` are those of the variables.

    Raises:
        MatfmError: with text, position and reason.
    """
    text = normalise(shown)
    body, phase = cut_phase(text)
    body, charge = cut_charge(body, shown)
    reader = _Reader(shown, body, isotopes, values)
    amounts = reader.read()
    total = sum(amounts.values())
    if not amounts:
        raise MatfmError(shown, 0, "with these variables no element is left")
    if total == math.inf or min(amounts.values()) / total == 0.0:
        raise MatfmError(shown, 0, "the amounts are too far apart or too large to be numbers")
    return Reading(text, amounts, charge, phase, tuple(reader.warnings.values()))


@dataclass(slots=True)
class _Event:
    """An element, or the start ("(") or end (")") of a group; `amount` is what the element or group counts."""

    kind: str
    position: int
    amount: float = 1.0


class _Reader:
    """One pass over `body`; `shown` (equally long, or longer by the cut end) is what errors show.

    A count in front (`5H2O`) opens a group of its own, which the next dot, bracket or the end closes.
    """

    def __init__(self, shown: str, body: str, isotopes: str, values: Mapping[str, Decimal]) -> None:
        self.shown = shown
        self.body = body
        self.isotopes = isotopes
        self.values = values
        self.expression = expression_pattern({*CONVENTIONAL_NAMES, *values}) if values else _DEFAULT_EXPRESSION
        self.initials = _INITIALS | {name[0] for name in values}
        self.hydrate = hydrate_stop(body)
        self.events: list[_Event] = []
        self.open: list[tuple[str, int, float]] = []  # bracket ("" for a count in front), its position, the count
        self.countable = False  # the last event may take a number
        self.leading = True  # a count may stand here
        self.filled = False  # an element stands between the last dot or opening bracket and here
        self.first_count: str | None = None  # a count at the very beginning, which needs a dot later
        self.evaluated: dict[str, float] = {}  # expressions that occurred before
        self.warnings: dict[str, str] = {}  # by kind: one warning of each

    def read(self) -> dict[str, float]:
        """Amounts by element, in order of first appearance; without those that are exactly 0."""
        position = 0
        while position < len(self.body):
            position = self._step(position)
        self._end_count()
        if self.open:
            bracket, opened, _ = self.open[-1]
            raise self._error(opened, f"'{bracket}' is never closed")
        if self.first_count is not None:
            raise self._error(0, f"the number {self.first_count} follows no element or bracket")
        if not self.filled:
            raise self._error(len(self.body) if self.events else 0, _NO_ELEMENT)
        return self._amounts()

    def _step(self, position: int) -> int:
        """Read one token; returns where the next begins."""
        element = _ELEMENT.match(self.body, position)
        if element is not None:
            return self._element(element.group(), position)
        end = self.hydrate if position < self.hydrate else len(self.body)
        if self.countable or self.leading:
            found = self.expression.match(self.body, position, end)
            if found:
                written = found.group()
                if written not in self.evaluated:
                    self.evaluated[written] = evaluate(found, self.shown, self.values)
                return self._amount(self.evaluated[written], written, position)
        if position == self.hydrate:
            return self._dot(".", position)
        token = _TOKEN.match(self.body, position, end)
        if token is None:
            raise self._error(position, unreadable(self.body, position))
        return getattr(self, f"_{token.lastgroup}")(token.group(), position)

    def _element(self, value: str, position: int) -> int:
        symbol = value
        if value not in ATOMIC_NUMBER:
            if len(value) == 2 and value[1] in self.initials and self._is_symbol(value[0], value[1]):
                value = value[0]
            symbol = value if value in ATOMIC_NUMBER else self._other_symbol(value, position)
        self.events.append(_Event(symbol, position))
        self.countable = self.filled = True
        self.leading = False
        return position + len(value)

    def _is_symbol(self, letter: str, variable: str) -> bool:
        """Whether `letter` stands alone before `variable`; D and T do if that has a value."""
        return letter in ATOMIC_NUMBER or (letter in HYDROGEN_ISOTOPES and variable in self.values)

    def _other_symbol(self, value: str, position: int) -> str:
        if value in TEMPORARY_SYMBOLS:
            symbol = TEMPORARY_SYMBOLS[value]
            self.warnings.setdefault("temporary", f"the temporary symbol {value} is read as {symbol}")
        elif value in HYDROGEN_ISOTOPES:
            symbol = "H"
            if self.isotopes == "reject":
                raise self._error(position, f"'{value}' is an isotope; isotopes='hydrogen' counts it as hydrogen")
            if "isotope" not in self.warnings:
                self.warnings["isotope"] = f"the isotope {value} is counted as hydrogen"
        else:
            raise self._error(position, f"'{value}' is not a chemical element")
        return symbol

    def _number(self, value: str, position: int) -> int:
        factor = float(value)
        end = position + len(value)
        if not 0.0 < factor < math.inf and not _DECIMAL_COMMA.match(self.body, end):
            raise self._error(position, f"an amount of {value[:20]} is not a positive finite number")
        return self._amount(factor, value, position)

    def _amount(self, factor: float, written: str, position: int) -> int:
        """`factor` counts what stands before it, or what follows at the beginning and behind a dot."""
        if self.countable:
            last = self.events[-1]
            if last.kind != ")" and factor > LARGEST_USUAL_AMOUNT:
                reading = f"{last.kind}{written[:20]} has an amount of {factor:.15g}; isotopes are not written so"
                self.warnings.setdefault("amount", reading)
            last.amount = factor
        elif self.leading:
            if position == 0:
                self.first_count = written[:20]
            self.events.append(_Event("(", position))
            self.open.append(("", position, factor))
        else:
            raise self._error(position, f"the number {written[:20]} follows no element or bracket")
        self.countable = self.leading = False
        return position + len(written)

    def _open(self, value: str, position: int) -> int:
        state = _OXIDATION_STATE.match(self.body, position) if self.countable else None
        if state and self.events[-1].kind != ")":
            if len(state.group()) > 3:
                raise self._error(position, f"an oxidation state {state.group()} is not read; leave it out")
            self.warnings.setdefault("state", f"{state.group()} is read as the element, not as an oxidation state")
        self.events.append(_Event("(", position))
        self.open.append((value, position, 1.0))
        self.countable = self.leading = self.filled = False
        return position + 1

    def _close(self, value: str, position: int) -> int:
        filled = self.filled
        self._end_count()
        if not self.open or _CLOSING[self.open[-1][0]] != value:
            raise self._error(position, f"'{value}' closes a bracket that was not opened")
        if not filled:
            raise self._error(position, "the bracket holds no element")
        self.open.pop()
        self.events.append(_Event(")", position))
        self.countable = self.filled = True
        self.leading = False
        return position + 1

    def _dot(self, value: str, position: int) -> int:
        """A raised dot, or a full stop that is read as one."""
        if not self.filled:
            raise self._error(position, "no element stands before the dot")
        if position == self.hydrate:
            self._warn_of_hydrate(position)
        self._end_count()
        self.first_count = None
        self.countable = self.filled = False
        self.leading = True
        return position + len(value)

    def _stop(self, value: str, position: int) -> int:
        reading = f"the full stop at position {position} is read as the dot of an addition compound; write '·'"
        self.warnings.setdefault("stop", reading)
        return self._dot(value, position)

    def _space(self, value: str, position: int) -> int:
        self.countable = False
        return position + len(value)

    def _warn_of_hydrate(self, position: int) -> None:
        tail = self.body[position + 1 :]
        head = self.body[:position]
        before = head[len(head.rstrip("0123456789")) :]
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        other = f", not as an amount of {before}.{digits}" if before or digits else ""
        self.warnings["hydrate"] = f"'.{tail}' is read as the hydrate '·{tail}'{other}; write '·' for a hydrate"

    def _end_count(self) -> None:
        """Close the group of a count in front."""
        if self.open and not self.open[-1][0]:
            _, position, factor = self.open.pop()
            self.events.append(_Event(")", position, factor))

    def _amounts(self) -> dict[str, float]:
        factor = 1.0
        outer: list[float] = []
        found: list[tuple[str, float]] = []
        for event in reversed(self.events):
            if event.kind == "(":
                factor = outer.pop()
                continue
            product = factor * event.amount
            if product == math.inf or (product == 0.0 and factor and event.amount):
                raise self._error(event.position, "the amount here is too large or too small to be a number")
            if event.kind == ")":
                outer.append(factor)
                factor = product
            elif product:
                found.append((event.kind, product))
        amounts: dict[str, float] = {}
        for symbol, amount in reversed(found):
            amounts[symbol] = amounts.get(symbol, 0.0) + amount
        return amounts

    def _error(self, position: int, reason: str) -> MatfmError:
        return MatfmError(self.shown, position, reason)
