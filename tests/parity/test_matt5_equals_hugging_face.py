"""MatT5 with copied random weights equals Hugging Face's T5 v1.1: values, loss and gradients."""

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from matfm import MatT5Config, MatT5ForConditionalGeneration

VOCABULARY, WIDTH, LAYERS, HEADS, INNER = 40, 48, 3, 4, 96


def block_pairs(block, layer):
    attention, feed_forward = layer[0].SelfAttention, layer[-1].DenseReluDense
    pairs = [
        (block.attention.qkv, [attention.q, attention.k, attention.v]),
        (block.attention.out, [attention.o]),
        (block.attention_norm, [layer[0].layer_norm]),
        (block.feed_forward.gate_up, [feed_forward.wi_0, feed_forward.wi_1]),
        (block.feed_forward.down, [feed_forward.wo]),
        (block.feed_forward_norm, [layer[-1].layer_norm]),
    ]
    if len(layer) == 3:
        cross = layer[1].EncDecAttention
        pairs += [
            (block.cross_attention.q, [cross.q]),
            (block.cross_attention.kv, [cross.k, cross.v]),
            (block.cross_attention.out, [cross.o]),
            (block.cross_attention_norm, [layer[1].layer_norm]),
        ]
    return pairs


def copied(tied):
    torch.manual_seed(0)
    relative = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
    reference = T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=INNER, num_layers=LAYERS, num_heads=HEADS,
            feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False, decoder_start_token_id=0,
            **relative,
        )
    ).double()  # fmt: skip
    ours = MatT5ForConditionalGeneration(
        MatT5Config(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, tie_word_embeddings=tied, **relative,
        )
    ).double()  # fmt: skip
    pairs = [(ours.matt5.encoder.embed_tokens, [reference.shared])]
    if not tied:
        reference.lm_head.weight = nn.Parameter(reference.lm_head.weight.clone())
        pairs.append((ours.lm_head, [reference.lm_head]))
    for mine, theirs in ((ours.matt5.encoder, reference.encoder), (ours.matt5.decoder, reference.decoder)):
        pairs.append((mine.relative_bias.table, [theirs.block[0].layer[0].SelfAttention.relative_attention_bias]))
        pairs.append((mine.stack.norm, [theirs.final_layer_norm]))
        for block, their_block in zip(mine.stack.blocks, theirs.block, strict=True):
            pairs += block_pairs(block, their_block.layer)
    with torch.no_grad():
        for mine, theirs in pairs:
            for part in theirs:
                part.weight.normal_(std=0.2)
            mine.weight.copy_(torch.cat([part.weight for part in theirs]))
    assert len(pairs) == len(list(ours.parameters()))
    return ours, reference, pairs


@pytest.mark.parametrize(("tied", "use_cache"), [(False, False), (False, True), (True, False)])
def test_values_loss_and_gradients_agree_on_a_padded_batch(tied, use_cache):
    ours, reference, pairs = copied(tied)
    mask = torch.tensor([[1] * 5 + [0] * 15, [1] * 20, [0] * 9 + [1] * 11])
    ids = torch.randint(5, VOCABULARY, mask.shape) * mask
    labels = torch.randint(5, VOCABULARY, (3, 17))
    labels[0, 6:] = -100
    outputs = [model(ids, mask, labels=labels, use_cache=use_cache) for model in (ours, reference)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(outputs[0].logits)
    for output in outputs:
        (output.logits * weights).sum().backward()
    for part, originals in pairs:
        expected = torch.cat([original.weight.grad for original in originals])
        torch.testing.assert_close(part.weight.grad, expected, rtol=1e-5, atol=1e-5)


PARTS = (
    "encoder_hidden_states",
    "encoder_attentions",
    "decoder_hidden_states",
    "decoder_attentions",
    "cross_attentions",
)


def test_hidden_states_and_attention_maps_agree_on_real_tokens():
    ours, reference, _ = copied(False)
    reference.set_attn_implementation("eager")
    mask = torch.tensor([[1] * 5 + [0] * 15, [1] * 20, [0] * 9 + [1] * 11])
    ids = torch.randint(5, VOCABULARY, mask.shape) * mask
    targets = torch.tensor([[1] * 17, [1] * 17, [1] * 6 + [0] * 11])
    target_ids = torch.randint(5, VOCABULARY, targets.shape) * targets
    asked = {"output_hidden_states": True, "output_attentions": True}
    one, other = (
        model.eval()(ids, mask, decoder_input_ids=target_ids, decoder_attention_mask=targets, **asked)
        for model in (ours, reference)
    )
    for part in PARTS:
        real = (mask if part.startswith("encoder") else targets).bool()
        assert len(one[part]) == len(other[part]) == LAYERS + ("states" in part)
        for mine, theirs in zip(one[part], other[part], strict=True):
            assert mine.shape == theirs.shape
            pair = (each.transpose(1, 2) if "attentions" in part else each for each in (mine, theirs))
            torch.testing.assert_close(*(each[real] for each in pair), rtol=1e-5, atol=1e-5)
    plain = ours(ids, mask, decoder_input_ids=target_ids, decoder_attention_mask=targets)
    torch.testing.assert_close(plain.logits[targets.bool()], one.logits[targets.bool()])
    assert not any(part in plain for part in PARTS)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_returns_the_same_hidden_states_and_maps(beams):
    ours, reference, _ = copied(False)
    reference.set_attn_implementation("eager")
    mask = torch.tensor([[1] * 5 + [0] * 3, [1] * 8])
    ids = torch.randint(5, VOCABULARY, mask.shape) * mask
    asked = {
        "return_dict_in_generate": True, "output_hidden_states": True, "output_attentions": True, "do_sample": False,
        "max_new_tokens": 4, "eos_token_id": 1, "num_beams": beams,
    }  # fmt: skip
    one, other = (model.eval().generate(ids, attention_mask=mask, **asked) for model in (ours, reference))
    assert torch.equal(one.sequences, other.sequences)
    for part in PARTS:
        nested = part.startswith("encoder")
        for mine, theirs in zip(*((made[part],) if nested else made[part] for made in (one, other)), strict=True):
            for layer, their_layer in zip(mine, theirs, strict=True):
                if not nested:
                    torch.testing.assert_close(layer, their_layer, rtol=1e-5, atol=1e-5)
                assert layer.shape == their_layer.shape
