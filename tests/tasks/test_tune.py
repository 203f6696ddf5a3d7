"""A search from its rows to the last training: who is scored on what, what ends a trial, what is left behind."""

import csv
import json
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

optuna = pytest.importorskip("optuna")

from matfm import MatfmError  # noqa: E402
from matfm.cli import app  # noqa: E402
from matfm.errors import RunError  # noqa: E402
from matfm.tasks import tune  # noqa: E402
from matfm.tasks.finetune import FinetuneConfig  # noqa: E402
from matfm.tasks.fit_config import FitConfig  # noqa: E402

SPACE = {"fit": {"optimizer": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}, "loss": ["l1", "l2"]}}


def config_of(table, *, split="random", fit=None, **options):
    fit = FitConfig(backbone="scratch:tiny", epochs=2, **(fit or {}))
    tuning = FinetuneConfig(str(table), "formula", ("gap",), split=split, test_share=0.2, device="cpu", fit=fit)
    return tune.TuneConfig(tuning, **{"space": SPACE, "folds": 2, "refit": False, **options})


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def scripted(monkeypatch):
    """Trials without training: the score of a fold falls towards how far the rate is from 1e-3, in decades."""
    calls = []

    def fold(search, fit, fold, folder, on_evaluation):
        calls.append(fit)
        final = abs(np.log10(fit.optimizer.learning_rate) + 3) + (0.5 if fit.loss == "l2" else 0.0)
        for step in range(1, 11):
            on_evaluation(step, 10, final + 1 / step)
        return {"gap": {"mae": final, "n": 5}}

    monkeypatch.setattr(tune, "_fold", fold)
    return calls


def test_a_search_by_the_command_line_gives_a_configuration_that_trains_the_same(small_table, tmp_path):
    out = tmp_path / "search"
    call = [
        "tune", small_table, "--input", "formula", "--target", "gap", "--out", out, "--backbone", "scratch:tiny",
        "--trials", 3, "--folds", 2, "--epochs", 2, "--device", "cpu", "--set", "fit.tokens_per_batch=60",
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, call)))
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["trials"] == {"complete": 3, "pruned": 0, "failed": 0, "interrupted": 0, "counted": 3}
    assert summary["best"]["score"] == min(float(row["score"]) for row in rows_of(out / "trials.csv"))
    assert summary["best"]["score"] <= summary["usual"]["score"]
    assert "optimistic" in summary["note"]
    assert summary["refit"]["metrics"]["test"]["gap"]["n"] == summary["refit"]["rows"]["test"]
    assert {"best.toml", "space.toml", "search.png", "trials.csv", "journal.log"} <= {p.name for p in out.iterdir()}
    assert not (out / "trials").exists()
    best = tomllib.loads((out / "best.toml").read_text())
    assert best["fit"]["epochs"] == 2.0
    assert best["fit"]["tokens_per_batch"] == 60
    assert not {"fit.epochs", "fit.tokens_per_batch"} & tomllib.loads((out / "space.toml").read_text()).keys()

    again = CliRunner().invoke(app, ["finetune", "--config", str(out / "best.toml"), "--out", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout.splitlines()[-1])["metrics"] == summary["refit"]["metrics"]
    ours, theirs = (load_file(f"{run}/model.safetensors") for run in (tmp_path / "again", summary["refit"]["run"]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_labels_of_test_rows_change_no_trial(small_table, tmp_path):
    lines = small_table.read_text().splitlines()
    parts = ["split", *(("train", "train", "valid", "test")[row % 4] for row in range(len(lines) - 1))]
    scores = []
    for name, factor in (("as-is", 1.0), ("spoilt", 1000.0)):
        table = tmp_path / f"{name}.csv"
        rows = [f"{line},{part}" for line, part in zip(lines, parts, strict=True)]
        for number, row in enumerate(rows):
            formula, gap, metal, part = row.split(",")
            if part == "test":
                rows[number] = f"{formula},{float(gap) * factor + factor},{metal},{part}"
        table.write_text("\n".join(rows) + "\n")
        tune.run(config_of(table, split="column:split", trials=1), tmp_path / name)
        (row,) = rows_of(tmp_path / name / "trials.csv")
        scores.append({key: value for key, value in row.items() if key != "seconds"})
    assert scores[0] == scores[1]


def test_the_first_trial_is_usual_and_the_search_goes_beyond_it(small_table, tmp_path, scripted):
    summary = tune.run(config_of(small_table, trials=25), tmp_path / "s")
    assert scripted[0].optimizer.learning_rate == 5e-4
    assert scripted[0].loss == "l1"
    assert summary["usual"]["trial"] == 0
    assert summary["best"]["score"] < summary["usual"]["score"]
    assert summary["best"]["score"] < 0.25
    assert summary["best"]["settings"]["fit.loss"] == "l1"
    assert summary["trials"]["pruned"] > 0
    pruned = [row for row in rows_of(tmp_path / "s" / "trials.csv") if row["state"] == "pruned"]
    assert all("its score so far was too high" in row["reason"] and row["score"] == "" for row in pruned)
    assert summary["importance"].keys() == {"fit.optimizer.learning_rate", "fit.loss"}


def test_an_interrupted_search_goes_on_to_the_same_trials(small_table, tmp_path, scripted, monkeypatch):
    config = config_of(small_table, trials=15)
    whole = tune.run(config, tmp_path / "whole")
    fold = tune._fold

    def interrupted(*arguments):
        if len(scripted) >= 30 + 14:
            raise KeyboardInterrupt
        return fold(*arguments)

    monkeypatch.setattr(tune, "_fold", interrupted)
    scripted[:] = scripted[:1] * 30
    with pytest.raises(KeyboardInterrupt):
        tune.run(config, tmp_path / "cut")
    with pytest.raises(MatfmError, match="--resume"):
        tune.run(config, tmp_path / "cut")
    monkeypatch.setattr(tune, "_fold", fold)
    cut = tune.run(config, tmp_path / "cut", resume=True)
    assert cut["trials"]["interrupted"] == 1
    assert cut["trials"]["counted"] == 15
    assert cut["best"]["settings"] == whole["best"]["settings"]

    def comparable(name):
        rows = [row for row in rows_of(tmp_path / name / "trials.csv") if row["state"] != "interrupted"]
        return [{key: value for key, value in row.items() if key not in ("trial", "seconds")} for row in rows]

    assert comparable("cut") == comparable("whole")


def test_more_trials_continue_a_finished_search(small_table, tmp_path, scripted):
    first = tune.run(config_of(small_table, trials=4), tmp_path / "s")
    assert tune.run(config_of(small_table, trials=4), tmp_path / "s", resume=True) == first
    more = tune.run(config_of(small_table, trials=9), tmp_path / "s", resume=True)
    assert more["trials"]["counted"] == 9
    assert more["best"]["score"] <= first["best"]["score"]
    with pytest.raises(MatfmError, match="begun with another folds"):
        tune.run(config_of(small_table, trials=9, folds=3), tmp_path / "s", resume=True)
    small_table.write_text(small_table.read_text().replace("GaN,", "AlN,"))
    with pytest.raises(MatfmError, match="begun with another rows_sha256"):
        tune.run(config_of(small_table, trials=9), tmp_path / "s", resume=True)


def test_a_trial_that_cannot_be_trained_is_recorded_with_its_reason(small_table, tmp_path, scripted, monkeypatch):
    fold = tune._fold

    def failing(search, fit, *rest):
        if fit.loss == "l2":
            raise RunError("the loss is not finite")
        return fold(search, fit, *rest)

    monkeypatch.setattr(tune, "_fold", failing)
    summary = tune.run(config_of(small_table, trials=8, pruner="none"), tmp_path / "s")
    rows = rows_of(tmp_path / "s" / "trials.csv")
    assert summary["trials"]["failed"] == sum(row["fit.loss"] == "l2" for row in rows) > 0
    assert {row["reason"] for row in rows if row["state"] == "failed"} == {"the loss is not finite"}

    def always(*_):
        raise RunError("the loss is not finite")

    monkeypatch.setattr(tune, "_fold", always)
    with pytest.raises(RunError, match=r"none of 2 trials reached its end; the first failed: the loss is not finite"):
        tune.run(config_of(small_table, trials=2), tmp_path / "none")


def test_a_timeout_lets_no_further_trial_begin(small_table, tmp_path, scripted, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(tune, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    summary = tune.run(config_of(small_table, trials=50, timeout=3.5), tmp_path / "s")
    assert summary["trials"]["counted"] == 3


def test_who_ends_first_leaves_the_results_to_the_last(small_table, tmp_path, scripted):
    from matfm.tasks.tuning.study import Study, pruner_named

    out = tmp_path / "s"
    out.mkdir()
    other = Study(out, pruner_named("none", 2, 10), 0)
    with other.working():
        trial = other.begin(4, {})
        summary = tune.run(config_of(small_table, trials=4), out)
        assert summary == {"task": "tune", "finished": False, "running": 1, "run": str(out)}
        assert not (out / "summary.json").exists()
        other.fail(trial, "ended by hand")
    summary = tune.run(config_of(small_table, trials=4), out, resume=True)
    assert summary["trials"] == {"complete": 3, "pruned": 0, "failed": 1, "interrupted": 0, "counted": 4}


def test_without_optuna_the_extra_is_named(small_table, tmp_path, monkeypatch):
    import builtins
    import sys

    original = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.partition(".")[0] == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return original(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "matfm.tasks.tuning.study", raising=False)
    monkeypatch.delattr("matfm.tasks.tuning.study", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MatfmError, match=r"pip install 'matfm\[tune\]'"):
        tune.run(config_of(small_table), tmp_path / "s")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"trials": 0}, "trials is 0"),
        ({"folds": 0}, "folds is 0"),
        ({"timeout": -1.0}, "timeout is -1"),
        ({"pruner": "best"}, "pruner is 'best'; choose one of median, hyperband, none"),
    ],
)
def test_wrong_options_are_refused(small_table, options, reason):
    with pytest.raises(MatfmError, match=reason):
        config_of(small_table, **options)


def test_hyperband_gives_up_trials_too(small_table, tmp_path, scripted):
    summary = tune.run(config_of(small_table, trials=20, pruner="hyperband"), tmp_path / "s")
    assert summary["trials"]["pruned"] > 0


def test_finetune_without_its_table_says_what_is_missing(tmp_path):
    result = CliRunner().invoke(app, ["finetune", "--out", str(tmp_path / "r")])
    assert isinstance(result.exception, MatfmError)
    assert "TABLE is missing" in str(result.exception)
