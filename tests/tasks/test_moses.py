"""The MOSES suite on small sets: the table of the package's metrics, and statistics read back as they were written."""

import io
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch

from matfm import MatfmError
from matfm.models.chemnet import ChemNet
from matfm.tasks.moses import MosesFiles, moses_metrics, reference_of

TEST = "CC(=O)Nc1ccc(O)cc1 CCN(CC)C(=O)c1cccnc1 O=C(NCc1ccco1)C1CCCCC1 Cc1nc2ccccc2n1CC(=O)N1CCOCC1".split()
MADE = ["OCC", "CCO", "c1ccccc1", "nonsense", "", "CC(=O)Nc1ccc(O)cc1", "C[N+](C)(C)C"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def chemnet():
    torch.manual_seed(0)
    return ChemNet().eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory, chemnet):
    """A small `molsets`: molecules, alerts, and statistics as NumPy wrote them."""
    reference = reference_of(TEST, chemnet, CPU)
    content = {
        "FCD": {"mu": reference.mean_D, "sigma": reference.covariance_DD},
        "SNN": {"fps": np.unpackbits(reference.fingerprints_RW, axis=1)},
        "Frag": {"frag": reference.fragments},
        "Scaf": {"scaf": Counter({"C1=CC=CC=C1C1CCCCC1": 2, "c1ccc(C2CCCCC2)cc1": 1})},
        **{name: {"values": values.tolist()} for name, values in reference.properties.items()},
    }
    array = io.BytesIO()
    np.lib.format.write_array(array, np.array(content, dtype=object), allow_pickle=True, version=(1, 0))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as stored:
        stored.writestr("stats.npy", array.getvalue())
    path = tmp_path_factory.mktemp("molsets") / "molsets.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("moses/dataset/data/test_stats.npz", inner.getvalue())
        wheel.writestr("moses/metrics/mcf.csv", 'names,smarts\nMCF1,[#6]-[#6]#[#7]\nMCF2,"[H]C([H])([#6])[F,Cl]"\n')
        wheel.writestr("moses/metrics/wehi_pains.csv", '"c1ccccc1-[#7]-[#1]"   ,"<regId=a(1)>"\n')
    return MosesFiles(path, path), reference


def test_bundled_statistics_are_read_and_respelled(files):
    read, expected = files[0].bundled("test"), files[1]
    np.testing.assert_array_equal(read.mean_D, expected.mean_D)
    np.testing.assert_array_equal(read.covariance_DD, expected.covariance_DD)
    np.testing.assert_array_equal(read.fingerprints_RW, expected.fingerprints_RW)
    assert read.fragments == expected.fragments
    assert read.scaffolds == {"c1ccc(C2CCCCC2)cc1": 3}
    assert read.properties.keys() == expected.properties.keys() == {"logP", "SA", "QED", "weight"}


def test_all_metrics_of_a_small_set(files, chemnet):
    wheel, reference = files
    found = moses_metrics(MADE, {"Test": reference}, {"CCO"}, wheel.filters(), chemnet, CPU)
    assert found["valid"] == 5 / 7
    assert found["unique@1000"] == found["unique@10000"] == 4 / 5
    assert found["Novelty"] == 3 / 4
    assert found["Filters"] == 3 / 5  # the anilide is an alert here, the cation is charged
    assert found["FCD/Test"] > 0
    assert 0 < found["SNN/Test"] < 1
    assert np.isnan(found["Scaf/Test"])  # no molecule has two rings
    assert {"Frag/Test", "IntDiv", "IntDiv2", "logP", "SA", "QED", "weight"} <= found.keys()


def test_a_set_against_itself(files, chemnet):
    wheel, reference = files
    found = moses_metrics(TEST, {"Test": reference}, set(), wheel.filters(), chemnet, CPU)
    assert found["FCD/Test"] == pytest.approx(0, abs=1e-5)
    assert found["SNN/Test"] == found["Novelty"] == found["valid"] == 1
    assert found["Frag/Test"] == pytest.approx(1)
    assert [found[name] for name in ("logP", "SA", "QED", "weight")] == [0, 0, 0, 0]


def test_a_set_without_valid_molecules_is_named(files, chemnet):
    with pytest.raises(MatfmError, match="1 of 2 generated SMILES are valid"):
        moses_metrics(["CCO", "x"], {"Test": files[1]}, set(), files[0].filters(), chemnet, CPU)
