"""Published scores, and tables of them beside ours."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.results import Record


def published(path: Path) -> list[dict[str, str]]:
    """Rows of a `published.csv`."""
    with path.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells that hold a bar are escaped."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def digits(value: float) -> str:
    """Four significant digits, three at least behind the point below 1."""
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"


def with_std(entry: Record) -> str:
    """Mean ± standard deviation."""
    return f"{digits(entry['value'])} ± {digits(entry['std'])}"


def share(value: float | None) -> str:
    """As per cent, or nothing."""
    return "" if value is None else f"{value:.0%}"
