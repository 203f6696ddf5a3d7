"""`rejects.csv`: every value and row that was not used, with the reason."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matfm.core.files import atomic_path, readable_os_errors

_HEADER = ("row", "column", "value", "reason")


ON_BAD = ("skip", "stop")
"""What is done about rows that cannot be used: leave them out and list them, or end with an error."""


@dataclass(frozen=True)
class Reject:
    """A value or a row that was not used."""

    row: int
    column: str
    value: str
    reason: str
    file: str = ""
    """Of the row, where several tables are read as one; the row then counts from 0 in it."""


@contextmanager
def reject_writer(path: Path) -> Iterator[Callable[[Reject], object]]:
    """Yield a function that adds a line to `rejects.csv`: row (from 0), column, value, reason."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEADER)
        yield lambda reject: writer.writerow((reject.row, reject.column, reject.value, reject.reason))


def write_rejects(path: Path, rejects: list[Reject]) -> None:
    """`rejects.csv` of a list."""
    with reject_writer(path) as write:
        for reject in rejects:
            write(reject)


class RejectLog:
    """`rejects.csv` that grows, and is cut back to what an interrupted run had recorded."""

    def __init__(self, path: Path, size: int, files: bool = False) -> None:
        """Open the file at its first `size` bytes; 0 begins it. With `files` its first column names the file."""
        self._files = files
        with readable_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if size else "w+b")
            self._file.truncate(size)
            self._file.seek(size)
        if not size:
            self._append([("file", *_HEADER) if files else _HEADER])

    def write(self, rejects: list[Reject]) -> int:
        """Add lines; returns the size of the file, which is on disk then."""
        lines = [(reject.row, reject.column, reject.value, reject.reason) for reject in rejects]
        self._append(
            [(reject.file, *line) for reject, line in zip(rejects, lines, strict=True)] if self._files else lines
        )
        return self._file.tell()

    def save(self, path: Path) -> None:
        """A copy of the file as it is."""
        with atomic_path(path) as temporary:
            self._file.seek(0)
            with temporary.open("wb") as copy:
                shutil.copyfileobj(self._file, copy)

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()

    def _append(self, lines: Sequence[tuple[object, ...]]) -> None:
        if lines:
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(lines)
            self._file.write(text.getvalue().encode("utf-8", "backslashreplace"))
            self._file.flush()
            os.fsync(self._file.fileno())
