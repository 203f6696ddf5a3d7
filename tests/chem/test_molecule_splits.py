"""Scaffold rules on cases that can be checked by hand; fingerprints and Butina clusters against slow twins."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from matfm import MatfmError, parse_smiles, smiles_to_selfies
from matfm.chem import fingerprints
from matfm.chem.fingerprints import butina_clusters, morgan_fingerprints, tanimoto
from matfm.chem.scaffold_splits import (
    balanced_split,
    largest_first_split,
    murcko_scaffold,
    random_order_split,
    read_molecule,
)

DRUG_LIKE = Path(__file__).parents[1].joinpath("data", "drug_like.smi").read_text().split()
BENZENES, ACYCLIC, PYRIDINES, RING = ["Cc1ccccc1", "Oc1ccccc1", "Nc1ccccc1C", "c1ccccc1"], ["C", "CCO", "NC=O"], ["c1ccncc1", "Cc1ccncc1"], ["C1CCCCC1"]  # fmt: skip
TEN = BENZENES + ACYCLIC + PYRIDINES + RING
SCAFFOLDS = [murcko_scaffold(parse_smiles(text).molecule) for text in TEN]
SHARES = (0.2, 0.2)


def parts_of_sets(parts):
    """Parts of the benzenes, the acyclic ones, the pyridines and cyclohexane; each set must be whole."""
    sets = [set(parts[:4]), set(parts[4:7]), set(parts[7:9]), set(parts[9:])]
    assert all(len(one) == 1 for one in sets)
    return tuple(one.pop() for one in sets)


def test_scaffolds():
    assert SCAFFOLDS == ["c1ccccc1"] * 4 + [""] * 3 + ["c1ccncc1"] * 2 + ["C1CCCCC1"]
    stereo = parse_smiles("C[C@H]1CC[C@@H](c2ccccc2)CC1").molecule
    assert "@" not in murcko_scaffold(stereo)
    assert murcko_scaffold(parse_smiles("O=C1CCCC1C").molecule) == "O=C1CCCC1"
    chiral, mirrored = (
        murcko_scaffold(parse_smiles(text).molecule, chirality=True)
        for text in ("O1C[C@H](c2ccccc2)CC1", "O1C[C@@H](c2ccccc2)CC1")
    )
    assert chiral != mirrored


def test_largest_first_fills_train_then_valid_then_test():
    # Limits: train 6, train and valid 8. 4 to train, 3 to valid (7 > 6, 7 ≤ 8), 2 to train (6), 1 to test (10 > 8).
    assert parts_of_sets(largest_first_split(SCAFFOLDS, SHARES)) == ("train", "valid", "train", "test")
    # Of sets of the same size the later goes first.
    assert largest_first_split(["a", "b", "c"], (1 / 3, 1 / 3)).tolist() == ["test", "valid", "train"]


def test_balanced_takes_large_sets_first_and_keeps_each_part_within_its_own_share():
    # Limits: train 6, valid 2; large is more than 1 row, so cyclohexane comes last.
    found = {parts_of_sets(balanced_split(SCAFFOLDS, SHARES, seed)) for seed in range(40)}
    assert found == {("train", "test", "train", "valid"), ("test", "train", "train", "train")}


def test_random_order_fills_valid_and_test_within_their_shares_and_trains_on_the_rest():
    # Limits: valid 2, test 2: the large sets never fit.
    found = {parts_of_sets(random_order_split(SCAFFOLDS, SHARES, seed)) for seed in range(40)}
    assert found == {("train", "train", "valid", "test"), ("train", "train", "test", "valid")}


@pytest.mark.parametrize("fill", [balanced_split, random_order_split, lambda g, s, _: largest_first_split(g, s)])
def test_real_scaffolds_stay_whole_and_shares_are_near(fill):
    scaffolds = [murcko_scaffold(parse_smiles(text).molecule) for text in DRUG_LIKE]
    parts = fill(scaffolds, (0.1, 0.1), 1)
    part_of = {}
    for group, part in zip(scaffolds, parts, strict=True):
        assert part_of.setdefault(group, part) == part
    assert abs((parts == "train").mean() - 0.8) < 0.03
    assert abs((parts == "valid").mean() - 0.1) < 0.03
    assert (parts == fill(scaffolds, (0.1, 0.1), 1)).all()
    if fill in (balanced_split, random_order_split):
        assert (parts != fill(scaffolds, (0.1, 0.1), 2)).any()


def test_selfies_are_read_as_the_same_molecule():
    for text in DRUG_LIKE[:20]:
        assert read_molecule(smiles_to_selfies(text), "selfies").canonical == read_molecule(text, "smiles").canonical
    with pytest.raises(MatfmError, match="not SELFIES"):
        read_molecule("CCO", "selfies")


def molecules(count):
    return [Chem.MolFromSmiles(text) for text in DRUG_LIKE[:count]]


def test_tanimoto_equals_rdkit():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    explicit = [generator.GetFingerprint(molecule) for molecule in molecules(60)]
    expected = [DataStructs.BulkTanimotoSimilarity(one, explicit) for one in explicit]
    packed = morgan_fingerprints(molecules(60))
    assert packed.shape == (60, 256)
    assert (tanimoto(packed, packed) == np.array(expected)).all()


def slow_butina(similarity, cutoff):
    """The molecule with most neighbours (the later one of equals) takes those that are left, and so on."""
    near = [
        {j for j in range(len(similarity)) if i != j and 1 - similarity[i][j] <= cutoff} for i in range(len(similarity))
    ]
    left, clusters = set(range(len(similarity))), []
    for centre in sorted(range(len(similarity)), key=lambda i: (len(near[i]), i), reverse=True):
        if centre in left:
            clusters.append({centre} | (near[centre] & left))
            left -= clusters[-1]
    return clusters


@pytest.mark.parametrize("cutoff", [0.3, 0.6, 0.8])
def test_butina_equals_brute_force_on_200_molecules(cutoff, monkeypatch):
    monkeypatch.setattr(fingerprints, "_BLOCK", 64)
    packed = morgan_fingerprints(molecules(200))
    cluster = butina_clusters(molecules(200), cutoff)
    expected = slow_butina(tanimoto(packed, packed), cutoff)
    assert [set(np.flatnonzero(cluster == number).tolist()) for number in range(cluster.max() + 1)] == expected


def test_butina_extremes_and_limits(monkeypatch):
    assert len(set(butina_clusters(molecules(30), 0.0).tolist())) == 30
    assert set(butina_clusters(molecules(30), 1.0).tolist()) == {0}
    assert butina_clusters(molecules(1)).tolist() == [0]
    sizes = [len(set(butina_clusters(molecules(60), cutoff).tolist())) for cutoff in (0.2, 0.5, 0.8)]
    assert all(finer >= coarser for finer, coarser in pairwise(sizes))
    with pytest.raises(MatfmError, match=r"takes at most 20,000 molecules; there are 20,001"):
        butina_clusters([None] * 20_001)
    with pytest.raises(MatfmError, match="cutoff is 1.5; it is a distance between 0 and 1"):
        butina_clusters(molecules(3), 1.5)
