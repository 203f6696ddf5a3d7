"""`rejects.csv`: every value and row that was not used, with the reason."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matfm.core.files import atomic_path


@dataclass(frozen=True)
class Reject:
    """A value or a row that was not used."""

    row: int
    column: str
    value: str
    reason: str


@contextmanager
def reject_writer(path: Path) -> Iterator[Callable[[Reject], object]]:
    """Yield a function that adds a line to `rejects.csv`: row (from 0), column, value, reason."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "column", "value", "reason"])
        yield lambda reject: writer.writerow((reject.row, reject.column, reject.value, reject.reason))


def write_rejects(path: Path, rejects: list[Reject]) -> None:
    """`rejects.csv` of a list."""
    with reject_writer(path) as write:
        for reject in rejects:
            write(reject)
