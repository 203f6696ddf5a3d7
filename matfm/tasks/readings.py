"""What a summary says of how inputs were read: formulas with two readings, unknown tokens, rows cut at the end."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 5
"""Most examples of a kind."""


def readings_to_check(warnings: Mapping[int, str], count: int | None = None) -> dict[str, Any]:
    """How many rows there are whose reading should be checked, and the first ones.

    `warnings`: row to reading, of all `count` of them (None) or of the first.
    """
    first = [{"row": row, "reading": reading} for row, reading in itertools.islice(sorted(warnings.items()), SHOWN)]
    return {"rows_to_check": len(warnings) if count is None else count, "first_to_check": first}


def vocabulary_report(
    kind: str, unknown: Counter[str], truncated: Sequence[int], count: int | None = None
) -> dict[str, Any]:
    """Tokens that the model does not know, most frequent first, and the rows that lost their end; of formulas, if any.

    `truncated`: all `count` such rows (None), or the first.
    """
    if kind == "composition" and not unknown and not truncated:
        return {}
    return {
        "unknown_tokens": {"count": unknown.total(), "first": dict(unknown.most_common(SHOWN))},
        "rows_truncated": len(truncated) if count is None else count,
        "first_truncated": [int(row) for row in truncated[:SHOWN]],
    }
