"""Amounts to text: numbers without exponents, orders of elements, reduced formulas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal

from matfm.chem.elements import PAULING
from matfm.chem.formula_ends import hydrate_stop
from matfm.errors import MatfmError

ORDERS = ("written", "hill", "electronegativity", "alphabetical")

_WORST_RATIO = 1e-6
"""Relative error below which ratios count as whole numbers."""


def format_amount(amount: float) -> str:
    """The shortest decimal without exponent that reads back as `amount` rounded to 12 significant digits.

    Raises:
        MatfmError: `amount` is not finite.
    """
    if not math.isfinite(amount):
        raise MatfmError(f"an amount of {amount} cannot be written; it must be finite")
    text = f"{Decimal(repr(float(f'{amount:.12g}'))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def order_symbols(symbols: Iterable[str], order: str) -> list[str]:
    """Symbols in one of `ORDERS`.

    "hill" is C, H, then alphabetical (all alphabetical without carbon; Hill 1900); "electronegativity" is
    ascending on Pauling's scale, elements without a value last, ties alphabetical; "written" leaves the order.

    Raises:
        MatfmError: `order` is none of `ORDERS`.
    """
    if order not in ORDERS:
        raise MatfmError(f"order is {order!r}; choose one of {', '.join(ORDERS)}")
    listed = list(symbols)
    if order == "written":
        return listed
    if order == "electronegativity":
        return sorted(listed, key=lambda symbol: (PAULING.get(symbol, math.inf), symbol))
    first = ("C", "H") if order == "hill" and "C" in listed else ()
    return sorted(listed, key=lambda symbol: (first.index(symbol) if symbol in first else len(first), symbol))


def formula_text(amounts: Mapping[str, float], order: str = "written") -> str:
    """A formula such as `Fe2O3`; an amount of 1 is left out.

    Raises:
        MatfmError: an amount is not finite, or `order` is none of `ORDERS`.
    """
    parts = [(symbol, format_amount(amounts[symbol])) for symbol in order_symbols(amounts, order)]
    text = "".join(symbol if amount == "1" else symbol + amount for symbol, amount in parts)
    # SN4.5H2O would be read as a hydrate, SN4.5H2O1 is not.
    return text if hydrate_stop(text) < 0 else f"{text}1"


def reduced_amounts(amounts: Mapping[str, float], limit: int = 10_000) -> dict[str, float]:
    """The smallest whole numbers in the same ratios, or fractions that sum to 1 where there are none.

    Whole numbers are at most `limit` and meet the ratio to the smallest amount within 1e-6 (relative).
    """
    smallest = min(amounts.values())
    ratios = {symbol: amount / smallest for symbol, amount in amounts.items()}
    for count in range(1, int(limit / max(ratios.values())) + 1):
        if all(abs(round(ratio * count) - ratio * count) < _WORST_RATIO * ratio * count for ratio in ratios.values()):
            return {symbol: float(round(ratio * count)) for symbol, ratio in ratios.items()}
    total = sum(amounts.values())
    return {symbol: amount / total for symbol, amount in amounts.items()}
