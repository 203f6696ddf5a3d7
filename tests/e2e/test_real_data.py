"""The shipped recipes on the real files, and the shipped weights on real formulas."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Composition
from sklearn.model_selection import KFold, StratifiedKFold

from matfm import CompositionTokenizer, MatBERTForMaskedLM, MatBERTForProperty, read_formula
from matfm.core.bundled import WEIGHTS
from matfm.tasks.data import BuildConfig, run
from matfm.tasks.recipes.recipe import load_recipe
from matfm.tasks.recipes.sources import default_cache, fetch, read_member_table
from matfm.tasks.tables import read_table

pytestmark = pytest.mark.network


def test_matbench_expt_gap_has_the_official_rows_and_folds(tmp_path):
    summary = run(BuildConfig("matbench_expt_gap", str(tmp_path)))
    table = pq.read_table(summary["table"]).to_pandas()
    assert (len(table), summary["rejected_values"]) == (4604, 0)
    assert (table["band_gap"] == 0).mean() == pytest.approx(0.53, abs=0.01)
    for fold, (_, test) in enumerate(KFold(5, shuffle=True, random_state=18012019).split(table)):
        assert (np.flatnonzero(table[f"fold_{fold}"] == "test") == test).all()
    for formula in table["formula"]:
        ours, theirs = read_formula(formula).fractions, Composition(formula).fractional_composition
        assert ours == pytest.approx(dict(theirs.get_el_amt_dict())), formula


SMALL_MATBENCH = {
    "steels": 312, "expt_is_metal": 4921, "glass": 5680, "jdft2d": 636, "phonons": 1265, "dielectric": 4764,
    "log_gvrh": 10987, "log_kvrh": 10987, "perovskites": 18928,
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL_MATBENCH)
def test_matbench_has_the_official_rows_values_and_folds(name, tmp_path):
    recipe = load_recipe(f"matbench_{name}")
    summary = run(BuildConfig(recipe.name, str(tmp_path)))
    table = pq.read_table(summary["table"]).to_pandas()
    assert (len(table), summary["rejected_values"]) == (SMALL_MATBENCH[name], 0)
    (member,) = recipe.tables[0].members.values()
    source = read_member_table(fetch(recipe.source, default_cache()), member).columns
    assert table["formula"].tolist() == source["formula"]
    (target,) = recipe.column_units()
    assert table[target].tolist() == [float(cell) for cell in source["target"]]
    splitter = StratifiedKFold if recipe.task() == "classification" else KFold
    folds = splitter(5, shuffle=True, random_state=18012019).split(table, table[target])
    for fold, (_, test) in enumerate(folds):
        assert (np.flatnonzero(table[f"fold_{fold}"] == "test") == test).all()


@pytest.mark.parametrize(("name", "rows", "test"), [("CHEMBL2034_Ki", 750, 152), ("CHEMBL2047_EC50", 631, 128)])
def test_moleculeace_has_its_split_and_cliffs(name, rows, test, tmp_path):
    recipe = load_recipe(f"moleculeace_{name}")
    table = pq.read_table(run(BuildConfig(recipe.name, str(tmp_path)))["table"]).to_pandas()
    (member,) = recipe.tables[0].members.values()
    source = read_member_table(fetch(recipe.source, default_cache()), member).columns
    assert (len(table), (table["split"] == "test").sum()) == (rows, test)
    assert table["smiles"].tolist() == source["smiles"]
    assert table["split"].tolist() == source["split"]
    assert table["cliff"].tolist() == source["cliff_mol"]
    (target,) = recipe.column_units()
    nanomolar = np.array([float(cell) for cell in source["exp_mean [nM]"]])
    assert table[target].to_numpy() == pytest.approx(9 - np.log10(nanomolar), abs=1e-6)


def test_dirty_values_of_aflow_and_of_the_materials_project_become_missing(tmp_path):
    summary = run(BuildConfig("aflow", str(tmp_path / "aflow")))
    assert (summary["rows"], summary["rejected_values"]) == (27690, 3)
    summary = run(BuildConfig("materials_project", str(tmp_path / "mp")))
    assert (summary["rows"], summary["rejected_values"]) == (56662, 378)
    table = pq.read_table(summary["table"])
    assert min(value for value in table["elastic_anisotropy"].to_pylist() if value is not None) >= 0
    assert len(read_table(str(tmp_path / "mp" / "rejects.csv")).columns["row"]) == 378


def test_element_descriptors_are_numbers_of_elements(tmp_path):
    table = pq.read_table(run(BuildConfig("elements_magpie", str(tmp_path)))["table"]).to_pandas().set_index("element")
    assert table.shape == (97, 22)
    assert table.loc["Fe", "Number"] == 26
    assert table.loc["F", "Electronegativity"] == pytest.approx(3.98)


def test_oqmd_is_joined_and_its_dirty_values_are_listed(tmp_path):
    summary = run(BuildConfig("oqmd", str(tmp_path), offline=False))
    table = pq.read_table(summary["table"])
    assert table.num_rows == 341_700
    missing = {
        name: table[name].null_count
        for name in ("formation_enthalpy", "band_gap", "energy_per_atom", "volume_per_atom")
    }
    assert missing == {"formation_enthalpy": 86, "band_gap": 92, "energy_per_atom": 8, "volume_per_atom": 0}
    rejects = read_table(str(tmp_path / "rejects.csv")).columns
    assert len(rejects["row"]) == 94
    assert {reason.partition(":")[0] for reason in rejects["reason"]} == {
        "outside the physical range -5 to 5 eV/atom", "outside the physical range -20 to 20 eV/atom",
    }  # fmt: skip


def test_shipped_weights_know_some_chemistry():
    tokenizer, model = (
        CompositionTokenizer.from_pretrained("matbert-small"),
        MatBERTForProperty.from_pretrained("matbert-small"),
    )
    batch = tokenizer(["NaCl", "MgO", "Fe", "Cu3Au"], padding=True, return_tensors="pt")
    enthalpy, gap, _, volume = model.eval()(**batch).logits.T[:4]  # OQMD's; AFLOW's follow
    assert enthalpy[0] < -1.5
    assert enthalpy[1] < -2.5
    assert gap[:2].min() > 3
    assert gap[2:].max() < 0.3
    assert 8 < volume[2] < 14


def test_shipped_weights_guess_masked_elements_better_than_chance():
    tokenizer, model = (
        CompositionTokenizer.from_pretrained("matbert-small"),
        MatBERTForMaskedLM.from_pretrained("matbert-small"),
    )
    batch = tokenizer(
        ["MgO", "Al2O3", "SiO2", "TiO2", "Fe2O3", "Cu2O", "Na2S", "GaAs", "InP", "LiF"],
        padding=True,
        return_tensors="pt",
    )
    answers = batch["input_ids"][:, 2].clone()
    batch["input_ids"][:, 2] = tokenizer.mask_token_id
    log_likelihood = model.eval()(**batch).logits[:, 2].log_softmax(dim=-1).gather(1, answers[:, None])
    assert log_likelihood.mean() > -math.log(118)


def test_shipped_weights_are_small_and_documented():
    for folder in WEIGHTS.glob("*/"):
        assert (folder / "model.safetensors").stat().st_size <= 10_000_000
        card = (folder / "card.md").read_text("utf-8")
        for needed in ("Licence", "Command", "Seed", "minutes", "Held-out"):
            assert needed in card, (folder.name, needed)
