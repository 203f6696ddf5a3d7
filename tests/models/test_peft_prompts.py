"""Prompts and prefixes go to PEFT and come back with the same numbers, on MatBERT and on encoders of Hugging Face."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel

from matfm import MatBERTConfig, MatBERTModel, MatfmError
from matfm.models.deltas import DeltaSpec, add_delta, delta_parameters, deltas_of, use_delta
from matfm.models.huggingface_backbone import HuggingFaceConfig, HuggingFaceModel
from matfm.models.peft_prompts import load_peft_prompt, save_peft_prompt

peft = pytest.importorskip("peft")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),  # PEFT asks by the old name
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
P = 3
IDS, MASK = torch.tensor([[2, 30, 12, 9], [2, 31, 8, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
AMOUNTS = torch.tensor([[0, 0.2, 0.3, 0.5], [0, 0.6, 0.4, 0]])
METHODS = ["prompt", "prefix"]


def matbert(positions="none"):
    torch.manual_seed(0)
    config = MatBERTConfig.of_size("tiny", position_embedding=positions, initializer_range=0.3)
    return MatBERTModel(config).eval()


def bert():
    torch.manual_seed(0)
    size = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**size, intermediate_size=24, initializer_range=0.3)
    return BertModel(config, add_pooling_layer=False).eval()


def wrapped(inner):
    config = HuggingFaceConfig(
        architecture=inner.config.to_dict(), vocab_size=40, hidden_size=16, num_hidden_layers=2, pad_token_id=0
    )
    model = HuggingFaceModel(config).eval()
    model.encoder.load_state_dict(inner.state_dict())
    return model


def stirred(model, method):
    add_delta(model, "a", DeltaSpec(method, length=P), "tokens")
    with torch.no_grad():
        for parameter in delta_parameters(model, "a").values():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return model


def of_peft(model, **inputs):
    """Hidden states of the real tokens, whatever PEFT put before them."""
    hidden = model(input_ids=IDS, attention_mask=MASK, **inputs).last_hidden_state[:, -IDS.shape[1] :]
    return hidden[MASK.bool()]


@pytest.mark.parametrize("method", METHODS)
def test_peft_computes_on_an_encoder_of_hugging_face_what_we_do(method, tmp_path):
    ours = stirred(wrapped(bert()), method)
    save_peft_prompt(ours, tmp_path, "a", "bert")
    theirs = peft.PeftModel.from_pretrained(bert(), tmp_path).eval()
    expected = ours(IDS, MASK).last_hidden_state[MASK.bool()]
    torch.testing.assert_close(of_peft(theirs), expected, rtol=1e-4, atol=1e-5)
    use_delta(ours, None)
    assert not torch.allclose(ours(IDS, MASK).last_hidden_state[MASK.bool()], expected, atol=1e-2)


@pytest.mark.parametrize("positions", ["none", "rotary"])
@pytest.mark.parametrize("method", METHODS)
def test_peft_computes_on_matbert_what_we_do(method, positions, tmp_path):
    ours = stirred(matbert(positions), method)
    save_peft_prompt(ours, tmp_path, "a")
    theirs = peft.PeftModel.from_pretrained(matbert(positions), tmp_path).eval()
    expected = ours(IDS, MASK, AMOUNTS).last_hidden_state[MASK.bool()]
    torch.testing.assert_close(of_peft(theirs, amounts=AMOUNTS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_we_compute_what_peft_trained(method, projected, tmp_path):
    if projected and method == "prompt":
        return
    own = {"task_type": "FEATURE_EXTRACTION", "num_virtual_tokens": P}
    config = {
        "prompt": lambda: peft.PromptTuningConfig(**own),
        "prefix": lambda: peft.PrefixTuningConfig(**own, prefix_projection=projected, encoder_hidden_size=8),
    }[method]()
    theirs = peft.get_peft_model(bert(), config).eval()
    theirs.save_pretrained(tmp_path)
    ours = wrapped(bert())
    load_peft_prompt(ours, tmp_path, "theirs")
    assert deltas_of(ours) == {"theirs": DeltaSpec(method, length=P)}
    expected = ours(IDS, MASK).last_hidden_state[MASK.bool()]
    torch.testing.assert_close(of_peft(theirs), expected, rtol=1e-4, atol=1e-5)


def test_other_files_and_encoders_are_refused(tmp_path):
    model = stirred(matbert(), "prefix")
    save_peft_prompt(model, tmp_path, "a")
    with pytest.raises(MatfmError, match="has 256 numbers a token and this encoder takes 64"):
        load_peft_prompt(wrapped(bert()), tmp_path, "a")
    with pytest.raises(MatfmError, match="has a delta 'a' already"):
        load_peft_prompt(model, tmp_path, "a")
    with pytest.raises(MatfmError, match="'b' is no prompt or prefix"):
        save_peft_prompt(model, tmp_path, "b")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LORA"}))
    with pytest.raises(MatfmError, match="type LORA; only PROMPT_TUNING, PREFIX_TUNING"):
        load_peft_prompt(matbert(), tmp_path, "a")
    with pytest.raises(MatfmError, match="no readable adapter of PEFT"):
        load_peft_prompt(matbert(), tmp_path / "none", "a")
