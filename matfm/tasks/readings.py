"""What a summary says of formulas that were read in one of two ways."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

_SHOWN = 5


def readings_to_check(warnings: Mapping[int, str]) -> dict[str, Any]:
    """How many rows there are whose reading should be checked, and the first ones. `warnings`: row to reading."""
    first = [{"row": row, "reading": reading} for row, reading in itertools.islice(sorted(warnings.items()), _SHOWN)]
    return {"rows_to_check": len(warnings), "first_to_check": first}
