"""Chemical formulas: text to amounts of elements, with errors that point at the character."""

from __future__ import annotations

import re
import warnings as python_warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from matfm.chem.alloy import names_percentages, read_percentages
from matfm.chem.elements import ATOMIC_NUMBER
from matfm.chem.formula_amounts import variable_values
from matfm.chem.formula_grammar import LARGEST_USUAL_AMOUNT, read_general
from matfm.chem.formula_reasons import unreadable
from matfm.chem.formula_text import formula_text, reduced_amounts
from matfm.chem.missing import is_missing
from matfm.errors import FormulaWarning, MatfmError

ISOTOPES = ("hydrogen", "reject")
MAX_LENGTH = 20_000
"""Characters of one formula; a longer text is something else that got into the column."""
_ITEM = re.compile(r"[A-Z][^A-Z]*|[^A-Z]+")
_ROUND = re.compile(r"\(([A-Za-z0-9.]++)\)([0-9]{1,9}(?:\.[0-9]{1,12})?)?")
_PLAIN_ITEM = re.compile(r"([A-Z][a-z]?)([0-9]{1,9}(?:\.[0-9]{1,12})?)?")


@dataclass(frozen=True, init=False)
class Formula:
    """A parsed formula.

    `text` is what was read, with subscripts and the like in plain characters. `amounts` maps symbol to number
    of atoms as written, in order of first appearance (all > 0); for weight and atomic percentages it holds
    atomic percent. `charge` is in elementary charges; `phase` is the label in parentheses at the end (`aq`,
    `s`, …); `warnings` are readings that a user should check.
    """

    text: str
    amounts: dict[str, float] = field(hash=False)
    charge: int = 0
    phase: str | None = None
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        text: str,
        amounts: dict[str, float],
        charge: int = 0,
        phase: str | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        # The __init__ of a frozen dataclass takes as long as all the rest of reading a plain formula.
        fields = self.__dict__
        fields["text"] = text
        fields["amounts"] = amounts
        fields["charge"] = charge
        fields["phase"] = phase
        fields["warnings"] = warnings

    def __str__(self) -> str:
        """Brackets resolved, each element once, up to 12 digits: `parse_formula` reads the same amounts back."""
        charge = f"({abs(self.charge)}{'+' if self.charge > 0 else '-'})" if self.charge else ""
        return formula_text(self.amounts) + charge + (f"({self.phase})" if self.phase else "")

    @cached_property
    def fractions(self) -> dict[str, float]:
        """Atomic fractions; they sum to 1."""
        total = sum(self.amounts.values())
        return {symbol: amount / total for symbol, amount in self.amounts.items()}

    @property
    def reduced(self) -> str:
        """The smallest whole numbers (else fractions) in order of electronegativity; without charge and phase."""
        return formula_text(reduced_amounts(self.amounts), "electronegativity")


def parse_formula(text: str, *, isotopes: str = "hydrogen", variables: Mapping[str, float] | None = None) -> Formula:
    """Read a chemical formula, or percentages of elements (`Fe 70 wt%, Cr 30 wt%`; `Ti-6Al-4V wt%`).

    Accepts nested brackets of all three kinds, fractional amounts, hydrates written with a raised
    dot or an asterisk (`CuSO4·5H2O`), unicode sub- and superscripts, a trailing charge (`Fe3+` is
    iron(III), never three iron atoms) and a trailing phase label. Weight percent become atomic percent with
    RDKit's atomic weights.

    Args:
        text: the formula.
        isotopes: "hydrogen" counts D and T as hydrogen (with a warning), "reject" makes them an error.
        variables: values of the names in amounts such as `7-x`. An element whose amount is exactly 0 drops out.

    Raises:
        MatfmError: with text, position and reason, for anything that is not one definite formula.

    Warns:
        FormulaWarning: for each of `Formula.warnings`; `read_formula` is the same without it.
    """
    formula = read_formula(text, isotopes=isotopes, variables=variables)
    for reading in formula.warnings:
        shown = formula.text if len(formula.text) <= 60 else formula.text[:59] + "…"
        python_warnings.warn(f"{shown!r}: {reading}", FormulaWarning, stacklevel=2)
    return formula


def read_formula(text: str, *, isotopes: str = "hydrogen", variables: Mapping[str, float] | None = None) -> Formula:
    """`parse_formula` for long tables: readings to check are only in `Formula.warnings`."""
    if not isinstance(text, str):
        raise MatfmError(repr(text), 0, "a formula is text, for example 'Fe2O3'")
    if isotopes not in ISOTOPES:
        raise MatfmError(f"isotopes is {isotopes!r}; choose one of {', '.join(ISOTOPES)}")
    stripped = text.strip()
    if len(stripped) > MAX_LENGTH:
        raise MatfmError(
            stripped, MAX_LENGTH, f"the formula has {len(stripped):,} characters, more than {MAX_LENGTH:,}"
        )
    amounts = _plain_amounts(stripped)
    if amounts:
        return Formula(stripped, amounts)
    if not stripped:
        raise MatfmError(stripped, 0, "the formula is empty")
    if is_missing(stripped):
        raise MatfmError(stripped, 0, "this is a missing value, not a formula")
    values = variable_values(variables)
    if names_percentages(stripped):
        return Formula(stripped, read_percentages(stripped))
    if "%" in stripped and ":" not in stripped:
        raise MatfmError(stripped, stripped.index("%"), unreadable(stripped, stripped.index("%")))
    return Formula(*read_general(stripped, isotopes, values))


def _plain_amounts(text: str) -> dict[str, float] | None:
    """The common cases, without brackets or with simple round ones; None where the careful reader must decide."""
    if "." in text and text.endswith(("H2O", "H2O)")):  # perhaps a hydrate
        return None
    amounts: dict[str, float] = {}
    if "(" not in text:
        return amounts if _add_plain(amounts, text, 1.0) else None
    pieces = _ROUND.split(text)
    for outside, inside, factor in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=False):
        size = float(factor or 1)
        if (
            not size
            or not inside.strip("IV")
            or not (_add_plain(amounts, outside, 1.0) and _add_plain(amounts, inside, size))
        ):
            return None
    return amounts if _add_plain(amounts, pieces[-1], 1.0) else None


def _add_plain(amounts: dict[str, float], text: str, factor: float) -> bool:
    """Add `factor` times the elements of `text`; False where the careful reader must decide."""
    for item in _ITEM.findall(text):
        found = _plain_item(item)
        if found is None:
            return False
        symbol, amount = found
        amounts[symbol] = amounts[symbol] + factor * amount if symbol in amounts else factor * amount
    return True


@lru_cache(maxsize=16384)
def _plain_item(item: str) -> tuple[str, float] | None:
    found = _PLAIN_ITEM.fullmatch(item)
    if not found or found[1] not in ATOMIC_NUMBER:
        return None
    amount = float(found[2] or 1)
    return (found[1], amount) if 0.0 < amount <= LARGEST_USUAL_AMOUNT else None
