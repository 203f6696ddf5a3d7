"""Tables are text, in every format, streamed, with errors that name the place."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matfm import MatfmError
from matfm.tasks.tables import Chunk, check_output, column_metadata, iterate_table, read_table, table_writer

CELLS = {"formula": ["NaN", "", "No", "In,As"], "value": ["1e5", "inf", "", "0.10"]}


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'formula,value\nNaN,1e5\n,inf\nNo,\n"In,As",0.10\n'),
        ("t.csv.gz", 'formula,value\r\nNaN,1e5\r\n,inf\r\nNo,\r\n"In,As",0.10\r\n'),
        ("t.tsv", "formula\tvalue\nNaN\t1e5\n\tinf\nNo\nIn,As\t0.10"),
        (
            "t.jsonl",
            '{"formula": "NaN", "value": 1e5}\n{"formula": null, "value": "inf"}\n'
            '{"formula": "No"}\n{"formula": "In,As", "value": 0.10}\n',
        ),
    ],
)
def test_cells_are_text_as_written(tmp_path, name, text):
    assert read_table(write(tmp_path / name, text)).columns == CELLS


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfformula\nFe\n")
    assert read_table(str(tmp_path / "t.csv")).columns == {"formula": ["Fe"]}


def test_an_empty_line_of_one_column_is_an_empty_cell(tmp_path):
    assert read_table(write(tmp_path / "t.csv", "formula\nFe\n\nCo\n")).columns == {"formula": ["Fe", "", "Co"]}


def test_parquet_keeps_numbers_and_units(tmp_path):
    path = tmp_path / "t.parquet"
    schema = pa.schema([("formula", pa.string()), pa.field("gap", pa.float64(), metadata={"unit": "eV"})])
    pq.write_table(pa.table({"formula": ["NaN", None], "gap": [0.1, None]}, schema), path)
    assert read_table(str(path)).columns == {"formula": ["NaN", ""], "gap": ["0.1", ""]}
    assert column_metadata(str(path), "gap") == {"unit": "eV"}
    assert column_metadata(str(path), "formula") == column_metadata(str(path), "none") == {}


def test_chunks_are_of_the_size_asked_for(tmp_path):
    path = write(tmp_path / "t.csv", "a\n" + "\n".join(map(str, range(10))) + "\n")
    chunks = list(iterate_table(path, chunk_rows=4))
    assert [(c.first_row, c.rows) for c in chunks] == [(0, 4), (4, 4), (8, 2)]


def test_bad_rows_keep_their_place_with_a_reason(tmp_path):
    table = read_table(write(tmp_path / "t.csv", "a,b\n1,2\n1,2,3\n4,5\n"))
    assert table.columns == {"a": ["1", "1", "4"], "b": ["2", "2", "5"]}
    assert list(table.errors) == [1]
    assert "line 3 has 3 cells, the header 2" in table.errors[1]
    table = read_table(write(tmp_path / "t.jsonl", '{"a": 1}\n{"a": \n[1]\n{"a": 2}\n'))
    assert table.columns == {"a": ["1", "", "", "2"]}
    assert list(table.errors) == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,a\n1,2\n", "two columns named 'a'"),
        ("t.csv", b"a\n\xff\xfe\n", "is not UTF-8 text"),
        ("t.xlsx", b"", "the format is not known"),
        ("t.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:10] + b"\xff" * 40, "is not a complete gzip file"),
        ("t.csv.gz", b"no gzip", "is not a complete gzip file"),
        ("t.csv.gz", gzip.compress(b"a\n" + b"1\n" * 90000, mtime=0)[:-20], "is not a complete gzip file"),
        ("t.parquet", b"PAR1", "is not a readable Parquet file"),
        ("t.jsonl", b"not json\n", "line 1 is not readable JSON"),
    ],
)
def test_unreadable_files_are_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MatfmError, match=message):
        read_table(str(tmp_path / name))
    with pytest.raises(MatfmError, match="is not a file"):
        read_table(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_of_lines_have_no_header_and_every_line_is_a_row(tmp_path, ending):
    text = "\ufeffCCO  ethanol, dry \r\n\r\n C1CC1\tx y\nN/A"
    found = read_table(write(tmp_path / f"m.smi{ending}", text))
    assert found.columns == {"smiles": ["CCO", "", "C1CC1", "N/A"], "name": ["ethanol, dry", "", "x y", ""]}
    found = read_table(write(tmp_path / f"m.txt{ending}", text))
    assert found.columns == {"text": ["CCO  ethanol, dry ", "", " C1CC1\tx y", "N/A"]}
    assert [chunk.first_row for chunk in iterate_table(str(tmp_path / f"m.txt{ending}"), 2)] == [0, 2]
    for name, columns in (("e.smi", {"smiles": [], "name": []}), ("e.txt", {"text": []})):
        assert read_table(write(tmp_path / f"{name}{ending}", "")).columns == columns


def test_files_of_lines_are_not_written(tmp_path):
    schema = pa.schema([("text", pa.string())])
    with pytest.raises(MatfmError, match=r"\.txt files are only read"), table_writer(str(tmp_path / "o.txt"), schema):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(MatfmError, match="t.csv has no column 'gap'; its columns are 'a', 'b'"):
        Chunk({"a": [], "b": []}, 0).column("gap", "t.csv")


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.jsonl", "o.csv.gz", "o.parquet"])
def test_written_tables_are_read_back(tmp_path, name):
    path = str(tmp_path / "new" / name)
    schema = pa.schema([("formula", pa.string()), ("gap", pa.float64()), ("error", pa.string())])
    with table_writer(path, schema) as append:
        append({"formula": ["NaN"], "gap": [1.5], "error": [None]})
        append({"formula": ["Xx,", 'a"b'], "gap": [None, 0.25], "error": ["bad", None]})
    expected = {"formula": ["NaN", "Xx,", 'a"b'], "gap": ["1.5", "", "0.25"], "error": ["", "bad", ""]}
    assert read_table(path).columns == expected


def test_standard_input_is_csv(monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"formula\nFe\n")

    monkeypatch.setattr("sys.stdin", Stdin)
    assert read_table("-").columns == {"formula": ["Fe"]}
    Stdin.buffer = io.BytesIO(b"formula\n\xff\n")
    with pytest.raises(MatfmError, match="standard input is not UTF-8 text"):
        read_table("-")


def test_a_quote_that_never_closes_is_an_error_that_names_its_line(tmp_path):
    rows = "\n".join(f"GaN,{i}" for i in range(20))
    path = write(tmp_path / "t.csv", f'formula,gap\n{rows}\n"GaN,1\n{rows}\n')
    with pytest.raises(MatfmError, match=r"t.csv, line 22: a quote opens here and never closes"):
        read_table(path)
    with pytest.raises(MatfmError, match=r"line 1: a quote opens here"):
        read_table(write(tmp_path / "h.csv", f'"formula,gap\n{rows}\n'))
    fine = write(tmp_path / "fine.csv", 'size,note\n5" pipe,a\n"two\nlines","said ""so"""\n')
    assert read_table(fine).columns == {"size": ['5" pipe', "two\nlines"], "note": ["a", 'said "so"']}


def test_a_key_that_the_first_line_has_not_makes_the_row_unreadable(tmp_path):
    table = read_table(write(tmp_path / "t.jsonl", '{"formula": "Fe"}\n{"formula": "Co", "gap": 1}\n'))
    assert table.columns == {"formula": ["Fe", "Co"]}
    assert "line 2 has the key 'gap'" in table.errors[1]


def test_the_table_that_is_read_is_never_written_over(tmp_path):
    path = write(tmp_path / "t.csv", "formula\nFe\n")
    check_output(str(tmp_path / "other.csv"), path, None, "-")
    with pytest.raises(MatfmError, match="is the table that is read"):
        check_output(str(tmp_path / "." / "t.csv"), None, path)


def test_parquet_is_not_gzipped_around(tmp_path):
    with pytest.raises(MatfmError, match="Parquet is compressed inside, never gzipped"):
        read_table(str(tmp_path / "t.parquet.gz"))
