"""Deltas in files of their own go with every copy of their backbone and with nothing else; PEFT reads ours and we PEFT's."""

import json

import pytest
import torch

from matfm import MatBERTConfig, MatBERTForProperty, MatBERTModel, MatfmError
from matfm.core.layout import PackedLayout
from matfm.models.delta_files import DELTA_FILE, DELTA_WEIGHTS, DeltaTasks, backbone_digest, load_delta, save_delta
from matfm.models.deltas import DeltaSpec, add_delta, delta_parameters, deltas_of, merge_delta, use_delta
from matfm.models.peft_format import load_peft_lora, save_peft_lora

LAYOUT = PackedLayout.from_lengths([2, 3, 3])
SPECS = {
    "adapter": DeltaSpec("adapter", bottleneck=4),
    "lora": DeltaSpec("lora", rank=2, alpha=4.0, maps=("out", "qkv")),
    "prefix": DeltaSpec("prefix", length=3),
    "prompt": DeltaSpec("prompt", length=3),
}
BATCH = (torch.tensor([2, 30, 2, 9, 14, 2, 8, 99]), torch.tensor([0, 1.0, 0, 0.4, 0.6, 0, 0.5, 0.5]), LAYOUT)


def encoder_of(seed=0):
    torch.manual_seed(seed)
    return MatBERTModel(MatBERTConfig.of_size("tiny")).eval()


def task_of(method, name="a", seed=1, **head):
    """A property model on the encoder of seed 0, as if trained."""
    encoder = encoder_of()
    for key, value in head.items():
        setattr(encoder.config, key, value)
    torch.manual_seed(seed)
    model = MatBERTForProperty(encoder.config).eval()
    model.matbert.load_state_dict(encoder.state_dict())
    add_delta(model, name, SPECS[method], "tokens")
    with torch.no_grad():
        for parameter in delta_parameters(model, name).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.property_head.set_scaling(torch.full((model.property_head.targets,), 5.0 * seed), torch.tensor(2.0))
    return model


@pytest.mark.parametrize("method", list(SPECS))
def test_a_delta_works_with_any_copy_of_its_backbone_and_with_no_other(method, tmp_path):
    model = task_of(method)
    save_delta(model, tmp_path / "delta", backbone="small-one")
    record = json.loads((tmp_path / "delta" / DELTA_FILE).read_text())
    assert record["backbone"] == {"name": "small-one", "sha256": backbone_digest(encoder_of())}
    assert (tmp_path / "delta" / DELTA_WEIGHTS).stat().st_size < 60_000
    encoder_of().save_pretrained(tmp_path / "copy")
    copy = MatBERTForProperty.from_pretrained(tmp_path / "copy").eval()
    assert load_delta(copy, tmp_path / "delta", "gap") == "gap"
    assert torch.equal(copy.predict_packed(*BATCH), model.predict_packed(*BATCH))
    alone = MatBERTModel.from_pretrained(tmp_path / "copy").eval()
    assert load_delta(alone, tmp_path / "delta") == "a"
    assert torch.equal(alone.embed_packed(*BATCH), model.matbert.embed_packed(*BATCH))
    other = encoder_of(seed=1)
    with pytest.raises(
        MatfmError, match="was trained on small-one with weights .*; load the backbone it was trained on"
    ):
        load_delta(other, tmp_path / "delta")
    assert deltas_of(other) == {}
    use_delta(alone, None)
    assert torch.equal(alone.embed_packed(*BATCH), encoder_of().embed_packed(*BATCH))


def test_several_tasks_share_one_encoder_and_are_chosen_by_name(tmp_path):
    models = {
        "gap": task_of("prompt", seed=1, property_names=["gap"], property_units=["eV"]),
        "moduli": task_of("lora", seed=2, property_names=["k", "g"], property_units=["", ""], pooling="cls"),
        "metal": task_of("prompt", seed=3, class_names=["no", "yes"], property_names=["metal"]),
    }
    tasks = DeltaTasks(encoder_of())
    for name, model in models.items():
        save_delta(model, tmp_path / name)
        assert tasks.load(tmp_path / name, name) == name
    assert tasks.names() == list(models)
    for name in ("metal", "gap", "moduli", "gap"):
        chosen = tasks.use(name)
        assert torch.equal(chosen.predict_packed(*BATCH), models[name].predict_packed(*BATCH))
        assert chosen.config.property_names == models[name].config.property_names
        assert chosen.matbert is tasks.encoder
    with pytest.raises(MatfmError, match="no task 'kvrh'; there are gap, moduli, metal"):
        tasks.use("kvrh")
    save_delta(models["gap"].matbert, tmp_path / "headless")
    with pytest.raises(MatfmError, match="without a head"):
        tasks.load(tmp_path / "headless")


def test_damaged_and_missing_deltas_are_named(tmp_path):
    model = task_of("prompt")
    with pytest.raises(MatfmError, match="no delta 'b' to save; it has a"):
        save_delta(model, tmp_path / "b", "b")
    with pytest.raises(MatfmError, match="holds no delta.json; give the folder of a saved delta"):
        load_delta(encoder_of(), tmp_path)
    save_delta(model, tmp_path)
    record = json.loads((tmp_path / DELTA_FILE).read_text())
    (tmp_path / DELTA_FILE).write_text(json.dumps({**record, "format": 9}))
    with pytest.raises(MatfmError, match="has the format 9; this version of matfm reads 1"):
        load_delta(encoder_of(), tmp_path)
    encoder = encoder_of()
    (tmp_path / DELTA_FILE).write_text(json.dumps({**record, "spec": {"method": "prompt", "length": 4}}))
    with pytest.raises(MatfmError, match="does not hold what delta.json beside it says"):
        load_delta(encoder, tmp_path)
    assert torch.equal(encoder.embed_packed(*BATCH), encoder_of().embed_packed(*BATCH))
    (tmp_path / DELTA_WEIGHTS).write_bytes((tmp_path / DELTA_WEIGHTS).read_bytes()[:100])
    with pytest.raises(MatfmError, match="cannot be read"):
        load_delta(encoder, tmp_path)


def test_the_digest_is_of_the_backbone_alone():
    digest = backbone_digest(encoder_of())
    model = task_of("lora", seed=5)
    assert backbone_digest(model) == digest
    assert backbone_digest(encoder_of(seed=1)) != digest
    merge_delta(model, "a")
    assert backbone_digest(model) != digest


peft_warnings = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@peft_warnings
def test_peft_loads_our_lora(tmp_path):
    peft = pytest.importorskip("peft")
    model = task_of("lora")
    save_peft_lora(model, tmp_path, "a", "matbert-small")
    plain = MatBERTForProperty(model.config)
    plain.config.deltas = plain.config.active_delta = None
    plain = MatBERTForProperty(plain.config).eval()
    weights = {key: value for key, value in model.state_dict().items() if ".added." not in key}
    plain.load_state_dict(weights)
    loaded = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    torch.testing.assert_close(loaded.base_model.model.raw_packed(*BATCH), model.raw_packed(*BATCH))


@peft_warnings
@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("cls", [MatBERTForProperty, MatBERTModel])
def test_we_load_pefts_lora(cls, stabilised, tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = cls(MatBERTConfig.of_size("tiny")).eval()
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["qkv", "up", "down"], use_rslora=stabilised)
    tuned = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    tuned.save_pretrained(tmp_path / "lora")
    ours = cls.from_pretrained(tmp_path / "base").eval()
    before = ours.base_model.embed_packed(*BATCH)
    load_peft_lora(ours, tmp_path / "lora", "theirs")
    expected = tuned.base_model.model.base_model.embed_packed(*BATCH)
    torch.testing.assert_close(ours.base_model.embed_packed(*BATCH), expected)
    assert not torch.allclose(before, expected, atol=1e-2)
    wide = MatBERTModel(MatBERTConfig.of_size("tiny", num_hidden_layers=3))
    with pytest.raises(MatfmError, match="is of another encoder: it differs at encoder.blocks.2"):
        load_peft_lora(wide, tmp_path / "lora", "theirs")
    assert deltas_of(wide) == {}


def test_other_peft_files_are_refused(tmp_path):
    with pytest.raises(MatfmError, match="holds no readable adapter of PEFT"):
        load_peft_lora(encoder_of(), tmp_path, "a")
    save_peft_lora(task_of("lora"), tmp_path, "a")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for change, message in (({"peft_type": "LOHA"}, "type LOHA; only LORA"), ({"use_dora": True}, "use_dora is True")):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(MatfmError, match=message):
            load_peft_lora(encoder_of(), tmp_path, "a")
    with pytest.raises(MatfmError, match="'a' is no lora delta"):
        save_peft_lora(task_of("prompt"), tmp_path, "a")
