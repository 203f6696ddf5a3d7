"""Positions: formulas of the papers, the law of relative distance, errors."""

import math

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from matfm import MatfmError
from matfm.core.layout import PackedLayout
from matfm.core.positions import LearnedPositions, RelativeBias, Rotary, SinusoidalPositions


def test_positions_restart_in_every_packed_sequence():
    assert PackedLayout.from_lengths([2, 2, 3, 1]).positions().tolist() == [0, 1, 0, 1, 0, 1, 2, 0]


@pytest.mark.parametrize("width", [6, 7])
def test_sines_and_cosines_alternate_as_in_the_paper(width):
    table = SinusoidalPositions()(torch.zeros(40, width), torch.arange(40))
    for position in (0, 1, 39):
        for channel in range(width):
            angle = position / 10_000 ** ((channel - channel % 2) / width)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[position, channel].item() == pytest.approx(expected, abs=1e-5)


def test_rotation_multiplies_complex_pairs():
    torch.manual_seed(0)
    vectors = torch.randn(2, 3, 5, 8)
    turned = Rotary(8, base=100.0)(torch.arange(5), vectors.dtype)(vectors)
    pairs = torch.complex(vectors[..., :4], vectors[..., 4:])
    angles = torch.arange(5.0)[:, None] * 100.0 ** (-torch.arange(4) / 4)
    expected = pairs * torch.exp(1j * angles)
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], dim=-1))


def test_rotated_scores_depend_on_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)
    turn = Rotary(8)(torch.arange(50), query.dtype)
    scores = turn(query.expand(1, 1, 50, 8)) @ turn(key.expand(1, 1, 50, 8)).mT
    for distance in (0, 3, 20):
        band = torch.diagonal(scores[0, 0], distance)
        torch.testing.assert_close(band, band[:1].expand_as(band), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (16, 40)])
def test_buckets_are_those_of_t5(causal, buckets, farthest):
    distance = torch.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(distance, not causal, buckets, farthest)
    assert torch.equal(RelativeBias(2, buckets, farthest, causal).bucket(distance), expected)


def test_bias_of_short_sequences_is_a_corner_of_that_of_long_ones():
    bias = RelativeBias(3)
    long = bias(torch.arange(30), torch.arange(30))
    assert torch.equal(bias(torch.arange(9), torch.arange(9)), long[:, :9, :9])


def test_too_long_sequences_and_odd_heads_are_named():
    with pytest.raises(MatfmError, match="a sequence has 6 tokens, but this model knows 5 positions"):
        LearnedPositions(5, 4)(torch.zeros(6, 4), torch.arange(6))
    with pytest.raises(MatfmError, match="heads of even width, not 5"):
        Rotary(5)
