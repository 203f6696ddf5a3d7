"""`matfm data encode` in pieces: shards are one table, a killed run goes on to the same bytes, formulas as strings."""

import gzip
import json
import signal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_processes import Command

from matfm import CompositionTokenizer, MatfmError, SmilesTokenizer
from matfm.core.token_files import TokenWriter, open_tokens
from matfm.errors import RunError
from matfm.tasks import corpus
from matfm.tasks.corpus import EncodeConfig, encode

SMILES = ["CCO", "c1ccc2[nH]ccc2c1", "", "C[C@@H](N)C(=O)O", "[Na+].[Cl-]", "nan", "ClCBr", "[Xq+7]C", "[Qq]", "CC"]
FORMULAS = ["Fe2O3", "NaCl", "Xx", "CuSO4.5H2O", "LiFePO4", "", "Li0.5CoO2", "U235O2", "LiD", "GaN"]


def sequences(folder):
    tokens, rows, meta = open_tokens(folder)
    return [tokens.ids_N[a:b].tolist() for a, b in pairwise(tokens.offsets)], rows.tolist(), meta


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def in_pieces(tmp_path, monkeypatch):
    """Tables of ten rows in chunks of two, of which every `saved`-th is recorded; ends before the given append."""
    monkeypatch.setattr(corpus, "CHUNK_ROWS", 2)
    (tmp_path / "t.csv").write_text("x\n" + "\n".join(SMILES) + "\n")
    (tmp_path / "f.csv").write_text("x\n" + "\n".join(FORMULAS) + "\n")
    append, appended = TokenWriter.append, []

    def run(out, fail_at=None, resume=False, saved=1, kind="smiles", table="", **more):
        appended.clear()

        def stopping(self, *arguments):
            if len(appended) == fail_at:
                raise RunError("stopped")
            appended.append(arguments)
            append(self, *arguments)

        monkeypatch.setattr(TokenWriter, "append", stopping)
        monkeypatch.setattr(corpus, "SAVED_CHUNKS", saved)
        source = table or str(tmp_path / ("f.csv" if kind == "composition" else "t.csv"))
        config = EncodeConfig(source, "x", str(tmp_path / out), kind, **{"workers": 1, **more})
        return encode(config, resume)

    return run, appended, tmp_path


@pytest.mark.parametrize("saved", [1, 2])
@pytest.mark.parametrize("fail_at", [0, 1, 3, 4])
@pytest.mark.parametrize(
    "settings", [{"max_length": 5}, {"kind": "composition"}, {"kind": "composition", "scheme": "count"}], ids=str
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(in_pieces, settings, fail_at, saved):
    run, appended, folder = in_pieces
    whole = run("whole", **settings)
    with pytest.raises(RunError):
        run("cut", fail_at, saved=saved, **settings)
    assert not (folder / "cut").exists()
    summary = run("cut", resume=True, saved=saved, **settings)
    assert len(appended) == 5 - fail_at // saved * saved  # what was recorded is not encoded again
    assert {**summary, "out": ""} == {**whole, "out": ""}
    assert contents(folder / "cut") == contents(folder / "whole")
    assert sorted(path.name for path in folder.iterdir()) == ["cut", "f.csv", "t.csv", "whole"]


def test_only_the_run_that_was_begun_goes_on(in_pieces):
    run, appended, folder = in_pieces
    with pytest.raises(RunError):
        run("cut", 3)
    with pytest.raises(MatfmError, match="begun with another max_length"):
        run("cut", resume=True, max_length=7)
    with pytest.raises(MatfmError, match=r"begun with another kind \('smiles', now 'selfies'\)"):
        run("cut", resume=True, kind="selfies")
    with pytest.raises(MatfmError, match="has left out 2 rows .* resume it with --on-bad skip"):
        run("cut", resume=True, on_bad="stop")
    (folder / "t.csv").write_text((folder / "t.csv").read_text().replace("CCO", "CCN"))
    with pytest.raises(MatfmError, match="table was changed since this matfm data encode began: its first 6 rows"):
        run("cut", resume=True)
    run("cut")
    assert len(appended) == 5
    with pytest.raises(MatfmError, match="exists already"):
        run("cut", resume=True)


def test_a_stop_at_a_bad_cell_goes_on_once_the_cell_is_mended(in_pieces):
    run, appended, folder = in_pieces
    with pytest.raises(MatfmError, match=r"t.csv, row 2, column 'x': .*missing value.* \(--on-bad stop\)"):
        run("tokens", on_bad="stop")
    (folder / "t.csv").write_text("x\n" + "\n".join(cell if cell not in ("", "nan") else "CS" for cell in SMILES))
    run("tokens", resume=True, on_bad="stop")
    assert len(appended) == 4
    assert len(sequences(folder / "tokens")[0]) == 10


def shards_of(folder):
    """Ten rows in three formats, whose columns stand in another order, beside a file that is none."""
    shards = folder / "shards"
    shards.mkdir()
    (shards / "a.csv").write_text("\n".join(["x,n", *(f"{cell}," for cell in SMILES[:4])]) + "\n")
    (shards / "b.csv.gz").write_bytes(gzip.compress("\n".join(["n,x", *(f",{cell}" for cell in SMILES[4:7])]).encode()))
    pq.write_table(pa.table({"x": SMILES[7:], "n": [""] * 3}), shards / "c.parquet")
    (shards / "README.txt").write_text("no table")
    return shards


def test_shards_are_one_table_and_rejects_name_file_and_row(in_pieces):
    run, _, folder = in_pieces
    shards = shards_of(folder)
    run("whole")
    summary = run("folder", table=str(shards))
    assert (summary["shards"], summary["rows_in"], summary["rows_rejected"]) == (3, 10, 2)
    ids, rows, meta = sequences(folder / "folder")
    assert (ids, rows) == sequences(folder / "whole")[:2]
    assert list(meta["shards"].values()) == [4, 3, 3]
    rejects = (folder / "folder" / "rejects.csv").read_text().splitlines()
    assert rejects[0] == "file,row,column,value,reason"
    assert [line.split(",")[:4] for line in rejects[1:]] == [
        [str(shards / "a.csv"), "2", "x", ""], [str(shards / "b.csv.gz"), "1", "x", "nan"]
    ]  # fmt: skip
    assert (folder / "whole" / "rejects.csv").read_text().splitlines()[0] == "row,column,value,reason"


def test_patterns_and_lists_are_read_in_the_order_of_their_names(in_pieces):
    run, _, folder = in_pieces
    shards = shards_of(folder)
    run("folder", table=str(shards))
    for out, table in {
        "pattern": str(shards / "*"),
        "brackets": str(folder / "*" / "[abc].*"),
        "list": (str(shards / "c.parquet"), str(shards / "[ab].*"), str(shards / "a.csv")),
    }.items():
        run(out, table=table)
        assert contents(folder / out) == contents(folder / "folder")
    with pytest.raises(MatfmError, match=r"\*.tsv matches no table"):
        run("none", table=str(shards / "*.tsv"))
    with pytest.raises(MatfmError, match="standard input, which is one table"):
        run("none", table=("-", str(shards)))
    (shards / "d.csv").write_text("x,other\nC,1\n")
    with pytest.raises(MatfmError, match=r"d.csv and .*a.csv have different columns \('n'\)"):
        run("none", table=str(shards))


def test_shards_that_were_stopped_go_on_and_new_ones_are_noticed(in_pieces):
    run, _, folder = in_pieces
    shards = shards_of(folder)
    run("whole", table=str(shards))
    with pytest.raises(RunError):
        run("cut", 3, table=str(shards))
    (shards / "0.csv").write_text("x,n\nC,\n")
    with pytest.raises(MatfmError, match="the table was changed"):
        run("cut", resume=True, table=str(shards))
    (shards / "0.csv").unlink()
    run("cut", resume=True, table=str(shards))
    assert contents(folder / "cut") == contents(folder / "whole")


def test_files_of_lines_are_encoded_as_they_stand(tmp_path):
    (tmp_path / "m.smi").write_text("CCO ethanol\nCC\tethane, a gas\n\nC\n")
    summary = encode(EncodeConfig(str(tmp_path / "m.smi"), "smiles", str(tmp_path / "tokens"), "smiles"))
    assert (summary["rows_in"], summary["rows_rejected"]) == (4, 1)
    ids, rows, _ = sequences(tmp_path / "tokens")
    assert ids == SmilesTokenizer()(["CCO", "CC", "C"])["input_ids"]
    assert rows == [0, 1, 3]
    for number, part in enumerate(("Fe2O3\nNaCl\n", "GaN")):
        (tmp_path / f"part{number}.txt.gz").write_bytes(gzip.compress(part.encode()))
    encode(EncodeConfig(str(tmp_path / "part*"), "text", str(tmp_path / "formulas")))
    assert sequences(tmp_path / "formulas")[0] == CompositionTokenizer()(["Fe2O3", "NaCl", "GaN"])["input_ids"]


@pytest.mark.parametrize("order", ["", "electronegativity", "written", "hill"])
@pytest.mark.parametrize("scheme", ["count", "repeat"])
def test_formulas_as_strings_equal_the_tokenizer(in_pieces, scheme, order):
    run, _, folder = in_pieces
    summary = run("tokens", kind="composition", scheme=scheme, order=order)
    ids, rows, meta = sequences(folder / "tokens")
    tokenizer = CompositionTokenizer(scheme=scheme, order=order or "electronegativity")
    assert rows == [0, 1, 3, 4, 6, 7, 8, 9]
    assert ids == tokenizer([FORMULAS[row] for row in rows])["input_ids"]
    assert (meta["scheme"], meta["order"], meta["amounts"]) == (scheme, tokenizer.order, False)
    assert not (folder / "tokens" / "amounts.bin").exists()
    assert summary["rows_to_check"] == 3


def test_formulas_that_a_scheme_cannot_write_are_rejected(tmp_path):
    (tmp_path / "t.csv").write_text("x\nFe300Co300\nFeCo\n")
    summary = encode(EncodeConfig(str(tmp_path / "t.csv"), "x", str(tmp_path / "tokens"), scheme="repeat"))
    assert (summary["rows_used"], summary["rows_rejected"]) == (1, 1)
    assert "at most 512 atoms" in (tmp_path / "tokens" / "rejects.csv").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "words"}, "--scheme is 'words'; choose one of fraction, repeat, count"),
        ({"scheme": "count", "order": "mass"}, "--order is 'mass'; choose one of written, hill"),
        ({"order": "hill"}, "--order means nothing in the scheme 'fraction'"),
        ({"kind": "smiles", "scheme": "count"}, "--scheme and --order are for compositions"),
    ],
)
def test_schemes_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(MatfmError, match=message):
        EncodeConfig("t.csv", "x", "out", **settings)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_command_is_resumed_to_the_same_bytes(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 30, 40_000).tolist()
    (tmp_path / "t.csv").write_text("x\n" + "\n".join("C" * length for length in lengths) + "\n")
    arguments = ["data", "encode", tmp_path / "t.csv", "--input", "x", "--kind", "smiles", "--workers", "1"]
    state = tmp_path / ".cut.unfinished" / "state.json"
    small = "from matfm.tasks import corpus; corpus.CHUNK_ROWS = 1000"
    assert Command([*arguments, "--out", tmp_path / "cut"], small).killed_when(state.is_file)
    assert 0 < json.loads(state.read_text())["rows"] < len(lengths)
    for out, more in (("cut", ["--resume"]), ("whole", [])):
        code, _, errors = Command([*arguments, "--out", tmp_path / out, *more], small).end()
        assert code == 0, errors
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "t.csv", "whole"]
