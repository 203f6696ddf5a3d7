"""Choosing what to label, and reports on what is labelled."""

import numpy as np
import pytest

from matfm import MatfmError
from matfm.tasks.few_shot.scorers import KernelScorer
from matfm.tasks.few_shot.support import labels_curve, medoids, most_uncertain, stratified
from matfm.tasks.few_shot.support_report import support_report


@pytest.fixture
def blobs():
    generator = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    group = np.repeat([0, 1, 2], [50, 30, 10])
    return (centres[group] + generator.normal(size=(90, 2))).astype(np.float32), group


def test_medoids_take_one_row_of_every_cluster(blobs):
    vectors, group = blobs
    for seed in range(10):
        assert sorted(group[medoids(vectors, 3, np.random.default_rng(seed))]) == [0, 1, 2]
    chosen = medoids(vectors, 3, np.random.default_rng(0))
    for row in chosen:
        own = vectors[group == group[row]]
        assert np.linalg.norm(vectors[row] - own.mean(axis=0)) < 1.0
    np.testing.assert_array_equal(chosen, medoids(vectors, 3, np.random.default_rng(0)))


@pytest.mark.parametrize("count", [1, 7, 90])
def test_medoids_are_that_many_different_rows(blobs, count):
    vectors, _ = blobs
    assert len(set(medoids(vectors, count, np.random.default_rng(1)).tolist())) == count
    same = np.ones((5, 2), np.float32)
    assert medoids(same, 5, np.random.default_rng(1)).tolist() == [0, 1, 2, 3, 4]


def test_medoids_of_too_many_rows_are_refused(blobs):
    with pytest.raises(MatfmError, match="91 of 90 rows were asked for"):
        medoids(blobs[0], 91, np.random.default_rng(0))


def test_strata_get_their_share_and_at_least_one(blobs):
    vectors, group = blobs
    chosen = stratified(vectors, group, 9, np.random.default_rng(0))
    assert np.bincount(group[chosen]).tolist() == [5, 3, 1]
    assert sorted(group[stratified(vectors, group, 3, np.random.default_rng(0))]) == [0, 1, 2]
    with pytest.raises(MatfmError, match="2 rows of 3 groups"):
        stratified(vectors, group, 2, np.random.default_rng(0))


def test_uncertain_rows_are_taken_but_not_all_alike(blobs):
    vectors, group = blobs
    uncertainty = np.where(group == 0, 0.0, 1.0) + np.arange(90) * 1e-6
    chosen = most_uncertain(vectors, uncertainty, 2, np.random.default_rng(0))
    assert sorted(group[chosen]) == [1, 2]


def test_a_report_says_what_is_covered_doubled_and_contradictory(blobs):
    vectors, group = blobs
    support = np.concatenate([vectors[:5], vectors[:1], vectors[1:2]])
    report = support_report(support, [1, 0, 1, 0, 1, 1, 1], vectors)
    assert report.classes == {"0": 2, "1": 5}
    assert (report.duplicates, report.conflicts, report.in_library) == (2, 1, 7)
    assert report.coverage <= 50 / 90
    assert set(group[report.farthest]) <= {1, 2}
    assert report.library_distance["1"] > 15
    wide = support_report(vectors[::3], np.zeros(30), vectors)
    assert wide.coverage > report.coverage
    assert wide.duplicates == 0
    with pytest.raises(MatfmError, match="1 examples and 90 library rows"):
        support_report(vectors[:1], [1], vectors)


def test_more_labels_help_where_there_is_something_to_learn():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    vectors = generator.normal(size=(60, 3)) + 2.0 * labels[:, None]
    curve = labels_curve(vectors, labels, KernelScorer, [4, 40, 500], repeats=6)
    assert [row["labels"] for row in curve] == [4, 40]
    assert curve[-1]["roc_auc"] > curve[0]["roc_auc"]
    assert all(row["roc_auc_low"] <= row["roc_auc"] <= row["roc_auc_high"] for row in curve)
    assert curve == labels_curve(vectors, labels, KernelScorer, [4, 40], repeats=6)
    numbers = labels_curve(vectors, vectors[:, 0] + vectors[:, 1], KernelScorer, [4, 40], repeats=4, regression=True)
    assert numbers[-1]["mae"] < numbers[0]["mae"]
    with pytest.raises(MatfmError, match="needs two examples"):
        labels_curve(vectors[:5], np.array([0, 0, 0, 0, 1]), KernelScorer, [2])
