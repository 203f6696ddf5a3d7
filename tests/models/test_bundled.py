"""Names of weights: bundled, folder, Hub id, in that order. Export to float16."""

import pytest
import torch

from matfm import MatBERTForProperty, MatfmError
from matfm.core import bundled
from matfm.tasks.export import export_half


def test_names_are_resolved_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "weights" / "known").mkdir(parents=True)
    (tmp_path / "weights" / "known" / bundled.MODEL_FILE).write_bytes(b"")
    assert bundled.bundled_names() == ["known"]
    assert bundled.resolve_weights("known") == str(tmp_path / "weights" / "known")
    (tmp_path / "run").mkdir()
    with pytest.raises(MatfmError, match=r"holds no model.safetensors; give the folder of a finished run"):
        bundled.resolve_weights(str(tmp_path / "run"))
    (tmp_path / "run" / bundled.MODEL_FILE).write_bytes(b"")
    assert bundled.resolve_weights(str(tmp_path / "run")) == str(tmp_path / "run")
    with pytest.raises(MatfmError, match="there is no folder someone/model, and no weights of that name could be had"):
        bundled.resolve_weights("someone/model")
    with pytest.raises(MatfmError, match="no weights 'unknown'; bundled are known"):
        bundled.resolve_weights("unknown")


def test_exported_weights_are_half_the_size_and_load_as_float32(tiny_model, tmp_path):
    tiny_model.property_head.set_scaling(torch.tensor([1.2345678, -3.0]), torch.tensor([0.1, 7.0]))
    tiny_model.save_pretrained(tmp_path / "run")
    size = export_half(tmp_path / "run", tmp_path / "small")
    assert size < 0.6 * (tmp_path / "run" / "model.safetensors").stat().st_size
    loaded = MatBERTForProperty.from_pretrained(tmp_path / "small")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.property_head.mean, tiny_model.property_head.mean)
    original = tiny_model.matbert.encoder.blocks[0].attention.qkv.weight
    torch.testing.assert_close(loaded.matbert.encoder.blocks[0].attention.qkv.weight, original, rtol=1e-3, atol=1e-4)
