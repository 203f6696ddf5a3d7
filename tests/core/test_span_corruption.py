"""Span corruption: merging gives the original, the right number is hidden, every choice is equally likely."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from matfm import MatfmError
from matfm.core.layout import PackedLayout
from matfm.core.span_corruption import SpanConfig, corrupt_spans

START, END, SPECIALS = 2, 3, 5
SENTINELS = torch.arange(100, 140)
DEFAULT = SpanConfig()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def corrupted(sequences, config=DEFAULT, seed=0, sentinels=SENTINELS):
    layout = PackedLayout.from_lengths(map(len, sequences))
    ids = torch.tensor(list(itertools.chain(*sequences)))
    return corrupt_spans(ids, layout, ids >= SPECIALS, sentinels, START, END, config, generator(seed))


def split(ids, layout):
    return [part.tolist() for part in ids.split([length for count, length in layout.runs for _ in range(count)])]


def merged(source, target):
    """The original, from the definition: spans of the target put where their sentinels are."""
    assert target[0] == START
    assert target[-1] == END
    spans = {}
    for token in target[1:-1]:
        if token in SENTINELS:
            spans[token] = span = []
        else:
            span.append(token)
    assert list(spans) == SENTINELS[: len(spans)].tolist()
    assert all(spans.values())
    return [original for token in source for original in (spans.pop(token) if token in SENTINELS else [token])]


tokens = st.lists(st.integers(0, 30), min_size=1, max_size=25)


@given(st.lists(tokens, min_size=1, max_size=5), st.floats(0.05, 0.95), st.floats(1, 5), st.integers(0, 1000))
def test_merging_input_and_target_gives_the_original(sequences, density, mean_length, seed):
    result = corrupted(sequences, SpanConfig(density, mean_length), seed)
    inputs = split(result.input_ids_N, result.input_layout)
    targets = split(result.target_ids_M, result.target_layout)
    assert [merged(*pair) for pair in zip(inputs, targets, strict=True)] == sequences
    flat = torch.tensor(list(itertools.chain(*sequences)))
    own = result.input_source_N >= 0
    assert torch.equal(flat[result.input_source_N[own]], result.input_ids_N[own])
    assert (result.input_ids_N[~own] >= 100).all()
    for sequence, target in zip(sequences, targets, strict=True):
        ordinary = sum(token >= SPECIALS for token in sequence)
        hidden = [token for token in target[1:-1] if token < 100]
        assert min(hidden, default=SPECIALS) >= SPECIALS
        assert len(hidden) == min(max(1, round(np.float32(ordinary) * np.float32(density))), max(0, ordinary - 1))


def test_equal_lengths_stay_equal():
    result = corrupted([[2, *range(10, 10 + n), 3] for n in [5] * 50 + [20] * 50 + [60] * 50])
    assert [count for count, _ in result.input_layout.runs] == [50, 50, 50]
    assert result.input_layout.runs == ((50, 2 + 4 + 1), (50, 2 + 17 + 1), (50, 2 + 51 + 3))
    assert result.target_layout.runs == ((50, 2 + 1 + 1), (50, 2 + 3 + 1), (50, 2 + 9 + 3))


def test_every_choice_of_spans_is_equally_likely():
    rows, size = 40_000, 7
    result = corrupted([[2, *range(10, 10 + size), 3]] * rows, SpanConfig(0.43, 1.5))
    kept = result.input_source_N.view(rows, -1)
    seen = torch.zeros(rows, size + 2, dtype=torch.bool).scatter(1, kept.clamp(min=0) % (size + 2), kept >= 0)
    codes, counts = (seen[:, 1:-1] * 2 ** torch.arange(size)).sum(dim=1).unique(return_counts=True)
    masks = [m for m in itertools.product((0, 1), repeat=size) if sum(m) == 3 and sum(np.diff((0, *m)) == 1) == 2]
    expected = {sum((1 - hidden) << place for place, hidden in enumerate(m)) for m in masks}
    assert set(codes.tolist()) == expected
    assert chisquare(counts).pvalue > 1e-4


def test_every_place_is_hidden_as_often_as_its_mirror_image():
    rows, size = 4000, 25  # 100,000 tokens
    result = corrupted([[2, *range(10, 10 + size)]] * rows)
    hidden = result.target_ids_M[(result.target_ids_M >= 10) & (result.target_ids_M < 100)] - 10
    assert len(hidden) == rows * 4
    counts = torch.bincount(hidden, minlength=size)
    for place in range(size // 2):
        pair = int(counts[place] + counts[size - 1 - place])
        assert binom.ppf(0.0005, pair, 0.5) <= counts[place] <= binom.ppf(0.9995, pair, 0.5)


def test_short_sequences_stay_whole():
    result = corrupted([[2, 9], [2, 3], [2, 9, 10]])
    assert split(result.input_ids_N, result.input_layout)[:2] == [[2, 9], [2, 3]]
    assert split(result.target_ids_M, result.target_layout)[:2] == [[START, END]] * 2
    assert len(split(result.target_ids_M, result.target_layout)[2]) == 4


def test_too_few_sentinels_and_bad_shares_are_refused():
    with pytest.raises(MatfmError, match=r"has 8 hidden spans but there are 3 sentinels; lower spans.density"):
        corrupted([list(range(5, 55))], SpanConfig(0.15, 1.0), sentinels=SENTINELS[:3])
    with pytest.raises(MatfmError, match="spans.density is 1"):
        SpanConfig(density=1)
    with pytest.raises(MatfmError, match="spans.mean_length is 0.5"):
        SpanConfig(mean_length=0.5)


def test_the_same_state_of_the_generator_gives_the_same_spans():
    sequences = [list(range(5, 30))] * 20
    assert torch.equal(corrupted(sequences, seed=4).input_ids_N, corrupted(sequences, seed=4).input_ids_N)
    assert not torch.equal(corrupted(sequences, seed=4).input_ids_N, corrupted(sequences, seed=5).input_ids_N)
