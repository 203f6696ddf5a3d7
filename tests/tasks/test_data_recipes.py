"""Recipes on a small archive: join, cleaning, folds, and every way a source can fail."""

import hashlib
import subprocess
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.model_selection import KFold

from matfm import MatfmError
from matfm.errors import RunError
from matfm.tasks.data import BuildConfig, run
from matfm.tasks.recipes import sources
from matfm.tasks.recipes.recipe import Source, load_recipe, recipe_names
from matfm.tasks.tables import read_table

FOLD_OF_ROW = np.zeros(6, np.uint8)
for _number, (_, _test) in enumerate(KFold(3, shuffle=True, random_state=7).split(np.zeros(6))):
    FOLD_OF_ROW[_test] = _number


@pytest.fixture
def recipe(tmp_path):
    """A recipe with two tables over one archive; returns a function that writes it with changes."""
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("gap_train.csv", "formula,target\nNaN,1.0\nFe2O3,2.2\nXxO,1.0\nGaN,99\n")
        opened.writestr("gap_test.csv", "formula,target\nSiO2,9\n")
        opened.writestr("energy.csv", "formula,target\nFe2O3,-1.5\nNaCl,-2\nCu,abc\nGaN,-1\n")

    def write(**changes):
        values = {
            "rows": 6,
            "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
            "folds": hashlib.sha256(FOLD_OF_ROW.tobytes()).hexdigest(),
            "member": "energy.csv",
            "column": "target",
            "extra": "",
            **changes,
        }
        path = tmp_path / "small.toml"
        path.write_text(
            f"""
name = "small"
title = "A small set"
version = "1"
kind = "composition"
rows = {values["rows"]}
license = "MIT"
citation = ["Nobody (2026)"]
{values["extra"]}
[source]
kind = "file"
file = "archive.zip"
sha256 = "{values["sha256"]}"
[[tables]]
members = {{ train = "gap_train.csv", test = "gap_test.csv" }}
input = "formula"
columns = [{{ from = "target", name = "gap", property = "band_gap", unit = "eV", range = [0.0, 20.0] }}]
split = "gap_split"
[[tables]]
members = {{ all = "{values["member"]}" }}
input = "formula"
columns = [{{ from = "{values["column"]}", name = "energy", property = "energy_per_atom", unit = "eV/atom" }}]
[folds]
count = 3
seed = 7
sha256 = "{values["folds"]}"
"""
        )
        return str(path)

    return write


def build(recipe_path, tmp_path):
    return run(BuildConfig(recipe_path, str(tmp_path / "built")))


def test_tables_are_joined_cleaned_typed_and_folded(recipe, tmp_path):
    summary = build(recipe(), tmp_path)
    table = pq.read_table(summary["table"])
    assert table["formula"].to_pylist() == ["NaN", "Fe2O3", "GaN", "SiO2", "NaCl", "Cu"]
    assert table["gap"].to_pylist() == [1.0, 2.2, None, 9.0, None, None]
    assert table["gap_split"].to_pylist() == ["train", "train", "train", "test", None, None]
    assert table["energy"].to_pylist() == [None, -1.5, -1.0, None, -2.0, None]
    assert table.schema.field("gap").metadata == {b"unit": b"eV", b"property": b"band_gap"}
    folds = np.array([[label == "test" for label in table[f"fold_{k}"].to_pylist()] for k in range(3)])
    assert (folds.argmax(axis=0) == FOLD_OF_ROW).all()
    assert (folds.sum(axis=0) == 1).all()
    rejects = read_table(str(tmp_path / "built" / "rejects.csv")).columns
    assert list(zip(rejects["row"], rejects["column"], rejects["value"], strict=True)) == [
        ("2", "formula", "XxO"), ("3", "gap", "99"), ("6", "energy", "abc"),
    ]  # fmt: skip
    assert "outside the physical range 0 to 20 eV" in rejects["reason"][1]
    assert summary["rejected_values"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "expects 0000000000000000…; it was not used"),
        ({"member": "absent.csv"}, "has no member 'absent.csv'"),
        ({"column": "enthalpy"}, "has no column 'enthalpy'; its columns are 'formula', 'target'"),
        ({"rows": 7}, "has 6 rows but the recipe promises 7"),
        ({"folds": "0" * 64}, "the folds have digest"),
        ({"extra": "licence = 'MIT'"}, "unknown key licence; did you mean license?"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(recipe, tmp_path, changes, message):
    with pytest.raises(MatfmError) as caught:
        build(recipe(**changes), tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "built").exists()


def test_shipped_recipes_are_complete():
    assert {"matbench_expt_gap", "oqmd"} <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.citation
        assert recipe.license
        assert recipe.rows > 0
        if recipe.merge is None:
            assert len(recipe.source.sha256) == 64
            assert recipe.source.bytes > 1_000_000
        if recipe.columns():
            assert recipe.origin
    with pytest.raises(MatfmError, match="no recipe 'oqdm'; did you mean oqmd"):
        load_recipe("oqdm")


PACKAGE = Source("package", hashlib.sha256(b"content").hexdigest(), "somepackage", "1.0", "somepackage-1.0.whl")


def fake_pip(monkeypatch, content=None, stderr="", code=0):
    """Stand in for pip: writes the file, or fails with what pip prints."""

    def pip(command, **_):
        folder = command[command.index("--dest") + 1]
        if content is not None:
            with open(f"{folder}/{PACKAGE.file}", "wb") as file:
                file.write(content)
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(sources.subprocess, "run", pip)


def test_a_package_file_is_fetched_once_and_then_found_offline(monkeypatch, tmp_path):
    fake_pip(monkeypatch, b"content")
    path = sources.fetch(PACKAGE, tmp_path)
    assert path.read_bytes() == b"content"
    fake_pip(monkeypatch, None, code=1)
    assert sources.fetch(PACKAGE, tmp_path, offline=True) == path


@pytest.mark.parametrize(
    ("content", "stderr", "code", "message"),
    [
        (b"other", "", 0, "has sha256"),
        (None, "ERROR: Could not find a version\nERROR: No matching distribution found", 1, "No matching distribution"),
        (None, "/usr/bin/python: No module named pip", 1, "pip is missing"),
        (None, "OSError: [Errno 28] No space left on device", 1, "the disk is full"),
    ],
)
def test_a_failed_fetch_says_why_and_leaves_nothing(monkeypatch, tmp_path, content, stderr, code, message):
    fake_pip(monkeypatch, content, stderr, code)
    with pytest.raises(RunError, match=message):
        sources.fetch(PACKAGE, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_offline_without_the_file_says_what_to_do(tmp_path):
    with pytest.raises(MatfmError, match="is not in the cache .* --offline forbids"):
        sources.fetch(PACKAGE, tmp_path, offline=True)


def test_a_file_of_the_cache_that_was_altered_is_dropped(monkeypatch, tmp_path):
    fake_pip(monkeypatch, b"content")
    path = sources.fetch(PACKAGE, tmp_path)
    path.write_bytes(b"altered")
    with pytest.raises(RunError, match="it was not used"):
        sources.fetch(PACKAGE, tmp_path, offline=True)
    assert not path.exists()


def test_a_source_names_what_it_needs():
    with pytest.raises(MatfmError, match="source.version is missing"):
        Source("package", "0" * 64, name="x")
    with pytest.raises(MatfmError, match="source.kind is 'ftp'"):
        Source("ftp", "0" * 64)
