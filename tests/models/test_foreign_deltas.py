"""Deltas on encoders of Hugging Face: prompts through embeddings, prefixes through the cache, updates of their maps."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from matfm import MatfmError
from matfm.core.layout import PackedLayout
from matfm.models.delta_files import DeltaTasks, backbone_digest, load_delta, save_delta
from matfm.models.deltas import DeltaSpec, add_delta, delta_parameters, deltas_of, remove_delta, use_delta
from matfm.models.huggingface_backbone import HuggingFaceConfig, HuggingFaceForProperty, HuggingFaceModel
from matfm.tasks.encoding import FormulaEncoder
from matfm.tasks.huggingface_encoding import HuggingFaceEncoder
from matfm.tasks.prompting.inputs import read_for

P = 3
SIZE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
ENCODERS = {
    "bert": lambda: BertModel(BertConfig(**SIZE), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZE, pad_token_id=1), add_pooling_layer=False),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24)
    ),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=24)),
    "t5": lambda: (
        T5EncoderModel(T5Config(vocab_size=40, d_model=16, d_kv=8, num_layers=2, num_heads=2, d_ff=24)).encoder
    ),
}
SPECS = {
    "adapter": DeltaSpec("adapter", bottleneck=4),
    "lora": DeltaSpec("lora", rank=2, alpha=4.0),
    "prefix": DeltaSpec("prefix", length=P),
    "prompt": DeltaSpec("prompt", length=P),
}
POSSIBLE = {
    "bert": {"adapter", "lora", "prefix", "prompt"},
    "roberta": {"adapter", "lora", "prefix", "prompt"},
    "distilbert": {"adapter", "lora", "prompt"},
    "gpt2": {"prefix", "prompt"},
    "t5": {"adapter", "lora", "prompt"},
}
LAYOUT = PackedLayout.from_lengths([2, 3, 3])
BATCH = (torch.tensor([2, 30, 2, 9, 14, 2, 8, 19]), None, LAYOUT)


def model_of(kind, cls=HuggingFaceModel):
    torch.manual_seed(0)
    inner = ENCODERS[kind]().eval()
    config = HuggingFaceConfig(
        architecture={**inner.config.to_dict(), **({"is_encoder_decoder": True} if kind == "t5" else {})},
        vocab_size=40, hidden_size=16, num_hidden_layers=2, pad_token_id=inner.config.pad_token_id or 0,
    )  # fmt: skip
    torch.manual_seed(1)
    return cls(config).eval()


@torch.no_grad()
def stirred(model, name):
    generator = torch.Generator().manual_seed(5)
    for parameter in delta_parameters(model, name).values():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


@pytest.mark.parametrize("method", list(SPECS))
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_a_delta_acts_is_trained_alone_and_is_taken_off_or_says_why_not(kind, method):
    model = model_of(kind)
    plain = model.embed_packed(*BATCH)
    if method not in POSSIBLE[kind]:
        with pytest.raises(MatfmError, match="past_key_values|no linear maps|known as the last"):
            add_delta(model, "a", SPECS[method], "tokens")
        assert deltas_of(model) == {}
        assert torch.equal(model.embed_packed(*BATCH), plain)
        return
    digest = backbone_digest(model)
    add_delta(model, "a", SPECS[method], "tokens")
    if method in ("adapter", "lora"):
        assert torch.equal(model.embed_packed(*BATCH), plain)
    stirred(model, "a")
    output = model.embed_packed(*BATCH)
    assert not torch.allclose(output, plain, atol=1e-3)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    learns = {key for key, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    own = {key for key in delta_parameters(model, "a") if not key.endswith(".keys")}
    assert own & learns
    assert backbone_digest(model) == digest
    use_delta(model, None)
    assert torch.equal(model.embed_packed(*BATCH), plain)
    remove_delta(model, "a")
    assert model.state_dict().keys() == model_of(kind).state_dict().keys()


@pytest.mark.parametrize("method", list(SPECS))
def test_a_delta_is_saved_alone_and_with_its_model(method, tmp_path):
    model = model_of("roberta", HuggingFaceForProperty)
    add_delta(model, "a", SPECS[method], "tokens")
    stirred(model, "a")
    expected = model.predict_packed(*BATCH)
    model.save_pretrained(tmp_path / "whole")
    loaded = HuggingFaceForProperty.from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(loaded.predict_packed(*BATCH), expected)
    save_delta(model, tmp_path / "delta")
    fresh = model_of("roberta", HuggingFaceForProperty)
    fresh.backbone.encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in model.backbone.state_dict().items() if ".added." not in k}
    )
    load_delta(fresh, tmp_path / "delta", "b")
    torch.testing.assert_close(fresh.predict_packed(*BATCH), expected)
    remove_delta(fresh, "b")
    tasks = DeltaTasks(fresh.backbone)
    tasks.load(tmp_path / "delta", "c")
    torch.testing.assert_close(tasks.use("c").predict_packed(*BATCH), expected)


def test_a_prefix_begins_as_what_tokens_are_to_the_encoder():
    model = model_of("bert")
    rows = model.encoder.get_input_embeddings().weight[[9, 30]].detach()
    add_delta(model, "a", SPECS["prefix"], rows)
    block = model.encoder.encoder.layer[0].attention.self
    states = model.encoder.embeddings(inputs_embeds=rows[:, None])[:, 0]
    torch.testing.assert_close(model.prompted.added["a"].keys[0, :2], block.key(states))
    torch.testing.assert_close(model.prompted.added["a"].values[0, :2], block.value(states))


def test_what_only_matbert_can_do_is_refused():
    for method in ("deep-prompt", "control"):
        with pytest.raises(
            MatfmError, match=f"strategy '{method}' needs a MatBERT encoder; choose one of adapter, lora"
        ):
            add_delta(model_of("bert"), "a", DeltaSpec(method, length=2))


def test_prompts_take_positions_from_the_rows():
    class Tokenizer:
        def __len__(self):
            return 9

    encoder = HuggingFaceEncoder(Tokenizer(), "smiles", 20)
    spec = SPECS["prompt"]
    assert read_for(encoder, spec, ["gap"]).reserved == P
    assert read_for(read_for(encoder, spec, ["gap"]), spec, ["gap"]).reserved == P
    assert read_for(encoder, SPECS["lora"], ["gap"]) is encoder
    with pytest.raises(MatfmError, match="reads 20 tokens, of which a prompt of length 18 leaves too few"):
        read_for(encoder, DeltaSpec("prompt", length=18), ["gap"])
    with pytest.raises(MatfmError, match="puts tokens around formulas"):
        read_for(encoder, DeltaSpec("control", length=13), ["gap"])
    formulas = FormulaEncoder()
    assert read_for(formulas, spec, ["gap"]) is formulas
