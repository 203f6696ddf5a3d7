"""Every strategy by the same flag: what is trained, what stays, what a run directory holds; and their comparison."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from matfm import MatBERTConfig, MatBERTForProperty, MatBERTModel, MatfmError
from matfm.cli import app
from matfm.core import trainer
from matfm.core.optim import OptimizerConfig, parameter_groups
from matfm.errors import RunError
from matfm.models.delta_files import backbone_digest, load_delta
from matfm.models.deltas import METHODS
from matfm.models.strategies import STRATEGIES, StrategyOptions, apply_strategy
from matfm.tasks import compare_strategies, embed, finetune, predict
from matfm.tasks.fit_config import FitConfig, optimizer_of
from matfm.tasks.tables import read_table


@pytest.fixture
def backbone(tmp_path):
    torch.manual_seed(0)
    MatBERTModel(MatBERTConfig.of_size("tiny")).save_pretrained(tmp_path / "backbone")
    return str(tmp_path / "backbone")


def config_of(table, backbone, strategy, **options):
    fit = FitConfig(
        backbone=backbone, strategy=strategy, **{"epochs": 2, "tokens_per_batch": 60, "checkpoint_every": 3, **options}
    )
    return finetune.FinetuneConfig(str(table), "formula", ("gap",), device="cpu", fit=fit)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_optimizer_gets_what_the_strategy_trains_and_the_rest_stays(strategy, tiny_tokens):
    torch.manual_seed(0)
    model = MatBERTForProperty(MatBERTConfig.of_size("tiny", property_names=["a", "b"]))
    share = apply_strategy(model, StrategyOptions(strategy=strategy), model.matbert.layers_from_top)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    groups = parameter_groups(model, OptimizerConfig(), model.matbert.layers_from_top)
    given = {id(parameter) for group in groups for parameter in group["params"]}
    trained = {name for name, parameter in model.named_parameters() if id(parameter) in given}
    expected = {
        "full": lambda name: True,
        "feature": lambda name: False,
        "partial": lambda name: ".embed_" not in name,
        "bitfit": lambda name: name.endswith(".bias"),
    }.get(strategy, lambda name: ".added.default." in name)
    assert trained == {name for name in before if name.startswith("property_head.") or expected(name)}
    assert share == sum(before[name].numel() for name in trained) / sum(value.numel() for value in before.values())
    optimizer = torch.optim.SGD(
        [parameter for group in groups for parameter in group["params"]], lr=0.1, weight_decay=0.1
    )
    batch = tiny_tokens.batch(np.arange(len(tiny_tokens)))
    for _ in range(2):
        total, weight = model.loss(model.raw_packed(batch.ids_N, batch.amounts_N, batch.layout), batch.targets_BK)
        (total / weight).backward()
        optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed <= trained
    if strategy in METHODS and strategy != "control":  # no control token is in these rows
        assert changed >= {name for name in trained if ".added." in name and not name.endswith(".keys")}


@pytest.mark.parametrize("strategy", METHODS)
def test_a_run_is_resumed_to_the_bit_and_needs_nothing_but_its_folder(
    strategy, backbone, small_table, tmp_path, monkeypatch
):
    config = config_of(small_table, backbone, strategy)
    summary = finetune.run(config, tmp_path / "whole")
    assert summary["trainable_share"] < 0.15
    step = trainer._Run.one_step

    def interrupted(run):
        if run.progress.step == 4:
            raise KeyboardInterrupt
        step(run)

    with monkeypatch.context() as patched:
        patched.setattr(trainer._Run, "one_step", interrupted)
        with pytest.raises(RunError, match="interrupted after step 4"):
            finetune.run(config, tmp_path / "cut")
    assert finetune.run(config, tmp_path / "cut", resume=True)["trainable_share"] == summary["trainable_share"]
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    (tmp_path / "cut" / "summary.json").unlink()
    assert finetune.run(config, tmp_path / "cut", resume=True)["trainable_share"] == summary["trainable_share"]

    model = MatBERTForProperty.from_pretrained(tmp_path / "whole")
    plain = MatBERTModel.from_pretrained(backbone)
    assert (backbone_digest(model) == backbone_digest(plain)) == (strategy != "lora")
    assert (model.config.deltas is None) == (strategy == "lora")
    predict.run(
        predict.PredictConfig(
            str(tmp_path / "whole"), str(small_table), "formula", str(tmp_path / "p.csv"), device="cpu"
        )
    )
    predicted = np.array(read_table(str(tmp_path / "p.csv")).columns["predicted_gap"], dtype=float)
    made = read_table(str(tmp_path / "whole" / "predictions.parquet")).columns
    np.testing.assert_allclose(
        predicted[np.array(made["row"], int)], np.array(made["predicted_gap"], float), rtol=1e-5, atol=1e-6
    )
    embed.run(
        embed.EmbedConfig(
            str(tmp_path / "whole"), str(small_table), "formula", str(tmp_path / "e.parquet"), device="cpu"
        )
    )

    fresh = MatBERTForProperty(MatBERTConfig.from_pretrained(backbone))
    fresh.matbert.load_state_dict(plain.state_dict())
    load_delta(fresh, tmp_path / "whole" / "delta")
    batch = torch.tensor([[2, 30, 12]]), torch.ones(1, 3, dtype=torch.long)
    torch.testing.assert_close(fresh.eval()(*batch).logits, model.eval()(*batch).logits, rtol=1e-4, atol=1e-5)


def test_a_delta_goes_on_where_one_of_its_shape_ended_and_another_is_refused(backbone, small_table, tmp_path):
    finetune.run(config_of(small_table, backbone, "prompt", epochs=1), tmp_path / "first")
    begun = str(tmp_path / "first")
    finetune.run(config_of(small_table, begun, "prompt", epochs=1), tmp_path / "second")
    tokens = [
        load_file(tmp_path / name / "delta" / "delta.safetensors")["encoder.added.tokens"]
        for name in ("first", "second")
    ]
    assert not torch.equal(*tokens)
    for options in ({"strategy": "lora"}, {"strategy": "prompt", "prompt_length": 3}):
        with pytest.raises(MatfmError, match="was trained with another delta .prompt. than the strategy"):
            finetune.run(config_of(small_table, begun, **options), tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_each_strategy_has_its_rate_and_options_are_checked():
    rates = {name: optimizer_of(name).learning_rate for name in STRATEGIES}
    assert rates["full"] == rates["partial"] == 5e-4
    assert min(rates["prefix"], rates["prompt"]) >= 10 * rates["full"]
    resolved = FitConfig(strategy="prompt").for_kind("composition")
    assert resolved.optimizer == optimizer_of("prompt")
    assert resolved.for_kind("composition") == resolved
    own = OptimizerConfig(learning_rate=1e-4)
    assert FitConfig(strategy="prompt", optimizer=own).for_kind("composition").optimizer == own
    for options, message in (
        (
            {"strategy": "magic"},
            "choose one of full, feature, partial, bitfit, adapter, control, deep-prompt, lora, prefix",
        ),
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"alpha": -1.0}, "alpha is -1.0; it must be positive"),
        (
            {"prompt_start": "words"},
            "prompt_start is 'words'; choose one of tokens, random, task, classes, tokens:O,F,Ti",
        ),
    ):
        with pytest.raises(MatfmError, match=message):
            FitConfig(**options)


def test_strategies_are_compared_on_one_split_and_the_comparison_is_resumed(backbone, small_table, tmp_path):
    out = tmp_path / "comparison"
    call = [
        "compare-strategies", str(small_table), "--input", "formula", "--target", "gap", "--out", str(out), "--backbone", backbone,
        "--strategies", "full,prompt", "--epochs", "1", "--device", "cpu", "--set", "valid_share=0.2", "--set", "fit.prompt_length=4",
    ]  # fmt: skip
    result = CliRunner().invoke(app, call)
    assert result.exception is None, result.exception
    summary = json.loads(result.stdout.splitlines()[-1])
    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert [row["strategy"] for row in rows] == ["full", "prompt"]
    assert [float(row["learning_rate"]) for row in rows] == [
        optimizer_of(name).learning_rate for name in ("full", "prompt")
    ]
    assert rows[0]["trainable_share"] == "1.0"
    full, prompt = summary["strategies"]
    gain = (summary["dummy"]["test"] - prompt["test"]) / (summary["dummy"]["test"] - full["test"])
    assert prompt["test_share_of_full"] == pytest.approx(gain)
    assert full["valid_share_of_full"] == 1
    assert full["peak_mb"] >= full["start_mb"] > 10
    splits = {json.loads((out / name / "summary.json").read_text())["split_sha256"] for name in ("full", "prompt")}
    assert len(splits) == 1
    made = read_table(str(out / "full" / "predictions.parquet")).columns
    true, part = np.array(made["gap"], float), np.array(made["part"])
    dummy = np.abs(true[part == "test"] - true[part == "train"].mean()).mean()
    assert summary["dummy"]["test"] == pytest.approx(dummy, rel=1e-5)
    assert load_file(out / "prompt" / "model.safetensors")["matbert.encoder.added.default.tokens"].shape == (4, 64)
    assert "| prompt | " in (out / "comparison.md").read_text()
    assert (out / "comparison.png").stat().st_size > 5000

    (out / "summary.json").unlink()
    times = [(out / name / "model.safetensors").stat().st_mtime_ns for name in ("full", "prompt")]
    again = CliRunner().invoke(app, [*call, "--resume"])
    assert json.loads(again.stdout.splitlines()[-1]) == summary
    assert [(out / name / "model.safetensors").stat().st_mtime_ns for name in ("full", "prompt")] == times


def test_strategies_that_a_backbone_has_not_are_left_out_unless_asked_for(tmp_path):
    table = tmp_path / "m.csv"
    table.write_text("smiles,y\n" + "".join(f"{'C' * n}O,{n}\n" for n in range(1, 9)))
    fit = FitConfig(backbone="molbert-small", epochs=1)
    tuning = finetune.FinetuneConfig(str(table), "smiles", ("y",), device="cpu", fit=fit)
    config = compare_strategies.CompareStrategiesConfig(tuning)
    chosen, left_out = compare_strategies._suitable(config)
    assert [*chosen, "control"] == [name for name in STRATEGIES if name != "control"] + ["control"]
    assert "choose prompt" in left_out["control"]
    with pytest.raises(MatfmError, match="this backbone reads something else"):
        compare_strategies.run(replace(config, strategies=("full", "control")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_comparisons_are_refused_before_anything_is_written(backbone, small_table, tmp_path):
    tuning = config_of(small_table, backbone, "full")
    for strategies, message in (
        (("full", "magic"), "names 'magic'; choose from full"),
        (("full", "full"), "name each strategy once"),
    ):
        with pytest.raises(MatfmError, match=message):
            compare_strategies.CompareStrategiesConfig(tuning, strategies)
    with pytest.raises(MatfmError, match="takes one target column"):
        compare_strategies.CompareStrategiesConfig(replace(tuning, targets=("gap", "metal")))
    wrong = compare_strategies.CompareStrategiesConfig(replace(tuning, targets=("bandgap",)))
    with pytest.raises(MatfmError, match="bandgap"):
        compare_strategies.run(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()
