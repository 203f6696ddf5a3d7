"""Folders of models from strangers: refused with one sentence, and nothing in them is run or unpickled."""

import json
import os
import pickle
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save

from matfm import MatfmError
from matfm.core.bundled import MODEL_FILE
from matfm.models.huggingface_backbone import adopt_encoder
from matfm.models.matbert import MatBERTForProperty
from matfm.models.saving import load_model


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the run, and a call that predicts with it and must be refused; returns the sentence."""
    folder = tmp_path / "model"
    shutil.copytree(trained.run, folder)

    def refused():
        found = trained.call("predict", folder, trained.table, "--input", "formula", "--out", tmp_path / "o.csv")
        assert not isinstance(found, dict), found
        assert not (tmp_path / "o.csv").exists()
        return str(found)

    return folder, refused


def header_of(weights):
    """The header of safetensors as a mapping, and the bytes behind it."""
    length = struct.unpack("<Q", weights[:8])[0]
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


def with_header(header, content):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def hostile_weights(whole):
    header, content = header_of(whole)
    first, second = [name for name in header if name != "__metadata__"][:2]
    yield struct.pack("<Q", 2**62) + whole[8:]
    yield struct.pack("<Q", 99_000_000) + whole[8:]
    yield whole[: len(whole) // 2]
    yield b""
    for key, value in (
        ("data_offsets", header[second]["data_offsets"]),
        ("data_offsets", [2**40, 2**41]),
        ("dtype", "I64"),
        ("dtype", "EVIL"),
        ("shape", [2**40, 2**40]),
        ("shape", [-1]),
    ):
        yield with_header({**header, first: {**header[first], key: value}}, content)


def test_survives_malicious_safetensors_headers(model):
    folder, refused = model
    whole = (folder / MODEL_FILE).read_bytes()
    for weights in hostile_weights(whole):
        (folder / MODEL_FILE).write_bytes(weights)
        assert "cannot be loaded" in refused()


def test_survives_weights_of_which_some_are_missing(model):
    folder, refused = model
    weights = load_file(folder / MODEL_FILE)
    del weights["matbert.embed_tokens.weight"]
    (folder / MODEL_FILE).write_bytes(save(weights, {"format": "pt"}))
    assert "lack matbert.embed_tokens.weight" in refused()


def test_survives_weights_of_another_shape(model):
    folder, refused = model
    weights = load_file(folder / MODEL_FILE)
    weights["matbert.embed_tokens.weight"] = torch.zeros(3)
    (folder / MODEL_FILE).write_bytes(save(weights, {"format": "pt"}))
    assert "cannot be loaded" in refused()


class Evil:
    """What runs when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_survives_a_pickle_offered_as_weights(model, tmp_path):
    folder, refused = model
    evil, trace = Evil(str(tmp_path / "trace")), tmp_path / "trace"
    (folder / MODEL_FILE).write_bytes(pickle.dumps(evil))
    assert "cannot be loaded" in refused()
    (folder / MODEL_FILE).unlink()
    torch.save({"weight": evil}, folder / "pytorch_model.bin")
    assert "holds only pickled weights, which are never read" in refused()
    index = {"metadata": {}, "weight_map": {"matbert.embed_tokens.weight": "pytorch_model.bin"}}
    (folder / f"{MODEL_FILE}.index.json").write_text(json.dumps(index))
    assert "names files other than .safetensors beside it, which are never read" in refused()
    index["weight_map"] = {"matbert.embed_tokens.weight": "../../../etc/model.safetensors"}
    (folder / f"{MODEL_FILE}.index.json").write_text(json.dumps(index))
    assert "names files other than .safetensors beside it" in refused()
    assert not trace.exists()


def test_survives_other_weights_named_beside_the_weights(model, tmp_path):
    """What transformers 5 would read besides `model.safetensors`."""
    folder, refused = model
    torch.save({"weight": Evil(str(tmp_path / "trace"))}, folder / "adapter_model.bin")
    whole = (folder / "config.json").read_text()
    (folder / "config.json").write_text(json.dumps({**json.loads(whole), "transformers_weights": "adapter_model.bin"}))
    assert "names other weights (transformers_weights)" in refused()
    (folder / "config.json").write_text(whole)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "evil/model"}')
    assert "holds an adapter of PEFT" in refused()
    assert not (tmp_path / "trace").exists()


def test_survives_a_pickle_that_a_model_of_the_hub_names(trained, tmp_path, monkeypatch):
    """A cache of the Hub, as it is after a download."""
    cached = tmp_path / "hub" / "models--evil--model"
    snapshot = cached / "snapshots" / ("0" * 40)
    shutil.copytree(trained.run, snapshot)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load_model(MatBERTForProperty, "evil/model").config.property_names == ["gap"]
    (snapshot / MODEL_FILE).unlink()
    torch.save({"weight": Evil(str(tmp_path / "trace"))}, snapshot / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": {"matbert.embed_tokens.weight": "pytorch_model.bin"}}
    (snapshot / f"{MODEL_FILE}.index.json").write_text(json.dumps(index))
    for load in (lambda: load_model(MatBERTForProperty, "evil/model"), lambda: adopt_encoder("evil/model")):
        with pytest.raises(MatfmError, match=r"names files other than \.safetensors"):
            load()
    assert not (tmp_path / "trace").exists()


CONFIGURATIONS = {
    "hidden_size": ["64", -1, 0, 10**12, [64], None, {}],
    "num_hidden_layers": [10**9, -1, 2.5, "many"],
    "num_attention_heads": [0, 3, None],
    "amount_frequencies": [-3, "x"],
    "position_embedding": ["spherical", 7],
    "layer_norm_eps": ["x", {}],
    "property_names": [3, ["a", "b"]],
    "class_names": [{"a": 1}, 3],
    "condition_names": [["pressure"], 3],
    "deltas": [3, {"a": 3}, {"a": {"method": "evil"}}],
    "model_type": [7, "evil", None],
    "vocab_size": [10**12, "x"],
    "run": [[1], {"ensemble": "x"}],
    "_attn_implementation": ["evil/kernel"],
}


@pytest.mark.parametrize("key", CONFIGURATIONS)
def test_survives_config_json_with_wrong_types(model, trained, tmp_path, key):
    folder, _ = model
    config = json.loads((folder / "config.json").read_text())
    refused = 0
    for value in CONFIGURATIONS[key]:
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        found = trained.call("predict", folder, trained.table, "--input", "formula", "--out", tmp_path / "o.csv")
        refused += not isinstance(found, dict)
    assert refused, "some of these cannot be a model"


def test_survives_config_json_that_is_no_configuration(model):
    folder, refused = model
    whole = (folder / "config.json").read_bytes()
    for content in (
        b"",
        b"[]",
        b"3",
        b"null",
        b"\xff\x00",
        whole[:-20],
        b'{"a": ' + b"[" * 200_000,
        b'{"hidden_size": NaN}',
    ):
        (folder / "config.json").write_bytes(content)
        assert refused()


def test_survives_code_named_in_config_json(model, trained, tmp_path):
    folder, _ = model
    config = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text(
        f"import os\nos.mkdir({str(tmp_path / 'trace')!r})\nclass Model: pass\nclass Config: pass\n"
    )
    named = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    for changes in (named, {**named, "model_type": "evil"}):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        trained.call("predict", folder, trained.table, "--input", "formula", "--out", tmp_path / "o.csv")
        trained.call(
            "embed",
            folder,
            trained.table,
            "--input",
            "formula",
            "--kind",
            "composition",
            "--out",
            tmp_path / "e.parquet",
        )
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "calibration.json"])
def test_survives_garbage_beside_the_weights(model, trained, tmp_path, name):
    folder, _ = model
    for content in (b"", b"[]", b"3", b"\xff\x00", b"[" * 200_000, b'{"format": 2, "targets": 3, "source": "valid"}'):
        (folder / name).write_bytes(content)
        found = trained.call(
            "predict", folder, trained.table, "--input", "formula", "--out", tmp_path / "o.csv", "--interval", "0.5"
        )
        assert not isinstance(found, dict) or name == "tokenizer_config.json"


def test_survives_tokenizer_json_that_is_garbage(tmp_path):
    from matfm import SmilesTokenizer
    from matfm.tasks.encoding import row_encoder

    SmilesTokenizer(["C", "O"]).save_pretrained(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    changed = json.loads(whole)
    changed["model"]["vocab"] = {"C": -1}
    for content in ("", "[]", "{}", whole[:-50], "[" * 100_000, '{"version": NaN}', json.dumps(changed)):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(MatfmError, match="cannot be loaded"):
            row_encoder("smiles", tmp_path)


def test_survives_a_run_of_another_version_with_unknown_keys(model, trained, tmp_path):
    folder, _ = model
    config = json.loads((folder / "config.json").read_text())
    config["run"]["fit"]["quantum_annealing"] = True
    (folder / "config.json").write_text(json.dumps({**config, "a_new_key": {"of": 1}, "transformers_version": "99.0"}))
    found = trained.call("predict", folder, trained.table, "--input", "formula", "--out", tmp_path / "o.csv")
    assert found["rows_predicted"] == 24
    error = trained.call("finetune", trained.table, *trained.options, "--out", folder, "--resume")
    assert "was begun with another fit.quantum_annealing (True, now None)" in str(error)


def test_a_model_that_is_whole_still_loads(model, trained, tmp_path):
    """The other tests would pass with a loader that refuses everything."""
    folder, _ = model
    assert isinstance(
        trained.call("predict", folder, trained.table, "--input", "formula", "--out", tmp_path / "o.csv"), dict
    )
