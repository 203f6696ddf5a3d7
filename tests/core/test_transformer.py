"""Stacks: packed equals padded, fused equals eager, causal sees no later token, the memory is its own sequence's."""

import pytest
import torch
from torch import nn

from matfm.core.attention import CrossAttention, SelfAttention, attention_map, eager_attention
from matfm.core.attention_context import AttentionContext, AttentionRun, Memory, causal_mask
from matfm.core.feed_forward import FeedForward, GatedFeedForward
from matfm.core.layout import PackedLayout, PaddedIndex
from matfm.core.optim import OptimizerConfig, parameter_groups
from matfm.core.positions import LearnedPositions, NoPositions, RelativeBias, Rotary, SinusoidalPositions
from matfm.core.transformer import PostNormBlock, PreNormBlock, PreNormCrossBlock, TransformerStack

WIDTH, HEADS = 24, 3
LENGTHS = [1, 3, 3, 6]
MASK = torch.tensor([[1] * n + [0] * (6 - n) for n in LENGTHS])
KINDS = ("none", "learned", "sinusoidal", "rotary", "relative", "causal relative")


def pre_norm():
    attention = SelfAttention(WIDTH, HEADS, bias=False)
    return PreNormBlock(
        attention, GatedFeedForward(WIDTH, 40, nn.SiLU(), bias=False), nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
    )


def post_norm():
    parts = SelfAttention(WIDTH, HEADS), FeedForward(WIDTH, 40, nn.GELU())
    return PostNormBlock(*parts, nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH))


def crossed():
    return PreNormCrossBlock(
        SelfAttention(WIDTH, HEADS), CrossAttention(WIDTH, HEADS), FeedForward(WIDTH, 40, nn.GELU()),
        nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH),
    )  # fmt: skip


def made_eager(stack):
    for module in stack.modules():
        if isinstance(module, (SelfAttention, CrossAttention)):
            module.attend = eager_attention
    return stack


def parts(kind):
    added = {"learned": LearnedPositions(6, WIDTH), "sinusoidal": SinusoidalPositions()}.get(kind, NoPositions())
    rotary = Rotary(WIDTH // HEADS) if kind == "rotary" else None
    bias = RelativeBias(HEADS, 8, 16, causal=kind.startswith("causal")) if "relative" in kind else None
    return nn.ModuleDict({"added": added, "bias": bias, "rotary": rotary}).double()


def padded_context(kind_parts, causal, memory=None):
    """One dense run with an explicit additive mask."""
    positions = torch.arange(6)
    seen = causal_mask(MASK, 6, 6, 0, MASK) if causal else MASK.bool()[:, None, None, :].expand(-1, 1, 6, 6)
    scores = torch.zeros(4, 1, 6, 6, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    if kind_parts["bias"] is not None:
        scores = scores + kind_parts["bias"](positions, positions)
    rotation = None if kind_parts["rotary"] is None else kind_parts["rotary"](positions, torch.float64)
    return AttentionContext((AttentionRun(4, 6, 6, scores, rotation=rotation),), memory=memory)


def gradients(output, weights, *modules):
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.autograd.grad((output * weights).sum(), parameters)


@pytest.mark.parametrize("make_block", [pre_norm, post_norm])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_padded_in_values_and_gradients(kind, causal, make_block):
    torch.manual_seed(0)
    positions = parts(kind)
    stack = TransformerStack([make_block(), make_block()], nn.LayerNorm(WIDTH)).double()
    padded_BTD = torch.randn(4, 6, WIDTH, dtype=torch.float64)
    index = PaddedIndex.from_mask(MASK)
    packed_ND = positions["added"](index.pack(padded_BTD), index.layout.positions())
    context = AttentionContext.packed(index.layout, packed_ND, causal, positions["rotary"], positions["bias"])
    fast = stack(packed_ND, context)[-1]
    flat = positions["added"](padded_BTD, torch.arange(6).expand(4, 6)).flatten(0, 1)
    slow = made_eager(stack)(flat, padded_context(positions, causal))[-1].view(4, 6, WIDTH)
    torch.testing.assert_close(fast, index.pack(slow))
    weights = torch.randn_like(fast)
    pairs = zip(
        gradients(fast, weights, stack, positions), gradients(index.pack(slow), weights, stack, positions), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_positions_change_what_order_changes():
    torch.manual_seed(0)
    hidden = torch.randn(5, WIDTH, dtype=torch.float64)
    layout = PackedLayout.from_lengths([5])
    for kind in KINDS[:-1]:
        positions = parts(kind)
        stack = TransformerStack([pre_norm()], nn.RMSNorm(WIDTH)).double()

        def last(tokens, positions=positions, stack=stack):
            added = positions["added"](tokens, layout.positions())
            context = AttentionContext.packed(layout, added, False, positions["rotary"], positions["bias"])
            return stack(added, context)[-1][-1]

        swapped = hidden[[3, 1, 2, 0, 4]]
        assert torch.allclose(last(hidden), last(swapped)) == (kind == "none")


@pytest.mark.parametrize("kind", ["none", "rotary", "causal relative"])
def test_causal_stacks_see_no_later_token(kind):
    torch.manual_seed(0)
    positions = parts(kind)
    stack = TransformerStack([pre_norm(), pre_norm()], nn.RMSNorm(WIDTH)).double()
    layout = PackedLayout.from_lengths([2, 5])
    hidden = torch.randn(7, WIDTH, dtype=torch.float64, requires_grad=True)
    context = AttentionContext.packed(layout, hidden, True, positions["rotary"], positions["bias"])
    for token, sources in ((1, {0, 1}), (2, {2}), (4, {2, 3, 4})):
        output = stack(hidden, context)[-1][token].sum()
        reached = torch.autograd.grad(output, hidden)[0].abs().sum(dim=1).nonzero()[:, 0].tolist()
        assert set(reached) == sources


@pytest.mark.parametrize("rotary", [None, Rotary(WIDTH // HEADS)])
def test_packed_memory_equals_padded_memory(rotary):
    torch.manual_seed(0)
    stack = TransformerStack([crossed(), crossed()], nn.LayerNorm(WIDTH)).double()
    sources = PackedLayout.from_lengths([4, 2, 2, 5])
    memory_BSD = torch.randn(4, 5, WIDTH, dtype=torch.float64)
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in sources.lengths()])
    hidden_BTD = torch.randn(4, 6, WIDTH, dtype=torch.float64)
    index, layout = PaddedIndex.from_mask(MASK), PackedLayout.from_lengths(LENGTHS)
    hidden_ND = index.pack(hidden_BTD)
    memory = Memory.packed(memory_BSD[mask.bool()], sources, layout, rotary)
    fast = stack(hidden_ND, AttentionContext.packed(layout, hidden_ND, True, memory=memory))[-1]
    context = padded_context(parts("none"), True, Memory.padded(memory_BSD, mask, torch.arange(6), rotary=rotary))
    slow = made_eager(stack)(hidden_BTD.flatten(0, 1), context)[-1].view(4, 6, WIDTH)
    torch.testing.assert_close(fast, index.pack(slow))
    weights = torch.randn_like(fast)
    for one, other in zip(gradients(fast, weights, stack), gradients(index.pack(slow), weights, stack), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="needs a context with one"):
        stack(hidden_ND, AttentionContext.packed(layout, hidden_ND))


def test_attention_maps_are_distributions_over_what_is_seen():
    query, key = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    weights = attention_map(query, key, AttentionRun(2, 4, 4, causal=True))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 4))
    assert weights.triu(1).abs().max() == 0


def test_gated_feed_forward_is_its_formula():
    torch.manual_seed(0)
    part = GatedFeedForward(6, 10, nn.SiLU())
    x = torch.randn(5, 6)
    (gate, up), (gate_bias, up_bias) = part.gate_up.weight.chunk(2), part.gate_up.bias.chunk(2)
    expected = part.down(nn.functional.silu(x @ gate.T + gate_bias) * (x @ up.T + up_bias))
    torch.testing.assert_close(part(x), expected)


def test_causal_mask_counts_slots_from_the_cache():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    seen = causal_mask(mask, queries=2, keys=6, start=2, like=mask)[:, 0].int().tolist()
    assert seen == [[[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]], [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]]


@pytest.mark.parametrize("make_block", [pre_norm, post_norm, crossed])
def test_muon_gets_every_matrix_of_a_block_and_how_many_maps_it_stacks(make_block):
    model = nn.ModuleDict({
        "stack": TransformerStack([make_block()], nn.LayerNorm(WIDTH)),
        "bias": RelativeBias(HEADS),
        "head": nn.Linear(WIDTH, 5),
    })  # fmt: skip
    groups = parameter_groups(model, OptimizerConfig(method="muon"), lambda name: 0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    stacked = {names[p].removeprefix("stack.blocks.0."): g["stacked"] for g in groups for p in g["params"] if g["muon"]}
    expected = {f"{part}.weight": 1 for part in ("attention.out", "feed_forward.down")} | {"attention.qkv.weight": 3}
    if make_block is pre_norm:
        expected |= {"feed_forward.gate_up.weight": 2}
    else:
        expected |= {"feed_forward.up.weight": 1}
    if make_block is crossed:
        expected |= {"cross_attention.q.weight": 1, "cross_attention.kv.weight": 2, "cross_attention.out.weight": 1}
    assert stacked == expected


@pytest.mark.parametrize("block", [pre_norm, post_norm])
def test_the_last_block_computes_only_the_tokens_that_are_wanted(block):
    """Values and gradients are those of computing all tokens and choosing afterwards."""
    torch.manual_seed(3)
    stack = TransformerStack([block(), block()], nn.LayerNorm(WIDTH)).double()
    layout = PackedLayout.from_lengths(LENGTHS)
    hidden = torch.randn(layout.tokens, WIDTH, dtype=torch.float64)
    context = AttentionContext.packed(layout, hidden)
    rows = torch.tensor([9, 0, 4, 5])
    expected = stack(hidden, context)[-1][rows]
    expected.square().sum().backward()
    gradients = [parameter.grad for parameter in stack.parameters()]
    stack.zero_grad()
    chosen = stack(hidden, context, rows)[-1]
    chosen.square().sum().backward()
    torch.testing.assert_close(chosen, expected)
    for parameter, gradient in zip(stack.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
