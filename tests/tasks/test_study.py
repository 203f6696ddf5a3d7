"""Trials in a journal: shared by processes, closed when their process is gone, drawn the same after a kill."""

import subprocess
import sys

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from matfm.core.locks import lives, sign_of_life  # noqa: E402
from matfm.tasks.tuning.study import JOURNAL, RunningMedian, Study, pruner_named  # noqa: E402


def study_in(folder, seed=0, pruner="none"):
    return Study(folder, pruner_named(pruner, 1, 10), seed)


def drawn(trial):
    return trial.suggest_float("x", 0.0, 1.0)


def test_processes_share_the_trials_and_see_who_lives(tmp_path):
    first, second = study_in(tmp_path), study_in(tmp_path)
    with first.working():
        a = first.begin(2, {"x": 0.5})
        with second.working():
            b = second.begin(2, {"x": 0.5})
            assert (a.number, b.number) == (0, 1)
            assert drawn(a) == 0.5
            assert drawn(b) != 0.5
            assert second.begin(2, {}) is None
            assert first.running() == 2
            second.complete(b, 1.0)
        assert second.running() == 1
        first.complete(a, 2.0)
    assert [(t.number, t.state, t.score) for t in second.ended()] == [(0, "complete", 2.0), (1, "complete", 1.0)]


def test_a_trial_whose_process_is_gone_does_not_count_and_its_place_is_drawn_again(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()

    def search(study, trials, cut=None):
        values = []
        with study.working():
            while (trial := study.begin(trials, {"x": 0.5})) is not None:
                values.append(drawn(trial))
                if len(values) == cut:
                    return values
                study.complete(trial, (values[-1] - 0.3) ** 2)
        return values

    whole = search(study_in(tmp_path / "whole"), 14)
    before = search(study_in(tmp_path / "cut"), 14, cut=12)
    after = search(study_in(tmp_path / "cut"), 14)
    assert before == whole[:12]
    assert after == whole[11:]
    states = [trial.state for trial in study_in(tmp_path / "cut").ended()]
    assert states.count("interrupted") == 1
    assert states.count("complete") == 14


def test_a_cut_record_at_the_end_is_dropped(tmp_path):
    study = study_in(tmp_path)
    with study.working():
        trial = study.begin(5, {"x": 0.5})
        drawn(trial)
        study.complete(trial, 1.0)
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":4,"work')
    again = study_in(tmp_path)
    with again.working():
        trial = again.begin(5, {})
        drawn(trial)
        again.fail(trial, "no")
    assert [t.state for t in study_in(tmp_path).ended()] == ["complete", "failed"]


def test_a_sign_of_life_ends_with_its_holder(tmp_path):
    path = tmp_path / "workers" / "a"
    assert not lives(path)
    with sign_of_life(path):
        assert lives(path)
    assert not lives(path)
    path.write_text("")  # left by a killed process: nobody holds it
    assert not lives(path)


def test_a_killed_process_shows_no_sign_of_life(tmp_path):
    path = tmp_path / "a"
    code = f"import time; from matfm.core.locks import *\nwith sign_of_life(Path({str(path)!r})): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        assert lives(path)
        process.kill()
    assert path.exists()
    assert not lives(path)


def test_a_trial_worse_than_the_median_at_its_place_is_given_up(tmp_path):
    study = study_in(tmp_path, pruner="median")

    def run(scores):
        trial = study.begin(99, {})
        for place, score in enumerate(scores, start=1):
            trial.report(score, place)
            if trial.should_prune():
                study.give_up(trial, "too high")
                return place
        study.complete(trial, scores[-1])
        return None

    with study.working():
        for level in (1.0, 2.0, 3.0, 4.0):
            assert run([level] * 10) is None
        assert run([9.0] * 10) == 4, "the first three of ten evaluations are spared"
        assert run([9.0, 9.0, 9.0, 2.4, 2.4, 2.6, 1.0]) == 6
        assert run([2.0] * 10) is None
    assert [t.state for t in study.ended()].count("pruned") == 2


def test_an_easy_first_fold_shields_nobody():
    pruner = RunningMedian(2)
    study = optuna.create_study(pruner=pruner)
    for last in (1.0, 1.1, 1.2, 1.3):
        trial = study.ask()
        for place, value in enumerate((0.5, 0.5, last, last), start=1):
            trial.report(value, place)
        study.tell(trial, last)
    trial = study.ask()
    for place, value in enumerate((0.4, 0.4, 3.0), start=1):
        trial.report(value, place)
        assert not trial.should_prune()  # 3.0 is the first evaluation of the second fold: spared
    trial.report(3.0, 4)
    assert trial.should_prune()


def test_importance_names_the_setting_that_matters(tmp_path):
    study = study_in(tmp_path)
    assert study.importance() == {}
    generator = np.random.default_rng(0)
    with study.working():
        for _ in range(30):
            trial = study.begin(30, {})
            x, _ = trial.suggest_float("x", 0.0, 1.0), trial.suggest_categorical("y", ("a", "b"))
            study.complete(trial, x + 0.01 * generator.random())
    importance = study.importance()
    assert importance["x"] > 0.8
    assert sum(importance.values()) == pytest.approx(1.0)
