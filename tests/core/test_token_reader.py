"""Batches of token files: every sequence once, the same for any number of processes, resumable, in flat memory."""

import json
import os
import resource
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch

from matfm import MatfmError
from matfm.core.batching import RaggedTokens
from matfm.core.prefetch import PrefetchedBatches
from matfm.core.token_files import TokenWriter, open_tokens
from matfm.core.token_reader import TokenReader

ROWS = 1500


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sequence i has the ids [i, i, …], so a batch shows where its tokens come from."""
    folder = tmp_path_factory.mktemp("corpus") / "tokens"
    lengths = np.random.default_rng(0).integers(1, 40, ROWS)
    with TokenWriter(folder.with_name("unfinished"), True) as writer:
        ids = np.repeat(np.arange(ROWS), lengths)
        writer.append(ids, np.concatenate([[0], np.cumsum(lengths)]), np.arange(ROWS), ids / ROWS)
        writer.finish(folder, {})
    return open_tokens(folder)[0]


def epoch_of(reader):
    """All batches until the epoch changes, with the position before each."""
    found = []
    epoch = reader.epoch
    while True:
        state = reader.state_dict()
        batch = reader.next()
        if reader.epoch != epoch:
            reader.load_state_dict(state)
            return found
        found.append((state, batch))


@pytest.mark.parametrize("length_pool", [1, 4, 64])
def test_an_epoch_holds_every_sequence_once_within_the_budget(data, length_pool):
    reader = TokenReader(data, 500, seed=1, length_pool=length_pool)
    batches = [batch for _, batch in epoch_of(reader)]
    assert sorted(row for batch in batches for row in batch.rows_B.tolist()) == list(range(ROWS))
    assert max(batch.layout.tokens for batch in batches) <= 500 + 40
    assert reader.batches_per_epoch <= len(batches) <= reader.batches_per_epoch + reader.pools
    for batch in batches[:5]:
        lengths = torch.from_numpy(data.lengths_of(batch.rows_B.numpy()))
        assert torch.equal(batch.ids_N, batch.rows_B.repeat_interleave(lengths))
        torch.testing.assert_close(batch.amounts_N, batch.ids_N / ROWS, rtol=1e-6, atol=0)


def test_epochs_and_seeds_differ_and_the_source_never_ends(data):
    reader = TokenReader(data, 2000, seed=1)
    first = reader.next().rows_B
    while reader.epoch < 2:
        last = reader.next().rows_B
    assert not torch.equal(first, last)
    assert not torch.equal(first, TokenReader(data, 2000, seed=2).next().rows_B)


def test_longer_pools_need_fewer_runs(data):
    def runs(pool):
        return np.mean([len(batch.layout.runs) for _, batch in epoch_of(TokenReader(data, 800, 0, length_pool=pool))])

    assert runs(16) < runs(1) / 3


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_share_the_same_global_batches(data, world):
    alone = TokenReader(data, 900, seed=3, length_pool=8)
    ranks = [TokenReader(data, 900, seed=3, length_pool=8, rank=rank, world=world) for rank in range(world)]
    for _ in range(2 * alone.batches_per_epoch):
        whole = alone.next()
        parts = [reader.next() for reader in ranks]
        assert sorted(torch.cat([part.rows_B for part in parts]).tolist()) == sorted(whole.rows_B.tolist())
        tokens = [part.layout.tokens for part in parts]
        assert max(tokens) - min(tokens) <= 40
        assert all(reader.state_dict() == alone.state_dict() for reader in ranks)


@pytest.mark.parametrize("prefetch", [False, True])
def test_any_position_can_be_resumed_also_from_json(data, prefetch):
    def source():
        reader = TokenReader(data, 900, seed=5, length_pool=4)
        return PrefetchedBatches(reader, 3) if prefetch else reader

    reference = TokenReader(data, 900, seed=5, length_pool=4)
    expected = [reference.next().rows_B.tolist() for _ in range(60)]
    for position in (0, 1, 4, 5, 33, 55):
        first, second = source(), source()
        seen = [first.next().rows_B.tolist() for _ in range(position)]
        second.next()
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert seen + [second.next().rows_B.tolist() for _ in range(60 - position)] == expected
        if prefetch:
            first.close()
            second.close()


def test_a_position_of_another_file_is_refused(data):
    reader = TokenReader(data, 900, seed=5)
    with pytest.raises(MatfmError, match=r"pool 10 but there are \d+: the token file changed"):
        reader.load_state_dict({"epoch": 0, "pool": 10, "index": 0})
    with pytest.raises(MatfmError, match=r"batch 1000 of \d+: the token file changed"):
        reader.load_state_dict({"epoch": 0, "pool": 0, "index": 1000})


def test_too_few_sequences_for_the_processes_are_refused(data):
    with pytest.raises(MatfmError, match="3 sequences, too few for 4 processes"):
        TokenReader(data.take(np.arange(3)), 900, 0, world=4)
    with pytest.raises(MatfmError, match=r"a batch of 40 tokens holds \d of these sequences, too few for 8"):
        TokenReader(data, 40, 0, rank=0, world=8)
    with pytest.raises(ValueError, match="do not fit"):
        TokenReader(data, 40, 0, rank=2, world=2)


def test_a_sequence_longer_than_the_budget_is_a_batch_of_its_own():
    tokens = RaggedTokens.from_sequences([([1] * n, [0.0] * n) for n in (2, 50, 3)])
    sizes = [batch.layout.tokens for _, batch in epoch_of(TokenReader(tokens, 10, 0, length_pool=1))]
    assert sum(sizes) == 55
    assert max(sizes) >= 50


def test_prefetching_reads_in_one_thread_and_passes_errors_on(data):
    names = set()

    class Failing(TokenReader):
        def next(self):
            names.add(threading.current_thread().name)
            if self.index == 2:
                raise MatfmError("the disk is gone")
            return super().next()

    batches = PrefetchedBatches(Failing(data, 900, 0), ahead=2)
    batches.next()
    batches.next()
    with pytest.raises(MatfmError, match="the disk is gone"):
        batches.next()
    batches.close()
    assert names == {"prefetch_0"}
    with pytest.raises(ValueError, match="ahead is 0"):
        PrefetchedBatches(batches.source, 0)


GIGABYTE = 10**9


def sparse_token_file(folder, size, length=10_000):
    """`size` bytes of ids that take no space on the disk."""
    folder.mkdir()
    tokens = size // 2
    with (folder / "ids.bin").open("wb") as ids:
        try:
            os.truncate(ids.fileno(), size)
        except OSError as error:
            pytest.skip(f"no sparse files of {size} bytes here: {error}")
    if (folder / "ids.bin").stat().st_blocks * 512 > size / 100:
        pytest.skip("this file system has no sparse files")
    offsets = np.arange(0, tokens + 1, length, dtype="<i8")
    offsets.tofile(folder / "offsets.bin")
    np.arange(len(offsets) - 1, dtype="<i8").tofile(folder / "rows.bin")
    meta = {"format": 1, "sequences": len(offsets) - 1, "tokens": tokens, "amounts": False}
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_memory_stays_flat_over_a_file_of_ten_gigabytes(tmp_path):
    sparse_token_file(tmp_path / "tokens", 10 * GIGABYTE)
    reader = TokenReader(open_tokens(tmp_path / "tokens")[0], 100_000, 0)

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    reader.next()
    before, read = resident(), 0
    highest = before
    while read < 0.2 * GIGABYTE:  # all of it would stay resident if pages were not given back
        read += 2 * reader.next().layout.tokens
        highest = max(highest, resident())
    assert highest - before < 40e6


class EvenOffsets:
    """Offsets of sequences of 50 tokens each, computed when asked for."""

    base = None

    def __init__(self, sequences):
        self.sequences = sequences

    def __len__(self):
        return self.sequences + 1

    def __getitem__(self, index):
        return 50 * (index % len(self) if isinstance(index, int) else index)


def test_planning_and_resuming_a_billion_sequences_takes_no_memory():
    sequences = 10**9
    ids = np.broadcast_to(np.uint16(7), 50 * sequences)
    amounts = np.broadcast_to(np.float32(0), 50 * sequences)
    data = RaggedTokens(ids, amounts, EvenOffsets(sequences), np.zeros((0, 0), np.float32))
    data.targets_RK = np.broadcast_to(np.zeros((1, 0), np.float32), (sequences, 0))
    tracemalloc.start()
    reader = TokenReader(data, 8192, 0)
    reader.load_state_dict({"epoch": 3, "pool": reader.pools - 1, "index": 5})
    batch = reader.next()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert len(set(batch.rows_B.tolist())) == batch.layout.sequences
    assert batch.rows_B.max() > sequences / 2
