"""The benchmark of prompts on a tiny recipe: rates on training rows, every method once, means, sweep and pictures."""

import sys

import numpy as np
import pytest
import torch

from benchmarks.prompts import run as prompts
from benchmarks.prompts.data import fold_table
from benchmarks.prompts.methods import Method
from benchmarks.prompts.summary import best_rate, compared
from benchmarks.results import load, matching, record
from matfm import MatBERTConfig
from matfm.models.matbert import MatBERTForProperty
from matfm.models.saving import save_model
from matfm.tasks.audit import AuditConfig
from matfm.tasks.audit import run as run_audit
from matfm.tasks.encoding import row_encoder


@pytest.fixture
def given(small_recipes, tmp_path, monkeypatch):
    """`matbench_bench`: six formulas on three folds, and a tiny encoder."""
    text = (small_recipes / "bench.toml").read_text().replace('name = "bench"', 'name = "matbench_bench"')
    (small_recipes / "matbench_bench.toml").write_text(text)
    monkeypatch.setattr(prompts, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(prompts, "TASKS", ("bench",))
    folder = tmp_path / "tiny"
    torch.manual_seed(0)
    row_encoder("composition").tokenizer.save_pretrained(str(folder))
    config = MatBERTConfig.of_size("tiny", property_names=["x"], property_units=[""])
    save_model(MatBERTForProperty(config), folder, {})
    run_audit(AuditConfig(("oqmd_like",), ("matbench_bench",), str(folder)))
    common = ["--backbone", str(folder), "--work", str(tmp_path / "work"), "--device", "cpu", "--epochs", "1"]

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *common, *arguments])
        prompts.main()
        return tmp_path / "results"

    return call


def test_it_tunes_compares_sweeps_and_draws_and_does_nothing_twice(given, tmp_path, monkeypatch, capsys):
    given("--methods", "prompt", "--learning-rates", "1e-3,1e-2", "--seeds", "0")
    methods = "dummy,ridge,probe,fixed-prompt,control,prompt,deep-prompt,full"
    results = given("--methods", methods, "--seeds", "0,1")
    given("--methods", "prompt", "--lengths", "2", "--seeds", "0")
    rates, entries = load(results / "rates.jsonl"), load(results / "bench.jsonl")
    assert {entry["learning_rate"] for entry in rates} == {1e-3, 1e-2}
    assert {entry["train_rows"] for entry in rates} == {entry["train_rows"] - 1 for entry in entries}
    tuned = best_rate(rates, "bench", Method("prompt", epochs=1.0))
    assert tuned in (1e-3, 1e-2)
    for entry in matching(entries, method="prompt", metric="mae"):
        assert entry["learning_rate"] == tuned
        assert entry["delta_numbers"] == entry["length"] * 64
        assert entry["head_numbers"] == 65 * 64 + 65
        encoder = MatBERTForProperty(MatBERTConfig.of_size("tiny")).matbert
        assert entry["backbone_numbers"] == sum(value.numel() for value in encoder.parameters())
    assert len(matching(entries, metric="mae")) == 2 + 6 * 2 + 1
    assert matching(entries, method="fixed-prompt")[0]["delta_trained"] == 0
    before = (results / "bench.jsonl").read_bytes()
    capsys.readouterr()
    given("--methods", methods, "--seeds", "0,1")
    assert (results / "bench.jsonl").read_bytes() == before
    assert capsys.readouterr().out == ""
    table = (results / "table.md").read_text()
    assert "## bench" in table
    assert "- prompt ×8: " in table
    assert "Learning rates" in table
    assert (results / "sweep.png").stat().st_size > 5000
    monkeypatch.setattr(prompts, "test_table", lambda own, _: str(tmp_path / "all.csv"))
    rows = [f"{formula},{number}" for number, formula in enumerate("NaCl ZnO AlN FeO Cu MgO2".split())]
    (tmp_path / "all.csv").write_text("\n".join(["formula,gap", *rows]) + "\n")
    given("--methods", "deep-prompt", "--seeds", "0", "--pictures")
    assert len(load(results / "attention.jsonl")) == 2
    assert len(list((results / "pictures").glob("*.png"))) == 1


def test_sub_sampled_rows_are_the_same_for_all_and_test_rows_stay(given, tmp_path):
    known = prompts.labelled("matbench_bench", tmp_path / "work")
    whole, part, again = (fold_table(known, 0, rows, False, tmp_path) for rows in (0, 2, 2))
    assert part.train_rows == 2
    assert part.all_train_rows == whole.train_rows
    assert part.rows.tolist() == again.rows.tolist()
    test_R = known.test_rows("fold_0")
    for own in (whole, part):
        assert own.rows[own.scored].tolist() == np.flatnonzero(test_R).tolist()
        assert own.known.label_R.tolist() == known.label_R[own.rows].tolist()
    tuning = fold_table(known, 0, 0, True, tmp_path)
    assert not test_R[tuning.rows].any()


def test_methods_are_compared_seed_by_seed():
    def entry(method, seed, value, metric="mae"):
        return record(
            "cpu", seed, task="t", fold=0, method=method, metric=metric, value=value, train_rows=9, epochs=1.0
        )

    values = {"probe": (0.50, 0.52), "full": (0.40, 0.40), "prefix": (0.45, 0.46), "dummy": (1.0,)}
    entries = [entry(method, seed, value) for method, of in values.items() for seed, value in enumerate(of)]
    found = compared([one for one in entries if one["method"] == "prefix"], entries)
    assert found["below_probe"] == pytest.approx(0.055)
    assert found["below_probe_interval"] == pytest.approx([0.055 - 12.7062 * 0.005, 0.055 + 12.7062 * 0.005], abs=1e-4)
    assert found["to_full"] == pytest.approx(0.055 / 0.40)
    assert found["kept"] == pytest.approx((1 - 0.455) / (1 - 0.40))
    areas = [entry("full", 0, 0.9, "roc_auc"), entry("prefix", 0, 0.81, "roc_auc")]
    assert compared(areas[1:], areas)["to_full"] == pytest.approx(0.9)  # 0.19 short of 1 in place of 0.10
