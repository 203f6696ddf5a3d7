"""Help that is fast and shows calls that parse; names that the shell completes; a light import."""

import os
import resource
import shlex
import subprocess
import sys

import pytest
from documents import VERBS
from typer.testing import CliRunner

from matfm.cli import app, completion
from matfm.core.bundled import bundled_names
from matfm.models.strategies import STRATEGIES

HEAVY = ("torch", "transformers", "rdkit", "sklearn", "pymatgen", "pyarrow", "matplotlib", "optuna")


def completed(words, shell="bash"):
    """What the shell is offered for the last of the words."""
    environment = {
        "_MATFM_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": " ".join(words),
    }
    result = CliRunner().invoke(app, [], prog_name="matfm", env=environment)
    assert result.exit_code == 0, result.output
    return result.stdout.split()


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_shows_calls_that_parse(words):
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="matfm")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip() in ("Example:", "Examples:"))
    calls = [line.strip() for line in lines[first + 1 :] if line.strip()]
    assert calls
    for call in calls:
        name, *arguments = shlex.split(call)
        assert (name, *arguments[: len(words)]) == ("matfm", *words)
        VERBS[words].make_context(words[-1], arguments[len(words) :])


def test_the_first_help_leads_to_a_first_run():
    result = CliRunner().invoke(app, ["--help"], prog_name="matfm")
    assert "  matfm quickstart\n" in result.stdout


def test_options_stand_in_groups():
    text = CliRunner().invoke(app, ["tune", "--help"]).stdout
    titles = ["Arguments:", "Rows:", "Model and training:", "Options:", "Search:", "Run:"]
    places = [text.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    assert places[4] < text.index("--trials") < places[5] < text.index("--resume")
    assert "[default: what" in text


def test_verbs_and_names_are_completed():
    assert completed(["matfm", "fine"]) == ["finetune"]
    assert {"data", "doctor"} <= set(completed(["matfm", "d"]))
    assert completed(["matfm", "data", "show", "matbench_expt"]) == ["matbench_expt_gap", "matbench_expt_is_metal"]
    named = {name for name in bundled_names() if name.startswith("mat")}
    assert named <= set(completed(["matfm", "finetune", "t.csv", "--backbone", "mat"]))
    assert "scratch:tiny" in completed(["matfm", "tune", "--backbone", "scratch"])
    assert completed(["matfm", "finetune", "--strategy", "pre"]) == ["prefix"]
    assert completed(["matfm", "compare-strategies", "--strategies", "full,lo"]) == ["full,lora"]
    assert set(completed(["matfm", "tune", "--split", "scaffold"])) == {
        "scaffold",
        "scaffold-balanced",
        "scaffold-random",
    }
    assert named <= set(completed(["matfm", "embed", "mat"]))


def test_other_shells_are_offered_the_same():
    for shell in ("zsh", "fish"):
        environment = {
            "_MATFM_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": "matfm fine",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        result = CliRunner().invoke(app, [], prog_name="matfm", env=environment)
        assert "finetune" in result.stdout


def test_the_strategies_that_are_offered_are_those_there_are():
    assert completion.STRATEGIES == STRATEGIES


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    ).stdout


def test_neither_the_import_nor_completion_loads_anything_heavy():
    code = (
        "import sys; from matfm.cli import app, completion\n"
        "for names in (completion.strategies, completion.backbones, completion.recipes, completion.splits): names('')\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert python(code).strip() == "[]"


@pytest.mark.parametrize("words", [[], ["tune"]], ids=" ".join)
def test_help_takes_less_than_a_second(words):
    """Of CPU time, the best of three, which other processes on the machine do not change."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "matfm", *words, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1.0


def test_the_script_for_the_shell_asks_for_matfm_however_it_was_started():
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = subprocess.run(
        [sys.executable, "-m", "matfm", "--show-completion", "bash"],
        capture_output=True, text=True, check=True, env=environment,
    ).stdout  # fmt: skip
    assert "_MATFM_COMPLETE=complete_bash" in shown
    assert "matfm" in shown
