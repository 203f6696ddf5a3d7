"""Positions of packed tokens against loops, and random choices that are uniform in every group."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from matfm.core.layout import PackedLayout
from matfm.core.packed_index import (
    layout_of_rows,
    lengths_of_sequences,
    places_in_groups,
    random_places,
    random_ranks,
    rows_of_tokens,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(1, 6), max_size=8))
def test_rows_lengths_and_layouts_agree_with_loops(lengths):
    layout = PackedLayout.from_lengths(lengths)
    assert lengths_of_sequences(layout).tolist() == lengths
    assert rows_of_tokens(layout).tolist() == [row for row, length in enumerate(lengths) for _ in range(length)]
    assert layout_of_rows(rows_of_tokens(layout), len(lengths)) == layout


@given(st.lists(st.integers(0, 6), max_size=8))
def test_groups_may_be_empty(sizes):
    sizes_B = torch.tensor(sizes, dtype=torch.long)
    assert places_in_groups(sizes_B).tolist() == [place for size in sizes for place in range(size)]
    ranks = random_ranks(sizes_B, generator()).split(sizes)
    assert [sorted(part.tolist()) for part in ranks] == [list(range(size)) for size in sizes]


def test_a_sequence_that_lost_all_tokens_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        layout_of_rows(torch.tensor([0, 2]), 3)


def test_all_orders_are_equally_likely():
    ranks = random_ranks(torch.full((60_000,), 4), generator()).view(-1, 4)
    codes = (ranks * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    counts = codes.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 1e-4


def test_all_sets_of_places_are_equally_likely_beside_other_groups():
    groups = 60_000
    sizes = torch.tensor([5, 2, 0]).repeat(groups)
    counts = torch.tensor([2, 2, 0]).repeat(groups)
    places = random_places(sizes, counts, generator()).view(groups, 4)
    assert (places[:, 2:] == torch.tensor([0, 1])).all()
    pairs, seen = (places[:, 0] * 5 + places[:, 1]).unique(return_counts=True)
    assert pairs.tolist() == [a * 5 + b for a, b in itertools.combinations(range(5), 2)]
    assert chisquare(seen).pvalue > 1e-4
