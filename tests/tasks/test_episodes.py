"""Episodes: laws of every draw, positions that can be resumed, and batches that hold what the episode says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm import MatfmError
from matfm.tasks.encoding import encode_formulas, row_encoder
from matfm.tasks.enumeration import encode_forms
from matfm.tasks.few_shot.episodes import (
    IS_QUERY,
    LABEL,
    EpisodeBatches,
    EpisodeSampler,
    TaskTable,
    median_classes,
    quantile_classes,
)


def table_of(rows=80, tasks=3, classes=2, missing=0.2, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, (rows, tasks)).astype(float)
    labels[generator.random((rows, tasks)) < missing] = np.nan
    return TaskTable(tuple(f"t{task}" for task in range(tasks)), labels)


@settings(max_examples=60)
@given(
    st.sampled_from(["natural", "balanced"]),
    st.integers(2, 4),
    st.integers(4, 12),
    st.integers(2, 30),
    st.integers(0, 99),
)
def test_every_episode_obeys_its_laws(ratio, ways, support, queries, index):
    table = table_of(classes=5)
    episode = EpisodeSampler(table, (support,), queries, ways, ratio).episode(index)
    labels = table.labels_RT[:, episode.task]
    rows = np.concatenate([episode.support_S, episode.query_Q])
    assert len(set(rows.tolist())) == len(rows)
    assert not np.isnan(labels[rows]).any()
    assert len(episode.support_S) == support
    assert len(episode.query_Q) <= max(queries, ways)
    for part in (episode.support_labels_S, episode.query_labels_Q):
        assert set(part) == set(range(ways))
    numbers = np.concatenate([episode.support_labels_S, episode.query_labels_Q])
    assert len({(int(a), b) for a, b in zip(numbers, labels[rows], strict=True)}) == ways  # one number, one class
    if ratio == "balanced":
        assert np.ptp(np.bincount(episode.support_labels_S.astype(int))) <= 1


def test_an_episode_depends_on_seed_and_number_alone():
    sampler = EpisodeSampler(table_of(), (8,), seed=3)
    first = [sampler.episode(number) for number in range(5)]
    again = EpisodeSampler(table_of(), (8,), seed=3).episode(4)
    np.testing.assert_array_equal(first[4].support_S, again.support_S)
    np.testing.assert_array_equal(first[4].query_Q, again.query_Q)
    other = EpisodeSampler(table_of(), (8,), seed=4).episode(4)
    assert first[4].support_S.tolist() != other.support_S.tolist()
    one, two = (sampler.of_task(1, 8, 7) for _ in range(2))
    assert one.task == 1
    np.testing.assert_array_equal(one.support_S, two.support_S)


def test_natural_support_has_the_ratio_of_the_task_and_one_of_each_class():
    labels = np.zeros((100, 1))
    labels[:10] = 1
    for number in range(20):
        episode = EpisodeSampler(TaskTable(("t",), labels), (20,), 50).of_task(0, 20, number)
        assert episode.support_labels_S.sum() == 2
    labels[2:10] = 0
    assert EpisodeSampler(TaskTable(("t",), labels), (20,), 50).of_task(0, 20, 0).support_labels_S.sum() == 1


def test_tasks_with_too_few_rows_are_left_out_or_named():
    table = table_of()
    table.labels_RT[10:, 1] = np.nan
    sampler = EpisodeSampler(table, (16,))
    assert sampler.eligible(16) == [0, 2]
    assert {sampler.episode(number).task for number in range(20)} == {0, 2}
    with pytest.raises(MatfmError, match="task 't1' has too few rows for 16 support examples"):
        sampler.of_task(1, 16, 0)
    with pytest.raises(MatfmError, match="no task has rows for 90 support examples"):
        EpisodeSampler(table, (90,)).episode(0)
    with pytest.raises(MatfmError, match="needs at least 5 examples"):
        EpisodeSampler(table, (3,), ways=5)


def test_medians_and_quantiles_make_classes_of_equal_size():
    values = np.random.default_rng(0).normal(size=(101, 2))
    values[::3, 1] = np.nan
    assert np.nansum(median_classes(values), axis=0).tolist() == [50, 33]
    assert np.isnan(median_classes(values)).tolist() == np.isnan(values).tolist()
    assert np.bincount(quantile_classes(values[:100], 5)[:, 0].astype(int)).tolist() == [20] * 5
    common = np.concatenate([np.zeros(60), np.arange(1, 41)])[:, None]
    assert set(quantile_classes(common, 5)[:, 0]) == {0, 1, 2}  # 60 % are equal and stay together
    np.testing.assert_array_equal(median_classes(values, values + 100), np.where(np.isnan(values), np.nan, 0.0))


def test_batches_hold_the_episode_and_can_be_resumed(formulas):
    tokens = encode_formulas(formulas * 4).tokens
    sampler = EpisodeSampler(table_of(len(tokens)), (6, 8), 10)
    batches = EpisodeBatches(sampler, tokens)
    seen = [batches.next() for _ in range(4)]
    for number, batch in enumerate(seen):
        episode = sampler.episode(number)
        is_query = batch.targets_BK[:, IS_QUERY] > 0
        assert sorted(batch.rows_B[is_query].tolist()) == sorted(episode.query_Q.tolist())
        label_of = dict(zip(batch.rows_B.tolist(), batch.targets_BK[:, LABEL].tolist(), strict=True))
        assert [label_of[row] for row in episode.support_S] == episode.support_labels_S.tolist()
        for place, row in enumerate(batch.rows_B.tolist()):
            start = sum(batch.layout.lengths()[:place])
            ids = batch.ids_N[start : start + batch.layout.lengths()[place]]
            assert ids.tolist() == tokens.ids_N[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
    resumed = EpisodeBatches(sampler, tokens)
    resumed.load_state_dict({"episode": 3})
    assert torch.equal(resumed.next().ids_N, seen[3].ids_N)


def test_copies_of_the_support_have_other_amounts_or_other_strings(formulas):
    tokens = encode_formulas(formulas * 4).tokens
    sampler = EpisodeSampler(table_of(len(tokens)), (6,), 10)
    batch = EpisodeBatches(sampler, tokens, copies=3, jitter=0.1).next()
    assert len(batch.rows_B) == 3 * 6 + 10
    totals = torch.stack([part.sum() for part in batch.amounts_N.split(batch.layout.lengths())])
    torch.testing.assert_close(totals, torch.ones(28), rtol=0, atol=1e-5)
    queries = batch.targets_BK[:, IS_QUERY] > 0
    for place, part in enumerate(batch.amounts_N.split(batch.layout.lengths())):
        row = int(batch.rows_B[place])
        if queries[place]:
            assert part.tolist() == tokens.amounts_N[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
    smiles = [f"C{'C' * n}(N)C(=O)Oc1ccccc1" for n in range(24)]
    encoder = row_encoder("smiles")
    tokens, forms = encode_forms(encoder, smiles, 3, 0)
    batch = EpisodeBatches(EpisodeSampler(table_of(24, 1, missing=0.0), (4,), 6), tokens, forms, copies=3).next()
    of_row = {}
    for row, part in zip(batch.rows_B.tolist(), batch.ids_N.split(batch.layout.lengths()), strict=True):
        of_row.setdefault(row, []).append(tuple(part.tolist()))
    several = [strings for strings in of_row.values() if len(strings) == 3]
    assert len(several) == 4
    assert all(len(set(strings)) > 1 for strings in several)
