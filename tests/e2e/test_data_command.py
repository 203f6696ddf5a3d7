"""`matfm data list | show | build | check | init | audit` as commands."""

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from matfm import MatfmError
from matfm.cli import app

CSV = "Material,note,band gap (eV),hardness,metal,set\nFe2O3,a,2.2,3,0,train\nGaN,b,3.4,,0,test\nXx,c,1,2,1,train\nCu,d,0,1.5,1,train\n"


def call(*arguments):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1]), result.stdout


def test_list_shows_every_recipe():
    summary, shown = call("list")
    assert {"matbench_glass", "moleculeace_CHEMBL204_Ki", "moses", "composition_corpus"} <= set(summary["recipes"])
    assert sum(name.startswith("matbench_") for name in summary["recipes"]) == 13
    assert sum(name.startswith("moleculeace_") for name in summary["recipes"]) == 30
    for word in ("name", "rows", "task", "unit", "licence", "size", "citation", "416,225", "classification"):
        assert word in shown
    entries, shown = call("list", "--json")
    assert len(shown.splitlines()) == 1
    (gap,) = (entry for entry in entries["recipes"] if entry["name"] == "matbench_mp_gap")
    assert (gap["rows"], gap["units"], gap["kind"]) == (106113, {"band_gap": "eV"}, "composition")
    assert all(entry["citation"] and entry["license"] and entry["bytes"] for entry in entries["recipes"])


def test_row_counts_are_those_published():
    rows = {entry["name"]: entry["rows"] for entry in call("list", "--json")[0]["recipes"]}
    matbench = {
        "steels": 312, "expt_gap": 4604, "expt_is_metal": 4921, "glass": 5680, "jdft2d": 636, "phonons": 1265,
        "dielectric": 4764, "log_gvrh": 10987, "log_kvrh": 10987, "perovskites": 18928, "mp_gap": 106113,
        "mp_e_form": 132752, "mp_is_metal": 106113,
    }  # fmt: skip
    assert {f"matbench_{name}": count for name, count in matbench.items()}.items() <= rows.items()
    assert (rows["oqmd"], rows["composition_corpus"]) == (341700, 416225)
    assert rows["moses"] == 1584663 + 176074 + 176225
    assert sum(count for name, count in rows.items() if name.startswith("moleculeace_")) == 48714


def test_show_is_a_datasheet():
    summary, shown = call("show", "matbench_glass")
    assert summary["rows"] == 5680
    for word in ("Licence: MIT", "StratifiedKFold on `glass_forming`", "random_state 18012019", "Cite: Dunn"):
        assert word in shown
    assert "Made of: `moses` (train)" in call("show", "molecule_corpus")[1]


def test_build_of_one_several_and_again(small_recipes, tmp_path):
    one, _ = call("build", "bench", "--out", tmp_path / "one")
    assert (one["rows"], one["built"]) == (6, True)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "bench.parquet", "rejects.csv", "datasheet.md", "summary.json",
    }  # fmt: skip
    several, _ = call("build", "*_like", "flat", "--out", tmp_path / "several")
    assert (several["recipes"], several["built"], several["rows"]) == (["mp_like", "oqmd_like", "flat"], 3, 14)
    again, _ = call("build", "*_like", "flat", "bench", "--out", tmp_path / "several")
    assert (again["already_built"], again["built"]) == (3, 1)
    assert pq.read_table(tmp_path / "several" / "flat" / "flat.parquet").num_rows == 5
    sheet = (tmp_path / "one" / "datasheet.md").read_text()
    assert "| gap | eV | 6 | 0 | 1.81667 | 5.1 |" in sheet
    with pytest.raises(MatfmError, match="there is no recipe 'moss_\\*'"):
        call("build", "moss_*", "--out", tmp_path / "none")


def test_exclude_and_audit(small_recipes, tmp_path):
    summary, _ = call("build", "oqmd_like", "--exclude", "bench", "--out", tmp_path / "held")
    assert (summary["rows"], summary["rows_excluded"], summary["excluded"]) == (3, 2, {"bench": 2})
    table = tmp_path / "held" / "oqmd_like.parquet"
    summary, shown = call("audit", "--pretrain", table, "--pretrain", "mp_like:", "--evaluate", "bench")
    assert [entry["identical"] for entry in summary["pairs"]] == [0, 1, 1]
    assert "| oqmd_like | bench | gap (band_gap) | 6 | 0.0% | 0.0% | 0.0% |" in shown


def test_a_table_becomes_a_recipe_that_is_checked_and_built(tmp_path):
    table, recipe = tmp_path / "my gaps.csv", tmp_path / "my gaps.toml"
    table.write_text(CSV)
    summary, _ = call("init", table)
    assert summary == {
        "task": "data init", "recipe": str(recipe), "input": "Material", "kind": "composition",
        "targets": ["band gap (eV)", "hardness", "metal"], "split": "set", "columns_left_out": ["note"], "rows": 3,
        "rows_unreadable": 1,
        "to_fill": ["title", "license", "citation", "unit of hardness"],
    }  # fmt: skip
    assert '# Left out, for they hold no numbers: "note"' in recipe.read_text()
    result = CliRunner().invoke(app, ["data", "check", str(recipe)])
    assert isinstance(result.exception, MatfmError)
    assert result.exception.exit_code == 2
    lacking = json.loads(result.stdout.splitlines()[-1])["lacking"]
    assert [sentence.split(":")[0] for sentence in lacking] == [
        "title is empty", "license is empty", "citation is empty", "the unit of column 'hardness' is empty",
    ]  # fmt: skip
    filled = recipe.read_text()
    for key, value in (("title", '"Gaps"'), ("license", '"CC0"'), ("citation", '["Me"]')):
        filled = filled.replace(f'{key} = ""', f"{key} = {value}").replace(f"{key} = []", f"{key} = {value}")
    recipe.write_text(filled.replace('property = "hardness", unit = ""', 'property = "hardness", unit = "GPa"'))
    assert call("check", recipe)[0]["complete"]
    built, _ = call("build", recipe, "--out", tmp_path / "built")
    columns = pq.read_table(built["table"]).to_pydict()
    assert columns["formula"] == ["Fe2O3", "GaN", "Cu"]
    assert columns["band_gap"] == [2.2, 3.4, 0.0]
    assert columns["hardness"] == [3.0, None, 1.5]
    assert columns["split"] == ["train", "test", "train"]
    with pytest.raises(MatfmError, match="is there already"):
        call("init", table)
    table.write_text(CSV + "ZnO,e,3.3,1,0,train\n")
    with pytest.raises(MatfmError, match="is not complete: 1 thing"):
        call("check", recipe)


def test_init_finds_smiles_and_says_what_it_cannot_find(tmp_path):
    table = tmp_path / "m.tsv"
    table.write_text("id\tsmiles\tlogD\nC1\tCCO\t1.2\nC2\tCCCCO\t2.2\n")
    summary, _ = call("init", table, "--out", tmp_path / "deep.toml")
    assert (summary["input"], summary["kind"], summary["targets"]) == ("smiles", "smiles", ["logD"])
    assert 'unit = "log10(ratio)"' in (tmp_path / "deep.toml").read_text()
    for text, message in (
        ("a,b\nhello there,1\n", "no column of formulas or SMILES"), ("formula,b\nFeO,x\n", "no column of numbers"),
        ("formula,b\n", "has no rows"),
    ):  # fmt: skip
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(MatfmError, match=message):
            call("init", tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title = ", "titel = "), "title is missing: write one line"),
        (("[source]", "[quelle]"), "[source] is missing: write where the file comes from"),
        (('property = "band_gap"', 'property = "bandgap_x"'), "complete"),
        (('unit = "eV"', 'unit = "K"'), "the unit 'K' of column 'gap' has no known relation to 'eV'"),
        (("rows = 5", "rows = 6"), "has 5 rows but the recipe promises 6"),
        (('from = "gap"', 'from = "energy"'), "has no column 'energy'"),
        (('sha256 = "', 'sha256 = "0'), "it is 64 digits 0-9 and a-f"),
        (('sha256 = "', f'sha256 = "{"0" * 64}" # "'), "but the recipe expects"),
        (('name = "oqmd_like"', 'name = "a/b"'), "name is 'a/b': it becomes a file name"),
    ],
)  # fmt: skip
def test_check_names_each_missing_thing(small_recipes, change, message):
    path = small_recipes / "mine.toml"
    path.write_text((small_recipes / "oqmd_like.toml").read_text().replace(*change))
    result = CliRunner().invoke(app, ["data", "check", str(path)])
    assert message in result.stdout


def test_extends_lays_a_recipe_over_another(small_recipes):
    from matfm.tasks.recipes.recipe import load_recipe

    (small_recipes / "child.toml").write_text('extends = "bench.toml"\nname = "child"\n[folds]\ncount = 4\n')
    child, bench = load_recipe("child"), load_recipe("bench")
    assert (child.folds.count, child.folds.seed, child.rows, child.source) == (4, 7, 6, bench.source)
    assert child.digest() != bench.digest()
    (small_recipes / "orphan.toml").write_text('extends = "nowhere.toml"\nname = "orphan"\n')
    with pytest.raises(MatfmError, match="extends 'nowhere.toml', which is not a file beside it"):
        load_recipe("orphan")
