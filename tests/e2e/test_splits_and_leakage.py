"""`matfm finetune --split …` and `matfm data leakage` as commands, on files."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from matfm.chem.composition_groups import chemical_system, composition_group, loco_folds
from matfm.chem.split_file import load_split
from matfm.cli import app
from matfm.tasks.tables import read_table


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1]), result.stdout


def finetune(table, out, split, *more):
    summary, _ = call(
        "finetune", table, "--input", "formula", "--target", "gap", "--out", out, "--backbone", "scratch:tiny",
        "--epochs", "1", "--split", split, "--set", "valid_share=0.2", "--set", "test_share=0.2", *more,
    )  # fmt: skip
    return summary


def parts_of(out, table):
    return load_split(out / "split.json", read_table(str(table)).columns["formula"]).parts


@pytest.mark.parametrize("split", ["random", "group", "chemical-system", "stratified"])
def test_the_split_is_saved_and_gives_the_same_run_again(small_table, tmp_path, split):
    small_table.write_text(small_table.read_text() + "XxO,1.0,yes\nFeO,,yes\n", "utf-8")
    first = finetune(small_table, tmp_path / "first", split)
    parts = parts_of(tmp_path / "first", small_table)
    assert parts[-2:].tolist() == ["-", "-"]
    assert first["rows"] == {part: int((parts == part).sum()) for part in ("train", "valid", "test")}
    assert first["split_sha256"] == json.loads((tmp_path / "first" / "split.json").read_text())["sha256"]
    again = finetune(small_table, tmp_path / "again", f"file:{tmp_path / 'first' / 'split.json'}")
    assert (parts_of(tmp_path / "again", small_table) == parts).all()
    assert again["metrics"] == first["metrics"]
    groups = {"group": composition_group, "chemical-system": chemical_system}
    formulas = read_table(str(small_table)).columns["formula"][:-2]
    if split in groups:
        of_part = [
            {groups[split](f) for f, p in zip(formulas, parts[:-2], strict=True) if p == part} for part in first["rows"]
        ]
        assert sum(map(len, of_part)) == len(set().union(*of_part))
        assert first["leakage"] == {"same_reduced_formula": 0.0}
    else:  # every formula is in the table three times
        assert first["leakage"]["same_reduced_formula"] > 0.5
    assert (
        f"{first['leakage']['same_reduced_formula']:.1%} of the test rows"
        in (tmp_path / "first" / "card.md").read_text()
    )


def test_rows_that_a_split_file_leaves_out_are_listed_and_a_changed_file_is_refused(small_table, tmp_path):
    whole = small_table.read_text()
    small_table.write_text(whole.replace("GaN,0", "GaN,", 1).replace("GaN,2.0000", "GaN,", 1))
    finetune(small_table, tmp_path / "first", "group")
    small_table.write_text(whole)
    path = tmp_path / "first" / "split.json"
    summary = finetune(small_table, tmp_path / "second", f"file:{path}")
    left_out = (parts_of(tmp_path / "first", small_table) == "-").sum()
    assert summary["rows_rejected"] == left_out == 1
    assert read_table(str(tmp_path / "second" / "rejects.csv")).columns["reason"] == ["the split leaves this row out"]
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "parts": content["parts"].replace("2", "0")}))
    with pytest.raises(ValueError, match="was changed after it was written"):
        finetune(small_table, tmp_path / "third", f"file:{path}")
    assert not (tmp_path / "third").exists()


def test_a_continued_run_keeps_its_split(small_table, tmp_path, monkeypatch):
    out = tmp_path / "run"
    finetune(small_table, out, "group")
    before = (out / "split.json").read_bytes()
    (out / "summary.json").unlink()
    monkeypatch.setattr("matfm.tasks.splitting.make_split", None)
    finetune(small_table, out, "group", "--resume")
    assert (out / "split.json").read_bytes() == before
    with pytest.raises(ValueError, match="was begun with another split"):
        finetune(small_table, out, "random", "--resume")
    (out / "summary.json").unlink()
    small_table.write_text(small_table.read_text().replace("GaN", "AlN"))
    with pytest.raises(ValueError, match="splits other inputs than those of the table"):
        finetune(small_table, out, "group", "--resume")


@pytest.mark.network
def test_leave_one_cluster_out_with_the_real_element_properties(small_table, tmp_path):
    from matfm.chem.magpie import magpie_features
    from matfm.tasks.recipes.element_properties import magpie_table

    table = magpie_table()
    assert (len(table.properties), int((~np.isnan(table.values)).all(axis=1).sum())) == (22, 97)
    summary = finetune(small_table, tmp_path / "run", "loco:4", "--seed", "1")
    formulas = read_table(str(small_table)).columns["formula"]
    parts = parts_of(tmp_path / "run", small_table)
    features = magpie_features(formulas, table)
    assert features.shape == (75, 138)
    assert ((parts == "test") == (loco_folds(features, 4, 0) == 1)).all()
    assert summary["leakage"] == {"same_reduced_formula": 0.0}


def test_leakage_of_compositions(tmp_path):
    train, test, out = tmp_path / "train.csv", tmp_path / "test.tsv", tmp_path / "report.json"
    train.write_text("comp\nFe2O3\nNaCl\nXx\n")
    test.write_text("formula\tgap\nFe4O6\t1\nNaCl\t2\nMgO\t\n?\t1\n")
    summary, shown = call("data", "leakage", train, test, "--input", "formula", "--train-input", "comp", "--out", out)
    assert summary["counts"] == {"identical": 1, "same_reduced_formula": 2, "same_chemical_system": 2}
    assert summary["shares"]["identical"] == pytest.approx(1 / 3)
    assert (summary["train_unreadable"], summary["test_unreadable"], summary["train_rows_compared"]) == (1, 1, 2)
    assert sum(summary["histogram"]) == 3
    assert "train_unreadable_rows" not in summary
    report = json.loads(out.read_text())
    assert [(row["row"], row["text"]) for row in report["test_unreadable_rows"]] == [(3, "?")]
    assert [(row["row"], row["text"]) for row in report["train_unreadable_rows"]] == [(2, "Xx")]
    for line in (
        "same reduced formula           2   66.67%",
        "unreadable test",
        "2 of 3 training rows",
        "0.9 to 1.0",
        "median 1.000",
    ):
        assert line in shown


def test_leakage_of_molecules(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("smiles\nCCO\nCc1ccccc1\n")
    test.write_text("smiles\nOCC\nOc1ccccc1\n")
    summary, shown = call("data", "leakage", train, test, "--input", "smiles", "--kind", "smiles")
    assert summary["counts"] == {
        "identical": 0, "same_canonical": 1, "same_reduced_formula": 1, "same_chemical_system": 2, "same_scaffold": 1,
    }  # fmt: skip
    assert "Tanimoto" in shown


def test_many_pairs_are_sampled_and_nothing_readable_is_said(tmp_path, monkeypatch):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("formula\n" + "\n".join(f"Fe{n}O{n + 1}" for n in range(1, 301)) + "\n")
    test.write_text("formula\nFe2O3\n?\n")
    monkeypatch.setattr("matfm.tasks.leakage.MOST_PAIRS", 100)
    summary, shown = call("data", "leakage", train, test, "--input", "formula")
    assert 0 < summary["train_rows_compared"] < 150
    assert summary["counts"]["identical"] == 1
    assert f"{summary['train_rows_compared']} of 300 training rows" in shown
    test.write_text("formula\n?\n")
    summary, shown = call("data", "leakage", train, test, "--input", "formula")
    assert summary["median"] is None
    assert "Nothing could be compared." in shown
