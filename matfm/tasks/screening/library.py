"""A library to screen: one table of any size, standard input, or a folder of tables (shards)."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from matfm.errors import MatfmError
from matfm.tasks.tables import FORMATS, STANDARD_INPUT, Chunk, iterate_table, table_format

CHUNK_ROWS = 10_000
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Library:
    """Tables that are read one after the other, with the same columns; rows count from 0 over all of them."""

    source: str
    """As the user gave it, for messages."""
    shards: tuple[str, ...]
    """Paths in the order in which they are read, by name; - for standard input."""

    @classmethod
    def open(cls, source: str) -> Library:
        """The tables of a path, a folder or standard input. Files of other formats in the folder are no shards.

        Raises:
            MatfmError: there is none, or the shards have different columns.
        """
        if source == STANDARD_INPUT or not Path(source).is_dir():
            return cls(source, (source,))
        files = sorted(path for path in Path(source).iterdir() if path.is_file() and not path.name.startswith("."))
        shards = tuple(str(path) for path in files if _is_table(path))
        if not shards:
            raise MatfmError(f"{source} holds no table; shards are .{', .'.join(FORMATS)} files (or .gz)")
        first, *others = ((shard, set(next(iterate_table(shard, 1)).columns)) for shard in shards)
        for shard, columns in others:
            if columns != first[1]:
                odd = sorted(columns ^ first[1])[0]
                raise MatfmError(f"{shard} and {first[0]} have different columns ({odd!r}); shards need the same ones")
        return cls(source, shards)

    def check_output(self, out: str) -> None:
        """Raise MatfmError if a table to write would be one of the library, now or when it is resumed."""
        path = Path(os.path.realpath(out))
        if self.source != STANDARD_INPUT and Path(os.path.realpath(self.source)) in (path, path.parent):
            raise MatfmError(f"{out} is in the library that is read; choose another place")

    def chunks(self) -> Iterator[Chunk]:
        """Chunks of the shards, columns as in the first one; at least one each. A chunk never spans two shards."""
        first_row, names = 0, None
        for shard in self.shards:
            rows = 0
            for chunk in iterate_table(shard, CHUNK_ROWS):
                names = names or list(chunk.columns)
                columns = {name: chunk.columns[name] for name in names}
                yield replace(chunk, columns=columns, first_row=first_row + chunk.first_row)
                rows += chunk.rows
            first_row += rows

    def count_rows(self) -> int | None:
        """About how many rows there are (lines of text, so one too many for a cell of two lines); None if unknown."""
        if self.source == STANDARD_INPUT:
            return None
        try:
            return sum(_count_rows(shard) for shard in self.shards)
        except (OSError, EOFError, zlib.error, pa.ArrowException):
            return None


def _is_table(path: Path) -> bool:
    try:
        table_format(path.name)
    except MatfmError:
        return False
    return True


def _count_rows(path: str) -> int:
    """Lines or rows of a table; what is wrong with a damaged one is said by who reads it."""
    kind = table_format(path)
    if kind == "parquet":
        return int(pq.read_metadata(path).num_rows)
    opener = gzip.open if path.endswith(".gz") else open
    lines, last = 0, b"\n"
    with opener(path, "rb") as content:
        while block := content.read(_BLOCK):
            lines += block.count(b"\n")
            last = block[-1:]
    return max(0, lines + (last != b"\n") - (kind != "jsonl"))
