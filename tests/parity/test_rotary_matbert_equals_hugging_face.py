"""MatBERT with rotary positions equals Hugging Face's ESM-2, in values and gradients, from tokens on."""

import torch
from transformers import EsmConfig, EsmModel

from matfm import MatBERTConfig, MatBERTModel

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
}


def test_values_and_gradients_agree_on_a_padded_batch():
    torch.manual_seed(0)
    rotary = {"position_embedding_type": "rotary", "emb_layer_norm_before": False, "token_dropout": False}
    reference = EsmModel(
        EsmConfig(**SHAPE, **rotary, pad_token_id=0, mask_token_id=4, layer_norm_eps=1e-6), add_pooling_layer=False
    ).double()
    ours = MatBERTModel(MatBERTConfig(**SHAPE, position_embedding="rotary", pad_token_id=0)).double()
    pairs = [
        (ours.embed_tokens, [reference.embeddings.word_embeddings]),
        (ours.encoder.norm, [reference.encoder.emb_layer_norm_after]),
    ]
    for block, layer in zip(ours.encoder.blocks, reference.encoder.layer, strict=True):
        attention = layer.attention.self
        pairs += [
            (block.attention.qkv, [attention.query, attention.key, attention.value]),
            (block.attention.out, [layer.attention.output.dense]),
            (block.attention_norm, [layer.attention.LayerNorm]),
            (block.feed_forward_norm, [layer.LayerNorm]),
            (block.feed_forward.up, [layer.intermediate.dense]),
            (block.feed_forward.down, [layer.output.dense]),
        ]
    with torch.no_grad():
        for mine, theirs in pairs:
            for part in theirs:
                for parameter in part.parameters():
                    parameter.normal_(std=0.2)
            for name, parameter in mine.named_parameters():
                parameter.copy_(torch.cat([getattr(part, name) for part in theirs]))
    mask = torch.tensor([[1] * 5 + [0] * 2, [1] * 7, [1] * 2 + [0] * 5])
    ids = torch.randint(5, 40, mask.shape) * mask
    weights = torch.randn(3, 7, 48, dtype=torch.float64) * mask[..., None]
    outputs = [model(input_ids=ids, attention_mask=mask).last_hidden_state for model in (ours, reference)]
    torch.testing.assert_close(outputs[0], outputs[1] * mask[..., None], rtol=1e-5, atol=1e-5)
    for output in outputs:
        (output * weights).sum().backward()
    for mine, theirs in pairs:
        for name, parameter in mine.named_parameters():
            expected = torch.cat([getattr(part, name).grad for part in theirs])
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-5)
