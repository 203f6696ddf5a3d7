"""Reduced compositions: the smallest whole numbers of atoms in a formula's ratio, and its canonical text."""

from __future__ import annotations

import math

from matfm.chem.formula import Formula, read_formula
from matfm.chem.formula_text import formula_text

_DECIMALS = 6
_SIMPLE_ATOMS = 1_000
_PARTS = 10**_DECIMALS


def whole_amounts(formula: Formula) -> dict[str, int]:
    """Whole numbers of atoms without a common divisor, in the order of the formula. Charge and phase do not count.

    Exact for amounts of up to six decimals: `Fe0.75O` gives Fe 3, O 4, and `Li0.333O` gives Li 333, O 1000. Amounts
    with more decimals are read as the ratio of fewest atoms (up to 1,000) whose shares agree to six decimals, or
    else as parts of a million, of which each element gets at least one.
    """
    amounts = list(formula.amounts.values())
    for decimals in range(_DECIMALS + 1):
        counts = _near_whole([amount * 10**decimals for amount in amounts], 1e-9)
        if counts:
            break
    else:
        counts = _simplest(list(formula.fractions.values()))
    divisor = math.gcd(*counts)
    return {symbol: count // divisor for symbol, count in zip(formula.amounts, counts, strict=True)}


def canonical_formula(formula: str | Formula) -> str:
    """One text for all formulas of the same reduced composition: whole numbers in Hill order (`Fe2O3`, `CH4O`).

    Raises:
        MatfmError: the formula cannot be read.
    """
    parsed = read_formula(formula) if isinstance(formula, str) else formula
    return formula_text(whole_amounts(parsed), "hill")


def _simplest(shares: list[float]) -> list[int]:
    for atoms in range(1, _SIMPLE_ATOMS + 1):
        counts = _near_whole([share * atoms for share in shares], 0.5 / _PARTS * atoms)
        if counts:
            return counts
    return [max(1, round(share * _PARTS)) for share in shares]


def _near_whole(numbers: list[float], tolerance: float) -> list[int]:
    """Nearest whole numbers; none where one is zero or further away than `tolerance` (relative above 1)."""
    counts = []
    for number in numbers:
        count = round(number)
        if not count or abs(number - count) > tolerance * max(1.0, number):
            return []
        counts.append(count)
    return counts
