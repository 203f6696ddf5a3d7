"""Rows in several ways, hashes of sequences, and token files of which a part is held out."""

import numpy as np
import pytest

from matfm.core.batching import EpochBatches, RaggedTokens
from matfm.core.sequence_hash import sequence_hashes, shares_of
from matfm.core.token_reader import TokenReader
from matfm.core.varied_tokens import VariedTokens

ROWS, WAYS = 50, 3


@pytest.fixture
def varied():
    """Sequence s has the ids [s, s, …] and row r the target r."""
    lengths = np.random.default_rng(0).integers(1, 9, ROWS * WAYS)
    sequences = RaggedTokens.from_sequences([([s] * n, [0.0] * n) for s, n in enumerate(lengths.tolist())])
    return VariedTokens.evenly(sequences, np.arange(ROWS, dtype=np.float32)[:, None], WAYS, seed=5)


def test_every_epoch_has_each_row_once_and_as_many_epochs_as_ways_see_all(varied):
    batches = EpochBatches(varied, 60, seed=1, length_pool=4)
    seen, ways = {}, [set() for _ in range(ROWS)]
    while batches.epoch < WAYS:
        batch = batches.next()
        if batches.epoch == WAYS:
            break
        lengths = np.array(batch.layout.lengths())
        assert np.array_equal(batch.ids_N.numpy(), np.repeat(batch.rows_B.numpy(), lengths))
        rows = batch.rows_B.numpy() // WAYS
        assert np.array_equal(batch.targets_BK[:, 0].numpy(), rows)
        for row, sequence in zip(rows.tolist(), batch.rows_B.tolist(), strict=True):
            seen.setdefault(batches.epoch, []).append(row)
            ways[row].add(sequence % WAYS)
    assert all(sorted(seen[epoch]) == list(range(ROWS)) for epoch in range(WAYS))
    assert all(found == set(range(WAYS)) for found in ways)
    first = varied.of_epoch(0).numbers_R % WAYS
    assert len(set(first.tolist())) == WAYS  # rows do not all begin with the same way


def test_any_position_can_be_resumed(varied):
    batches = EpochBatches(varied, 60, seed=1)
    for _ in range(batches.batches_per_epoch + 2):
        batches.next()
    again = EpochBatches(varied, 60, seed=1)
    again.load_state_dict(batches.state_dict())
    for _ in range(5):
        assert np.array_equal(batches.next().ids_N, again.next().ids_N)


def test_hashes_of_strings_see_order_and_those_of_formulas_amounts():
    data = RaggedTokens.from_sequences(
        [([2, 5, 6], [0.0, 0.4, 0.6]), ([2, 6, 5], [0.0, 0.6, 0.4]), ([2, 5, 6], [0.0, 0.6, 0.4])]
    )
    rows = np.arange(3)
    strings, formulas = sequence_hashes(data, rows, True), sequence_hashes(data, rows, False)
    assert (strings[0] == strings[2], strings[0] == strings[1]) == (True, False)
    assert (formulas[0] == formulas[1], formulas[0] == formulas[2]) == (True, False)
    assert np.array_equal(sequence_hashes(data, rows[::-1], True), strings[::-1])


def test_hashes_are_uniform_and_distinct():
    generator = np.random.default_rng(0)
    words = {tuple(generator.integers(5, 30, generator.integers(3, 12)).tolist()) for _ in range(20_000)}
    data = RaggedTokens.from_sequences([(list(word), [0.0] * len(word)) for word in sorted(words)])
    hashes = sequence_hashes(data, np.arange(len(data)), True)
    assert len(np.unique(hashes)) == len(data)
    share = (shares_of(hashes) < 0.1).mean()
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / len(data)) ** 0.5


def test_a_reader_leaves_out_what_is_not_kept(varied):
    data = varied.sequences
    reader = TokenReader(data, 40, seed=0, length_pool=2, keep=lambda rows: rows % 5 == 0)
    found = []
    while reader.epoch == 0:
        batch = reader.next()
        if reader.epoch == 0:
            found += batch.rows_B.tolist()
    assert sorted(found) == list(range(0, ROWS * WAYS, 5))
    rare = TokenReader(data, 10, seed=0, length_pool=1, keep=lambda rows: rows == 7)  # most pools are empty
    assert [rare.next().rows_B.tolist() for _ in range(3)] == [[7]] * 3
    resumed = TokenReader(data, 40, seed=0, length_pool=2, keep=lambda rows: rows % 5 == 0)
    resumed.load_state_dict(reader.state_dict())
    assert resumed.next().rows_B.tolist() == reader.next().rows_B.tolist()


def test_rows_may_have_different_numbers_of_ways():
    """Rows 0, 1, 2 with one, three and two sequences, whose only token is their number."""
    starts = np.array([0, 1, 4, 6])
    sequences = RaggedTokens.from_sequences([([number], [0.0]) for number in range(6)])
    varied = VariedTokens(sequences, np.zeros((3, 0), np.float32), starts, seed=0)
    seen = [varied.of_epoch(epoch).numbers_R for epoch in range(6)]
    assert all(np.searchsorted(starts, numbers, "right").tolist() == [1, 2, 3] for numbers in seen)
    assert all(len({int(numbers[row]) for numbers in seen}) == count for row, count in enumerate((1, 3, 2)))
