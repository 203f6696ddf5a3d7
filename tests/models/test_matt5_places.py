"""MatT5 with rotary positions in its cross-attention: every path agrees, and a target looks for its place."""

from dataclasses import replace

import pytest
import torch
from transformers import EncoderDecoderCache, StaticCache

from matfm import MatT5Config, MatT5ForConditionalGeneration
from matfm.core.attention import CrossAttention
from matfm.core.attention_context import AttentionContext, Memory
from matfm.core.layout import PackedLayout
from matfm.core.objectives import token_loss

SOURCES = [[2, 7, 7, 7, 3], [2, 9, 3], [2, 5, 6, 7, 8, 9, 3]]
TARGETS = [[7, 7, 3], [9, 9, 9, 9, 3], [5, 3]]


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = MatT5Config.of_size("tiny", vocab_size=12, initializer_range=0.3, rotary_cross_attention=True)
    return MatT5ForConditionalGeneration(config).eval().double()


def padded(sequences, side="right", value=0):
    longest = max(map(len, sequences))
    fill = [[value] * (longest - len(each)) for each in sequences]
    pairs = zip(sequences, fill, strict=True)
    return torch.tensor([each + more if side == "right" else more + each for each, more in pairs])


@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_equals_padded(model, side):
    batch = {"input_ids": padded(SOURCES, side), "attention_mask": padded([[1] * len(s) for s in SOURCES], side)}
    labels = padded(TARGETS, value=-100)
    shifted = [torch.tensor([0, *target[:-1]]) for target in TARGETS]
    sources = [torch.tensor(source) for source in SOURCES]
    packed = [(torch.cat(each), PackedLayout.from_lengths(map(len, each))) for each in (sources, shifted)]
    total, weight = token_loss(
        model.logits_packed(*packed[0], *packed[1]), torch.cat([torch.tensor(t) for t in TARGETS])
    )
    for asked in ({}, {"output_attentions": True}, {"use_cache": True}):
        torch.testing.assert_close(model(**batch, labels=labels, **asked).loss, total / weight)


@pytest.mark.parametrize("static", [False, True])
def test_one_token_at_a_time_equals_all_at_once(model, static):
    batch = {"input_ids": padded(SOURCES), "attention_mask": padded([[1] * len(s) for s in SOURCES])}
    target = torch.tensor([[0, 7, 7, 8], [0, 9, 9, 9], [0, 5, 6, 7]])
    whole = model(**batch, decoder_input_ids=target).logits
    cache = None
    if static:
        cache = EncoderDecoderCache(*(StaticCache(config=model.config, max_cache_len=length) for length in (10, 7)))
    steps = []
    for place in range(4):
        output = model(**batch, past_key_values=cache, use_cache=True, decoder_input_ids=target[:, place : place + 1])
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


def test_an_attention_to_the_source_looks_for_a_place(model):
    """Of equal contents, the plain one sees all places alike; the turned one weighs them by their distance."""
    hidden_BSD, layout = torch.ones(1, 6, 64), PackedLayout.from_lengths([6])
    attention = CrossAttention(64, 64 // model.matt5.decoder.rotary.head_width)
    maps = {}
    for name, rotary in {"plain": None, "turned": model.matt5.decoder.rotary}.items():
        seen = []
        memory = replace(Memory.packed(hidden_BSD[0], layout, layout, rotary), maps=seen)
        attention(hidden_BSD[0], AttentionContext((), memory=memory))
        maps[name] = seen[0][0, 0]
    torch.testing.assert_close(maps["plain"], torch.full((6, 6), 1 / 6))
    scores = maps["turned"].log()
    assert scores.std(dim=-1).min() > 1e-3
    torch.testing.assert_close(scores[1:, 1:].diff(dim=-1), scores[:-1, :-1].diff(dim=-1))
    plain = MatT5ForConditionalGeneration(MatT5Config.of_size("tiny", vocab_size=12))
    assert model.state_dict().keys() == plain.state_dict().keys()
