"""Tables that are read as one: a table of any size, standard input, or shards (a folder, a pattern, a list)."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from matfm.errors import MatfmError
from matfm.tasks.tables import FORMATS, LINE_FORMATS, STANDARD_INPUT, Chunk, iterate_table, table_format

CHUNK_ROWS = 10_000
_BLOCK = 1 << 20
_WILDCARDS = "*?["


@dataclass
class ShardChunk(Chunk):
    """Consecutive rows of a shard; `first_row` counts over all shards."""

    shard: str = ""
    row_in_shard: int = 0
    """Of the first row."""


@dataclass(frozen=True)
class Library:
    """Tables that are read one after the other, with the same columns; rows count from 0 over all of them."""

    sources: tuple[str, ...]
    """As the user gave them."""
    shards: tuple[str, ...]
    """Paths in the order in which they are read, by name; - for standard input."""

    @classmethod
    def open(cls, *sources: str) -> Library:
        """The tables of paths, folders and patterns (`part_*.parquet`), or standard input.

        Of a folder or pattern files of other formats are no shards, and files of lines only where there are no tables.

        Raises:
            MatfmError: there is none, or the shards have different columns.
        """
        if STANDARD_INPUT in sources:
            if len(sources) > 1:
                raise MatfmError("- is standard input, which is one table; give it alone")
            return cls(sources, sources)
        # Paths and not texts: in the order of their names, folder by folder.
        shards = tuple(map(str, sorted({Path(shard) for source in sources for shard in _shards(source)})))
        if len(shards) > 1:
            _check_columns(shards)
        return cls(sources, shards)

    def check_output(self, out: str) -> None:
        """Raise MatfmError if a table to write would be one of the library, now or when it is resumed."""
        path = os.path.realpath(out)
        for source in self.sources:
            known = os.path.realpath(source)
            is_read = known in (path, str(Path(path).parent)) or (_is_pattern(source) and fnmatch(path, known))
            if is_read and source != STANDARD_INPUT:
                raise MatfmError(f"{out} is in the library that is read; choose another place")

    def chunks(self, chunk_rows: int | None = None) -> Iterator[ShardChunk]:
        """Chunks of the shards, columns as in the first one; at least one each. A chunk never spans two shards."""
        first_row, names = 0, None
        for shard in self.shards:
            rows = 0
            for chunk in iterate_table(shard, chunk_rows or CHUNK_ROWS):
                names = names or list(chunk.columns)
                columns = {name: chunk.columns[name] for name in names}
                yield ShardChunk(columns, first_row + chunk.first_row, chunk.errors, shard, chunk.first_row)
                rows += chunk.rows
            first_row += rows

    def count_rows(self) -> int | None:
        """About how many rows there are (lines of text, so one too many for a cell of two lines); None if unknown."""
        if STANDARD_INPUT in self.sources:
            return None
        try:
            return sum(_count_rows(shard) for shard in self.shards)
        except (OSError, EOFError, zlib.error, pa.ArrowException):
            return None


def _check_columns(shards: Iterable[str]) -> None:
    first, *others = ((shard, set(next(iterate_table(shard, 1)).columns)) for shard in shards)
    for shard, columns in others:
        if columns != first[1]:
            odd = sorted(columns ^ first[1])[0]
            raise MatfmError(f"{shard} and {first[0]} have different columns ({odd!r}); shards need the same ones")


def _shards(source: str) -> Iterable[Path | str]:
    """The tables that a path, a folder or a pattern stands for. Raises MatfmError if there is none."""
    if Path(source).is_dir():
        found = [path for path in Path(source).iterdir() if not path.name.startswith(".")]
    elif _is_pattern(source):
        found = [Path(path) for path in glob(source, recursive=True)]  # noqa: PTH207  (it may begin at the root)
    else:
        return [source]
    formats = [(path, _format(path)) for path in found if path.is_file()]
    # A folder of tables has its README.txt, too.
    for wanted in (FORMATS, *((name,) for name in LINE_FORMATS)):
        if shards := [path for path, kind in formats if kind in wanted]:
            return shards
    holds = "holds no table" if Path(source).is_dir() else "matches no table"
    raise MatfmError(f"{source} {holds}; shards are .{', .'.join((*FORMATS, *LINE_FORMATS))} files (or .gz)")


def _is_pattern(source: str) -> bool:
    """Whether it has wildcards; the name of a file may have some, too."""
    return any(character in source for character in _WILDCARDS) and not Path(source).exists()


def _format(path: Path) -> str | None:
    try:
        return table_format(path.name)
    except MatfmError:
        return None


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
    return max(0, lines + (last != b"\n") - (kind in ("csv", "tsv")))
