"""Several tasks on one frozen encoder in one folder: chosen by name, kilobytes, with no other encoder."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from matfm import MatBERTConfig, MatBERTModel, MatfmError
from matfm.cli import app
from matfm.models.deltas import deltas_of
from matfm.tasks import finetune, predict
from matfm.tasks.deltas import AddDeltaConfig, DeltaSet, add
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.tables import read_table

FIT = {"epochs": 1, "tokens_per_batch": 60}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A backbone, a table and three runs on it."""
    folder = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(("backbone", "other")):
        torch.manual_seed(seed)
        MatBERTModel(MatBERTConfig.of_size("tiny")).save_pretrained(folder / name)
    formulas = "GaN Fe2O3 SiO2 BaTiO3 NaCl GaAs CdTe Fe Cu MgB2 ZnO TiO2 PbTe InP CH3NH3PbI3 LiF".split()
    rows = [f"{text},{len(text)},{'yes' if 'O' in text else 'no'}" for text in formulas * 2]
    (folder / "t.csv").write_text("formula,gap,oxide\n" + "\n".join(rows) + "\n")
    tune(folder, "prefix", "gap", {"ensemble": 2})
    tune(folder, "control", "oxide", {"fit": {"task": "classification", "pooling": "cls"}})
    tune(folder, "lora", "gap")
    return folder


def tune(folder, strategy, target, options=None):
    options = dict(options or {})
    fit = FitConfig(backbone=str(folder / "backbone"), strategy=strategy, **(FIT | options.pop("fit", {})))
    config = finetune.FinetuneConfig(str(folder / "t.csv"), "formula", (target,), device="cpu", fit=fit, **options)
    finetune.run(config, folder / strategy)


def predicted(folder, run, out, column, **options):
    predict.run(
        predict.PredictConfig(
            str(run), str(folder / "t.csv"), "formula", str(out), device="cpu", domain=False, **options
        )
    )
    return read_table(str(out)).columns[column]


@pytest.fixture
def known(place, tmp_path):
    for name, run in (("gap", "prefix"), ("oxide", "control"), ("gap-lora", "lora")):
        add(AddDeltaConfig(str(tmp_path / "set"), str(place / run), name))
    return tmp_path / "set"


def test_every_task_predicts_as_its_run_did(place, known, tmp_path):
    for name, run, column in (
        ("gap", "prefix", "predicted_gap"),
        ("oxide", "control", "probability_yes"),
        ("gap-lora", "lora", "predicted_gap"),
    ):
        of_set = predicted(place, known, tmp_path / f"{name}.csv", column, delta=name)
        of_run = predicted(place, place / run, tmp_path / f"{name}-run.csv", column)
        np.testing.assert_allclose(np.array(of_set, float), np.array(of_run, float), rtol=1e-4, atol=1e-5)
    opened = DeltaSet.open(known)
    assert opened.names == ["gap", "oxide", "gap-lora"]
    assert (opened.record["deltas"]["gap"]["members"], opened.record["deltas"]["oxide"]["targets"]) == (2, ["oxide"])
    tasks = opened.tasks()
    assert set(deltas_of(tasks.encoder)) == set(tasks.names()) == set(opened.names)


def test_a_set_holds_kilobytes_and_says_what_it_holds(place, known):
    assert not list(known.rglob("model.safetensors"))
    backbone = (place / "backbone" / "model.safetensors").stat().st_size
    entries = json.loads((known / "deltas.json").read_text())["deltas"]
    assert entries["oxide"]["bytes"] < 60_000 < backbone
    assert entries["oxide"]["numbers"] == {"delta": 13 * 64, "head": entries["oxide"]["numbers"]["head"]}
    assert (known / "gap" / "calibration.json").is_file()


def test_any_copy_of_the_backbone_does_and_no_other(place, known, tmp_path):
    copy = tmp_path / "copy"
    MatBERTModel.from_pretrained(place / "backbone").save_pretrained(copy)
    one, other = (
        predicted(place, known, tmp_path / f"{n}.csv", "predicted_gap", delta="gap", backbone=backbone)
        for n, backbone in enumerate((None, str(copy)))
    )
    assert one == other
    with pytest.raises(MatfmError, match="belong to .*backbone with weights .*give a copy of it with --backbone"):
        predicted(place, known, tmp_path / "p.csv", "predicted_gap", delta="gap", backbone=str(place / "other"))
    with pytest.raises(MatfmError, match="holds the deltas gap, oxide, gap-lora; there is no 'kvrh' among them"):
        predicted(place, known, tmp_path / "p.csv", "predicted_gap", delta="kvrh")
    with pytest.raises(MatfmError, match="say with --delta which one is meant"):
        predicted(place, known, tmp_path / "p.csv", "predicted_gap")
    with pytest.raises(MatfmError, match="--delta is for a set of deltas"):
        predicted(place, place / "lora", tmp_path / "p.csv", "predicted_gap", delta="gap")
    record = json.loads((known / "deltas.json").read_text())
    record["backbone"]["name"] = str(tmp_path / "gone")
    (known / "deltas.json").write_text(json.dumps(record))
    with pytest.raises(MatfmError, match="need it: give a copy with --backbone"):
        predicted(place, known, tmp_path / "p.csv", "predicted_gap", delta="gap")


def test_what_does_not_belong_is_not_added(place, known, tmp_path):
    for run, name, message in (
        ("prefix", "gap", "has a delta 'gap' already"),
        ("prefix", "a b", "cannot be used"),
        ("backbone", "new", "holds no delta; fine-tune with a strategy that adds one"),
    ):
        with pytest.raises(MatfmError, match=message):
            add(AddDeltaConfig(str(known), str(place / run), name))
    record = json.loads((place / "lora" / "delta" / "delta.json").read_text())
    record["backbone"]["sha256"] = "0" * 64
    (tmp_path / "run").mkdir()
    for file in ("delta.json", "delta.safetensors"):
        (tmp_path / "run" / file).write_bytes((place / "lora" / "delta" / file).read_bytes())
    (tmp_path / "run" / "delta.json").write_text(json.dumps(record))
    with pytest.raises(MatfmError, match="make another set"):
        add(AddDeltaConfig(str(known), str(tmp_path / "run"), "new"))
    assert sorted(path.name for path in known.iterdir()) == ["deltas.json", "gap", "gap-lora", "oxide"]


def test_the_command_line_adds_lists_predicts_and_analyses(place, tmp_path):
    calls = (
        ["deltas", "add", str(tmp_path / "set"), str(place / "prefix"), "--name", "gap"],
        ["deltas", "list", str(tmp_path / "set")],
        ["predict", str(tmp_path / "set"), str(place / "t.csv"), "--input", "formula", "--out", str(tmp_path / "p.csv"),
         "--delta", "gap", "--interval", "0.5", "--device", "cpu"],
        ["deltas", "analyse", str(place / "prefix"), str(place / "t.csv"), "--input", "formula", "--color", "gap",
         "--out", str(tmp_path / "a"), "--device", "cpu", "--rows", "12"],
        ["deltas", "analyse", str(place / "control"), str(place / "t.csv"), "--input", "formula", "--color", "oxide",
         "--out", str(tmp_path / "b"), "--device", "cpu", "--rows", "12"],
    )  # fmt: skip
    summaries = []
    for call in calls:
        result = CliRunner().invoke(app, call)
        assert result.exception is None, (call, result.exception)
        summaries.append(json.loads(result.stdout.splitlines()[-1]))
    assert summaries[1]["deltas"] == summaries[0]["deltas"]
    assert (summaries[2]["delta"], summaries[2]["rows_predicted"]) == ("gap", 32)
    assert len(summaries[3]["attention_to_prompt"]) == 2
    assert all(0 < share < 1 for share in summaries[3]["attention_to_prompt"])
    assert summaries[4]["attention_to_prompt"] is None
    assert all((tmp_path / name / "embeddings.png").stat().st_size > 5000 for name in "ab")
