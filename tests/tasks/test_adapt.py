"""`matfm adapt`: every method in one run directory, resumed to the bit, with a control and a verdict that is right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from matfm import MatfmError
from matfm.cli import app
from matfm.core import trainer
from matfm.core.config import from_mapping
from matfm.errors import RunError
from matfm.models.domain import ALIGNMENTS
from matfm.tasks import adapt, embed, predict
from matfm.tasks.adaptation.config import METHODS
from matfm.tasks.adaptation.diagnostics import separation
from matfm.tasks.adaptation.evidence import Evidence, compare, importance, judge, steadied_mean
from matfm.tasks.adaptation.rows import load_rows
from matfm.tasks.adaptation.training import plan_batches
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.tables import read_table

METALS = "Li Na K Mg Ca Fe Zn Ti Al Ga".split()
TINY = {"epochs": 1, "tokens_per_batch": 60, "checkpoint_every": 1, "evaluations": 2}


def table(folder, name, anions, every=1, shift=0.0, header="formula,gap", part=None):
    """A row for each compound; every so many-th has a label, none if `every` is 0."""
    rows = [(f"{m}{n}{a}{k}", n / k + shift) for m in METALS for a in anions for n in (1, 2) for k in (1, 2)]
    cells = [f"{y:.3f}" if every and not i % every else "" for i, (_, y) in enumerate(rows)]
    lines = [
        f"{f},{c}" + (f",{part(i)}" if part else "") for i, ((f, _), c) in enumerate(zip(rows, cells, strict=True))
    ]
    path = folder / name
    path.write_text("\n".join([header + (",part" if part else ""), *lines]) + "\n")
    return str(path)


def config_of(source, target, method="dann", fit=None, **options):
    sources = source if isinstance(source, tuple) else (source,)
    return adapt.AdaptConfig(
        tuple(one if isinstance(one, adapt.DomainTable) else adapt.DomainTable(one) for one in sources),
        (adapt.DomainTable(target),), "formula", "gap", method=method, device="cpu",
        fit=FitConfig(backbone="scratch:tiny", **{**TINY, **(fit or {})}), **{"diagnostics": False, **options},
    )  # fmt: skip


@pytest.fixture
def source(tmp_path):
    return table(tmp_path, "oxides.csv", "OS")


def interrupted_at(step, folder, patched):
    one_step = trainer._Run.one_step

    def interrupted(run):
        if run.progress.step == step and run.checkpoints.parent == folder:
            raise KeyboardInterrupt
        one_step(run)

    patched.setattr(trainer._Run, "one_step", interrupted)


def test_a_run_without_target_labels_is_complete_and_is_predicted_and_embedded(source, tmp_path):
    target = tmp_path / "unlabelled.csv"
    target.write_text(
        "formula\n" + "\n".join(f"{m}{n}Cl{k}" for m in METALS for n in (1, 2) for k in (1, 2)) + "\nXx2\n"
    )
    summary = adapt.run(config_of(source, str(target), diagnostics=True), tmp_path / "run")
    assert (summary["rows_in"], summary["rows_used"], summary["rows_rejected"]) == (121, 120, 1)
    assert summary["domains"] == ["oxides", "unlabelled"]
    assert summary["rows"]["target train, unlabelled"] == 40
    assert summary["evidence"]["target_labels"] is None
    assert {"control", "adapted"} <= summary["domains_apart"].keys()
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left >= {"config.json", "model.safetensors", "metrics.json", "predictions.parquet", "log.jsonl", "card.md",
                    "curves.png", "embeddings.png", "elements.png", "elements.json", "rejects.csv", "split.json",
                    "summary.json", "control"}  # fmt: skip
    assert "checkpoints" not in left
    assert "unlabelled.csv: formula,Xx2" in (tmp_path / "run" / "rejects.csv").read_text()
    made = read_table(str(tmp_path / "run" / "predictions.parquet")).columns
    assert made["side"].count("target") == 40
    for folder, column in (("run", "predicted_gap"), ("run/control", "control_gap")):
        out = tmp_path / "p.csv"
        predict.run(predict.PredictConfig(str(tmp_path / folder), str(target), "formula", str(out), device="cpu"))
        predicted = np.array(read_table(str(out)).columns["predicted_gap"][:40], float)
        at = [i for i, side in enumerate(made["side"]) if side == "target"]
        np.testing.assert_allclose(predicted, np.array(made[column], float)[at], rtol=1e-4, atol=1e-5)
    out = str(tmp_path / "e.parquet")
    embed.run(embed.EmbedConfig(str(tmp_path / "run"), str(target), "formula", out, device="cpu"))
    shares = json.loads((tmp_path / "run" / "elements.json").read_text())
    assert shares["Cl"] == {"source": 0.0, "target": 1.0}
    strengths = [r["strength"] for r in trainer.read_log(tmp_path / "run" / "log.jsonl") if "strength" in r]
    assert all(0 <= strength < 1 for strength in strengths)


@pytest.mark.parametrize("method", ["cdan", "mmd", "intermediate"])
def test_a_killed_run_is_resumed_to_the_bit(method, source, tmp_path, monkeypatch):
    target = table(tmp_path, "halides.csv", "FC", every=3)
    config = config_of(source, target, method, {"epochs": 2})
    summary = adapt.run(config, tmp_path / "whole")
    assert summary["rows"]["target train, labelled"] > 10
    for step, folder in ((3, "cut/control"), (1, "cut")):
        with monkeypatch.context() as patched:
            interrupted_at(step, tmp_path / folder, patched)
            with pytest.raises(RunError, match="interrupted"):
                adapt.run(config, tmp_path / "cut", resume=folder == "cut")
    adapt.run(config, tmp_path / "cut", resume=True)
    for folder in ("", "control"):
        whole, cut = (load_file(tmp_path / name / folder / "model.safetensors") for name in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[name], cut[name]) for name in whole)
    again = adapt.run(config, tmp_path / "cut", resume=True)
    assert again["metrics"] == summary["metrics"]
    with pytest.raises(MatfmError, match="begun with another seed"):
        adapt.run(config_of(source, target, method, {"epochs": 2}, seed=1), tmp_path / "cut", resume=True)


@pytest.mark.parametrize("method", ["none", "joint", "target", "coral"])
def test_the_other_methods_run_with_several_domains_and_classes(method, source, tmp_path):
    halides = table(tmp_path, "halides.csv", "FC", every=2)
    two = (source, table(tmp_path, "more.csv", "N"))
    summary = adapt.run(config_of(two, halides, method), tmp_path / "run")
    assert summary["domains"] == ["oxides", "more", "halides"]
    assert (tmp_path / "run" / "control").is_dir() == (method != "none")
    assert ("control" in summary["metrics"]) == (method != "none")
    assert adapt.run(config_of(two, halides, method), tmp_path / "run", resume=True) == summary
    for path in (two[0], two[1], halides):
        text = Path(path).read_text().replace(",0.500", ",no").replace(",1.000", ",yes").replace(",2.000", ",yes")
        Path(path).write_text(text)
    config = config_of(two, halides, method, {"task": "classification"})
    scores = adapt.run(config, tmp_path / "classes")["metrics"]["adapted"]
    assert 0 <= scores["target_valid"]["gap"]["accuracy"] <= 1


def test_a_chain_of_any_length_is_one_configuration(source, tmp_path):
    first = table(tmp_path, "first.csv", "NP", header="formula,other")
    target = table(tmp_path, "halides.csv", "F", every=2)
    (tmp_path / "stage.toml").write_text(
        f'device = "cpu"\n[data]\ntable = "{first}"\ntargets = ["other"]\n[train]\nepochs = 1\ntokens_per_batch = 60\n'
    )
    torch.manual_seed(0)
    from matfm import MatBERTConfig, MatBERTModel

    MatBERTModel(MatBERTConfig.of_size("tiny")).save_pretrained(tmp_path / "backbone")
    values = {
        "method": "intermediate", "input": "formula", "label": "gap", "device": "cpu", "diagnostics": False,
        "source": [{"pretrain": str(tmp_path / "stage.toml")}, {"table": first, "label": "other"}, {"table": source}],
        "target": [{"table": target, "epochs": 2}], "fit": {"backbone": str(tmp_path / "backbone"), **TINY},
    }  # fmt: skip
    config = from_mapping(adapt.AdaptConfig, values, "chain.toml")
    adapt.run(config, tmp_path / "run")
    runs = [
        json.loads((tmp_path / "run" / name / "config.json").read_text())["run"] for name in ("stages/1", "stages/2")
    ]
    assert runs[0]["model"]["start"] == str(tmp_path / "backbone")
    assert runs[1]["fit"]["backbone"] == str(tmp_path / "run" / "stages" / "1")
    # The head of the source is kept, with its scaling.
    control, last = (load_file(tmp_path / "run" / n / "model.safetensors") for n in ("control", "."))
    assert torch.equal(control["property_head.mean"], last["property_head.mean"])
    assert not torch.equal(control["property_head.out.weight"], last["property_head.out.weight"])


def test_target_test_rows_are_seen_by_nothing_but_the_scores(source, tmp_path):
    """Other labels and other inputs of test rows: the same weights."""
    weights, scores = [], []
    for variant, shift in enumerate((0.0, 5.0)):
        path = table(tmp_path, "halides.csv", "F", part=lambda i: ("test", "valid", "train")[i % 3])
        rows = [line.split(",") for line in Path(path).read_text().splitlines()]
        for row in rows:
            if row[2] == "test":
                row[0], row[1] = row[0].replace("F", "Cl" if variant else "F"), str(float(row[1]) + shift)
        target = tmp_path / "target.csv"
        target.write_text("\n".join(map(",".join, rows)) + "\n")
        config = config_of(source, str(target), "dann", {"epochs": 2}, target_split="column:part", keep="best")
        summary = adapt.run(config, tmp_path / f"run{variant}")
        weights.append(load_file(tmp_path / f"run{variant}" / "model.safetensors"))
        scores.append(summary["metrics"]["adapted"]["target_test"]["gap"]["mae"])
        weights[-1]["evidence"] = torch.tensor(summary["evidence"]["target_labels"]["difference"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert scores[1] > scores[0] + 1


def test_batches_are_half_target_and_few_labels_count(tmp_path):
    source = (table(tmp_path, "a.csv", "O"), table(tmp_path, "b.csv", "S"))
    config = config_of(source, table(tmp_path, "halides.csv", "FC", every=8))
    rows = load_rows(config)
    fit = config.fit.for_kind("composition")
    plan = plan_batches(config, rows, fit, aligns=True)
    counts = [group.count for group in plan.groups]
    labelled = rows.positions("target", "train", labelled=True)
    assert counts[0] == counts[1]
    assert abs(counts[0] + counts[1] - counts[2]) <= 1
    assert counts[3] == min(len(labelled), round((counts[0] + counts[1]) / 4))
    extra = plan.domain_P == -1
    assert plan.positions[extra].tolist() == labelled.tolist()
    assert (plan.supervised_P == (extra | ~rows.target_U[plan.positions])).all()
    assert not np.isin(plan.positions, rows.positions("target", "valid")).any()


def errors(n, mean, seed):
    return np.abs(np.random.default_rng(seed).normal(mean, 0.1, n))


NAMES = {"unit": "eV", "error": "mean absolute error", "control": "run/control"}


def test_the_warning_fires_on_harm_and_not_on_harmless_changes():
    better, same, worse = (compare(errors(200, 0.5, 0), errors(200, m, 1), None, 0) for m in (0.4, 0.501, 0.6))
    assert better.high < 0 < worse.low
    assert same.low < 0.02
    assert compare(errors(0, 1, 0), errors(0, 1, 0), None, 0) is None
    found = judge(worse, worse, None, 0.05, True, NAMES)
    assert found.negative
    assert found.basis == "weighted source rows"
    assert "negative transfer: on 200 held-out source rows" in found.warning
    assert "prefer the control in run/control" in found.warning
    assert judge(same, same, None, 0.05, True, NAMES).negative is False
    # Labels of the target decide, both ways, and where labels may mean something else the source does not.
    assert judge(worse, worse, better, 0.05, True, NAMES).negative is False
    assert judge(better, better, worse, 0.05, True, NAMES).basis == "target labels"
    assert judge(worse, worse, None, 0.05, False, NAMES).negative is None
    # Weights on a few rows say nothing: the plain source rows are asked.
    degenerate = Evidence(200, 0.5, 0.9, 0.4, 0.3, 0.5, 3.0)
    assert judge(same, degenerate, None, 0.05, True, NAMES).basis == "source rows"
    assert judge(None, None, None, 0.05, True, NAMES).negative is None


def test_weighted_source_rows_estimate_errors_on_the_target():
    """Harm that grows with x, few source rows at large x, where the target is."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 3000)
    harm, weight = np.where(x > 1, 0.5, -0.2), np.exp(x - 0.5)  # the odds of N(1, 1) over N(0, 1)
    true = np.where(rng.normal(1, 1, 200_000) > 1, 0.5, -0.2).mean()
    plain, weighted = steadied_mean(harm[None], np.ones((1, 3000)))[0], steadied_mean(harm[None], weight[None])[0]
    assert plain < 0 < true
    assert weighted == pytest.approx(true, abs=0.05)
    assert importance(weight).mean() == pytest.approx(1)
    assert separation(rng.normal(size=(60, 3)), np.arange(60) < 30, 0).a_distance < 0.8
    apart = np.concatenate([rng.normal(0, 1, (30, 3)), rng.normal(9, 1, (30, 3))])
    assert separation(apart, np.arange(60) >= 30, 0).a_distance == 2.0
    assert separation(apart[:33], np.arange(33) >= 30, 0) is None


def test_a_harmful_adaptation_warns_on_stderr_and_in_the_summary(source, tmp_path, monkeypatch):
    """A target whose labels are turned around, learned in place of the source's."""
    target = table(tmp_path, "halides.csv", "OS", every=2)
    call = ["adapt", "--source", source, "--target", target, "--input", "formula", "--label", "gap", "--device", "cpu",
            "--backbone", "scratch:tiny", "--epochs", "12", "--set", "fit.tokens_per_batch=60",
            "--set", "diagnostics=false", "--set", "target_valid_share=0.5"]  # fmt: skip
    done = CliRunner().invoke(app, [*call, "--method", "joint", "--out", str(tmp_path / "harmless")])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["negative_transfer"]["warning"] == ""
    assert "warning" not in done.stderr
    lines = Path(target).read_text().splitlines()
    rows = load_rows(
        from_mapping(adapt.AdaptConfig, json.loads((tmp_path / "harmless/config.json").read_text())["run"], "x")
    )
    trained = set(rows.joined.row_J[rows.labelled.rows[rows.positions("target", "train", labelled=True)]].tolist())
    turned = [
        f"{line.split(',')[0]},{9 if row - 1 in trained else line.split(',')[1]}" if row else line
        for row, line in enumerate(lines)
    ]
    Path(target).write_text("\n".join(turned) + "\n")
    done = CliRunner().invoke(app, [*call, "--method", "target", "--out", str(tmp_path / "harm")])
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["negative_transfer"]["negative"]
    assert "matfm: warning: negative transfer" in done.stderr
    assert "Negative transfer: on" in (tmp_path / "harm" / "card.md").read_text()


def test_errors_name_the_place_and_the_remedy(source, tmp_path):
    target = table(tmp_path, "halides.csv", "F", every=0)
    wrong = [
        (lambda: config_of(source, target, "magic"), "method is 'magic'; choose one of dann"),
        (lambda: config_of((), target), "no source table was named; give --source TABLE"),
        (lambda: config_of(source, target, fit={"strategy": "feature"}), "choose another strategy"),
        (lambda: config_of(source, target, entropy=True), "it is for cdan"),
        (adapt.DomainTable, "names a table"),
        (lambda: load_rows(config_of(source, target, "intermediate")), "no training row of .*halides.csv has one"),
        (lambda: load_rows(config_of(target, source)), "halides.csv has no usable row; .* the target cell is empty"),
        (lambda: load_rows(config_of(source, target, domain="where")), "has no column 'where'"),
        (lambda: load_rows(config_of(source, str(tmp_path / "no.csv"))), "is not a file"),
        (lambda: load_rows(config_of(source, source, domain="gap")), "is a domain of the source and of the target"),
    ]
    for call, message in wrong:
        with pytest.raises(MatfmError, match=message):
            call()
    assert set(ALIGNMENTS) < set(METHODS)
    broken = tmp_path / "broken.csv"
    broken.write_text("formula,gap\nNaCl,1\nQq,\n")
    with pytest.raises(MatfmError, match=r"broken.csv: formula, row 1: .*on-bad stop"):
        load_rows(config_of(source, str(broken), on_bad="stop"))


def test_a_control_of_another_configuration_is_not_taken_over(source, tmp_path):
    target = table(tmp_path, "halides.csv", "F", every=0)
    adapt.run(config_of(source, target, "none"), tmp_path / "none")
    (tmp_path / "dann").mkdir()
    (tmp_path / "none").rename(tmp_path / "dann" / "control")
    with pytest.raises(MatfmError, match="control was trained with another seed"):
        adapt.run(config_of(source, target, "dann", seed=3), tmp_path / "dann", resume=True)
