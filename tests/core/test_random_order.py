"""The order is a bijection, differs by seed, and looks random."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from matfm.core.random_order import RandomOrder


@given(st.integers(1, 3000), st.integers(0, 2**32), st.integers(0, 10**6))
def test_every_row_comes_exactly_once(size, seed, epoch):
    order = RandomOrder(size, seed, epoch)(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))


def test_any_part_of_the_order_can_be_read_alone():
    order = RandomOrder(1000, 1)
    whole = order(np.arange(1000))
    assert np.array_equal(order(np.array([7, 999, 7])), whole[[7, 999, 7]])
    assert np.array_equal(np.concatenate([order(np.arange(a, a + 100)) for a in range(0, 1000, 100)]), whole)


def test_a_huge_order_costs_nothing():
    size = 10**15
    rows = RandomOrder(size, 0)(np.arange(size - 1000, size))
    assert len(set(rows.tolist())) == 1000
    assert 0 <= rows.min() < size / 10
    assert size * 0.9 < rows.max() < size


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(RandomOrder(50, seed, epoch)(np.arange(50)).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("size", [3, 10, 36, 37])
def test_places_of_rows_and_of_neighbours_are_uniform_over_seeds(size):
    seeds = 3000
    first = np.array([RandomOrder(size, seed)(np.array([0, 1, size - 1])) for seed in range(seeds)])
    for column in range(3):
        assert chisquare(np.bincount(first[:, column], minlength=size)).pvalue > 1e-4
    step = (first[:, 1] - first[:, 0]) % size
    assert chisquare(np.bincount(step, minlength=size)[1:]).pvalue > 1e-4


def test_no_rows_have_no_order():
    with pytest.raises(ValueError, match="no order of 0 rows"):
        RandomOrder(0, 1)
