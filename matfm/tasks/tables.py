"""Tables in and out: CSV, TSV, JSONL and Parquet (the text formats optionally gzipped), always read as text.

Files of lines are read too: every line of a .txt file is a row of one column, `text`; of a .smi file what stands
before the first blank is `smiles` and what follows is `name`. They have no line of column names.

`NaN`, `No` and `1e5` are data (sodium nitride, nobelium, a number somebody wrote), so no cell is
interpreted here. Reading and writing stream in chunks of rows.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from matfm.chem.units import Property, property_named
from matfm.core.files import atomic_path
from matfm.errors import MatfmError
from matfm.tasks.text_files import open_text

CHUNK_ROWS = 50_000
FORMATS = ("csv", "tsv", "jsonl", "parquet")
LINE_FORMATS = {"smi": ("smiles", "name"), "txt": ("text",)}
"""Files of lines, which are only read, with the columns that they have."""
STANDARD_INPUT = "-"
MOST_COLUMNS = 20_000
"""Of a table; every one of them is carried along to what is written."""
LONGEST_LINE = 2**28
"""Characters of a line and of a cell."""
_SHOWN_COLUMNS, _SHOWN_CHARACTERS = 20, 60
_DAMAGED = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError)
"""What pyarrow raises for files that are damaged."""


@dataclass
class Chunk:
    """Consecutive rows as text columns of equal length; row numbers count from 0 in the whole table."""

    columns: dict[str, list[str]]
    first_row: int
    errors: dict[int, str] = field(default_factory=dict)
    """Position in the chunk to what is wrong with the row as a whole."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), []))

    def first(self, rows: int) -> Chunk:
        """The first rows, of a chunk that begins a table."""
        columns = {name: cells[:rows] for name, cells in self.columns.items()}
        return Chunk(columns, self.first_row, {row: reason for row, reason in self.errors.items() if row < rows})

    def column(self, name: str, source: str) -> list[str]:
        """One column. Raises MatfmError naming the columns there are."""
        if name not in self.columns:
            raise MatfmError(f"{source} has no column {_shown(name)}; its columns are {self._names()}")
        return self.columns[name]

    def _names(self) -> str:
        more = len(self.columns) - _SHOWN_COLUMNS
        names = ", ".join(_shown(name) for name in list(self.columns)[:_SHOWN_COLUMNS])
        return f"{names} and {more:,} more" if more > 0 else names


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[: _SHOWN_CHARACTERS - 1] + "…")


def _check_columns(names: Sequence[str], path: str) -> None:
    """Raise MatfmError for names that a table cannot have."""
    if len(names) > MOST_COLUMNS:
        raise MatfmError(
            f"{path} has {len(names):,} columns and a table at most {MOST_COLUMNS:,}; leave out those that are not "
            "needed, or give it with rows and columns exchanged"
        )
    if len(set(names)) < len(names):
        double = next(name for name, count in Counter(names).items() if count > 1)
        raise MatfmError(f"{path} has two columns named {_shown(double)}; rename one")
    if any("\x00" in name for name in names):
        raise MatfmError(f"{path}: names of columns hold NUL bytes, as in UTF-16 text; save it as UTF-8")


def table_format(path: str) -> str:
    """csv, tsv, jsonl, parquet, smi or txt, from the name (a trailing .gz aside); standard input is CSV."""
    if path == STANDARD_INPUT:
        return "csv"
    suffixes = [suffix.lstrip(".").lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == "gz":
        suffixes.pop()
        if suffixes[-1:] == ["parquet"]:
            raise MatfmError(f"{path}: Parquet is compressed inside, never gzipped; unpack it and name it .parquet")
    known = (*FORMATS, *LINE_FORMATS)
    if not suffixes or suffixes[-1] not in known:
        raise MatfmError(f"{path}: the format is not known from the name; use one of .{', .'.join(known)} (or .gz)")
    return suffixes[-1]


def output_format(path: str) -> str:
    """Of a table to write. Raises MatfmError for files of lines, which have no place for further columns."""
    kind = table_format(path)
    if kind in LINE_FORMATS:
        raise MatfmError(f"{path}: .{kind} files are only read; write one of .{', .'.join(FORMATS)} (or .gz)")
    return kind


def iterate_table(path: str, chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Chunks of a table; at least one, so that the columns of an empty table are seen."""
    kind = table_format(path)
    if path != STANDARD_INPUT and not Path(path).is_file():
        raise MatfmError(f"{path} is not a file; check the path")
    if kind == "parquet":
        yield from _iterate_parquet(path, chunk_rows)
        return
    with open_text(None if path == STANDARD_INPUT else path) as text:
        if kind in LINE_FORMATS:
            yield from _iterate_lines(text, path, kind, chunk_rows)
            return
        records = _jsonl_records(text, path) if kind == "jsonl" else _csv_records(text, path, kind)
        yield from _gather(records, chunk_rows)


def read_table(path: str) -> Chunk:
    """The whole table in memory."""
    chunks = list(iterate_table(path))
    whole = Chunk({name: [] for name in chunks[0].columns}, 0)
    for chunk in chunks:
        whole.errors.update({chunk.first_row + position: reason for position, reason in chunk.errors.items()})
        for name, cells in chunk.columns.items():
            whole.columns[name].extend(cells)
    return whole


def read_text_table(text: IO[str], name: str) -> Chunk:
    """A CSV table in memory from open text; `name` is for messages, and says by its ending if it is TSV."""
    chunks = list(_gather(_csv_records(text, name, "tsv" if name.endswith(".tsv") else "csv"), sys.maxsize))
    return chunks[0]


def column_metadata(path: str, column: str) -> dict[str, str]:
    """What a Parquet file says of a column (unit, property); nothing for other formats."""
    if table_format(path) != "parquet" or not Path(path).is_file():
        return {}
    try:
        schema = pq.read_schema(path)
        found = schema.field(column).metadata if column in schema.names else None
    except _DAMAGED as error:
        raise MatfmError(f"{path} is not a readable Parquet file: {error}") from error
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in (found or {}).items()}


def column_property(path: str, column: str) -> Property:
    """What a target column means, under its own name, with unit and bounds in that unit.

    Built tables say property and unit of a column; elsewhere its name decides.
    """
    metadata = column_metadata(path, column)
    return replace(property_named(metadata.get("property", column), metadata.get("unit")), name=column)


def check_output(out: str, *tables: str | None) -> None:
    """Raise MatfmError if the table to write is one of those that are read."""
    for table in tables:
        # Not Path.resolve, which fails on links in a circle.
        if table not in (None, STANDARD_INPUT) and os.path.realpath(out) == os.path.realpath(str(table)):
            raise MatfmError(f"--out {out} is the table that is read; choose another name")


@contextmanager
def table_writer(path: str, schema: pa.Schema) -> Iterator[Any]:
    """Yield a function that appends a `{column: values}` chunk; the file appears when all is written."""
    kind = output_format(path)
    with atomic_path(Path(path)) as temporary:
        if kind == "parquet":
            with pq.ParquetWriter(temporary, schema) as parquet:
                yield lambda columns: parquet.write_table(pa.table(columns, schema=schema))
        else:
            opener = gzip.open if path.endswith(".gz") else open
            with opener(temporary, "wt", encoding="utf-8", newline="") as text:  # type: ignore[operator]
                yield _text_appender(text, kind, schema.names)


def _text_appender(text: IO[str], kind: str, names: list[str]) -> Any:
    if kind == "jsonl":
        return lambda columns: text.writelines(
            json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n"
            for row in zip(*(columns[name] for name in names), strict=True)
        )
    writer = csv.writer(text, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    writer.writerow(names)
    return lambda columns: writer.writerows(zip(*(columns[name] for name in names), strict=True))


def _iterate_lines(text: IO[str], path: str, kind: str, chunk_rows: int) -> Iterator[Chunk]:
    """Rows of a file of lines. An empty line is a row with empty cells, so rows are lines, counted from 0."""
    lines = (line.rstrip("\r\n") for line in _lines(text, path))
    first_row = 0
    while (cells := list(islice(lines, chunk_rows))) or first_row == 0:
        columns = [cells] if kind == "txt" else list(zip(*map(_smiles_and_name, cells), strict=True)) or [(), ()]
        yield Chunk({name: list(column) for name, column in zip(LINE_FORMATS[kind], columns, strict=True)}, first_row)
        if not cells:
            return
        first_row += len(cells)


def _smiles_and_name(line: str) -> tuple[str, str]:
    smiles, *rest = line.split(maxsplit=1) or [""]
    return smiles, rest[0].rstrip() if rest else ""


Record = tuple[dict[str, str], str | None]


def _csv_records(text: IO[str], path: str, kind: str) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_LINE)
    lines = _LinesOfRecord(text, path)
    reader = csv.reader(lines, delimiter="\t" if kind == "tsv" else ",")
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise MatfmError(f"{path}, line 1: {error}") from error
    if lines.unclosed_quote() is not None:
        raise MatfmError(f"{path}, line 1: a quote opens here and never closes; close or remove it")
    if not header:
        raise MatfmError(f"{path} is empty; a table begins with a line of column names")
    _check_columns(header, path)
    yield dict.fromkeys(header, ""), None
    width = len(header)
    try:
        for cells in reader:
            reason = None
            if (opened := lines.unclosed_quote()) is not None:
                raise MatfmError(
                    f"{path}, line {opened}: a quote opens here and never closes, so all rows after it are one cell; "
                    "close or remove it"
                )
            if len(cells) > width:
                reason = f"line {reader.line_num} has {len(cells)} cells, the header {width}; quote cells with commas"
            missing = [""] * (width - len(cells))
            yield dict(zip(header, cells[:width] + missing, strict=True)), reason
    except csv.Error as error:
        raise MatfmError(f"{path}, line {reader.line_num}: {error}") from error


def _lines(text: IO[str], path: str) -> Iterator[str]:
    """The lines, none of which may fill the memory."""
    number = 0
    while line := text.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise MatfmError(f"{path}, line {number}: it has more than {LONGEST_LINE:,} characters; is it a table?")
        yield line


class _LinesOfRecord:
    """Hands lines to the CSV reader and remembers those of the current record, to notice a quote that never closes."""

    def __init__(self, text: IO[str], path: str) -> None:
        self.text = text
        self.path = path
        self.number = 0
        self.lines: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in _lines(self.text, self.path):
            self.number += 1
            self.lines.append(line)
            yield line

    def unclosed_quote(self) -> int | None:
        """Line in which the record begins if it spans lines and has an odd number of quotes. Forgets the record."""
        lines, self.lines = self.lines, []
        odd = len(lines) > 1 and sum(line.count('"') for line in lines) % 2
        return self.number - len(lines) + 1 if odd else None


def _jsonl_records(text: IO[str], path: str) -> Iterator[Record]:
    header: dict[str, str] | None = None
    for number, line in enumerate(_lines(text, path), start=1):
        cells, reason = _json_cells(line, number)
        if header is None:
            if reason:
                raise MatfmError(f"{path}: {reason}; the first line names the columns")
            _check_columns(list(cells), path)
            header = dict.fromkeys(cells, "")
            yield header, None
        unexpected = [name for name in cells if name not in header]
        if unexpected:
            reason = f"line {number} has the key {unexpected[0]!r}, which the first line has not; it names the columns"
        yield {**header, **{name: cell for name, cell in cells.items() if name in header}}, reason
    if header is None:
        raise MatfmError(f"{path} is empty; every line of a JSONL table is an object")


def _json_cells(line: str, number: int) -> tuple[dict[str, str], str | None]:
    """The cells of a line, and what is wrong with it."""
    try:
        record = json.loads(line, parse_float=str, parse_int=str, object_pairs_hook=_once)
        if not isinstance(record, dict):
            return {}, f"line {number} is not a JSON object"
        cells = {name: _json_cell(value) for name, value in record.items()}
        if "\\u" in line:
            "".join([*cells, *cells.values()]).encode()
    except UnicodeEncodeError:
        return {}, f"line {number} holds half of a character (\\ud800 to \\udfff)"
    except (ValueError, RecursionError) as error:
        return {}, f"line {number} is not readable JSON: {error}"
    return cells, None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, if every key stands there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        double = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {_shown(double)} stands there twice")
    return found


def _json_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _gather(records: Iterator[Record], chunk_rows: int) -> Iterator[Chunk]:
    """Group records into chunks; the first record only names the columns."""
    names = list(next(records)[0])
    chunk, first = Chunk({name: [] for name in names}, 0), True
    for cells, reason in records:
        if reason:
            chunk.errors[chunk.rows] = reason
        for name in names:
            chunk.columns[name].append(cells[name])
        if chunk.rows == chunk_rows:
            yield chunk
            chunk, first = Chunk({name: [] for name in names}, chunk.first_row + chunk_rows), False
    if chunk.rows or first:
        yield chunk


def _iterate_parquet(path: str, chunk_rows: int) -> Iterator[Chunk]:
    with _readable_parquet(path):
        file = pq.ParquetFile(path)
        names = list(file.schema_arrow.names)
        batches = file.iter_batches(chunk_rows)
    _check_columns(names, path)
    first_row = 0
    while True:
        with _readable_parquet(path):
            batch = next(batches, None)
            if batch is None:
                break
            columns = {name: _parquet_cells(batch.column(name)) for name in names}
        yield Chunk(columns, first_row)
        first_row += batch.num_rows
    if first_row == 0:
        yield Chunk({name: [] for name in names}, 0)


def _parquet_cells(column: Any) -> list[str]:
    try:
        cells: list[str] = column.cast(pa.string()).fill_null("").to_pylist()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        cells = ["" if value is None else str(value) for value in column.to_pylist()]
    return cells


@contextmanager
def _readable_parquet(path: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise MatfmError(f"{path} is not a readable Parquet file: {' '.join(str(error).split())}") from error
