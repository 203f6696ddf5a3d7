"""Factorisation orders: permutations, specials first, the last ones predicted; what each stream may see."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from matfm.core.layout import PackedLayout
from matfm.core.permutation_lm import draw_factorisation_order, packed_two_stream_masks, two_stream_masks

SPECIALS = 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(sequences, one_in=6.0, seed=0):
    layout = PackedLayout.from_lengths(map(len, sequences))
    ids = torch.tensor(list(itertools.chain(*sequences)))
    return ids, layout, draw_factorisation_order(ids, layout, ids >= SPECIALS, one_in, generator(seed))


tokens = st.lists(st.integers(0, 20), min_size=1, max_size=15)


@given(st.lists(tokens, min_size=1, max_size=5), st.floats(1, 10), st.integers(0, 1000))
def test_orders_are_permutations_with_specials_first_and_targets_last(sequences, one_in, seed):
    ids, _, order = draw(sequences, one_in, seed)
    assert torch.equal(order.labels_M, ids[order.positions_M])
    predicted = set(order.positions_M.tolist())
    start = 0
    for sequence in sequences:
        ranks = order.rank_N[start : start + len(sequence)].tolist()
        assert sorted(ranks) == list(range(len(sequence)))
        special = [rank for rank, token in zip(ranks, sequence, strict=True) if token < SPECIALS]
        assert special == list(range(len(special)))
        chosen = sorted(rank for place, rank in enumerate(ranks) if start + place in predicted)
        ordinary = len(sequence) - len(special)
        assert chosen == list(range(len(sequence) - len(chosen), len(sequence)))
        assert 0 not in chosen
        assert len(chosen) <= ordinary
        if ordinary and len(sequence) > 1:
            assert len(chosen) >= 1
            assert abs(len(chosen) - ordinary / one_in) <= 1
        start += len(sequence)


def test_all_orders_are_equally_likely_and_every_place_is_predicted_alike():
    rows = 20_000
    _, _, order = draw([[2, 6, 7, 8, 9, 3]] * rows, 2)  # 80,000 ordinary tokens, half of them predicted
    inner = order.rank_N.view(rows, 6)[:, 1:5] - 2
    codes, counts = (inner * torch.tensor([64, 16, 4, 1])).sum(dim=1).unique(return_counts=True)
    assert len(codes) == 24
    assert chisquare(counts).pvalue > 1e-4
    for count in torch.bincount(order.labels_M)[6:]:
        assert binom.ppf(0.0005, rows, 0.5) <= count <= binom.ppf(0.9995, rows, 0.5)


def test_masks_equal_their_definition():
    _, layout, order = draw([[2, 6, 7]] * 2 + [[2, 8, 9, 10, 3]] * 3)
    runs = packed_two_stream_masks(order.rank_N, layout)
    assert [tuple(content.shape) for content, _ in runs] == [(2, 3, 3), (3, 5, 5)]
    start = 0
    for content, query in runs:
        for content_LL, query_LL in zip(content, query, strict=True):
            ranks = order.rank_N[start : start + len(content_LL)].tolist()
            for i, j in itertools.product(range(len(ranks)), repeat=2):
                assert content_LL[i, j] == (j == i or ranks[j] < ranks[i])
                assert query_LL[i, j] == (ranks[j] < ranks[i])
            start += len(ranks)


def attend(asking, known, mask):
    scores = (asking @ known.T).masked_fill(~mask[0], -torch.inf)
    return asking + torch.nan_to_num(scores.softmax(dim=-1)) @ known


def two_streams(content, query, rank, layers=3):
    """A small two-stream attention network (equations 3 and 4) without positions."""
    content_mask, query_mask = two_stream_masks(rank[None])
    for _ in range(layers):
        content, query = attend(content, content, content_mask), attend(query, content, query_mask)
    return query


def test_no_layer_leaks_a_token_to_its_own_prediction():
    torch.manual_seed(0)
    rank = torch.tensor([0, 3, 1, 4, 2])
    content = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    query = torch.randn(5, 4, dtype=torch.float64)
    seen = torch.stack(
        [
            torch.autograd.grad(two_streams(content, query, rank)[i].sum(), content)[0].abs().sum(dim=1) > 0
            for i in range(5)
        ]
    )
    assert torch.equal(seen, rank[:, None] > rank)


def test_at_most_all_tokens_are_predicted():
    with pytest.raises(ValueError, match=r"one_in is 0.5"):
        draw([[2, 6, 7]], 0.5)
    _, _, order = draw([[2, 6, 7, 3], [6, 7]], 1)
    assert len(order.positions_M) == 3
