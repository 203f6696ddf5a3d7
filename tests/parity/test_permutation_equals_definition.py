"""The two streams equal equations 3 and 4 of XLNet, written out token by token, in values and gradients."""

import cmath

import pytest
import torch
import torch.nn.functional as F

from matfm import MatBERTConfig, MatBERTForPermutationLM
from matfm.core.layout import PackedLayout
from matfm.core.permutation_lm import draw_factorisation_order

HEADS, WIDTH = 2, 16


def turned(vector, place):
    """Rotary position by multiplication of complex numbers."""
    half = len(vector) // 2
    angles = [cmath.exp(1j * place / 10_000 ** (2 * i / len(vector))) for i in range(half)]
    return torch.view_as_real(torch.complex(vector[:half], vector[half:]) * torch.tensor(angles)).T.flatten()


def attended(block, asking, known, place, places, rotary):
    """One token's output of a block: `asking` looks at the hidden states `known` at `places`."""
    parts = [block.attention.qkv(block.attention_norm(state)).chunk(3) for state in (asking, *known)]
    query, keys, values = parts[0][0], [part[1] for part in parts[1:]], [part[2] for part in parts[1:]]
    mixed = []
    for head in range(HEADS):
        own = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        at = turned if rotary else lambda vector, _: vector
        scores = [
            at(query[own], place) @ at(key[own], there) / (WIDTH // HEADS) ** 0.5
            for key, there in zip(keys, places, strict=True)
        ]
        shares = torch.stack(scores).softmax(dim=0)
        mixed.append(sum(share * value[own] for share, value in zip(shares, values, strict=True)))
    hidden = asking + block.attention.out(torch.cat(mixed))
    return hidden + block.feed_forward(block.feed_forward_norm(hidden))


def predicted(model, ids, ranks, places):
    """Logits of the tokens at `places` of one sequence."""
    base, length = model.matbert, range(len(ids))
    table = None if base.rotary else base.embed_positions.table.weight
    embedded = [base.embed_tokens.weight[token] for token in ids]
    content = [vector if table is None else vector + table[place] for place, vector in enumerate(embedded)]
    query = {place: model.embed_query.weight[0] + (0 if table is None else table[place]) for place in places}
    for block in base.encoder.blocks:
        before, rotary = content, base.rotary is not None
        seen = {place: [other for other in length if ranks[other] < ranks[place]] for place in length}
        query = {
            place: attended(block, state, [before[other] for other in seen[place]], place, seen[place], rotary)
            for place, state in query.items()
        }
        content = [
            attended(
                block, before[place], [before[other] for other in (*seen[place], place)], place,
                (*seen[place], place), rotary,
            )
            for place in length
        ]  # fmt: skip
    return torch.stack([model.lm_head(base.encoder.norm(query[place])) for place in places])


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_values_and_gradients_agree(positions):
    torch.manual_seed(0)
    config = MatBERTConfig(
        vocab_size=20, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=HEADS, intermediate_size=24,
        position_embedding=positions, max_position_embeddings=8, initializer_range=0.4,
    )  # fmt: skip
    model = MatBERTForPermutationLM(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    lengths = [3, 5, 5, 7]
    layout = PackedLayout.from_lengths(lengths)
    ids = torch.randint(3, 20, (layout.tokens,))
    order = draw_factorisation_order(ids, layout, ids >= 5, 2, torch.Generator().manual_seed(1))
    expected, start = [], 0
    for length in lengths:
        here = [place - start for place in order.positions_M.tolist() if start <= place < start + length]
        end = start + length
        expected.append(predicted(model, ids[start:end].tolist(), order.rank_N[start:end].tolist(), here))
        start = end
    logits, reference = model.logits_packed(ids, layout, order), torch.cat(expected)
    torch.testing.assert_close(logits, reference, rtol=1e-6, atol=1e-6)
    parameters = list(model.parameters())
    pairs = [
        torch.autograd.grad(F.cross_entropy(each, order.labels_M), parameters, allow_unused=True)
        for each in (logits, reference)
    ]
    for one, other in zip(*pairs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
