"""A folder never holds half a model; what cannot be loaded is one sentence."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel

from matfm import MatBERTForProperty, MatfmError
from matfm.core.bundled import MODEL_FILE
from matfm.models.saving import load_model, save_model


def test_saved_with_the_run_and_loaded_in_evaluation_mode(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "run", {"seed": 3})
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"] == {"seed": 3}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", MODEL_FILE}
    loaded = load_model(MatBERTForProperty, str(tmp_path / "run"))
    assert not loaded.training
    assert torch.equal(loaded.property_head.out.weight, tiny_model.property_head.out.weight)


def test_a_failed_save_leaves_no_model(tiny_model, tmp_path, monkeypatch):
    def fail(folder):
        (tmp_path / "run" / "x").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny_model, "save_pretrained", fail)
    with pytest.raises(MatfmError, match="the disk is full"):
        save_model(tiny_model, tmp_path / "run", {})
    assert not (tmp_path / "run" / MODEL_FILE).exists()


@pytest.mark.parametrize("damage", ["weights", "configuration"])
def test_damaged_files_are_one_sentence(tiny_model, tmp_path, damage):
    save_model(tiny_model, tmp_path / "run", {})
    path = tmp_path / "run" / (MODEL_FILE if damage == "weights" else "config.json")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MatfmError, match="cannot be loaded") as caught:
        load_model(MatBERTForProperty, str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


def test_another_architecture_is_named(tmp_path):
    BertModel(BertConfig(vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        tmp_path
    )
    with pytest.raises(MatfmError, match="is a bert model; matbert is what this needs"):
        load_model(MatBERTForProperty, str(tmp_path))
