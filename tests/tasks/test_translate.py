"""`matfm translate`: one row for each row, in order; what a translation stands for; what a model cannot do."""

import csv
import json
from dataclasses import replace

import pytest

from matfm import MatfmError, smiles_to_selfies
from matfm.core.config import from_mapping
from matfm.errors import RunError
from matfm.tasks import tables, translate
from matfm.tasks.pretrain import PretrainConfig, run
from matfm.tasks.translate import TranslateConfig, load_translator

SMILES = ["CCO", "CCN", "CCC", "CCCl", "COC", "CNC", "CCF", "CCBr", "CCS", "OCO"]
MATERIALS = "formula,band_gap,volume_per_atom\nGaN,3.4,11.4\nFe2O3,2.0,10.1\nCu,0,11.8\nNaCl,8.5,22.4\nSi,1.1,20.0\nZnO,3.3,11.9\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model of ten small molecules and six materials."""
    folder = tmp_path_factory.mktemp("translate")
    (folder / "molecules.csv").write_text("\n".join(["smiles", *SMILES]) + "\n")
    (folder / "materials.csv").write_text(MATERIALS)
    materials = {
        "table": str(folder / "materials.csv"), "targets": ["band_gap", "volume_per_atom"], "held_out": 0.3
    }  # fmt: skip
    values = {
        "data": {"kind": "smiles", "table": str(folder / "molecules.csv"), "held_out": 0.2, "more": [materials]},
        "model": {"family": "matt5", "size": "tiny"},
        "objective": [{"name": "translation", "sample": 0}],
        "train": {"steps": 120, "tokens_per_batch": 200, "evaluations": 1},
        "optimizer": {"method": "muon", "learning_rate": 5e-3},
        "device": "cpu",
    }
    run(from_mapping(PretrainConfig, values, "test"), folder / "run")
    return folder / "run"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def translated(trained, tmp_path, cells, to, name="out.csv", **more):
    table = tmp_path / "cells.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "id"], *([cell, number] for number, cell in enumerate(cells))])
    config = TranslateConfig(str(trained), str(table), "text", str(tmp_path / name), to, device="cpu", **more)
    return translate.run(config), tmp_path / name


def test_every_row_keeps_its_place(trained, tmp_path):
    cells = ["OCC", "C(C", "CCC", "", "CCN", "CCO"]
    summary, out = translated(trained, tmp_path, cells, "selfies")
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [str(number) for number in range(len(cells))]
    assert [row["text"] for row in rows] == cells
    assert [bool(row["error"]) for row in rows] == [False, True, False, True, False, False]
    assert all(row["translation"] == row["canonical"] == "" for row in rows if row["error"])
    assert rows[0]["translation"] == rows[5]["translation"]
    good = [row for row in rows if not row["error"]]
    assert sum(row["same"] == "True" for row in good) == summary["rows_same"]
    assert (summary["rows_in"], summary["rows_translated"], summary["rows_with_error"]) == (6, 4, 2)
    assert sum(bool(row["problem"]) for row in rows) == summary["rows_with_problem"]


def test_what_was_learned_is_translated(trained, tmp_path):
    """Both directions, greedily and with beams, are right for most of ten molecules that the model knows by heart."""
    for to, cells in (("selfies", SMILES), ("smiles", [smiles_to_selfies(text) for text in SMILES])):
        for beams in (1, 2):
            summary, out = translated(trained, tmp_path, cells, to, f"{to}{beams}.jsonl", beams=beams)
            rows = [json.loads(line) for line in out.read_text().splitlines()]
            assert summary["rows_same"] >= 6
            assert all(row["same"] == (row["canonical"] == source) for row, source in zip(rows, CANONICAL, strict=True))


CANONICAL = ["CCO", "CCN", "CCC", "CCCl", "COC", "CNC", "CCF", "CCBr", "CCS", "OCO"]


def test_compositions_get_texts_and_answers(trained, tmp_path):
    _, out = translated(trained, tmp_path, ["GaN", "O3Fe2", "Xx"], "text")
    rows = rows_of(out)
    assert rows[2]["error"]
    assert all(row["same"] == "" for row in rows)
    summary, out = translated(trained, tmp_path, ["GaN", "Fe2O3"], "text", "a.csv", ask=("egap", "volume_per_atom"))
    assert summary["from"] == "composition"
    assert all(row["translation"] for row in rows_of(out))
    _, out = translated(trained, tmp_path, ["metal, volume 11.8 Å³/atom", "red"], "composition", "b.csv")
    assert [bool(row["error"]) for row in rows_of(out)] == [False, True]


def test_a_translation_that_was_stopped_goes_on_to_the_same_table(trained, tmp_path, monkeypatch):
    """Two rows a chunk; the third chunk fails the first time. Only what is not done is computed again."""
    chunks = tables.iterate_table
    monkeypatch.setattr("matfm.tasks.streaming.rows.iterate_table", lambda name: chunks(name, 2))
    cells = ["OCC", "C(C", "CCC", "", "CCN", "CCO", "CCS"]
    whole, out = translated(trained, tmp_path, cells, "selfies", "whole.csv")
    of_tokens, calls = translate.Translator.of_tokens, []

    def counting(self, examples, sources):
        calls.append(len(sources))
        if len(calls) == 3:
            raise RunError("stopped")
        return of_tokens(self, examples, sources)

    monkeypatch.setattr(translate.Translator, "of_tokens", counting)
    with pytest.raises(RunError):
        translated(trained, tmp_path, cells, "selfies", "cut.csv")
    config = TranslateConfig(
        str(trained), str(tmp_path / "cells.csv"), "text", str(tmp_path / "cut.csv"), "selfies", device="cpu"
    )
    with pytest.raises(MatfmError, match=r"begun with another beams \(1, now 2\)"):
        translate.run(replace(config, beams=2), resume=True)
    with pytest.raises(MatfmError, match="begun with another to"):
        translate.run(replace(config, to="text"), resume=True)
    summary = translate.run(config, resume=True)
    assert calls == [1, 1, 2, 2, 1]
    assert {**summary, "out": ""} == {**whole, "out": ""}
    assert (tmp_path / "cut.csv").read_bytes() == out.read_bytes()
    assert not (tmp_path / ".cut.csv.unfinished").exists()


def test_from_python(trained):
    made = load_translator(str(trained), "selfies", device="cpu")(["CCO", "C(C", "CCC"])
    assert [isinstance(each, MatfmError) for each in made] == [False, True, False]
    assert made[0].text.startswith("[")


def test_what_a_model_or_a_call_cannot_do(trained, tmp_path):
    with pytest.raises(MatfmError, match="--to is 'inchi'"):
        TranslateConfig("m", "t.csv", "x", "o.csv", "inchi")
    with pytest.raises(MatfmError, match="give --to text"):
        TranslateConfig("m", "t.csv", "x", "o.csv", "smiles", ask=("band_gap",))
    with pytest.raises(MatfmError, match="--beams is 0"):
        TranslateConfig("m", "t.csv", "x", "o.csv", "smiles", beams=0)
    with pytest.raises(MatfmError, match="is the table that is read"):
        TranslateConfig("m", "t.csv", "x", "t.csv", "smiles")
    with pytest.raises(MatfmError, match="it answers band_gap, volume_per_atom"):
        load_translator(str(trained), "text", ("bulk_modulus",))
    with pytest.raises(MatfmError, match="is a matbert model"):
        load_translator("matbert-small", "selfies")
    config = trained / "config.json"
    saved = config.read_text()
    try:
        config.write_text(saved.replace('"to_smiles",', "").replace('"to_smiles"', '"to_text"'))
        with pytest.raises(MatfmError, match="has no task 'to_smiles': it was trained for to_selfies"):
            load_translator(str(trained), "smiles")
    finally:
        config.write_text(saved)
    (trained / "tokenizer.json").rename(tmp_path / "away")
    try:
        with pytest.raises(MatfmError, match=r"holds no tokenizer\.json"):
            load_translator(str(trained), "selfies")
    finally:
        (tmp_path / "away").rename(trained / "tokenizer.json")
