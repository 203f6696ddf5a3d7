"""MOSES' metrics against the definitions: the formulas written out, RDKit's own functions, scipy's distances."""

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, rdFingerprintGenerator
from scipy.spatial.distance import cosine
from scipy.stats import wasserstein_distance

from matfm.chem import moses_metrics
from matfm.chem.moses_metrics import (
    MosesFilters,
    cosine_similarity,
    fragments,
    internal_diversity,
    moses_fingerprints,
    nearest_similarity,
    scaffolds,
    wasserstein,
)
from matfm.chem.synthetic_accessibility import synthetic_accessibility

SMILES = (
    "CC(=O)Nc1ccc(O)cc1 CCN(CC)C(=O)c1cccnc1 O=C(NCc1ccco1)C1CCCCC1 Cc1nc2ccccc2n1CC(=O)N1CCOCC1 c1ccccc1 CCO "
    "COc1ccc(CNC(=O)c2cc3ccccc3o2)cc1 CS(=O)(=O)N1CCC(c2ccccc2)CC1 O=C1CCCN1CC#CCN1CCCC1"
).split()


@pytest.fixture(scope="module")
def molecules():
    return [Chem.MolFromSmiles(text) for text in SMILES]


@pytest.fixture(scope="module")
def similarity(molecules):
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    bits = [generator.GetFingerprint(molecule) for molecule in molecules]
    return np.array([DataStructs.BulkTanimotoSimilarity(one, bits) for one in bits])


@pytest.mark.parametrize("block", [2, 4096])
def test_similarities_by_their_formulas(molecules, similarity, monkeypatch, block):
    monkeypatch.setattr(moses_metrics, "_BLOCK", block)
    packed = moses_fingerprints(molecules)
    assert nearest_similarity(packed[:4], packed[4:]) == pytest.approx(similarity[:4, 4:].max(axis=0).mean())
    assert internal_diversity(packed) == pytest.approx(1 - similarity.mean())
    expected = 1 - np.sqrt(np.square(similarity).mean(axis=0)).mean()
    assert internal_diversity(packed, power=2) == pytest.approx(expected)


def test_fragments_and_scaffolds(molecules):
    expected = {}
    for molecule in molecules:
        for text in Chem.MolToSmiles(AllChem.FragmentOnBRICSBonds(molecule)).split("."):
            expected[text] = expected.get(text, 0) + 1
    assert fragments(molecules) == expected
    found = scaffolds(molecules)
    assert "c1ccccc1" not in found  # one ring
    assert found["c1ccc(C2CCNCC2)cc1"] == 1
    assert sum(found.values()) == 5


def test_cosine_of_counts():
    left, right = {"a": 2, "b": 1}, {"b": 3, "c": 4}
    assert cosine_similarity(left, right) == pytest.approx(1 - cosine([2, 1, 0], [0, 3, 4]))
    assert cosine_similarity(left, left) == pytest.approx(1)
    assert np.isnan(cosine_similarity({}, left))


def test_wasserstein_is_scipys():
    generator = np.random.default_rng(0)
    for left, right in ((3, 3), (5, 17), (1, 40)):
        one, other = generator.normal(size=left), generator.normal(0.5, 2, size=right).round(1)
        assert wasserstein(one, other) == pytest.approx(wasserstein_distance(one, other))


def test_synthetic_accessibility_is_rdkits(molecules):
    import importlib.util
    from pathlib import Path

    from rdkit import RDConfig

    path = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    spec = importlib.util.spec_from_file_location("sascorer", path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    odd = ["C1CCCCCCCCC1", "C1CC2(C1)CCC2", "C1CC2CCC1CC2", "C[C@H](O)[C@@H](N)C(=O)O", "[Fe]", "CCCCCCCCCCCCCCCCCC"]
    for molecule in [*molecules, *map(Chem.MolFromSmiles, odd)]:
        assert synthetic_accessibility(molecule) == pytest.approx(theirs.calculateScore(molecule), abs=1e-9)


def test_filters(molecules):
    passes = MosesFilters(["[#6]-[#6]#[#7]", "[H]C([H])([#6])[F,Cl,Br,I]"])
    assert all(passes(molecule) for molecule in molecules)
    for bad in ("CC#N", "CCCl", "C[N+](C)(C)C", "CCI", "C1CCCCCCC1"):
        assert not passes(Chem.MolFromSmiles(bad))
