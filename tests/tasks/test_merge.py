"""Merged corpora: each substance once, sources and labels kept, test molecules left out."""

import hashlib
import re

import pyarrow.parquet as pq
import pytest

from matfm import MatfmError
from matfm.tasks.data import BuildConfig, run


def build(name, out, **more):
    summary = run(BuildConfig(name, str(out / name), **more))
    return summary, pq.read_table(summary["table"])


def test_compositions_are_there_once_with_their_sources_and_labels(small_recipes, tmp_path):
    summary, table = build("all_formulas", tmp_path)
    rows = dict(zip(table["formula"].to_pylist(), table["sources"].to_pylist(), strict=True))
    assert rows == {
        "Fe2O3": "oqmd_like,mp_like", "ClNa": "oqmd_like,bench", "GaN": "oqmd_like,mp_like", "MgO": "oqmd_like",
        "Fe0.5O0.5": "oqmd_like", "OZn": "mp_like,bench", "Te": "mp_like", "AlN": "bench", "FeO": "bench", "Cu": "bench",
        "MgO2": "bench",
    }  # fmt: skip
    assert table["oqmd_like_gap"].to_pylist()[:5] == [0.5, 5.0, 1.7, 4.5, 0.0]
    assert table["oqmd_like_gap"].null_count == len(rows) - 5
    assert table.schema.field("oqmd_like_gap").metadata == {
        b"unit": b"eV",
        b"property": b"band_gap",
        b"origin": b"oqmd",
    }
    assert (summary["rows_read"], summary["rows_repeated"]) == (15, 4)


@pytest.mark.parametrize(("reduce", "value"), [("first", 3.0), ("mean", 2.0), ("min", 1.0)])
def test_several_labels_of_one_composition_become_one(small_recipes, tmp_path, reduce, value):
    (small_recipes / "reduced.toml").write_text(
        (small_recipes / "all_formulas.toml").read_text().partition("[merge]")[0].replace("rows = 11", "rows = 2")
        + f'[merge]\nparts = [{{ recipe = "twice", labels = ["gap"], reduce = "{reduce}" }}]\n'
    )
    table = pq.read_table(run(BuildConfig(str(small_recipes / "reduced.toml"), str(tmp_path / "out")))["table"])
    assert table.to_pydict() == {
        "formula": ["Fe2O3", "GaN"], "sources": ["twice", "twice"], "twice_gap": [value, None],
    }  # fmt: skip


def test_molecules_are_compared_by_canonical_smiles_and_test_molecules_are_left_out(small_recipes, tmp_path):
    summary, table = build("all_molecules", tmp_path)
    rows = dict(zip(table["smiles"].to_pylist(), table["sources"].to_pylist(), strict=True))
    assert rows == {
        "CCO": "flat,potency", "Oc1ccccc1": "flat,potency", "OCCO": "flat", "Cl/C=C/Cl": "potency",
    }  # fmt: skip
    assert (summary["rows_left_out"], summary["rows_repeated"]) == (1, 2)


def test_what_is_left_out_is_left_out_in_fractions_too(small_recipes, tmp_path):
    path = small_recipes / "held.toml"
    start = (small_recipes / "all_formulas.toml").read_text().partition("[merge]")[0]
    path.write_text(
        f"{start.replace('rows = 11', 'rows = 3')}[merge]\n"
        'parts = [{ recipe = "oqmd_like" }]\nwithout = [{ recipe = "bench" }]\n'
    )  # bench has NaCl, and FeO, which is Fe0.5O0.5 in oqmd_like
    table = pq.read_table(run(BuildConfig(str(path), str(tmp_path / "out")))["table"])
    assert table["formula"].to_pylist() == ["Fe2O3", "GaN", "MgO"]
    path.write_text(
        f"{start.replace('rows = 11', 'rows = 4')}[merge]\n"
        'parts = [{ recipe = "bench" }]\nwithout = [{ recipe = "oqmd_like" }]\n'
    )
    table = pq.read_table(run(BuildConfig(str(path), str(tmp_path / "other")))["table"])
    assert table["formula"].to_pylist() == ["OZn", "AlN", "Cu", "MgO2"]


def test_what_cannot_be_read_in_a_part_left_out_is_a_reject(small_recipes, tmp_path):
    cells = "s,part\nC1CC,test\nOCC,test\n"
    (small_recipes / "potency.csv").write_text(cells)
    digest = hashlib.sha256(cells.encode()).hexdigest()
    written = (small_recipes / "flat.toml").read_text().replace("flat", "potency").replace("rows = 5", "rows = 2")
    written = re.sub('sha256 = "[0-9a-f]+"', f'sha256 = "{digest}"', written).replace('inputs = "canonical"', "")
    (small_recipes / "potency.toml").write_text(written)
    path = small_recipes / "all_molecules.toml"
    path.write_text(
        path.read_text().partition("[merge]")[0]
        + '[merge]\nparts = [{ recipe = "flat" }]\nwithout = [{ recipe = "potency" }]\n'
    )
    summary, table = build("all_molecules", tmp_path)
    assert (table.num_rows, summary["rows_left_out"], summary["rejected_values"]) == (4, 1, 1)
    reject = (tmp_path / "all_molecules" / "rejects.csv").read_text().splitlines()[1]
    assert reject.startswith("0,potency.smiles,C1CC,")
    assert "in a part left out" in reject


def test_labels_of_other_splits_are_not_carried_over(small_recipes, tmp_path):
    cells = "s,y,part\nCCO,-3,train\nCCO,-1,test\nCCN,-1,train\n"
    (small_recipes / "potency.csv").write_text(cells)
    written = (small_recipes / "potency.toml").read_text().replace("rows = 5", "rows = 3")
    digest = hashlib.sha256(cells.encode()).hexdigest()
    (small_recipes / "potency.toml").write_text(re.sub('sha256 = "[0-9a-f]+"', f'sha256 = "{digest}"', written))
    path = small_recipes / "all_molecules.toml"
    path.write_text(
        path.read_text().partition("[merge]")[0].replace("rows = 4", "rows = 2")
        + '[merge]\nparts = [{ recipe = "potency", split = ["train"], labels = ["pki"], reduce = "mean" }]\n'
    )
    _, table = build("all_molecules", tmp_path)
    assert table["potency_pki"].to_pylist() == [6.0, 8.0]


def test_a_label_or_split_that_a_part_has_not_is_named(small_recipes, tmp_path):
    path = small_recipes / "all_formulas.toml"
    written = path.read_text()
    path.write_text(written.replace('labels = ["gap"]', 'labels = ["energy"]'))
    with pytest.raises(MatfmError, match="oqmd_like has no target 'energy'; it has gap"):
        build("all_formulas", tmp_path)
    path.write_text(written.replace('labels = ["gap"]', 'split = ["train"]'))
    with pytest.raises(MatfmError, match="oqmd_like has 0 split columns"):
        build("all_formulas", tmp_path)
    path.write_text(written.replace('labels = ["gap"]', 'reduce = "median"'))
    with pytest.raises(MatfmError, match="reduce of part 'oqmd_like' is 'median'; choose one of first, mean, min"):
        build("all_formulas", tmp_path)
    assert not (tmp_path / "all_formulas").exists()


def test_exclude_drops_what_an_evaluation_set_tests_on_and_counts_it(small_recipes, tmp_path):
    summary, table = build("all_formulas", tmp_path, exclude=("bench",))
    assert table["formula"].to_pylist() == ["Fe2O3", "GaN", "MgO", "Te"]
    assert summary["rows_excluded"] == 7
    assert summary["excluded"] == {"bench": 7}  # FeO also as Fe0.5O0.5
    summary, table = build("flat", tmp_path, exclude=("potency",))  # ethanoic acid and ethylamine are test rows
    assert table["smiles"].to_pylist() == ["CCO", "c1ccccc1O", "OCCO"]
    assert "2 equal to rows of potency" in (tmp_path / "flat" / "datasheet.md").read_text()
    with pytest.raises(MatfmError, match="--exclude potency: it holds smiles inputs and bench composition"):
        build("bench", tmp_path, exclude=("potency",))


def test_exclude_takes_tables_and_patterns(small_recipes, tmp_path):
    table = tmp_path / "held.parquet"
    pq.write_table(build("mp_like", tmp_path)[1], table)
    summary, built = build("oqmd_like", tmp_path, exclude=(str(table), "ben*"))
    assert built["formula"].to_pylist() == ["MgO"]
    assert summary["excluded"] == {"held": 2, "bench": 2}


def test_what_is_built_is_not_built_again_until_something_changes(small_recipes, tmp_path):
    out = tmp_path / "all_formulas"
    assert build("all_formulas", tmp_path)[0]["built"]
    before = (out / "all_formulas.parquet").stat().st_mtime_ns
    assert not build("all_formulas", tmp_path)[0]["built"]
    assert (out / "all_formulas.parquet").stat().st_mtime_ns == before
    part = small_recipes / "mp_like.toml"
    part.write_text(part.read_text().replace('version = "1"', 'version = "2"'))
    assert build("all_formulas", tmp_path)[0]["built"], "a part changed"
    assert build("all_formulas", tmp_path, exclude=("bench",))[0]["built"], "other rows are asked for"
    with (out / "all_formulas.parquet").open("ab") as table:
        table.write(b"x")
    assert build("all_formulas", tmp_path, exclude=("bench",))[0]["built"], "the table was changed"


def test_tables_that_are_joined_need_every_input_once(small_recipes, tmp_path):
    path = small_recipes / "flat.toml"
    table = '[[tables]]\nmembers = { all = "flat.csv", more = "flat.csv" }\ninput = "s"\n'
    path.write_text(path.read_text() + table)
    with pytest.raises(MatfmError, match=r"flat: 'CCO' is twice in flat.csv, flat.csv"):
        build("flat", tmp_path)


def test_a_share_of_a_part_is_the_same_rows_every_time(small_recipes, tmp_path):
    start = (small_recipes / "all_formulas.toml").read_text().partition("[merge]")[0]
    texts = ["Fe2O3", "NaCl", "GaN", "MgO", "Fe0.5O0.5"]
    small = [t for t in texts if int.from_bytes(hashlib.sha256(t.encode()).digest()[:8], "big") / 2**64 < 0.6]
    assert 0 < len(small) < len(texts)
    path = small_recipes / "some.toml"
    path.write_text(
        start.replace("rows = 11", f"rows = {len(small)}")
        + '[merge]\nparts = [{ recipe = "oqmd_like", share = 0.6, labels = ["gap"] }]\n'
    )
    table = pq.read_table(run(BuildConfig(str(path), str(tmp_path / "out")))["table"])
    assert table.num_rows == table["oqmd_like_gap"].length() - table["oqmd_like_gap"].null_count == len(small)
    path.write_text(path.read_text().replace("0.6", "1.5"))
    with pytest.raises(MatfmError, match=r"share of part 'oqmd_like' is 1\.5; it must be above 0 and at most 1"):
        run(BuildConfig(str(path), str(tmp_path / "again")))


def test_a_part_may_be_limited_to_balanced_compositions(small_recipes, tmp_path):
    start = (small_recipes / "all_formulas.toml").read_text().partition("[merge]")[0]
    path = small_recipes / "possible.toml"
    path.write_text(
        start.replace("rows = 11", "rows = 2") + '[merge]\nparts = [{ recipe = "imagined", balanced = true }]\n'
    )
    table = pq.read_table(run(BuildConfig(str(path), str(tmp_path / "out")))["table"])
    assert table["formula"].to_pylist() == ["ClNa", "CrFe"], "NaCl3 has no neutral charges; metals are an alloy"
    path.write_text(path.read_text().replace('kind = "composition"', 'kind = "smiles"'))
    with pytest.raises(MatfmError, match="balanced is for parts with compositions, but kind is 'smiles'"):
        run(BuildConfig(str(path), str(tmp_path / "again")))
