"""The commands on real formulas: dirty rows, wrong calls, kills, and what a run directory holds."""

import json
import os
import subprocess
import sys

import pytest
import torch
from command_processes import Command
from safetensors.torch import load_file
from typer.testing import CliRunner

from matfm import MatBERTForProperty, PropertyRegressor
from matfm.cli import app
from matfm.core.trainer import read_log
from matfm.tasks.tables import read_table

TINY = ("--backbone", "scratch:tiny")
RUN_FILES = {
    "config.json", "model.safetensors", "tokenizer_config.json", "vocab.json", "metrics.json", "predictions.parquet",
    "log.jsonl", "curves.png", "parity.png", "card.md", "summary.json", "rejects.csv", "split.json", "environment.json",
}  # fmt: skip


def matfm(*arguments, code=0):
    """Run the command in a process of its own; returns the JSON summary, or the error line."""
    found, output, errors = Command(arguments).end()
    assert found == code, errors
    if code:
        assert "Traceback" not in errors
        return errors.strip()
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run on formulas whose label is a simple function of composition, with dirty rows among them."""
    folder = tmp_path_factory.mktemp("trained")
    table = folder / "table.csv"
    rows = ["name,formula,gap", "a,XxO2,1.0", "b,,2.0", "c,NaN,", "d,Fe2O3,many"]
    for amount in range(1, 31):
        for metal in ("Fe", "Zn", "Ti", "Na"):
            rows.append(f"r,{metal}{amount}O{31 - amount},{4 * (31 - amount) / 31:.4f}")
    table.write_text("\n".join(rows) + "\n")
    out = folder / "run"
    summary = matfm(
        "finetune", table, "--input", "formula", "--target", "gap", "--out", out, *TINY, "--epochs", "40",
        "--ensemble", "2", "--set", "fit.optimizer.learning_rate=5e-3", "--set", "valid_share=0.2", "--set", "fit.tokens_per_batch=60",
    )  # fmt: skip
    return out, summary, table


def test_finetune_writes_the_run_directory_and_learns(trained):
    out, summary, _ = trained
    assert set(os.listdir(out)) >= RUN_FILES
    assert (summary["rows_in"], summary["rows_used"], summary["rows_rejected"]) == (124, 120, 4)
    assert summary["metrics"]["test"]["gap"]["mae"] < 0.5
    assert json.loads((out / "summary.json").read_text()) == summary
    assert not (out / "checkpoints").exists()
    assert (out / "ensemble" / "1" / "model.safetensors").exists()
    rejects = read_table(str(out / "rejects.csv")).columns
    assert rejects["row"] == ["0", "1", "2", "3"]
    assert rejects["reason"][2] == "no label: the target cell is empty"
    assert "'many' is not a number" in rejects["reason"][3]
    predictions = read_table(str(out / "predictions.parquet"))
    assert predictions.rows == 120
    assert set(predictions.columns["part"]) == {"train", "valid", "test"}


def test_the_run_directory_loads_with_hugging_face_and_repeats_the_predictions(trained):
    out, _, _ = trained
    config = json.loads((out / "config.json").read_text())
    assert config["run"]["fit"]["epochs"] == 40.0
    assert config["model_type"] == "matbert"
    assert MatBERTForProperty.from_pretrained(out).config.property_names == ["gap"]


DIRTY = ["Fe2O3", "", "XxO2", "NaN", "Ba(Zr0.1Ti0.9)O3", "Fe2" * 3333 + "!"]


@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
def test_predict_gives_every_dirty_row_its_place(trained, tmp_path, extension):
    dirty, out = tmp_path / "dirty.csv", tmp_path / f"predicted.{extension}"
    dirty.write_text("formula\n" + "\n".join(DIRTY) + "\n")
    summary = matfm("predict", trained[0], dirty, "--input", "formula", "--out", out, "--interval", "0.8")
    assert (summary["rows_in"], summary["rows_predicted"], summary["rows_with_error"]) == (6, 3, 3)
    table = read_table(str(out)).columns
    assert table["formula"] == DIRTY
    readable = [bool(value) for value in table["predicted_gap"]]
    assert readable == [True, False, False, True, True, False]
    assert [bool(reason) for reason in table["error"]] == [not ok for ok in readable]
    assert "empty" in table["error"][1]
    assert "Xx" in table["error"][2]
    low, value, high = (
        float(table[name][0]) for name in ("predicted_gap_lower", "predicted_gap", "predicted_gap_upper")
    )
    assert low < value < high
    assert float(table["predicted_gap_std"][0]) > 0


def test_predict_reads_standard_input(trained, tmp_path):
    out = tmp_path / "o.csv"
    command = [sys.executable, "-m", "matfm", "predict", str(trained[0]), "-", "--input", "f", "--out", str(out)]
    subprocess.run(command, input="f,k\nGaN,1\n", text=True, check=True, capture_output=True)
    assert read_table(str(out)).columns["k"] == ["1"]


def test_predictions_do_not_depend_on_chunks(trained, tmp_path, monkeypatch):
    table, outs = tmp_path / "t.csv", []
    table.write_text("formula\n" + "\n".join(f"Fe{n}O{n % 7 + 1}" if n % 5 else "bad" for n in range(1, 60)) + "\n")
    for rows in (7, 1000):
        monkeypatch.setattr("matfm.tasks.tables.CHUNK_ROWS", rows)
        monkeypatch.setattr("matfm.tasks.tables.iterate_table.__defaults__", (rows,))
        outs.append(tmp_path / f"{rows}.csv")
        arguments = ["predict", str(trained[0]), str(table), "--input", "formula", "--out", str(outs[-1])]
        assert CliRunner().invoke(app, arguments).exit_code == 0
    left, right = (read_table(str(path)).columns for path in outs)
    assert left["error"] == right["error"]
    for one, other in zip(left["predicted_gap"], right["predicted_gap"], strict=True):
        assert (one == other == "") or float(one) == pytest.approx(float(other), abs=1e-5)


def wrong_calls(table, folder):
    (folder / "empty.csv").write_text("formula,gap\n")
    (folder / "words.csv").write_text("formula,gap\nFe,high\nCu,low\nGaN,mid\n")
    (folder / "file").write_text("")
    base = ("finetune", table, "--input", "formula", "--target", "gap", *TINY, "--out", folder / "o")
    return {
        "no such column 'bandgap'": (("finetune", table, "--input", "formula", "--target", "bandgap", "--out", folder / "o"), "has no column 'bandgap'; its columns are"),
        "target is text": (("finetune", folder / "words.csv", *base[2:]), "'high' is not a number"),
        "table has no rows": (("finetune", folder / "empty.csv", *base[2:]), "has no rows"),
        "folder below a file": ((*base[:-1], folder / "file" / "o"), "cannot be written"),
        "unknown key": ((*base, "--set", "fit.epoch=3"), "unknown key fit.epoch; did you mean fit.epochs?"),
        "wrong type": ((*base, "--set", "fit.epochs=long"), "fit.epochs is 'long'; it must be a number"),
        "unknown backbone": (("finetune", table, "--input", "formula", "--target", "gap", "--out", folder / "o2", "--backbone", "bert"), "there are no weights 'bert'; bundled are"),
        "unknown size": (("finetune", table, "--input", "formula", "--target", "gap", "--out", folder / "o2", "--backbone", "scratch:nano"), "choose one of tiny, small, base, large"),
        "unknown strategy": ((*base[:-1], folder / "o3", "--strategy", "magic"), "choose one of full, feature, partial, bitfit"),
        "unknown split": ((*base, "--split", "kfold"), "choose one of random, stratified, group, chemical-system, loco[:CLUSTERS], scaffold"),
        "split of molecules": ((*base, "--split", "scaffold"), "split 'scaffold' is made for smiles and selfies and the input is composition"),
        "split file of nowhere": ((*base, "--split", "file:no.json"), "no.json is not a file"),
        "split column": ((*base, "--split", "column:fold"), "has no column 'fold'"),
        "split domain": ((*base, "--split", "domain:name=z"), "column 'name' holds no domain 'z'; it holds 'r'"),
        "only one domain": ((*base, "--split", "domain:name"), "split 'domain:name' leaves no training row among 120"),
        "leakage without rows": (("data", "leakage", table, folder / "empty.csv", "--input", "formula"), "empty.csv has no rows"),
        "leakage kind of file": (("data", "leakage", table, table, "--input", "formula", "--out", folder / "r.txt"), "must be a .json file"),
        "no such table": (("predict", folder, folder / "no.csv", "--input", "a", "--out", folder / "p.csv"), "holds no model.safetensors"),
        "run exists": (("finetune", table, "--input", "formula", "--target", "gap", "--out", table.parent / "run", *TINY), "already holds a run"),
        "stop at bad rows": ((*base, "--on-bad", "stop"), "row 0, column 'formula': 'XxO2' at position 0"),
        "interval": (("predict", table.parent / "run", table, "--input", "formula", "--out", folder / "p.csv", "--interval", "2"), "--interval is 2.0"),
        "too few for interval": (("predict", table.parent / "run", table, "--input", "formula", "--out", folder / "p.csv", "--interval", "0.999"), "too few for --interval"),
        "device": ((*base, "--device", "cuda"), "is not available") if not torch.cuda.is_available() else ((*base, "--set", "device=tpu"), "choose one of"),
    }  # fmt: skip


def test_wrong_calls_end_with_code_2_and_one_sentence_that_names_the_thing(trained, tmp_path):
    runner = CliRunner()
    for name, (arguments, message) in wrong_calls(trained[2], tmp_path).items():
        result = runner.invoke(app, [str(argument) for argument in arguments])
        error = result.exception
        assert error is not None, name
        assert message in str(error), (name, str(error))
        assert error.exit_code == 2, name
        assert "\n" not in str(error), name
    assert not list(tmp_path.glob("o*/*")), "a call that failed must not block its folder"


def test_an_error_is_one_line_without_traceback_and_code_2(tmp_path):
    error = matfm("finetune", tmp_path / "no.csv", "--input", "a", "--target", "b", "--out", tmp_path / "o", code=2)
    assert error == f"matfm: {tmp_path / 'no.csv'} is not a file; check the path"
    assert "Traceback" in subprocess.run(
        [sys.executable, "-m", "matfm", "--debug", "data", "show", "none"], capture_output=True, text=True, check=False
    ).stderr  # fmt: skip


def test_classification_with_two_classes(small_table, tmp_path):
    out = tmp_path / "run"
    arguments = [
        "finetune", str(small_table), "--input", "formula", "--target", "metal", "--task", "classification", "--out", str(out),
        *TINY, "--epochs", "20", "--split", "group", "--set", "test_share=0.3", "--set", "fit.optimizer.learning_rate=3e-3",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["metrics"]["train"]["metal"]["balanced_accuracy"] > 0.8
    assert (out / "roc.png").exists()
    predicted = tmp_path / "p.csv"
    CliRunner().invoke(app, ["predict", str(out), str(small_table), "--input", "formula", "--out", str(predicted)])
    columns = read_table(str(predicted)).columns
    assert set(columns["predicted_metal"]) <= {"yes", "no"}
    assert float(columns["probability_yes"][0]) + float(columns["probability_no"][0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("strategy", ["feature", "partial", "bitfit"])
def test_frozen_parts_stay_as_they_were(trained, tmp_path, strategy):
    out = tmp_path / strategy
    summary = matfm(
        "finetune", trained[2], "--input", "formula", "--target", "gap", "--out", out, "--backbone", trained[0],
        "--strategy", strategy, "--epochs", "1",
    )  # fmt: skip
    before, after = load_file(trained[0] / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in after if name.startswith("matbert.") and not torch.equal(before[name], after[name])}
    assert summary["trainable_share"] < 1
    if strategy == "feature":
        assert not changed
    if strategy == "bitfit":
        assert changed
        assert all(name.endswith(".bias") for name in changed)
    if strategy == "partial":
        assert changed
        assert not any("embed" in name for name in changed)


def corpus(folder):
    table = folder / "corpus.csv"
    rows = ["formula,band_gap,energy_per_atom"]
    metals, anions = ("Li", "Na", "K", "Mg", "Ca", "Fe", "Zn", "Ti", "Al", "Ga"), ("O", "S", "Se", "N", "F")
    for metal in metals:
        for anion in anions:
            for n in (1, 2, 3):
                for m in (1, 2):
                    rows.append(f"{metal}{n}{anion}{m},{n / m:.3f},{'' if n == 2 else -n - m}")
    table.write_text("\n".join(rows) + "\n")
    config = folder / "pretrain.toml"
    config.write_text(
        f"""
seed = 3
device = "cpu"
[data]
table = "{table}"
targets = ["band_gap", "energy_per_atom"]
held_out = 0.1
[model]
size = "tiny"
dropout = 0.1
[train]
epochs = 15
tokens_per_batch = 60
checkpoint_every = 25
evaluations = 3
[optimizer]
method = "muon"
learning_rate = 3e-3
"""
    )
    return config


def killed_in_the_middle(arguments, out, after_step):
    """Start a command, kill it with SIGKILL once a checkpoint at or after the step exists, and say so."""

    def reached():
        return any(int(path.name.removeprefix("step-")) >= after_step for path in out.glob("checkpoints/step-*"))

    return Command(arguments).killed_when(reached)


def assert_same_weights(one, other):
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_pretraining_killed_and_resumed_is_bit_equal_and_usable(tmp_path):
    config = corpus(tmp_path)
    summary = matfm("pretrain", config, "--out", tmp_path / "whole")
    assert summary["rows_in"] == summary["rows_used"] == 300
    assert {"mae_band_gap", "mae_energy_per_atom"} < set(summary["valid"])
    arguments = ["pretrain", str(config), "--out", str(tmp_path / "cut")]
    assert killed_in_the_middle(arguments, tmp_path / "cut", after_step=100)
    assert not (tmp_path / "cut" / "summary.json").exists()
    matfm(*arguments, "--resume")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    steps = [record["step"] for record in read_log(tmp_path / "cut" / "log.jsonl") if "loss" in record]
    assert steps == sorted(set(steps))
    assert matfm(*arguments, "--resume")["steps"] == summary["steps"]
    assert {"curves.png", "card.md", "config.json", "vocab.json"} <= set(os.listdir(tmp_path / "cut"))
    predicted = matfm(
        "predict", tmp_path / "cut", tmp_path / "corpus.csv", "--input", "formula", "--out", tmp_path / "p.csv"
    )
    assert predicted["rows_predicted"] == 300


def test_finetuning_killed_and_resumed_is_bit_equal(trained, tmp_path):
    base = ["finetune", str(trained[2]), "--input", "formula", "--target", "gap", *TINY, "--epochs", "40", "--ensemble", "2",
            "--set", "fit.tokens_per_batch=40", "--set", "fit.checkpoint_every=20"]  # fmt: skip
    matfm(*base, "--out", tmp_path / "whole")
    arguments = [*base, "--out", str(tmp_path / "cut")]
    assert killed_in_the_middle(arguments, tmp_path / "cut", after_step=100)
    matfm(*arguments, "--resume")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    assert_same_weights(tmp_path / "whole" / "ensemble" / "1", tmp_path / "cut" / "ensemble" / "1")


def test_import_is_fast_and_light():
    code = "import time; t = time.perf_counter(); import matfm, sys; print(time.perf_counter() - t, 'torch' in sys.modules)"
    times = []
    for _ in range(3):
        seconds, heavy = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        assert heavy == "False"
        times.append(float(seconds))
    assert min(times) < 0.5


def test_options_are_those_of_the_contract():
    import typer

    expected = {
        "quickstart": {"--out", "--device", "--cache", "--offline", "--resume"},
        "pretrain": {"--set", "--out", "--resume"},
        "finetune": {"--input", "--target", "--out", "--kind", "--task", "--backbone", "--strategy", "--split",
                     "--ensemble", "--epochs", "--seed", "--device", "--on-bad", "--config", "--set", "--resume"},
        "tune": {"--input", "--target", "--out", "--trials", "--timeout", "--space", "--folds", "--pruner", "--refit",
                 "--kind", "--task", "--backbone", "--strategy", "--split", "--ensemble", "--epochs", "--seed",
                 "--device", "--on-bad", "--set", "--resume"},
        "doctor": {"--out", "--cache"},
        "adapt": {"--source", "--target", "--input", "--label", "--out", "--method", "--domain", "--kind", "--task",
                  "--backbone", "--strategy", "--split", "--target-split", "--epochs", "--seed", "--device", "--on-bad",
                  "--set", "--resume"},
        "fewshot": {"--set", "--out", "--resume"},
        "translate": {"--input", "--to", "--out", "--ask", "--beams", "--device", "--resume"},
        "predict": {"--input", "--out", "--interval", "--interval-method", "--interval-groups", "--calibrated",
                    "--mc-dropout", "--seed", "--domain", "--delta", "--backbone", "--device", "--resume"},
        "embed": {"--input", "--out", "--layer", "--pooling", "--kind", "--device", "--resume"},
        "screen": {"--support", "--input", "--label", "--out", "--top", "--backbone", "--engine", "--kind", "--positive",
                   "--minimize", "--diversity", "--keep-bad", "--classical", "--workers", "--device", "--resume",
                   "--scorer", "--distance", "--next", "--select"},
        "report": {"--out"},
        "leakage": {"--input", "--train-input", "--kind", "--out"},
        "list": {"--json"},
        "build": {"--out", "--exclude", "--cache", "--offline"},
        "check": {"--cache", "--offline"},
        "init": {"--out", "--input"},
        "encode": {"--input", "--out", "--kind", "--vocab", "--max-length", "--scheme", "--order", "--workers",
                   "--on-bad", "--resume"},
        "audit": {"--pretrain", "--evaluate", "--out", "--input", "--kind", "--cache", "--offline"},
        "deltas add": {"--name", "--domain"},
        "deltas list": set(),
        "deltas analyse": {"--input", "--color", "--out", "--rows", "--seed", "--device"},
    }  # fmt: skip
    commands = typer.main.get_command(app).commands
    of_deltas = {f"deltas {name}": command for name, command in commands["deltas"].commands.items()}
    commands = {**commands, **commands["data"].commands, **of_deltas}
    for name, options in expected.items():
        offered = {o for p in commands[name].params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
        assert offered - {"--help"} == options | {o for o in offered if o.startswith("--no-")}, name


def test_estimators_follow_scikit_learn(formulas):
    from sklearn.base import clone

    from matfm import MatfmError, PropertyClassifier

    values = [float(len(formula)) for formula in formulas]
    model = clone(PropertyRegressor(backbone="scratch:tiny", epochs=3, ensemble=2, random_state=1))
    mean, std = model.fit(formulas, values).predict(formulas, return_std=True)
    assert mean.shape == std.shape == (len(formulas),)
    again = clone(model).fit(formulas, values).predict(formulas)
    assert (again == mean).all()
    with pytest.raises(MatfmError, match="row 1: 'Xx' at position 0"):
        model.predict(["Fe", "Xx"])
    classifier = PropertyClassifier(backbone="scratch:tiny", epochs=2).fit(formulas, [len(f) > 5 for f in formulas])
    assert classifier.predict_proba(formulas).sum(axis=1) == pytest.approx(1)
    assert set(classifier.predict(formulas)) <= {True, False}
