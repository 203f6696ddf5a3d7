"""Drawing tokens: the quantile function, temperature and cuts by their definitions, numbers of their own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm import MatfmError
from matfm.core.sampling import SamplingConfig, choose, cut_logits, uniforms

LOGITS = st.lists(st.floats(-8, 8), min_size=2, max_size=12)


def chances(logits, temperature):
    weights = np.exp((np.array(logits) - max(logits)) / temperature)
    return weights / weights.sum()


@settings(max_examples=30)
@given(LOGITS, st.sampled_from([0.5, 1.0, 2.0]))
def test_a_grid_of_numbers_gives_every_token_its_share(logits, temperature):
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    drawn = choose(torch.tensor([logits] * 2000), grid, SamplingConfig(temperature))
    shares = np.bincount(drawn.numpy(), minlength=len(logits)) / 2000
    np.testing.assert_allclose(shares, chances(logits, temperature), atol=1e-3)


@given(LOGITS, st.integers(1, 4), st.floats(0.05, 1.0), st.floats(0.0, 1.0))
def test_cuts_keep_the_tokens_of_their_definitions(logits, k, p, share):
    ranked = sorted(logits, reverse=True)
    if len(set(ranked)) < len(ranked) or min(np.diff(ranked[::-1])) < 1e-3:
        return  # ties, and what rounding makes one
    one = torch.tensor([logits], dtype=torch.float64)
    order = np.argsort(logits)[::-1]

    def kept(**cut):
        return set(torch.isfinite(cut_logits(one, SamplingConfig(**cut)))[0].nonzero()[:, 0].tolist())

    assert kept(top_k=k) == set(order[:k].tolist())
    mass = chances(logits, 1.0)
    before = np.concatenate([[0], np.cumsum(mass[order])[:-1]])
    if np.abs(before - p).min() > 1e-9:
        assert kept(top_p=p) == set(order[before < p].tolist())
    if np.abs(mass - share * mass.max()).min() > 1e-9 or share == 1.0:
        assert kept(min_p=share) == set(np.flatnonzero(mass >= share * mass.max() * (1 - 1e-12)).tolist())


@given(st.lists(st.sampled_from([-np.inf, 0.0, -30.0, 5.0]), min_size=3, max_size=9), st.floats(0, 1, exclude_max=True))
def test_what_is_forbidden_is_never_drawn(logits, number):
    if max(logits) == -np.inf:
        return
    one = torch.tensor([logits, logits], dtype=torch.float32)
    for config in (SamplingConfig(), SamplingConfig(0.0), SamplingConfig(0.1, 2, 0.9, 0.1)):
        drawn = choose(one, torch.tensor([number, np.nextafter(1.0, 0.0)], dtype=torch.float64), config)
        assert all(logits[token] > -np.inf for token in drawn.tolist())


def test_every_sample_has_numbers_of_its_own():
    first, again, other = uniforms(3, 7, 50), uniforms(3, 7, 20), uniforms(3, 8, 50)
    assert (first[:20] == again).all()
    assert (first != other).all()
    assert (uniforms(4, 7, 50) != first).all()
    many = np.concatenate([uniforms(0, index, 40) for index in range(500)])
    assert 0 <= many.min() < many.max() < 1
    assert abs(many.mean() - 0.5) < 4 / np.sqrt(12 * len(many))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"min_p": 1.5}, "min_p is 1.5"),
    ],
)
def test_impossible_values_are_named(values, message):
    with pytest.raises(MatfmError, match=message):
        SamplingConfig(**values)
