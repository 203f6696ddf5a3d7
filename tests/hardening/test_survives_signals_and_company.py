"""Signals, a second process, and a clock that jumps. SIGKILL while training and screening: tests/e2e."""

import json
import signal
import time

import pytest
from command_processes import DEADLINE
from safetensors.torch import load_file

from matfm.core.files import sha256_of
from matfm.core.locks import alone
from matfm.core.run_log import read_log
from matfm.tasks import tables
from matfm.tasks.streaming import rows as streamed_rows


def finetuning(trained, out):
    return ["finetune", trained.table, *trained.options, "--out", out, "--set", "fit.epochs=20", "--set",
            "fit.tokens_per_batch=30", "--set", "fit.checkpoint_every=3", "--set", "fit.log_every=1"]  # fmt: skip


@pytest.fixture(scope="module")
def never_stopped(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("never_stopped") / "run"
    trained.call(*finetuning(trained, out))
    return out


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_survives_a_signal_while_training(trained, never_stopped, start, tmp_path, name):
    """One sentence, exit code 1, and the resumed run ends with the weights of one that was never stopped."""
    out = tmp_path / "cut"
    command = start(finetuning(trained, out))
    command.wait_until(lambda: len(read_log(out / "log.jsonl")) > 5)
    command.send(getattr(signal, name))
    code, _, errors = command.end()
    assert code == 1
    sentence = errors.strip().splitlines()[-1]
    assert sentence.startswith("matfm: interrupted after step ")
    assert sentence.endswith("go on with --resume")
    assert not (out / "model.safetensors").exists()
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", ".lock"))]
    trained.call(*finetuning(trained, out), "--resume")
    cut, expected = (load_file(folder / "model.safetensors") for folder in (out, never_stopped))
    assert all(bool((cut[key] == expected[key]).all()) for key in expected)


SLOWLY = """
import time
from matfm.tasks import tables, screen
from matfm.tasks.screening import library
from matfm.tasks.streaming import rows as streamed_rows
def slow(path, chunk_rows=2, read=tables.iterate_table):
    for chunk in read(path, 2):
        time.sleep(0.05)
        yield chunk
streamed_rows.iterate_table = library.iterate_table = slow
"""


@pytest.fixture(scope="module")
def long_table(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "t.csv"
    path.write_text("formula\n" + "".join(f"Fe{n}O{n % 7 + 1}\n" for n in range(1, 81)) + "Xx\n")
    return path


@pytest.fixture(scope="module")
def predicted(trained, long_table):
    """By a call that was not cut, in chunks of two rows as well."""
    out = long_table.with_name("predicted.csv")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(streamed_rows, "iterate_table", lambda path: tables.iterate_table(path, 2))
        trained.call("predict", trained.run, long_table, "--input", "formula", "--out", out)
    return out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_survives_a_signal_while_predicting(trained, start, long_table, predicted, tmp_path, monkeypatch, name):
    """Nothing stands under the final name; what was done is kept, and the resumed table is the same as a whole one."""
    out = tmp_path / "o.csv"
    arguments = ["predict", trained.run, long_table, "--input", "formula", "--out"]
    command = start([*arguments, out], SLOWLY)
    state = tmp_path / ".o.csv.unfinished" / "state.json"
    command.wait_until(state.is_file)
    command.send(getattr(signal, name))
    code, _, errors = command.end()
    assert not out.exists()
    assert 0 < json.loads(state.read_text())["rows"] < 81
    if name != "SIGKILL":
        assert code == 1
        assert errors.strip().splitlines()[-1] == (
            f"matfm: interrupted before {out} was written; go on with the same call and --resume"
        )
    monkeypatch.setattr(streamed_rows, "iterate_table", lambda path: tables.iterate_table(path, 2))
    assert trained.call(*arguments, out, "--resume")["rows_in"] == 81
    assert sha256_of(out) == sha256_of(predicted)
    assert [path.name for path in tmp_path.iterdir()] == ["o.csv"]


def test_survives_sigterm_while_screening(trained, start, long_table, tmp_path):
    support = tmp_path / "support.csv"
    support.write_text("formula,y\nFeO,1\nZnS,2\nTiO,3\nNaO,1\nFeS,2\n")
    arguments = ["screen", long_table, "--support", support, "--input", "formula", "--label", "y", "--backbone", trained.run,
                 "--classical", "none", "--workers", "1", "--top", "5", "--out", tmp_path / "o.csv"]  # fmt: skip
    command = start(arguments, SLOWLY)
    command.wait_until((tmp_path / ".o.csv.unfinished" / "state.json").is_file)
    command.send(signal.SIGTERM)
    code, _, errors = command.end()
    assert code == 1, errors
    assert "interrupted before" in errors.strip().splitlines()[-1]
    assert not (tmp_path / "o.csv").exists()
    assert not (tmp_path / ".o.csv.lock").exists()


def test_survives_two_processes_on_one_run_directory(trained, start, tmp_path):
    """The second is told so and changes nothing; the first ends as if it were alone."""
    out = tmp_path / "run"
    command = start(finetuning(trained, out))
    command.wait_until(lambda: len(read_log(out / "log.jsonl")) > 2)
    command.send(signal.SIGSTOP)
    try:
        for more in ([], ["--resume"]):
            error = trained.call(*finetuning(trained, out), *more)
            assert str(error) == f"another process works on {out}; wait until it has ended, or choose another --out"
    finally:
        command.send(signal.SIGCONT)
    code, _, errors = command.end()
    assert code == 0, errors
    steps = [record["step"] for record in read_log(out / "log.jsonl") if "loss" in record]
    assert steps == list(range(1, len(steps) + 1))
    assert not (out / ".lock").exists()


def test_survives_two_processes_that_write_one_table(trained, long_table, tmp_path):
    out = tmp_path / "o.csv"
    arguments = ["predict", trained.run, long_table, "--input", "formula", "--out", out]
    with alone(tmp_path / ".o.csv.lock", out):  # another call, as far as the lock can tell
        assert "another process works on" in str(trained.call(*arguments))
        assert not out.exists()
    assert trained.call(*arguments)["rows_in"] == 81


def test_survives_a_lock_whose_holder_was_killed(trained, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("")
    assert trained.call("finetune", trained.table, *trained.options, "--out", tmp_path / "run")["rows_used"] == 24


def test_a_call_that_fails_leaves_no_folder(trained, tmp_path):
    trained.call("finetune", tmp_path / "no.csv", *trained.options, "--out", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_survives_a_clock_that_jumps_backwards(trained, tmp_path, monkeypatch):
    """Every look at the wall clock goes back by a day: the same weights, and durations that are none of its business."""
    now = [time.time()]

    def jumping():
        now[0] -= 86_400.0
        return now[0]

    monkeypatch.setattr(time, "time", jumping)
    summary = trained.call("finetune", trained.table, *trained.options, "--out", tmp_path / "run")
    assert 0 <= summary["seconds"] < DEADLINE
    here, there = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", trained.run))
    assert all(bool((here[key] == there[key]).all()) for key in there)
    assert trained.call("finetune", trained.table, *trained.options, "--out", tmp_path / "run", "--resume") == summary
