"""Splits as `matfm finetune` makes them: on the rows that can be used, and again from a file."""

import json
from pathlib import Path

import numpy as np
import pytest

from matfm import MatfmError
from matfm.chem.composition_groups import chemical_system, composition_group
from matfm.chem.scaffold_splits import murcko_scaffold, read_molecule
from matfm.chem.split_file import load_split, save_split
from matfm.chem.splits import KINDS_OF
from matfm.tasks import splitting
from matfm.tasks.splitting import UsableRows, make_split, resumed_split, shared_rows
from matfm.tasks.tables import Chunk

DRUG_LIKE = Path(__file__).parents[1].joinpath("data", "drug_like.smi").read_text().split()
METALS, ANIONS = ("Li", "Na", "K", "Mg", "Ca", "Fe", "Zn", "Ti", "Al", "Ga"), ("O", "S", "Se", "N", "F")
FORMULAS = [f"{metal}{n}{anion}{m}" for metal in METALS for anion in ANIONS for n in (1, 2) for m in (1, 2)]
SHARES = (0.1, 0.2)


def usable(inputs, kind="composition", skip=(), classes=None, **columns):
    rows = np.array([row for row in range(len(inputs)) if row not in skip])
    values = np.arange(len(inputs), dtype=float)[rows, None]
    targets = values if classes is None else values % len(classes[0])
    return UsableRows(Chunk({"input": inputs, **columns}, 0), "t.csv", "input", kind, rows, targets, classes)


@pytest.fixture
def no_network(monkeypatch):
    """Element properties that need no file."""
    from matfm.chem.magpie import ElementTable

    values = np.random.default_rng(0).normal(size=(119, 3))
    monkeypatch.setattr(splitting, "magpie_table", lambda: ElementTable(("a", "b", "c"), values))


GROUP_OF = {"group": composition_group, "chemical-system": chemical_system}


@pytest.mark.parametrize("split", ["group", "chemical-system"])
def test_grouped_splits_of_compositions(split):
    rows = usable(FORMULAS, skip=(0, 7))
    parts, method = make_split(split, rows, SHARES, 0)
    assert method == {"split": split, "kind": "composition", "valid_share": 0.1, "test_share": 0.2, "seed": 0}
    part_of = {}
    for formula, part in zip(rows.inputs, parts, strict=True):
        assert part_of.setdefault(GROUP_OF[split](formula), part) == part
    assert abs((parts == "test").mean() - 0.2) < 0.05
    assert (parts == make_split(split, rows, SHARES, 0)[0]).all()
    assert (parts != make_split(split, rows, SHARES, 1)[0]).any()


@pytest.mark.usefixtures("no_network")
def test_seeds_hold_out_one_cluster_after_the_other():
    rows = usable(FORMULAS, skip=(3,))
    held_out = []
    for seed in range(4):
        parts, method = make_split("loco:4", rows, SHARES, seed)
        assert (method["held_out"], method["clusters"], method["test_share"]) == (seed, 4, None)
        held_out.append(np.flatnonzero(parts == "test"))
        assert 0 < (parts == "valid").sum() < len(parts) / 4
    assert np.sort(np.concatenate(held_out)).tolist() == list(range(199))
    assert (make_split("loco:4", rows, SHARES, 5)[0] == "test").nonzero()[0].tolist() == held_out[1].tolist()
    with pytest.raises(MatfmError, match="needs a whole number of clusters"):
        make_split("loco:2.5", rows, SHARES, 0)
    with pytest.raises(MatfmError, match="1 clusters cannot be made"):
        make_split("loco:1", rows, SHARES, 0)


@pytest.mark.parametrize(
    "split", ["random", "group", "stratified", "scaffold", "scaffold-balanced", "scaffold-random", "butina"]
)
def test_splits_of_molecules(split):
    parts, method = make_split(split, usable(DRUG_LIKE, "smiles"), SHARES, 1)
    assert (parts == make_split(split, usable(DRUG_LIKE, "smiles"), SHARES, 1)[0]).all()
    assert abs((parts == "train").mean() - 0.7) < 0.03
    assert abs((parts == "test").mean() - 0.2) < 0.03
    assert method["seed"] == (None if split in ("scaffold", "butina") else 1)
    if split.startswith("scaffold"):
        part_of = {}
        for text, part in zip(DRUG_LIKE, parts, strict=True):
            scaffold = murcko_scaffold(read_molecule(text, "smiles").molecule, chirality=split == "scaffold-random")
            assert part_of.setdefault(scaffold, part) == part


def test_other_spellings_of_a_molecule_stay_together():
    parts, _ = make_split("group", usable(["CCO", "OCC", "C(O)C", *DRUG_LIKE[:40]], "smiles"), (0.3, 0.3), 0)
    assert len(set(parts[:3])) == 1


def test_stratified_by_class_and_by_value():
    parts, _ = make_split("stratified", usable(FORMULAS, classes=(("a", "b"),)), SHARES, 0)
    assert [(parts[k::2] == "test").sum() for k in (0, 1)] == [20, 20]
    parts, _ = make_split("stratified", usable(FORMULAS), SHARES, 0)
    assert [(parts[k : k + 20] == "test").sum() for k in range(0, 200, 20)] == [4] * 10
    rows = usable(FORMULAS)
    two = UsableRows(rows.table, "t.csv", "input", "composition", rows.rows, np.zeros((200, 2)), None)
    with pytest.raises(MatfmError, match="takes one target"):
        make_split("stratified", two, SHARES, 0)


def test_domains():
    source = ["b", "a", " a ", "c"] * 50
    rows = usable(FORMULAS, source=source)
    for seed, domain in enumerate(("a", "b", "c", "a")):
        parts, method = make_split("domain:source", rows, SHARES, seed)
        assert method["held_out"] == domain
        assert (parts == "test").tolist() == [cell.strip() == domain for cell in source]
    parts, method = make_split("domain:source=c", rows, SHARES, 0)
    assert (method["held_out"], (parts == "test").sum()) == ("c", 50)
    with pytest.raises(MatfmError, match="holds no domain 'd'; it holds 'a', 'b', 'c'"):
        make_split("domain:source=d", rows, SHARES, 0)
    with pytest.raises(MatfmError, match=r"t.csv, row 5, column 'source': the domain is empty"):
        make_split("domain:source", usable(FORMULAS, source=[*source[:5], " ", *source[6:]]), SHARES, 0)
    make_split("domain:source", usable(FORMULAS, skip=(5,), source=[*source[:5], " ", *source[6:]]), SHARES, 0)


def test_a_column_is_named_with_the_row_of_the_table():
    rows = usable(FORMULAS[:4], skip=(0, 1), fold=["", "?", "train", "tests"])
    with pytest.raises(MatfmError, match="column 'fold', row 3: 'tests' is not a part"):
        make_split("column:fold", rows, SHARES, 0)
    with pytest.raises(MatfmError, match="leaves no training row among 2"):
        make_split("column:fold", usable(FORMULAS[:2], fold=["test", "valid"]), SHARES, 0)


def test_a_file_gives_the_same_split_again_and_leaves_its_unused_rows_out(tmp_path):
    rows = usable(FORMULAS, skip=(4,))
    parts, method = make_split("group", rows, SHARES, 2)
    whole = np.full(200, "-", dtype=object)
    whole[rows.rows] = parts
    saved = save_split(tmp_path / "s.json", FORMULAS, whole, method)
    loaded, told = make_split(f"file:{tmp_path / 's.json'}", usable(FORMULAS, skip=(9,)), SHARES, 7)
    assert loaded.tolist() == np.delete(whole, 9).tolist()
    assert told == {
        "split": f"file:{tmp_path / 's.json'}",
        "kind": "composition",
        "sha256": saved.sha256,
        "made_by": method,
    }
    assert resumed_split(tmp_path / "s.json", rows)[0].tolist() == parts.tolist()
    with pytest.raises(MatfmError, match="changed since the run began: row 9 can no longer be used"):
        resumed_split(tmp_path / "s.json", usable(FORMULAS, skip=(9,)))
    with pytest.raises(MatfmError, match="splits other inputs"):
        make_split(f"file:{tmp_path / 's.json'}", usable(FORMULAS[::-1]), SHARES, 0)
    json.dumps(load_split(tmp_path / "s.json", FORMULAS).method)


def test_every_split_has_a_method():
    assert splitting._METHODS.keys() == KINDS_OF.keys()


def test_shared_rows():
    parts = np.array(["train", "test", "test", "valid"], dtype=object)
    assert shared_rows(["Fe2O3", "Fe4O6", "NaCl", "NaCl"], parts, "composition") == {"same_reduced_formula": 0.5}
    assert shared_rows(["CCO", "OCC", "C", "C"], parts, "smiles") == {"same_canonical": 0.5}
    assert shared_rows(["Fe"], np.array(["train"], dtype=object), "composition") == {}
