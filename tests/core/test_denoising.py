"""BART's corruptions: what stays is in order, the right share is hidden, special tokens are never touched."""

import collections
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare, poisson

from matfm import MatfmError
from matfm.core.denoising import (
    DenoisingConfig,
    NoisyTokens,
    add_noise,
    delete_tokens,
    infill_spans,
    mask_single_tokens,
    permute_fragments,
)
from matfm.core.layout import PackedLayout

MASK, DOT, SPECIALS = 4, 5, 5
ROWS, SIZE = 5000, 20  # 100,000 ordinary tokens


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def intact(sequences):
    ids = torch.tensor(list(itertools.chain(*sequences)))
    return NoisyTokens.of(ids, PackedLayout.from_lengths(map(len, sequences)), ids >= SPECIALS)


def many(length=SIZE, rows=ROWS):
    return intact([[2, *range(10, 10 + length), 3]] * rows)


def split(noisy):
    return [
        part.tolist() for part in noisy.ids_N.split(torch.bincount(noisy.row_N, minlength=noisy.sequences).tolist())
    ]


def inside(count, trials, chance):
    return binom.ppf(0.0005, trials, chance) <= count <= binom.ppf(0.9995, trials, chance)


tokens = st.lists(st.sampled_from([0, 1, 2, 3, DOT, 6, 7, 8, 9]), min_size=1, max_size=20)
shares = st.floats(0, 0.95)


@given(st.lists(tokens, min_size=1, max_size=5), shares, shares, shares, st.floats(0.1, 6), st.integers(0, 1000))
def test_any_noise_keeps_special_tokens_and_the_order_of_the_rest(
    sequences, infilled, masked, deleted, mean_length, seed
):
    ids = torch.tensor(list(itertools.chain(*sequences)))
    layout = PackedLayout.from_lengths(map(len, sequences))
    config = DenoisingConfig(False, infilled, mean_length, masked, deleted)
    noisy = add_noise(ids, layout, ids >= SPECIALS, MASK, DOT, config, generator(seed))
    assert noisy.layout.sequences == len(sequences)
    own = noisy.source_N >= 0
    assert torch.equal(ids[noisy.source_N[own]], noisy.ids_N[own])
    assert (noisy.ids_N[~own] == MASK).all()
    assert (noisy.source_N[own].diff() > 0).all()
    special = (ids < SPECIALS).nonzero()[:, 0].tolist()
    assert set(special) <= set(noisy.source_N.tolist())
    rows = torch.arange(len(sequences)).repeat_interleave(torch.tensor([len(s) for s in sequences]))
    assert torch.equal(rows[noisy.source_N[own]], noisy.row_N[own])


def fragments(sequence):
    """Of the ordinary tokens, from the definition."""
    found = [[]]
    for token in sequence:
        if token == DOT:
            found.append([])
        elif token >= SPECIALS:
            found[-1].append(token)
    return found


@given(st.lists(tokens, min_size=1, max_size=5), st.integers(0, 1000))
def test_permuting_moves_whole_fragments(sequences, seed):
    noisy = permute_fragments(intact(sequences), DOT, generator(seed))
    for old, new in zip(sequences, split(noisy), strict=True):
        assert sorted(fragments(new)) == sorted(fragments(old))
        assert [t if t < SPECIALS else None for t in new] == [t if t < SPECIALS else None for t in old]
    assert torch.equal(noisy.source_N.sort().values, torch.arange(len(noisy.ids_N)))


def test_all_orders_of_fragments_are_equally_likely():
    noisy = permute_fragments(intact([[2, 6, 6, DOT, 7, DOT, 8, 8, 8, 3]] * 20_000), DOT, generator())
    orders = collections.Counter(tuple(row) for row in noisy.ids_N.view(-1, 10).tolist())
    assert len(orders) == 6
    assert (2, 7, DOT, 8, 8, 8, DOT, 6, 6, 3) in orders
    assert chisquare(list(orders.values())).pvalue > 1e-4


def test_single_tokens_are_masked_or_deleted_at_the_given_chance():
    noisy = mask_single_tokens(many(), 0.15, MASK, generator())
    assert inside(int((noisy.ids_N == MASK).sum()), ROWS * SIZE, 0.15)
    assert noisy.layout.runs == ((ROWS, SIZE + 2),)
    left = delete_tokens(many(), 0.15, generator())
    assert inside(ROWS * (SIZE + 2) - len(left.ids_N), ROWS * SIZE, 0.15)
    for place in range(10, 10 + SIZE):
        assert inside(int((left.ids_N == place).sum()), ROWS, 0.85)
        assert inside(int((noisy.ids_N == place).sum()), ROWS, 0.85)


def test_of_a_sequence_that_would_vanish_one_token_stays():
    noisy = delete_tokens(intact([[6, 7, 8]] * 3000), 0.999, generator())
    assert noisy.layout.sequences == 3000
    assert len(noisy.ids_N) < 3100
    assert chisquare(torch.bincount(noisy.ids_N)[6:]).pvalue > 1e-4


def test_infilling_hides_the_given_share():
    noisy = infill_spans(many(), 0.33, 3.0, MASK, generator())  # 6.6 tokens: 6 or 7
    hidden = torch.tensor([SIZE + 2 - sum(t != MASK for t in row) for row in split(noisy)])
    assert set(hidden.tolist()) == {6, 7}
    assert inside(int((hidden == 7).sum()), ROWS, 0.6)
    assert not any(MASK == a == b for row in split(noisy) for a, b in itertools.pairwise(row))
    assert (noisy.ids_N[noisy.ids_N != MASK] >= 2).all()


def test_the_lengths_of_spans_are_poisson():
    length = 400  # so long that the cut of the last span does not show
    noisy = infill_spans(many(length, 300), 0.3, 3.0, MASK, generator())
    sizes = collections.Counter()
    for row in split(noisy):
        spans = [b - a - 1 for a, m, b in zip(row, row[1:], row[2:], strict=False) if m == MASK and 3 not in (a, b)]
        sizes.update(spans)
    total = sum(sizes.values())
    for size in range(6):
        assert abs(sizes[size] / total - poisson.pmf(size, 3)) < 0.02


def test_masks_are_put_in_at_every_place_alike():
    # A mean near 0: all spans are masks put in. Three fit apart, in 4 places before, between and behind 3 tokens.
    noisy = infill_spans(intact([[2, 6, 7, 8, 3]] * 20_000), 0.3, 0.001, MASK, generator())
    rows = collections.Counter(tuple(t == MASK for t in row) for row in split(noisy) if row.count(MASK) == 3)
    assert len([row for row in rows if len(row) == 8]) == 4
    assert chisquare([count for row, count in rows.items() if len(row) == 8]).pvalue > 1e-4


def test_bare_sequences_keep_inserted_masks_to_themselves():
    noisy = infill_spans(intact([[6, 6], [7, 7], [8, 8]] * 500), 0.5, 0.3, MASK, generator())
    for sequence, row in zip([[6], [7], [8]] * 500, split(noisy), strict=True):
        assert set(row) - {MASK} <= set(sequence)
        assert row.count(MASK) >= 1 or len(row) == 2


def test_shares_and_lengths_are_checked():
    with pytest.raises(MatfmError, match="denoising.deleted is 1; it is a share"):
        DenoisingConfig(deleted=1)
    with pytest.raises(MatfmError, match="denoising.mean_length is 0"):
        DenoisingConfig(mean_length=0)


def test_masks_are_not_corrupted_again():
    infilled = infill_spans(many(), 0.3, 3.0, MASK, generator())
    twice = infill_spans(delete_tokens(infilled, 0.9, generator(1)), 0.9, 3.0, MASK, generator(2))
    first = infilled.ids_N == MASK
    assert not infilled.ordinary_N[first].any()
    assert int((delete_tokens(infilled, 0.9, generator(1)).ids_N == MASK).sum()) == int(first.sum())
    assert int((twice.ids_N == MASK).sum()) >= int(first.sum())
