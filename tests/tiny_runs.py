"""A tiny trained run, and calls of the command line that must end in a result or in one sentence."""

import json
from types import SimpleNamespace

import pytest
from command_processes import Command
from typer.testing import CliRunner

from matfm.cli import app
from matfm.errors import MatfmError

FORMULAS = [f"{metal}{n}{anion}" for metal in ("Fe", "Zn", "Ti", "Na") for anion in ("O", "S") for n in (1, 2, 3)]
TRAINING = ("--input", "formula", "--target", "gap", "--backbone", "scratch:tiny", "--epochs", "1", "--device", "cpu")


def call(*arguments):
    """The summary, or a MatfmError whose text is one line and not long."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exit_code == 0:
        return json.loads(result.stdout.splitlines()[-1])
    assert isinstance(result.exception, MatfmError), repr(result.exception)
    assert "\n" not in str(result.exception)
    assert len(str(result.exception)) < 1000
    return result.exception


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """`run` (a folder) and `table` of a predictor, and the options it was trained with."""
    folder = tmp_path_factory.mktemp("trained")
    table = folder / "table.csv"
    table.write_text("formula,gap\n" + "".join(f"{text},{row / 7}\n" for row, text in enumerate(FORMULAS)))
    summary = call("finetune", table, *TRAINING, "--out", folder / "run")
    assert summary["rows_used"] == len(FORMULAS)
    return SimpleNamespace(run=folder / "run", table=table, options=TRAINING, call=call)


@pytest.fixture
def predict(trained, tmp_path):
    """Predict a table, given its name and content; the columns that are written, or the error (then nothing is)."""
    from matfm.tasks.tables import read_table

    def run(name, content):
        path, out = tmp_path / name, tmp_path / "predicted.jsonl"
        path.write_bytes(content)
        found = call("predict", trained.run, path, "--input", "formula", "--out", out)
        left = sorted(entry.name for entry in tmp_path.iterdir())
        if isinstance(found, MatfmError):  # chunks that are done wait for --resume
            assert set(left) <= {name, f".{out.name}.unfinished"}
            return str(found)
        assert left == sorted([name, out.name])
        columns = read_table(str(out)).columns
        out.unlink()
        return columns

    return run


@pytest.fixture
def start():
    """Start a command in a process of its own, which ends with the test."""
    started = []

    def run(arguments, before="", size=None):
        started.append(Command(arguments, before, size))
        return started[-1]

    yield run
    for command in started:
        command.kill()
