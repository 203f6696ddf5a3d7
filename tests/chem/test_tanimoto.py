"""The count Tanimoto kernel against its definition."""

import numpy as np
import pytest

from matfm.chem import tanimoto as module
from matfm.chem.fingerprints import morgan_fingerprints, tanimoto
from matfm.chem.smiles import parse_smiles
from matfm.chem.tanimoto import atom_pair_counts, count_tanimoto, morgan_counts, torsion_counts

SMILES = ("CCO", "CCCO", "c1ccccc1O", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CCCCCCCCCC", "[Na+].[Cl-]", "C")


@pytest.fixture
def molecules():
    return [parse_smiles(text).molecule for text in SMILES]


def by_definition(left, right):
    smaller = np.minimum(left[:, None, :], right[None, :, :]).sum(axis=2)
    larger = np.maximum(left[:, None, :], right[None, :, :]).sum(axis=2)
    return np.where(larger > 0, smaller / np.maximum(larger, 1), 1.0)


@pytest.mark.parametrize("block", [2048, 3])
def test_equals_the_definition_whatever_the_blocks(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    generator = np.random.default_rng(0)
    left = generator.poisson(0.7, (9, 20)).astype(np.uint16)
    right = generator.poisson(0.4, (5, 20)).astype(np.uint16) * 3
    left[3], right[2] = 0, 0
    assert count_tanimoto(left, right) == pytest.approx(by_definition(left.astype(int), right.astype(int)), rel=1e-12)
    assert count_tanimoto(left[:0], right).shape == (0, 5)


def test_laws_of_a_kernel(molecules):
    counts = morgan_counts(molecules)
    kernel = count_tanimoto(counts, counts)
    assert kernel == pytest.approx(by_definition(counts.astype(int), counts.astype(int)), rel=1e-12)
    assert np.diagonal(kernel) == pytest.approx(1.0)
    assert (kernel == kernel.T).all()
    assert np.linalg.eigvalsh(kernel).min() > -1e-12


def test_equals_plain_tanimoto_on_bits(molecules):
    bits = np.minimum(morgan_counts(molecules, chiral=False), 1)
    packed = morgan_fingerprints(molecules)
    assert count_tanimoto(bits, bits) == pytest.approx(tanimoto(packed, packed))


def test_counts_know_chain_length_and_stereo(molecules):
    counts = morgan_counts(molecules)
    assert counts.max() > 1
    assert (counts[3] != counts[4]).any()
    flat = morgan_counts(molecules, chiral=False)
    assert (flat[3] == flat[4]).all()


def test_pairs_and_torsions_are_counted(molecules):
    heavy = np.array([molecule.GetNumAtoms() for molecule in molecules])
    pairs = atom_pair_counts(molecules)
    connected = np.arange(len(SMILES)) != 6
    assert (pairs.sum(axis=1)[connected] == (heavy * (heavy - 1) // 2)[connected]).all()
    torsions = torsion_counts(molecules)
    assert torsions.sum(axis=1)[5] == 7
    assert (torsions[7] == 0).all()
    assert count_tanimoto(torsions[7:], torsions[7:]) == 1.0
