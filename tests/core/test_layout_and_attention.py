"""Packed, padded and slow attention agree in values and gradients."""

import numpy as np
import pytest
import torch

from matfm.core.attention import SelfAttention
from matfm.core.attention_context import AttentionContext
from matfm.core.batching import EpochBatches, RaggedTokens, budget_slices
from matfm.core.layout import PackedLayout, PaddedIndex


def slow_attention(module, sequence_TD):
    """One sequence, head by head, straight from the formula."""
    query, key, value = module.qkv(sequence_TD).chunk(3, dim=-1)
    width = query.shape[-1] // module.heads
    mixed = []
    for head in range(module.heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[:, part] @ key[:, part].T / width**0.5
        mixed.append(torch.softmax(scores, dim=-1) @ value[:, part])
    return module.out(torch.cat(mixed, dim=-1))


def test_packed_attention_equals_one_sequence_at_a_time():
    torch.manual_seed(0)
    module = SelfAttention(24, 3).double()
    lengths = [2, 2, 3, 5, 5, 1]
    hidden = torch.randn(sum(lengths), 24, dtype=torch.float64)
    weights = torch.randn_like(hidden)
    fast_in, slow_in = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    fast = module(fast_in, AttentionContext.packed(PackedLayout.from_lengths(lengths), fast_in))
    slow = torch.cat([slow_attention(module, part) for part in slow_in.split(lengths)])
    torch.testing.assert_close(fast, slow)
    (fast * weights).sum().backward()
    (slow * weights).sum().backward()
    torch.testing.assert_close(fast_in.grad, slow_in.grad)


def test_width_must_be_a_multiple_of_heads():
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 3"):
        SelfAttention(10, 3)


def test_padded_index_round_trips_any_mask():
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]])
    padded = torch.arange(16.0).view(4, 4)
    index = PaddedIndex.from_mask(mask)
    assert index.layout.runs == ((1, 1), (1, 2), (1, 4))
    assert index.pack(padded).tolist() == [15, 1, 2, 4, 5, 6, 7]
    assert torch.equal(index.unpack(index.pack(padded)), padded * mask)


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        PackedLayout.from_lengths([2, 0])


def test_mean_and_maximum_skip_the_special_token_where_others_remain():
    layout = PackedLayout.from_lengths([1, 3])
    hidden = torch.tensor([[5.0], [100.0], [2.0], [4.0]])
    assert layout.mean(hidden, skip=1)[:, 0].tolist() == [5.0, 3.0]
    assert layout.maximum(hidden, skip=1)[:, 0].tolist() == [5.0, 4.0]
    assert layout.first_tokens().tolist() == [0, 1]


def test_every_epoch_holds_every_row_once_within_the_budget():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 30, 500)
    data = RaggedTokens.from_sequences([([2] * n, [0.0] * n) for n in lengths])
    for pool in (1, 8):
        batches = EpochBatches(data, tokens=200, seed=1, length_pool=pool)
        seen = [batches.next() for _ in range(batches.batches_per_epoch)]
        assert sorted(row for batch in seen for row in batch.rows_B.tolist()) == list(range(500))
        assert max(batch.layout.tokens for batch in seen) <= 200 + 30
        assert batches.epoch == 0
        batches.next()
        assert batches.epoch == 1


def test_some_sequences_of_a_batch_are_those_collated_alone():
    rows = [([number] * (1 + number % 3), [0.1 * number] * (1 + number % 3)) for number in range(9)]
    data = RaggedTokens.from_sequences(rows, np.arange(9.0)[:, None])
    batch, chosen = data.batch(np.arange(9)), np.array([0, 4, 5, 7])
    found, expected = batch.take(torch.isin(batch.rows_B, torch.from_numpy(chosen))), data.batch(chosen)
    assert found.layout == expected.layout
    for name in ("ids_N", "amounts_N", "targets_BK", "rows_B"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_length_pools_need_fewer_runs():
    generator = np.random.default_rng(0)
    data = RaggedTokens.from_sequences([([2] * n, [0.0] * n) for n in generator.integers(5, 60, 2000)])

    def runs(pool):
        batches = EpochBatches(data, tokens=2000, seed=0, length_pool=pool)
        return np.mean([len(batches.next().layout.runs) for _ in range(batches.batches_per_epoch)])

    assert runs(16) < runs(1) / 3


def test_batches_resume_at_any_position(tiny_tokens):
    reference = EpochBatches(tiny_tokens, tokens=20, seed=3)
    expected = [reference.next().rows_B.tolist() for _ in range(12)]
    first = EpochBatches(tiny_tokens, tokens=20, seed=3)
    for _ in range(5):
        first.next()
    second = EpochBatches(tiny_tokens, tokens=20, seed=3)
    second.load_state_dict(first.state_dict())
    assert [second.next().rows_B.tolist() for _ in range(7)] == expected[5:]


def test_no_rows_make_no_batches():
    assert budget_slices(np.array([], dtype=int), 10) == []
    with pytest.raises(ValueError, match="no row"):
        EpochBatches(RaggedTokens.from_sequences([]), tokens=10, seed=0)
