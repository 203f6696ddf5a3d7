"""The leakage report on cases counted by hand, and its blocks against brute force."""

from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from matfm import MatfmError, parse_formula, parse_smiles, smiles_to_selfies
from matfm.chem import leakage
from matfm.chem.compositions import RaggedCompositions
from matfm.chem.leakage import element_counts, leakage_report, nearest_similarities, similarity_histogram

DRUG_LIKE = Path(__file__).parents[1].joinpath("data", "drug_like.smi").read_text().split()


def test_compositions_by_hand():
    train = ["Fe2O3", "NaCl", "XxO", "GaN"]
    test = ["Fe2O3", "Fe4O6", "FeO", "MgO", "", "Cu"]
    report = leakage_report(train, test)
    assert report.counts == {"identical": 1, "same_reduced_formula": 2, "same_chemical_system": 3}
    assert report.shares["same_reduced_formula"] == pytest.approx(2 / 5)
    assert (report.train_rows, report.test_rows, report.train_rows_compared) == (4, 6, 3)
    assert (report.train_unreadable, report.test_unreadable) == (1, 1)
    assert [(one.row, one.text) for one in report.train_unreadable_rows] == [(2, "XxO")]
    assert "empty" in report.test_unreadable_rows[0].reason
    # Nearest: 1 and 1 (Fe2O3), FeO 0.98 = (0.4 + 0.6) / √(0.52 · 2), MgO 0.59 = 0.6 / (√0.52 · √0.5) · 0.5, Cu 0.
    assert report.histogram == (1, 0, 0, 0, 0, 1, 0, 0, 0, 3)
    assert report.median == pytest.approx(0.5 / (0.52 * 0.5) ** 0.5, abs=1e-6)


def test_molecules_by_hand():
    train = ["OCC", "Cc1ccccc1", "C[C@H](N)C(=O)O", "c1ccccc1C1CC1"]
    test = ["OCC", "CCO", "COC", "Oc1ccccc1", "C[C@@H](N)C(=O)O", "CC(N)C(O)=O", "C1CCCCC1", "C1CC"]
    report = leakage_report(train, test, "smiles")
    assert report.counts == {
        "identical": 1,  # OCC
        "same_canonical": 2,  # OCC, CCO; not the other enantiomer
        "same_reduced_formula": 5,  # ethanol twice and its isomer, alanine twice
        "same_chemical_system": 7,  # these and phenol (C, H, O); cyclohexane has the elements of toluene
        "same_scaffold": 1,  # phenol has the ring of toluene; those without a ring do not count
    }
    assert report.test_unreadable == 1
    assert sum(report.histogram) == 7
    in_selfies = leakage_report(
        [smiles_to_selfies(t) for t in train], [smiles_to_selfies(t) for t in test[:-1]], "selfies"
    )
    assert in_selfies.counts == {**report.counts, "identical": in_selfies.counts["identical"]}
    assert in_selfies.histogram == report.histogram


def test_elements_of_a_molecule_are_those_of_its_formula():
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    for text in [*DRUG_LIKE, "[2H]OC", "C[N+](C)(C)C", "[Na+].[Cl-]"]:
        molecule = parse_smiles(text).molecule
        formula = CalcMolFormula(molecule).rstrip("+-")
        assert element_counts(molecule) == parse_formula(formula).amounts, text
    assert element_counts(parse_smiles("*").molecule) == {}


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_nearest_neighbours_in_blocks_equal_brute_force(block, monkeypatch, formulas):
    monkeypatch.setattr(leakage, "_BLOCK", block)
    train, test = DRUG_LIKE[::2], DRUG_LIKE[1::2]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    bits = {text: generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in DRUG_LIKE}
    brute = np.array([max(DataStructs.BulkTanimotoSimilarity(bits[t], [bits[s] for s in train])) for t in test])
    report = leakage_report(iter(train), test, "smiles")
    assert report.histogram == similarity_histogram(brute)
    assert report.median == np.median(brute)
    dense = RaggedCompositions.from_formulas(formulas).dense().astype(np.float64)
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    brute = (unit[10:] @ unit[:10].T).max(axis=1)
    assert nearest_similarities(unit[:10], unit[10:], "composition") == pytest.approx(brute, abs=1e-12)
    report = leakage_report(formulas[:10], formulas[10:])
    assert report.median == pytest.approx(np.median(brute), abs=1e-6)
    assert sum(report.histogram) == len(formulas) - 10


def test_a_sample_is_smaller_repeatable_and_said(formulas):
    train = formulas * 40
    one, again, other = (leakage_report(train, formulas, compare=0.02, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert 0 < one.train_rows_compared < 60
    assert one.train_rows == len(train)
    assert one.counts["identical"] == len(formulas)
    assert one.histogram != other.histogram
    none = leakage_report(train, formulas, compare=0.0)
    assert (none.median, sum(none.histogram)) == (None, 0)


def test_unreadable_rows_are_listed_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(leakage, "LISTED", 3)
    monkeypatch.setattr(leakage, "_BLOCK", 2)
    report = leakage_report(["Xx"] * 9 + ["Fe"], ["Fe", *["Yy"] * 5])
    assert (report.train_unreadable, report.test_unreadable) == (9, 5)
    assert [one.row for one in report.train_unreadable_rows] == [0, 1, 2]
    assert [one.row for one in report.test_unreadable_rows] == [1, 2, 3]
    assert leakage_report([], []).counts["identical"] == 0


def test_bins_include_their_lower_edge_and_the_last_one_is_closed():
    assert similarity_histogram(np.array([0.0, 0.1, 0.3, 0.7, 0.999999999, 1.0])) == (1, 1, 0, 1, 0, 0, 0, 1, 0, 2)


def test_wrong_calls():
    with pytest.raises(MatfmError, match="kind is 'molecule'; choose one of composition, smiles, selfies"):
        leakage_report([], [], "molecule")
    with pytest.raises(MatfmError, match="must be between 0 and 1"):
        leakage_report([], [], compare=1.5)
