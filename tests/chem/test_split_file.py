"""Split files: what was saved is loaded, and nothing else is."""

import json

import numpy as np
import pytest

from matfm import MatfmError
from matfm.chem.split_file import inputs_digest, load_split, save_split

INPUTS = ["Fe2O3", "", "NaCl", "Ünicode", "GaN"]
PARTS = np.array(["train", "-", "valid", "test", "train"], dtype=object)
METHOD = {"split": "group", "seed": 3, "valid_share": 0.1}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "split.json"
    save_split(path, INPUTS, PARTS, METHOD)
    return path


def test_round_trip(path, tmp_path):
    loaded = load_split(path, INPUTS)
    assert (loaded.parts == PARTS).all()
    assert loaded.method == METHOD
    again = save_split(tmp_path / "again.json", INPUTS, PARTS, METHOD)
    assert again.sha256 == loaded.sha256
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert json.loads(path.read_text())["parts"] == "0-120"


@pytest.mark.parametrize("change", [{"parts": "0-121"}, {"method": {"split": "random"}}, {"rows": 4}, {"sha256": "0"}])
def test_tampering_is_detected(path, change):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(MatfmError, match="was changed after it was written"):
        load_split(path, INPUTS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not readable JSON"),
        ("[]", "it lacks an object"),
        ('{"format": 1}', "it lacks inputs_sha256, method, parts"),
        (json.dumps(dict.fromkeys(("method", "rows", "inputs_sha256", "parts", "sha256"), 0) | {"format": 2}), "has format 2"),
        (json.dumps(dict.fromkeys(("method", "rows", "inputs_sha256", "parts", "sha256"), 0) | {"format": 1}), "must be text"),
    ],
)  # fmt: skip
def test_other_files_are_named(tmp_path, text, message):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(MatfmError, match=message):
        load_split(tmp_path / "other.json", INPUTS)


def test_other_inputs_are_named(path, tmp_path):
    with pytest.raises(MatfmError, match="splits 5 rows and the table has 4"):
        load_split(path, INPUTS[:4])
    with pytest.raises(MatfmError, match="splits other inputs than those of the table"):
        load_split(path, INPUTS[::-1])
    with pytest.raises(MatfmError, match="is not a file"):
        load_split(tmp_path / "none.json", INPUTS)


def test_only_parts_can_be_saved(tmp_path):
    with pytest.raises(MatfmError, match="'tests' is not a part"):
        save_split(tmp_path / "s.json", ["Fe"], np.array(["tests"], dtype=object), METHOD)
    with pytest.raises(MatfmError, match="2 rows cannot be made of 1 parts"):
        save_split(tmp_path / "s.json", ["Fe", "O"], np.array(["test"], dtype=object), METHOD)
    assert not (tmp_path / "s.json").exists()


def test_the_digest_knows_where_a_text_ends():
    assert inputs_digest(["ab", "c"]) != inputs_digest(["a", "bc"]) != inputs_digest(["abc"])
