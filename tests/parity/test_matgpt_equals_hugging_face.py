"""MatGPT with copied random weights equals Hugging Face's Llama: values, loss and gradients."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from matfm import MatGPTConfig, MatGPTForCausalLM

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}


def copied():
    torch.manual_seed(0)
    reference = LlamaForCausalLM(LlamaConfig(**SHAPE)).double()
    ours = MatGPTForCausalLM(MatGPTConfig(**SHAPE)).double()
    pairs = [
        (ours.matgpt.embed_tokens, [reference.model.embed_tokens]),
        (ours.matgpt.decoder.norm, [reference.model.norm]),
        (ours.lm_head, [reference.lm_head]),
    ]
    for block, layer in zip(ours.matgpt.decoder.blocks, reference.model.layers, strict=True):
        pairs += [
            (block.attention.qkv, [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]),
            (block.attention.out, [layer.self_attn.o_proj]),
            (block.attention_norm, [layer.input_layernorm]),
            (block.feed_forward_norm, [layer.post_attention_layernorm]),
            (block.feed_forward.gate_up, [layer.mlp.gate_proj, layer.mlp.up_proj]),
            (block.feed_forward.down, [layer.mlp.down_proj]),
        ]
    with torch.no_grad():
        for mine, theirs in pairs:
            for part in theirs:
                part.weight.normal_(std=0.2)
            mine.weight.copy_(torch.cat([part.weight for part in theirs]))
    assert len(pairs) == len(list(ours.parameters()))
    return ours, reference, pairs


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("use_cache", [False, True])
def test_values_loss_and_gradients_agree_on_a_padded_batch(side, use_cache):
    ours, reference, pairs = copied()
    mask = torch.tensor([[1] * 5 + [0] * 2, [1] * 7, [1] * 2 + [0] * 5])
    mask = mask.flip(1) if side == "left" else mask
    ids = torch.randint(5, 40, mask.shape) * mask
    labels = ids.masked_fill(mask == 0, -100)
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    mine = ours(ids, mask, labels=labels, use_cache=use_cache)
    theirs = reference(ids, mask, labels=labels, position_ids=positions, use_cache=use_cache)
    real = mask.bool()
    torch.testing.assert_close(mine.logits[real], theirs.logits[real], rtol=1e-5, atol=1e-5)
    if side == "right":  # on the left, the reference also scores the first tokens, from padding
        torch.testing.assert_close(mine.loss, theirs.loss, rtol=1e-5, atol=1e-5, check_dtype=False)
    weights = torch.randn(int(real.sum()), 40, dtype=torch.float64)
    for output in (mine, theirs):
        (output.logits[real] * weights).sum().backward()
    for part, originals in pairs:
        expected = torch.cat([original.weight.grad for original in originals])
        torch.testing.assert_close(part.weight.grad, expected, rtol=1e-5, atol=1e-5)
