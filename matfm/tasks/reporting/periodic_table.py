"""The periodic table as a picture: one number for each element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matfm.chem.elements import SYMBOLS
from matfm.tasks.reporting.html import Html, number, tag

_CELL = 38
_COLUMNS, _ROWS = 18, 9.6
_SHADES = 8
_NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)
_LANTHANUM, _LUTETIUM, _ACTINIUM, _LAWRENCIUM = 57, 71, 89, 103


@dataclass(frozen=True)
class ElementValue:
    """What is shown of an element."""

    value: float
    rows: int
    """Rows that hold it."""


def periodic_table(values: Mapping[str, ElementValue], what: str, fewest: int) -> Html:
    """Elements shaded from 0 to the largest value among those with at least `fewest` rows; the others are dashed."""
    largest = max((v.value for v in values.values() if v.rows >= fewest), default=0.0)
    largest = largest or max((v.value for v in values.values()), default=0.0) or 1.0
    cells = [_cell(symbol, number_, values.get(symbol), largest, fewest) for number_, symbol in enumerate(SYMBOLS, 1)]
    label = f"Periodic table: {what} of the rows that hold each element"
    return tag(
        "svg",
        tag("title", label),
        *cells,
        *_key(largest),
        viewBox=f"0 0 {_COLUMNS * _CELL} {_ROWS * _CELL:.0f}",
        role="img",
        aria_label=label,
        class_="elements",
    )


def place(atomic_number: int) -> tuple[int, float]:
    """Column and row, from 0; lanthanum to ytterbium and actinium to nobelium stand below, lutetium in group 3."""
    if _LANTHANUM <= atomic_number < _LUTETIUM:
        return atomic_number - _LANTHANUM + 2, 7.6
    if _ACTINIUM <= atomic_number < _LAWRENCIUM:
        return atomic_number - _ACTINIUM + 2, 8.6
    period = next(period for period, last in enumerate(_NOBLE_GASES) if atomic_number <= last)
    before = _NOBLE_GASES[period - 1] if period else 0
    from_end = _NOBLE_GASES[period] - atomic_number
    first_columns = 1 if period == 0 else 2
    column = atomic_number - before - 1
    return (column if column < first_columns else _COLUMNS - 1 - from_end), float(period)


def _cell(symbol: str, atomic_number: int, known: ElementValue | None, largest: float, fewest: int) -> Html:
    column, row = place(atomic_number)
    x, y = column * _CELL, row * _CELL
    middle = x + (_CELL - 2) / 2
    box = tag("rect", x=x, y=f"{y:.1f}", width=_CELL - 2, height=_CELL - 2, rx=4)
    name = tag("text", symbol, x=middle, y=f"{y + (23 if known is None else 18):.1f}", class_="symbol")
    if known is None:
        return tag("g", tag("title", f"{symbol}: no row"), box, name, class_="none")
    title = f"{symbol}: {number(known.value)} ({known.rows:,} row{'s' if known.rows > 1 else ''})"
    value = tag("text", _short(known.value), x=middle, y=f"{y + 30:.1f}", class_="value")
    few = " few" if known.rows < fewest else ""
    return tag("g", tag("title", title), box, name, value, class_=f"cell h{_shade(known.value, largest)}{few}")


def _shade(value: float, largest: float) -> int:
    return min(_SHADES - 1, int(value / largest * _SHADES))


def _key(largest: float) -> list[Html]:
    """The scale, in the gap above the transition metals."""
    left, top, width = 4.5 * _CELL, 0.55 * _CELL, 0.9 * _CELL
    boxes = [
        tag("g", tag("rect", x=left + shade * width, y=top, width=width, height=12.0), class_=f"cell h{shade}")
        for shade in range(_SHADES)
    ]
    ends = ((0.0, left), (largest, left + _SHADES * width))
    return [*boxes, *(tag("text", _short(value), x=x, y=top + 26, class_="value") for value, x in ends)]


def _short(value: float) -> str:
    """At most five characters, below ten thousand."""
    if abs(value) < 1:
        return f"{value:.2g}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.4g}"
