"""What a summary says of how inputs were read: formulas with two readings, unknown tokens, rows cut at the end."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 5


def readings_to_check(warnings: Mapping[int, str]) -> dict[str, Any]:
    """How many rows there are whose reading should be checked, and the first ones. `warnings`: row to reading."""
    first = [{"row": row, "reading": reading} for row, reading in itertools.islice(sorted(warnings.items()), _SHOWN)]
    return {"rows_to_check": len(warnings), "first_to_check": first}


def vocabulary_report(kind: str, unknown: Counter[str], truncated: Sequence[int]) -> dict[str, Any]:
    """Tokens that the model does not know, most frequent first, and the rows that lost their end; for strings only."""
    if kind == "composition":
        return {}
    return {
        "unknown_tokens": {"count": unknown.total(), "first": dict(unknown.most_common(_SHOWN))},
        "rows_truncated": len(truncated),
        "first_truncated": [int(row) for row in truncated[:_SHOWN]],
    }
