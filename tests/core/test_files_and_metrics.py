"""Atomic files with readable errors; scores against their definitions."""

import errno
import math
import os

import numpy as np
import pytest

from matfm.core.files import atomic_path, readable_os_errors, write_json
from matfm.core.metrics import classification_scores, regression_scores
from matfm.core.run_directory import RunDirectory
from matfm.errors import MatfmError, RunError


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == ["value.json"]
    assert "1" in path.read_text()


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [(errno.ENOSPC, RunError, "the disk is full"), (errno.EROFS, MatfmError, "cannot be written")],
)
def test_what_the_system_refuses_is_one_sentence(tmp_path, code, kind, message):
    with pytest.raises(kind, match=message) as caught, readable_os_errors(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == (1 if kind is RunError else 2)


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MatfmError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})


def test_regression_scores_ignore_missing_labels():
    scores = regression_scores(np.array([1.0, 2.0, math.nan, 4.0]), np.array([1.0, 3.0, 9.0, 2.0]))
    assert scores["n"] == 3
    assert scores["mae"] == pytest.approx(1.0)
    assert scores["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert scores["mae_low"] <= scores["mae"] <= scores["mae_high"]
    assert regression_scores(np.array([math.nan]), np.array([1.0])) == {"n": 0}
    assert "r2" not in regression_scores(np.array([2.0, 2.0]), np.array([1.0, 3.0]))


def test_bootstrap_interval_covers_the_mean():
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        true = generator.normal(size=80)
        scores = regression_scores(true, np.zeros(80))
        inside += scores["mae_low"] <= math.sqrt(2 / math.pi) <= scores["mae_high"]
    assert 50 <= inside <= 60


def test_classification_scores():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]])
    scores = classification_scores(np.array([0.0, 1.0, 1.0, math.nan]), probabilities)
    assert scores == {"n": 3, "accuracy": pytest.approx(2 / 3), "balanced_accuracy": 0.75, "roc_auc": 1.0}


def test_a_run_directory_is_not_overwritten_nor_resumed_with_another_configuration(tmp_path):
    RunDirectory.open(tmp_path / "run", {"a": {"b": 1}}, resume=False)
    with pytest.raises(MatfmError, match="already holds a run; continue it with --resume"):
        RunDirectory.open(tmp_path / "run", {"a": {"b": 1}}, resume=False)
    with pytest.raises(MatfmError, match=r"begun with another a.b \(1, now 2\)"):
        RunDirectory.open(tmp_path / "run", {"a": {"b": 2}}, resume=True)
    RunDirectory.open(tmp_path / "run", {"a": {"b": 2}}, resume=True, free=frozenset({"a.b"}))
    assert RunDirectory.open(tmp_path / "run", {"a": {"b": 1}}, resume=True).finished_summary() is None
