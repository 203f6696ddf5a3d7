"""`matfm data validity` on dirty tables: every row keeps its place, and the summary counts them."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from matfm.cli import app
from matfm.tasks.tables import read_table

DIRTY = ["Fe2O3", "", "XxO2", "Fe4O6", "NaN", "NaCl2", "FeNi3", "Ba(Zr0.1Ti0.9)O3", "Fe2" * 3333 + "!"]
ADDED = ["valid", "canonical", "charge_neutral", "electronegativity_balanced", "novel", "error"]


def validity(*arguments, text=None):
    """The command in a process of its own; the JSON summary."""
    result = subprocess.run(
        [sys.executable, "-m", "matfm", "data", "validity", *map(str, arguments)],
        capture_output=True, text=True, input=text, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def in_process(*arguments):
    result = CliRunner().invoke(app, ["data", "validity", *map(str, arguments)])
    return result, json.loads(result.stdout.splitlines()[-1]) if result.exit_code == 0 else None


@pytest.fixture
def dirty(tmp_path):
    path = tmp_path / "dirty.csv"
    path.write_text("id,formula\n" + "".join(f"{row},{text}\n" for row, text in enumerate(DIRTY)) + "9,MgO,too,many\n")
    return path


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"formula": "FeO1.5"}\n{"formula": "bad"}\n')
    return path


@pytest.mark.parametrize("extension", ["csv", "tsv.gz", "jsonl", "parquet"])
def test_every_dirty_row_keeps_its_place(dirty, reference, tmp_path, extension):
    out = tmp_path / f"checked.{extension}"
    _, summary = in_process(dirty, "--input", "formula", "--reference", reference, "--out", out)
    written = read_table(str(out)).columns
    assert list(written) == ["id", "formula", *ADDED]
    assert written["id"] == [str(row) for row in range(10)]
    assert written["formula"][:9] == DIRTY
    assert written["canonical"] == ["Fe2O3", "", "", "Fe2O3", "NNa", "Cl2Na", "FeNi3", "Ba10O30Ti9Zr", "", ""]
    lower = {name: [cell.lower() for cell in written[name]] for name in ADDED}
    assert lower["valid"] == "true false false true true true true true false false".split()
    assert lower["charge_neutral"] == ["true", "", "", "true", "true", "false", "true", "true", "", ""]
    assert lower["electronegativity_balanced"] == lower["charge_neutral"]
    assert lower["novel"] == ["false", "", "", "false", "true", "true", "true", "true", "", ""]
    assert [bool(reason) for reason in written["error"]] == [cell == "false" for cell in lower["valid"]]
    assert "has 4 cells, the header 2" in written["error"][9]
    assert (summary["rows_in"], summary["rows_with_error"], summary["reference_rows_with_error"]) == (10, 4, 1)
    assert (summary["valid"], summary["unique@10k"], summary["novelty"]) == (0.6, 5 / 6, 4 / 5)
    assert summary["charge_neutral"] == summary["electronegativity_balanced"] == 0.5
    assert [found["row"] for found in summary["first_errors"]] == [1, 2, 8, 9]


def test_chunks_change_nothing(dirty, tmp_path, monkeypatch):
    summaries = []
    for rows in (3, 1000):
        monkeypatch.setattr("matfm.tasks.tables.iterate_table.__defaults__", (rows,))
        out = tmp_path / "out.csv"
        summaries.append((in_process(dirty, "--input", "formula", "--out", out)[1], out.read_text("utf-8")))
    assert summaries[0] == summaries[1]


def test_molecules_from_standard_input_without_output():
    summary = validity("-", "--input", "s", "--kind", "smiles", "--set", "k=2", text="s\nCCO\nOCC\nc1ccnc1\nCC>>C\nC\n")
    assert (summary["rows_in"], summary["valid"], summary["unique@2"], summary["n_unique"]) == (5, 0.6, 0.5, 2)
    assert summary["out"] is None
    assert not {"charge_neutral", "novelty"} & summary.keys()


def test_selfies(tmp_path):
    table, out = tmp_path / "t.csv", tmp_path / "o.csv"
    table.write_text("s\n[C][C][O]\nCCO\n")
    _, summary = in_process(table, "--input", "s", "--kind", "selfies", "--out", out)
    assert summary["valid"] == 0.5
    assert read_table(str(out)).columns["canonical"] == ["CCO", ""]


def test_rules_can_be_set(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("f\nFe3O4\nCuZn\nPm2O3\n")
    for settings, share in (
        ((), 1 / 3), (("alloys=false",), 0), (("mixed_valence=true",), 2 / 3), (("oxidation_states=smact14",), 2 / 3),
    ):  # fmt: skip
        _, summary = in_process(table, "--input", "f", *(word for setting in settings for word in ("--set", setting)))
        assert summary["charge_neutral"] == pytest.approx(share), settings


def test_an_empty_table_has_no_shares(tmp_path):
    table, out = tmp_path / "t.csv", tmp_path / "o.parquet"
    table.write_text("f\n")
    _, summary = in_process(table, "--input", "f", "--out", out)
    assert (summary["rows_in"], summary["valid"], summary["unique@10k"]) == (0, None, None)
    assert list(read_table(str(out)).columns) == ["f", *ADDED]


def test_wrong_calls_name_the_thing_and_write_nothing(dirty, tmp_path):
    out = tmp_path / "never.csv"
    calls = {
        "has no column 'smiles'": (dirty, "--input", "smiles", "--out", out),
        "is not a file": (tmp_path / "no.csv", "--input", "f", "--out", out),
        "oxidation_states is 'best'": (dirty, "--input", "formula", "--set", "oxidation_states=best", "--out", out),
        "k is 0": (dirty, "--input", "formula", "--set", "k=0", "--out", out),
        "unknown key alloy; did you mean alloys?": (dirty, "--input", "formula", "--set", "alloy=true"),
        "both standard input": ("-", "--input", "formula", "--reference", "-"),
    }
    for message, arguments in calls.items():
        result, _ = in_process(*arguments)
        assert message in str(result.exception), message
        assert result.exception.exit_code == 2
    assert not out.exists()


def test_options_are_those_of_the_contract():
    import typer

    command = typer.main.get_command(app).commands["data"].commands["validity"]
    offered = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert offered - {"--help"} == {"--input", "--kind", "--reference", "--out", "--set"}
