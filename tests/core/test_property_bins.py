"""Bins of properties: every value in one of them, point masses apart, in order; and tokens put before texts."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm import MatfmError
from matfm.core.inserted_tokens import NOTHING, insert_after_first
from matfm.core.layout import PackedLayout
from matfm.core.objectives import causal_lm_loss
from matfm.core.property_bins import OUTSIDE, PropertyBins

numbers = st.one_of(st.sampled_from([0.0, 1.0, -2.5]), st.floats(-50, 50, width=32), st.just(float("nan")))


def fitted(values, bins):
    return PropertyBins.fit("gap", "eV", np.array(values, np.float32), bins)


@settings(max_examples=150, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=80), st.integers(2, 12))
def test_every_training_value_is_in_exactly_one_bin_in_order(values, bins):
    values = np.array(values, np.float32)
    present = values[~np.isnan(values)]
    if not len(present):
        with pytest.raises(MatfmError, match="no training row has a finite number of 'gap'"):
            fitted(values, bins)
        return
    made = fitted(values, bins)
    number = made.of(values)
    assert np.array_equal(number == OUTSIDE, np.isnan(values))
    assert np.bincount(number[number >= 0], minlength=len(made)).tolist() == list(made.rows)
    assert min(made.rows) >= 1
    ordered = np.argsort(present, kind="stable")
    assert (np.diff(made.of(present[ordered])) >= 0).all()
    for value, count in zip(*np.unique(present, return_counts=True), strict=True):
        if count * bins >= len(present):  # a point mass is alone
            its = int(made.of(np.array([value]))[0])
            assert made.lower[its] == made.upper[its] == value
            assert made.rows[its] == count
    assert all(low <= high for low, high in zip(made.lower, made.upper, strict=True))
    assert all(high <= low for high, low in zip(made.upper, made.lower[1:], strict=False))
    assert PropertyBins.saved(json.loads(json.dumps(made.mapping())), "config.json") == made
    np.testing.assert_allclose(made.rows_between(-np.inf, np.inf), made.rows)


def test_quantiles_hold_about_equally_many_and_zeros_have_their_own():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(600), rng.gamma(2.0, 1.0, 400)])
    made = fitted(values, 8)
    assert made.lower[0] == made.upper[0] == 0.0
    assert made.rows[0] == 600
    assert made.lower[1] in (0.0, min(values[values > 0].astype(np.float32)))
    assert len(made) in (9, 10)
    assert sorted(made.rows[1:])[1] >= 48
    assert max(made.rows[1:]) <= 52
    assert made.tokens[0] == "<gap:0>"
    assert made.texts[0] == "0"
    assert made.of(np.array([0.0, -0.01, 1e9])).tolist() == [0, OUTSIDE, OUTSIDE]


def test_a_range_has_about_the_training_rows_that_are_in_it():
    values = np.concatenate([np.zeros(500), np.random.default_rng(1).uniform(0.001, 10, 5000)])
    made = fitted(values, 10)
    for low, high in ((0, 10), (2, 3), (0, 0.5), (-1, 4.25), (9.9, 99)):
        inside = ((values >= low) & (values <= high)).sum()
        assert made.rows_between(low, high).sum() == pytest.approx(inside, rel=0.1, abs=12)
    assert not made.rows_between(10.5, 11).any()


def slow_insertion(sequences, inserted):
    rows = [
        [row[0], *(token for token in tokens if token != NOTHING), *row[1:]]
        for row, tokens in zip(sequences, inserted, strict=True)
    ]
    return sorted(rows, key=len)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_insertion_equals_the_definition(data):
    lengths = sorted(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)))
    sequences = [[2, *range(10 * row + 10, 10 * row + 9 + length)] for row, length in enumerate(lengths)]
    places = data.draw(st.integers(1, 3))
    inserted = [[data.draw(st.sampled_from([NOTHING, 100 + place])) for place in range(places)] for _ in sequences]
    made = insert_after_first(
        torch.tensor([token for row in sequences for token in row]),
        PackedLayout.from_lengths(lengths),
        torch.tensor(inserted),
    )
    assert [row.tolist() for row in made.ids_M.split(made.layout.lengths())] == slow_insertion(sequences, inserted)
    assert torch.equal(made.inserted_M, made.ids_M >= 100)
    logits = torch.randn(len(made.ids_M), 120)
    total, weight = made.causal_loss(logits)
    assert int(weight) == sum(length - 1 for length in lengths)  # tokens of the texts, whatever stands before them
    if not made.inserted_M.any():
        torch.testing.assert_close(total, causal_lm_loss(logits, made.ids_M, made.layout)[0])
