"""Spellings, units, descriptors and fingerprints of molecules: right, computed once, and put together again."""

from pathlib import Path

import numpy as np
import pytest

from matfm import MatfmError, parse_smiles, selfies_to_smiles
from matfm.chem.molecule_units import molecule_units
from matfm.tasks.pretraining import molecule_targets
from matfm.tasks.pretraining.molecule_targets import MoleculePlan, Winsor, describe_molecules, descriptor_names

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()
CELLS = [*SMILES[:60], "C1CC", "", "OCC", "CCO"]
NAMES = ("MolWt", "TPSA", "Ipc")
PLAN = MoleculePlan("smiles", False, 2, "ring", NAMES, 256, 7)


def test_rows_and_reasons(tmp_path):
    found = describe_molecules(CELLS, PLAN, tmp_path, workers=1)
    assert sorted(found.errors) == [60, 61]
    assert "ring" in found.errors[60]
    assert found.rows.tolist() == [*range(60), 62, 63]
    assert found.key_R[-1] == found.key_R[-2]  # ethanol, written in two ways
    assert len(np.unique(found.key_R)) == len({parse_smiles(CELLS[row]).canonical for row in found.rows})


def test_all_spellings_are_the_same_molecule_and_most_differ(tmp_path):
    found = describe_molecules(CELLS, PLAN, tmp_path, workers=1)
    assert len(found.texts) == 3 * len(found.rows)
    for position, row in enumerate(found.rows.tolist()):
        spelled = found.texts[3 * position : 3 * position + 3]
        canonical = parse_smiles(CELLS[row]).canonical
        assert spelled[0] == canonical
        assert {parse_smiles(text).canonical for text in spelled} == {canonical}
    assert len(set(found.texts)) > 2.5 * len(found.rows)
    # The spellings depend on seed and molecule, not on the place in the table.
    turned = describe_molecules(CELLS[::-1], PLAN, tmp_path / "turned", workers=1)
    assert sorted(turned.texts) == sorted(found.texts)


@pytest.mark.parametrize("from_smiles", [True, False])
def test_selfies_decode_to_the_molecule(tmp_path, from_smiles):
    given = describe_molecules(SMILES[:20], MoleculePlan("selfies", True, 0, "", (), 0, 0), tmp_path / "a").texts
    cells = SMILES[:20] if from_smiles else given
    found = describe_molecules(cells, MoleculePlan("selfies", from_smiles, 2, "", (), 0, 0), tmp_path / "b")
    assert found.texts[::3] == given
    for position, smiles in enumerate(SMILES[:20]):
        spelled = {parse_smiles(selfies_to_smiles(text)).canonical for text in found.texts[3 * position :][:3]}
        assert spelled == {parse_smiles(smiles).canonical}


def test_descriptors_fingerprints_and_units_are_those_of_rdkit(tmp_path):
    from rdkit.Chem import Descriptors, rdFingerprintGenerator

    found = describe_molecules(CELLS, PLAN, tmp_path, workers=1)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=256)
    for position in (0, 17, 59):
        molecule = parse_smiles(CELLS[position]).molecule
        expected = [getattr(Descriptors, name)(molecule) for name in NAMES]
        np.testing.assert_allclose(found.descriptors_RD[position], expected, rtol=1e-6)
        bits = np.unpackbits(found.fingerprints_RW[position])
        assert np.flatnonzero(bits).tolist() == list(generator.GetFingerprint(molecule).GetOnBits())
        for way in range(3):
            sequence = 3 * position + way
            assert found.units.of(sequence) == molecule_units(found.texts[sequence], "ring")


def same(left, right):
    assert left.texts == right.texts
    assert left.errors == right.errors
    np.testing.assert_array_equal(left.rows, right.rows)
    np.testing.assert_array_equal(left.descriptors_RD, right.descriptors_RD)
    np.testing.assert_array_equal(left.fingerprints_RW, right.fingerprints_RW)
    np.testing.assert_array_equal(left.units.values, right.units.values)


def test_results_are_computed_once_and_only_what_is_missing_again(tmp_path, monkeypatch):
    monkeypatch.setattr(molecule_targets, "CHUNK_ROWS", 16)
    first = describe_molecules(CELLS, PLAN, tmp_path, workers=1)
    assert len(list(tmp_path.glob("*.npz"))) == 4
    computed = []
    original = molecule_targets._describe

    def counting(cells, plan):
        computed.append(cells)
        return original(cells, plan)

    monkeypatch.setattr(molecule_targets, "_describe", counting)
    same(describe_molecules(CELLS, PLAN, tmp_path, workers=1), first)
    assert computed == []
    (tmp_path / "000000032.npz").unlink()
    same(describe_molecules(CELLS, PLAN, tmp_path, workers=1), first)
    assert computed == [CELLS[32:48]]
    describe_molecules([*CELLS[:-1], "CCC"], PLAN, tmp_path, workers=1)  # another table: everything anew
    assert len(computed) == 5


def test_several_processes_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(molecule_targets, "CHUNK_ROWS", 24)
    same(describe_molecules(CELLS, PLAN, tmp_path / "two", 2), describe_molecules(CELLS, PLAN, tmp_path / "one", 1))


def test_names_of_descriptors_are_checked():
    assert len(descriptor_names("rdkit")) > 200
    assert descriptor_names(["TPSA", "MolWt", "TPSA"]) == ("TPSA", "MolWt")
    with pytest.raises(MatfmError, match="RDKit has no descriptor 'Weight'"):
        descriptor_names(["Weight"])


def test_outliers_are_cut_rare_groups_stay_and_constants_go():
    generator = np.random.default_rng(0)
    normal = generator.normal(5, 2, 5000)
    monstrous = 10 ** generator.normal(3, 1, 5000)
    monstrous[:3] = 1e28
    rare = (np.arange(5000) % 1000 == 0).astype(float)
    gaps = np.where(np.arange(5000) % 2, np.nan, normal)
    empty = np.full(5000, np.nan)
    values = np.stack([normal, np.full(5000, 3.3), monstrous, rare, gaps, empty], axis=1).astype(np.float32)
    winsor = Winsor.fit(values)
    assert winsor.kept.tolist() == [0, 2, 3, 4]
    cut = winsor.apply(values)
    np.testing.assert_array_equal(cut[:, 0], values[:, 0])  # a normal sample has nothing to cut
    assert np.array_equal(np.isnan(cut[:, 3]), np.isnan(gaps))
    scaled = (cut - np.nanmean(cut, axis=0)) / np.nanstd(cut, axis=0)
    assert np.nanmax(np.abs(scaled[:, [0, 1, 3]])) < 30
    assert cut[0, 1] < 1e7  # three broken values do not flatten the others
    assert np.corrcoef(cut[3:, 1], values[3:, 2])[0, 1] > 0.5
    assert set(np.unique(cut[:, 2])) > {0.0}
    held_out = winsor.apply(np.full((1, 6), 1e29, np.float32))
    np.testing.assert_array_equal(held_out[0], winsor.high_D)
