"""Adapters, LoRA, prefixes and prompts on MatBERT: exact where packed, nothing where zero, apart from the backbone."""

import math

import pytest
import torch

from matfm import MatBERTConfig, MatBERTForProperty, MatBERTModel, MatfmError, MatGPTConfig, MatGPTForCausalLM
from matfm.core.acceleration import checkpoint_activations
from matfm.core.attention import SelfAttention
from matfm.core.attention_context import AttentionContext, AttentionRun, FixedKeysValues
from matfm.core.layout import PackedLayout
from matfm.models.deltas import (
    DeltaSpec,
    add_delta,
    backbone_weights,
    delta_parameters,
    deltas_of,
    merge_delta,
    remove_delta,
    use_delta,
)

LENGTHS = [2, 2, 3, 5]
LAYOUT = PackedLayout.from_lengths(LENGTHS)
P = 3
SPECS = {
    "adapter": DeltaSpec("adapter", bottleneck=4),
    "deep-prompt": DeltaSpec("deep-prompt", length=P),
    "lora": DeltaSpec("lora", rank=2, alpha=4.0),
    "prefix": DeltaSpec("prefix", length=P),
    "prompt": DeltaSpec("prompt", length=P),
}
METHODS, POSITIONS = list(SPECS), ["none", "rotary", "absolute", "sinusoidal"]


def model_of(positions="none", cls=MatBERTForProperty, **options):
    torch.manual_seed(0)
    return cls(MatBERTConfig.of_size("tiny", position_embedding=positions, **options)).double().eval()


def adapted(method, positions="none", name="a", seed=1):
    """With numbers that all matter."""
    model = model_of(positions)
    add_delta(model, name, SPECS[method], "tokens")
    return stirred(model, name, seed)


@torch.no_grad()
def stirred(model, name, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in delta_parameters(model, name).values():
        parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.3)
    return model


def inputs():
    generator = torch.Generator().manual_seed(0)
    ids_N = torch.randint(4, 100, (LAYOUT.tokens,), generator=generator)
    return ids_N, torch.rand(LAYOUT.tokens, generator=generator, dtype=torch.float64)


def padded(values_N, left=False):
    rows = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=values_N.dtype)
    for row, part in enumerate(values_N.split(LENGTHS)):
        rows[row, slice(-len(part), None) if left else slice(len(part))] = part
    return rows


def gradients(model, output):
    model.zero_grad()
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("method", METHODS)
def test_packed_equals_padded_in_values_and_gradients(method, positions):
    model = adapted(method, positions)
    ids_N, amounts_N = inputs()
    mask = padded(torch.ones_like(ids_N))
    packed = model.matbert.forward_packed(ids_N, amounts_N, LAYOUT)
    embedded = model.matbert.embed_tokens(padded(ids_N))
    dense = model.matbert.encode_padded(embedded, mask, padded(amounts_N))[-1][mask.bool()]
    torch.testing.assert_close(packed, dense)
    one, other = gradients(model, packed), gradients(model, dense)
    assert one.keys() == other.keys() > {f"matbert.{name}" for name in delta_parameters(model, "a")}
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])
    mask = padded(torch.ones_like(ids_N), left=True)
    from_left = model.matbert(padded(ids_N, left=True), mask, padded(amounts_N, left=True))
    torch.testing.assert_close(from_left.last_hidden_state[mask.bool()], packed)


@pytest.mark.parametrize("positions", ["none", "rotary"])
@pytest.mark.parametrize("method", METHODS)
def test_no_sequence_sees_another_and_wanted_tokens_are_those_of_all(method, positions):
    model = adapted(method, positions).matbert
    ids_N, amounts_N = inputs()
    together = model.forward_packed(ids_N, amounts_N, LAYOUT)
    alone = [
        model.forward_packed(ids, amounts, PackedLayout(((1, len(ids)),)))
        for ids, amounts in zip(ids_N.split(LENGTHS), amounts_N.split(LENGTHS), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    rows_M = torch.tensor([1, 4, 11])
    torch.testing.assert_close(model.forward_packed(ids_N, amounts_N, LAYOUT, rows_M), together[rows_M])


@pytest.mark.parametrize("positions", ["none", "rotary"])
def test_a_prompt_is_the_plain_encoder_on_longer_input(positions):
    model = adapted("prompt", positions).matbert
    ids_BT = torch.tensor([[2, 30, 12, 40], [2, 31, 9, 8]])
    ours = model(ids_BT).last_hidden_state
    prompt_BPD = model.encoder.added["a"].tokens.expand(2, -1, -1)
    use_delta(model, None)
    longer = model(inputs_embeds=torch.cat([prompt_BPD, model.embed_tokens(ids_BT)], dim=1)).last_hidden_state
    # Angles are float32 whatever the model's type.
    torch.testing.assert_close(ours, longer[:, P:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["none", "rotary"])
def test_deep_prompts_are_tokens_of_their_own_before_every_layer(positions):
    """The definition: each block sees its own prompt before the tokens, and what it makes of that is dropped."""
    model = adapted("deep-prompt", positions).matbert
    ids_BT = torch.tensor([[2, 30, 12, 40], [2, 31, 9, 8]])
    ours = model(ids_BT, output_hidden_states=True).hidden_states
    tokens_LPD = model.encoder.added["a"].tokens
    assert tokens_LPD.shape == (2, P, 64)
    hidden_BTD = model.embed_tokens(ids_BT)
    rotation = None if model.rotary is None else model.rotary(torch.arange(-P, 4), hidden_BTD.dtype)
    context = AttentionContext((AttentionRun(2, P + 4, P + 4, rotation=rotation),))
    for layer, block in enumerate(model.encoder.blocks):
        torch.testing.assert_close(ours[layer], hidden_BTD, rtol=1e-5, atol=1e-5)
        longer = torch.cat([tokens_LPD[layer].expand(2, -1, -1), hidden_BTD], dim=1)
        hidden_BTD = block(longer.flatten(0, 1), context).view(2, P + 4, -1)[:, P:]
    torch.testing.assert_close(ours[-1], model.encoder.norm(hidden_BTD), rtol=1e-5, atol=1e-5)


def test_fixed_keys_and_values_enter_the_softmax_first():
    torch.manual_seed(0)
    attention = SelfAttention(8, 2).double()
    hidden_ND, keys, values = (
        torch.randn(shape, dtype=torch.float64) for shape in ((6, 8), (1, 2, P, 4), (1, 2, P, 4))
    )
    maps = []
    context = AttentionContext((AttentionRun(2, 3, 3 + P),), cache=FixedKeysValues(keys, values), maps=maps)
    output = attention(hidden_ND, context)
    mixed = torch.empty(2, 3, 8, dtype=torch.float64)
    query_BTD, key_BTD, value_BTD = attention.qkv(hidden_ND).view(2, 3, 24).chunk(3, dim=-1)
    for row in range(2):
        for head in range(2):
            channels = slice(4 * head, 4 * head + 4)
            key_Sd = torch.cat([keys[0, head], key_BTD[row, :, channels]])
            value_Sd = torch.cat([values[0, head], value_BTD[row, :, channels]])
            weights_TS = (query_BTD[row, :, channels] @ key_Sd.T / math.sqrt(4)).softmax(dim=-1)
            torch.testing.assert_close(maps[0][row, head], weights_TS)
            mixed[row, :, channels] = weights_TS @ value_Sd
    torch.testing.assert_close(output, attention.out(mixed.flatten(0, 1)))
    assert not context.writes


@pytest.mark.parametrize("method", ["adapter", "lora"])
def test_new_updates_and_adapters_change_nothing_yet(method):
    plain, model = model_of(), model_of()
    add_delta(model, "a", SPECS[method])
    assert torch.equal(model.raw_packed(*inputs(), LAYOUT), plain.raw_packed(*inputs(), LAYOUT))
    learns = gradients(model, model.raw_packed(*inputs(), LAYOUT))
    assert any(value.abs().max() > 0 for name, value in learns.items() if ".added." in name)


def test_merged_lora_is_a_plain_encoder_with_the_same_outputs():
    model, plain = adapted("lora").float(), model_of().float()
    ids_N, amounts_N = inputs()
    expected = model.raw_packed(ids_N, amounts_N.float(), LAYOUT)
    merge_delta(model, "a")
    torch.testing.assert_close(model.raw_packed(ids_N, amounts_N.float(), LAYOUT), expected, rtol=1e-6, atol=1e-6)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [type(part) for part in model.modules()] == [type(part) for part in plain.modules()]
    assert model.config.deltas is None
    assert not torch.allclose(plain.raw_packed(ids_N, amounts_N.float(), LAYOUT), expected, atol=1e-2)


def test_lora_updates_the_maps_that_are_named():
    model = model_of()
    add_delta(model, "a", DeltaSpec("lora", rank=2, alpha=2.0, maps=("qkv", "down")))
    updated = {name.split(".added")[0].rpartition(".")[2] for name in delta_parameters(model, "a")}
    assert updated == {"qkv", "down"}
    with pytest.raises(MatfmError, match="blocks have no linear map 'query'; they have down, out, qkv, up"):
        add_delta(model, "b", DeltaSpec("lora", rank=2, alpha=2.0, maps=("query",)))
    assert list(deltas_of(model)) == ["a"]
    assert model.config.active_delta == "a"


def test_deltas_on_one_encoder_act_by_name():
    both = model_of()
    names = {}
    for method in METHODS:
        for seed in (1, 2):
            add_delta(both, f"{method}-{seed}", SPECS[method])
            names[f"{method}-{seed}"] = (method, seed)
    outputs = {}
    for name, (method, seed) in names.items():
        single = model_of()
        add_delta(single, "a", SPECS[method])
        with torch.no_grad():
            for own, given in zip(
                delta_parameters(single, "a").values(), delta_parameters(both, name).values(), strict=True
            ):
                own.copy_(given)
        stirred(single, "a", seed)
        stirred(both, name, seed)
        use_delta(both, name)
        outputs[name] = both.raw_packed(*inputs(), LAYOUT)
        assert torch.equal(outputs[name], single.raw_packed(*inputs(), LAYOUT)), name
    assert len({float(value.sum().detach()) for value in outputs.values()}) == len(names)
    use_delta(both, None)
    plain = model_of()
    assert torch.equal(both.raw_packed(*inputs(), LAYOUT), plain.raw_packed(*inputs(), LAYOUT))
    with pytest.raises(MatfmError, match="no delta 'gap'; it has adapter-1, adapter-2, deep-prompt-1"):
        use_delta(both, "gap")
    with pytest.raises(MatfmError, match="changes the encoder under its other deltas"):
        merge_delta(both, "lora-1")
    with pytest.raises(MatfmError, match="'prompt-1' is no lora delta"):
        merge_delta(both, "prompt-1")
    for name in names:
        remove_delta(both, name)
    assert [type(part) for part in both.modules()] == [type(part) for part in plain.modules()]
    assert both.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["", "a.b", "keys", "training", "1st", "a b"])
def test_names_are_parts_of_parameter_names(name):
    with pytest.raises(MatfmError, match="cannot be used"):
        add_delta(model_of(), name, SPECS["prompt"])


def test_other_families_are_refused():
    with pytest.raises(MatfmError, match="deltas need a MatBERT or another encoder; this is a MatGPTModel"):
        add_delta(MatGPTForCausalLM(MatGPTConfig.of_size("tiny")), "a", SPECS["lora"])


def test_a_name_is_taken_once_and_shapes_are_checked():
    model = adapted("prompt")
    with pytest.raises(MatfmError, match="has a delta 'a' already"):
        add_delta(model, "a", SPECS["lora"])
    assert model.config.active_delta == "a"
    with pytest.raises(MatfmError, match="method of a delta is 'magic'; choose one of adapter, control"):
        DeltaSpec("magic")
    for method, field in (("lora", "rank"), ("adapter", "bottleneck"), ("prefix", "length"), ("prompt", "length")):
        with pytest.raises(MatfmError, match=f"{field} of a {method} delta is 0"):
            DeltaSpec(method)


@pytest.mark.parametrize("method", METHODS)
def test_attention_maps_say_what_tokens_attend_to_prompts_included(method):
    model = adapted(method, "rotary").matbert
    ids_BT = torch.tensor([[2, 30, 12, 0], [2, 31, 9, 8]])
    mask_BT = (ids_BT > 0).long()
    seen = model(ids_BT, mask_BT, output_attentions=True, output_hidden_states=True)
    before = P if method in ("deep-prompt", "prefix", "prompt") else 0
    for weights in seen.attentions:
        assert weights.shape == (2, 2, 4, before + 4)
        torch.testing.assert_close(weights.sum(dim=-1), mask_BT[:, None, :].double().expand(2, 2, 4))
        assert (weights[..., :before] > 0).sum() == 2 * 7 * before
    plain = model(ids_BT, mask_BT, output_hidden_states=True)
    for one, other in zip(seen.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", METHODS)
def test_activations_can_be_computed_again(method):
    model = adapted(method)
    kept = gradients(model, model.raw_packed(*inputs(), LAYOUT))
    calls = []
    block = model.matbert.encoder.blocks[0].attention
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpoint_activations(model)
    again = gradients(model, model.raw_packed(*inputs(), LAYOUT))
    assert len(calls) == 2
    for name, value in kept.items():
        torch.testing.assert_close(value, again[name])


@pytest.mark.parametrize("cls", [MatBERTForProperty, MatBERTModel])
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_model_is_built_with_its_deltas(method, cls, tmp_path):
    model = adapted(method)
    add_delta(model, "b", SPECS["prompt"])
    for name in ("a", None):
        use_delta(model, name)
        model.save_pretrained(tmp_path)
        loaded = cls.from_pretrained(tmp_path).double().eval()
        assert loaded.config.active_delta == name
        embedded = loaded.base_model.embed_packed(*inputs(), LAYOUT)
        torch.testing.assert_close(embedded, model.matbert.embed_packed(*inputs(), LAYOUT), rtol=1e-12, atol=1e-12)


def test_prefixes_start_as_what_tokens_are_to_the_frozen_encoder():
    model = model_of("rotary").matbert
    torch.manual_seed(3)
    add_delta(model, "a", SPECS["prefix"], "tokens")
    torch.manual_seed(3)
    torch.nn.init.normal_(torch.empty(2, P, 64))
    torch.nn.init.normal_(torch.empty(2, P, 64))
    ids_P = torch.randint(1, model.config.vocab_size, (P,))
    use_delta(model, None)
    states = model(ids_P[:, None], output_hidden_states=True).hidden_states
    for layer, block in enumerate(model.encoder.blocks):
        key, value = block.attention.qkv(block.attention_norm(states[layer][:, 0])).chunk(3, dim=-1)[1:]
        torch.testing.assert_close(model.encoder.added["a"].keys[layer], key)
        torch.testing.assert_close(model.encoder.added["a"].values[layer], value)


def test_deep_prompts_start_as_given_tokens_in_every_layer():
    model = model_of("rotary").matbert
    rows_CD = model.embed_tokens.weight[[9, 30]].detach()
    add_delta(model, "a", SPECS["deep-prompt"], rows_CD)
    tokens_LPD = model.encoder.added["a"].tokens
    use_delta(model, None)
    states = model(torch.tensor([[9], [30], [9]]), output_hidden_states=True).hidden_states
    for layer in range(2):
        torch.testing.assert_close(tokens_LPD[layer], states[layer][:, 0])
    add_delta(model, "b", SPECS["prompt"], rows_CD)
    assert torch.equal(model.encoder.added["b"].tokens, rows_CD[[0, 1, 0]])


def test_control_tokens_follow_the_vocabulary_and_are_their_deltas_own():
    model = model_of().matbert
    plain = model_of().matbert
    ids_BT = torch.tensor([[2, 123, 30, 12, 124]])
    for name in ("gap", "moduli"):
        add_delta(model, name, DeltaSpec("control", length=2), "tokens")
    outputs = {}
    for name in ("gap", "moduli"):
        use_delta(model, name)
        rows_CD = model.embed_tokens.added[name].rows
        vectors = torch.cat([plain.embed_tokens.weight, rows_CD])[ids_BT]
        outputs[name] = model(ids_BT).last_hidden_state
        torch.testing.assert_close(outputs[name], plain(inputs_embeds=vectors).last_hidden_state)
    assert not torch.equal(*outputs.values())
    learns = gradients(model, model(ids_BT).last_hidden_state)
    assert learns["embed_tokens.added.moduli.rows"].abs().sum() > 0
    assert "embed_tokens.added.gap.rows" not in learns
    for name in ("gap", "moduli"):
        remove_delta(model, name)
    assert [type(part) for part in model.modules()] == [type(part) for part in plain.modules()]
    assert torch.equal(model.embed_tokens.weight, plain.embed_tokens.weight)


def test_the_backbones_weights_keep_their_names_and_values():
    plain = model_of().matbert.state_dict()
    model = model_of()
    for method in METHODS:
        add_delta(model, method, SPECS[method])
    weights = backbone_weights(model)
    assert weights.keys() == plain.keys()
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
