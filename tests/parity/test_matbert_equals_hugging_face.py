"""MatBERT with copied random weights equals Hugging Face's pre-norm RoBERTa, in values and gradients."""

import pytest
import torch
from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormModel

from matfm import MatBERTConfig, MatBERTModel

WIDTH, LAYERS, HEADS, INNER, VOCABULARY = 48, 3, 4, 96, 123


@pytest.fixture
def models():
    torch.manual_seed(0)
    reference = RobertaPreLayerNormModel(
        RobertaPreLayerNormConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=INNER,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-6,
        ),
        add_pooling_layer=False,
    ).double()
    ours = MatBERTModel(
        MatBERTConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=INNER,
        )
    ).double()
    with torch.no_grad():
        for parameter in reference.encoder.parameters():
            parameter.normal_(std=0.1)
        for block, layer in zip(ours.encoder.blocks, reference.encoder.layer, strict=True):
            attention = layer.attention.self
            projections = (attention.query, attention.key, attention.value)
            block.attention.qkv.weight.copy_(torch.cat([p.weight for p in projections]))
            block.attention.qkv.bias.copy_(torch.cat([p.bias for p in projections]))
            for mine, theirs in (
                (block.attention.out, layer.attention.output.dense),
                (block.attention_norm, layer.attention.LayerNorm),
                (block.feed_forward_norm, layer.intermediate.LayerNorm),
                (block.feed_forward.up, layer.intermediate.dense),
                (block.feed_forward.down, layer.output.dense),
            ):
                mine.weight.copy_(theirs.weight)
                mine.bias.copy_(theirs.bias)
        ours.encoder.norm.weight.copy_(reference.LayerNorm.weight)
        ours.encoder.norm.bias.copy_(reference.LayerNorm.bias)
    return ours, reference


def reference_output(reference, embeddings, mask):
    """The encoder stack and final norm without the reference's own embeddings."""
    additive = torch.where(mask[:, None, None, :] > 0, 0.0, -1e30).double()
    return reference.LayerNorm(reference.encoder(embeddings, attention_mask=additive).last_hidden_state)


def test_values_and_gradients_agree_on_a_padded_batch(models):
    ours, reference = models
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0]])
    embeddings = torch.randn(3, 7, WIDTH, dtype=torch.float64)
    weights = torch.randn(3, 7, WIDTH, dtype=torch.float64) * mask[..., None]
    results = []
    for run in (
        lambda x: ours(inputs_embeds=x, attention_mask=mask).last_hidden_state,
        lambda x: reference_output(reference, x, mask),
    ):
        given = embeddings.clone().requires_grad_()
        output = run(given)
        (output * weights).sum().backward()
        results.append((output * mask[..., None], given.grad * mask[..., None]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-9, atol=1e-9)
    for block, layer in zip(ours.encoder.blocks, reference.encoder.layer, strict=True):
        attention = layer.attention.self
        stacked = torch.cat([p.weight.grad for p in (attention.query, attention.key, attention.value)])
        torch.testing.assert_close(block.attention.qkv.weight.grad, stacked, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            block.feed_forward.down.bias.grad, layer.output.dense.bias.grad, rtol=1e-9, atol=1e-9
        )
