"""Readers of tables in every format, and of tables inside archives."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

from benchmarks.fuzz.target import JSON_WORDS, Parse, Target


def _of_table(name: str) -> Parse:
    def parse(content: bytes, folder: Path) -> object:
        from matfm.tasks.screening.library import Library
        from matfm.tasks.tables import column_property, read_table

        path = folder / name
        path.write_bytes(content)
        table = read_table(str(path))
        Library.open(str(path)).count_rows()
        for column, cells in table.columns.items():
            column_property(str(path), column)
            "".join([column, *cells]).encode()  # what is read can be written
        return table

    return parse


def _csv_tables() -> list[bytes]:
    plain = (
        'formula,gap,note\nFe2O3,2.2,"red, a rust"\nGaN,3.4,"two\nlines"\nNaN,,\n"Ba(Zr0.1Ti0.9)O3",<5,"said ""so"""\n'
    )
    return [
        plain.encode(),
        plain.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + plain.encode(),
        b"smiles;y\nCCO;1\n",
        b"a\n1\n\n2\n",
        "größe,Å\nx,é\n".encode(),
    ]


def _tsv_tables() -> list[bytes]:
    return [text.replace(b",", b"\t") for text in _csv_tables()]


def _jsonl_tables() -> list[bytes]:
    return [
        b'{"formula": "Fe2O3", "gap": 2.2}\n{"formula": "GaN", "gap": null}\n{"formula": "NaN"}\n',
        b'{"a": [1, 2.5, {"b": true}], "c": "\\u00e9\\ud83d\\ude00"}\r\n{"a": {}, "c": 1e400}\n',
        b'{"a": NaN, "b": -Infinity}\n{"a": "x", "b": 12345678901234567890}\n',
    ]


def _parquet_tables() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [
        pa.table({"formula": ["Fe2O3", None, "GaN"], "gap": [0.1, None, 3.4]}),
        pa.table({"n": pa.array([1, 2, 3], pa.int32()), "b": [b"\xff", b"x", None], "l": [[1], [], None]}),
    ]
    written = []
    for table in tables:
        for compression in ("none", "snappy"):
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression=compression)
            written.append(buffer.getvalue())
    return written


def _archives() -> list[bytes]:
    found = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr("t.csv", _csv_tables()[0])
            archive.writestr("t.csv.gz", gzip.compress(_csv_tables()[0], mtime=0))
        found.append(buffer.getvalue())
    return found


def _archive(content: bytes, folder: Path) -> object:
    from matfm.tasks.recipes.sources import read_member_table

    path = folder / "data.zip"
    path.write_bytes(content)
    return [read_member_table(path, name).columns for name in ("t.csv", "t.csv.gz")]


_TABLE_WORDS = (",", '"', '""', "\n", "\r", "\r\n", "\t", "\x00", "﻿", "formula,", "\x1a", "é", "\ud800")

TARGETS: dict[str, Target] = {
    "csv": Target(_of_table("t.csv"), _csv_tables, _TABLE_WORDS, 12),
    "tsv": Target(_of_table("t.tsv"), _tsv_tables, _TABLE_WORDS, 6),
    "jsonl": Target(_of_table("t.jsonl"), _jsonl_tables, (*JSON_WORDS, "\n"), 12),
    "csv_gz": Target(_of_table("t.csv.gz"), lambda: [gzip.compress(t, mtime=0) for t in _csv_tables()], (), 4),
    "parquet": Target(_of_table("t.parquet"), _parquet_tables, (), 4),
    "archive": Target(_archive, _archives, ("../", "t.csv"), 4),
}
