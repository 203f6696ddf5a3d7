"""Tables nobody wants to get: every row is predicted or named, or one sentence says why the table is not read."""

import gzip
import io
import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matfm.tasks import unpacking
from matfm.tasks.tables import MOST_COLUMNS


def good(columns):
    """Which rows were predicted."""
    return [bool(value) for value in columns["predicted_gap"]]


def test_survives_a_cell_of_10_megabytes(predict):
    columns = predict("t.csv", b"formula,k\nFe2O3,1\n" + b"Fe" * 5_000_000 + b"!,2\nGaN,3\n")
    assert good(columns) == [True, False, True]
    assert len(columns["formula"][1]) == 10_000_001
    assert len(columns["error"][1]) < 300


def test_survives_a_million_columns(predict):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = predict("t.csv", b"formula," + ",".join(map(str, range(999_999))).encode() + b"\nFe2O3,1\n")
    assert "has 1,000,000 columns and a table at most 20,000" in message
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 500  # MiB


def test_survives_many_columns_of_which_none_is_meant(predict):
    message = predict("t.csv", ",".join(f"column_{number}" for number in range(MOST_COLUMNS)).encode() + b"\n1\n")
    assert "has no column 'formula'" in message
    assert "and 19,980 more" in message


def test_survives_nul_bytes(predict):
    columns = predict("t.csv", b"formula,k\nFe\x002O3,1\nGaN,\x00\n\x00,3\n")
    assert good(columns) == [False, True, False]
    assert columns["formula"] == ["Fe\x002O3", "GaN", "\x00"]


def test_survives_a_byte_order_mark(predict):
    assert good(predict("t.csv", b"\xef\xbb\xbfformula\nGaN\n")) == [True]


@pytest.mark.parametrize(
    ("encoding", "message"), [("utf-16", "is not UTF-8 text"), ("utf-16-le", "NUL bytes, as in UTF-16 text")]
)
def test_survives_utf_16(predict, encoding, message):
    assert message in predict("t.csv", "formula,k\nGaN,1\n".encode(encoding))


def test_survives_windows_lines_and_quoted_newlines(predict):
    columns = predict("t.csv", b'formula,note\r\nGaN,"two\r\nlines"\r\n"Fe2O3","said ""so"""\r\n"Ga\r\nN",x\r\n')
    assert good(columns)[:2] == [True, True]
    assert columns["note"] == ["two\r\nlines", 'said "so"', "x"]


def test_survives_mixed_types_in_a_column(trained, tmp_path):
    table = tmp_path / "t.jsonl"
    odd = ['{"a": 1}', "[1, 2]", "true", "null", "1e999", '"<5"', '"n/a"', '"NaN"']
    lines = [f'{{"formula": "Fe{n}O", "gap": {n}.5}}' for n in range(1, 17)]
    lines += [f'{{"formula": "Zn{n}S", "gap": {value}}}' for n, value in enumerate(odd, start=1)]
    table.write_text("\n".join(lines) + "\n")
    summary = trained.call("finetune", table, *trained.options, "--out", tmp_path / "run")
    assert (summary["rows_used"], summary["rows_rejected"]) == (17, 7)  # a censored label is one
    rejects = (tmp_path / "run" / "rejects.csv").read_text().splitlines()
    assert len(rejects) == 8


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"formula,k,formula\nGaN,1,Fe\n"),
        ("t.jsonl", b'{"formula": "GaN", "formula": "Fe"}\n'),
        ("t.parquet", None),
    ],
)
def test_survives_duplicated_headers(predict, name, content):
    if content is None:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_arrays([pa.array(["GaN"])] * 2, names=["formula", "formula"]), buffer)
        content = buffer.getvalue()
    message = predict(name, content)
    assert "'formula'" in message
    assert "two columns" in message or "twice" in message


def test_survives_a_million_headers_of_which_two_are_the_same(predict):
    names = ",".join(map(str, range(MOST_COLUMNS - 1)))
    assert "two columns named '7'" in predict("t.csv", f"{names},7\n1\n".encode())


def test_survives_halves_of_characters(predict):
    columns = predict("t.jsonl", b'{"formula": "GaN"}\n{"formula": "Fe\\ud800"}\n{"formula": "\\ud83d\\ude00"}\n')
    assert good(columns) == [True, False, False]
    assert "line 2 holds half of a character" in columns["error"][1]


def test_survives_json_that_is_nested_deeply(predict):
    nested = b'{"formula": "GaN", "k": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    columns = predict("t.jsonl", b'{"formula": "GaN", "k": 1}\n' + nested + b"\n")
    assert good(columns) == [True, False]


def test_survives_a_gzip_bomb(predict, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_BYTES", 2**22)
    bomb = gzip.compress(b"formula\n" + (b"G" * 100_000 + b"\n") * 80, mtime=0)
    assert len(bomb) < 20_000
    assert "as a decompression bomb does" in predict("t.csv.gz", bomb)


def test_survives_a_gzip_bomb_of_one_line(predict, monkeypatch):
    monkeypatch.setattr("matfm.tasks.tables.LONGEST_LINE", 2**20)
    assert "more than 1,048,576 characters" in predict("t.csv.gz", gzip.compress(b"formula\n" + b"G" * 2**21, mtime=0))


def test_survives_a_truncated_parquet_footer_and_damaged_pages(predict):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"formula": ["GaN", "Fe2O3"] * 500}), buffer)
    whole = buffer.getvalue()
    assert "is not a readable Parquet file" in predict("t.parquet", whole[:-6])
    for place in range(4, 80, 7):
        damaged = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        found = predict("t.parquet", damaged)
        assert isinstance(found, dict) or "is not a readable Parquet file" in found


def test_survives_an_empty_file_and_a_folder_in_its_place(predict, trained, tmp_path):
    assert "is empty" in predict("t.csv", b"")
    (tmp_path / "d.csv").mkdir()
    error = trained.call("predict", trained.run, tmp_path / "d.csv", "--input", "formula", "--out", tmp_path / "o.csv")
    assert "is not a file" in str(error)
