"""Where elements stand in the periodic table of eighteen columns."""

from __future__ import annotations

from matfm.chem.elements import ATOMIC_NUMBER

ROWS, COLUMNS = 9, 18
"""Of the drawn table: seven periods, and two rows below for lanthanides and actinides."""
_PERIOD_ENDS = (0, 2, 10, 18, 36, 54, 86, 118)
_LANTHANIDES, _ACTINIDES = range(57, 72), range(89, 104)


def table_position(symbol: str) -> tuple[int, int]:
    """Row and column (both from 0) of an element: rows 0 to 6 are the periods, 7 and 8 lanthanides and actinides."""
    number = ATOMIC_NUMBER[symbol]
    for row, series in ((7, _LANTHANIDES), (8, _ACTINIDES)):
        if number in series:
            return row, 2 + number - series.start
    period = next(p for p, end in enumerate(_PERIOD_ENDS) if number <= end) - 1
    after, before = number - _PERIOD_ENDS[period] - 1, _PERIOD_ENDS[period + 1] - number
    if after < 2 and symbol != "He":
        return period, after
    # All others are counted from the right; the two series of f elements stand apart.
    return period, COLUMNS - 1 - before
