"""Records, paired tests, fixed learners and tables that benchmarks are made of."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import baselines
from benchmarks.matbench import summary as matbench_summary
from benchmarks.moleculeace import summary as moleculeace_summary
from benchmarks.paired import folds_compared, sets_compared
from benchmarks.pretraining.summary import gain
from benchmarks.pretraining.summary import summarise as summarise_pretraining
from benchmarks.results import append, load, mean_record, record


def entry(**values):
    known = {"benchmark": "b", "unit": "eV", "n": 10, "seconds": 1.0, "split": 0, "task": "t", "model": "m"}
    return record("cpu", values.pop("seed", 0), **(known | {"metric": "mae", "value": 1.0} | values))


def test_a_line_that_a_killed_run_left_is_no_record_and_the_next_takes_its_place(tmp_path):
    path = tmp_path / "folder" / "results.jsonl"
    assert load(path) == []
    append(path, entry(value=1.5), entry(value=2.5))
    with path.open("a") as lines:
        lines.write('{"benchmark": "b", "va')
    assert [one["value"] for one in load(path)] == [1.5, 2.5]
    append(path, entry(value=3.5))
    assert [one["value"] for one in load(path)] == [1.5, 2.5, 3.5]
    assert all(json.loads(line)["versions"] for line in path.read_text().splitlines())


def test_means_have_the_deviation_of_leaderboards_and_the_interval_of_student():
    values = [0.28, 0.31, 0.29, 0.33, 0.30]
    mean = mean_record(
        [entry(value=value, split=fold, contaminated_share=0.5) for fold, value in enumerate(values)], "cpu"
    )
    assert mean["value"] == pytest.approx(np.mean(values))
    assert mean["std"] == pytest.approx(np.std(values))
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert mean["interval"] == pytest.approx([low, high])
    assert (mean["split"], mean["n"], mean["seconds"], mean["contaminated_share"]) == ("mean", 50, 5.0, 0.5)


def test_fold_tests_are_wider_than_students_by_the_shared_rows():
    ours = {0: 0.30, 1: 0.31, 2: 0.28, 3: 0.33, 4: 0.29, 9: 5.0}
    peers = {0: 0.34, 1: 0.33, 2: 0.33, 3: 0.35, 4: 0.34}
    differences = np.array([ours[fold] - peers[fold] for fold in range(5)])
    plain = stats.ttest_1samp(differences, 0)
    found = folds_compared(ours, peers, 1 / 4)
    widened = abs(plain.statistic) * np.sqrt((1 / 5) / (1 / 5 + 1 / 4))
    assert found.p_value == pytest.approx(2 * stats.t.sf(widened, 4))
    assert found.p_value > plain.pvalue
    assert (found.difference, found.splits, found.better) == (pytest.approx(differences.mean()), 5, 5)
    assert folds_compared(ours, peers, 0.0).p_value == pytest.approx(plain.pvalue)
    assert folds_compared(ours, peers, 1 / 4, smaller_is_better=False).better == 0
    assert folds_compared(ours, {0: 1.0, 1: 1.0}, 1 / 4) is None
    assert folds_compared(ours, ours, 1 / 4).p_value == 1.0


def test_set_tests_are_wilcoxons():
    generator = np.random.default_rng(0)
    ours = {f"set {number}": value for number, value in enumerate(generator.normal(0.6, 0.05, 30))}
    peers = {name: value + generator.normal(0.02, 0.02) for name, value in ours.items()}
    differences = [ours[name] - peers[name] for name in ours]
    found = sets_compared(ours, peers)
    assert found.p_value == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert found.better == sum(value < 0 for value in differences)
    assert sets_compared(ours, ours).p_value == 1.0
    assert sets_compared(ours, dict(list(peers.items())[:5])) is None


def test_fixed_learners_learn_what_can_be_learned(monkeypatch):
    monkeypatch.setattr(baselines, "TREES", 30)
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(size=(90, 3)), np.ones((90, 1))], axis=1)
    label = 3 + 2 * features[:, 0] - features[:, 1]
    train, test, label_train, label_test = features[:60], features[60:], label[:60], label[60:]
    constant = baselines.constant(label_train, 30, classes=False)
    error = np.abs(constant - label_test).mean()
    for learner in (
        baselines.ridge,
        lambda *given: baselines.support_vectors(*given, scale=True),
        lambda *given: baselines.random_forest(*given, classes=False),
    ):
        assert np.abs(learner(train, label_train, test) - label_test).mean() < 0.7 * error
    classes = (label_train > 3).astype(float)
    assert set(baselines.constant(classes, 3, classes=True)) <= {0.0, 1.0}
    probability = baselines.random_forest(train, classes, test, classes=True)
    assert ((probability > 0.5) == (label_test > 3)).mean() > 0.7


def test_matbench_means_wait_for_five_folds_and_are_tested_against_peers(tmp_path):
    for fold in range(5):
        ours = entry(
            task="steels", split=fold, model="x fine-tuned", value=90.0 + fold, contaminated_share=0.0, unit="MPa"
        )
        clean = entry(task="steels@clean", split=fold, model="x fine-tuned", value=95.0, n=4, clean_of="x", unit="MPa")
        append(tmp_path / f"steels_fold_{fold}.jsonl", ours, clean)
        append(
            tmp_path / f"steels_fold_{fold}.jsonl", entry(task="steels", split=fold, model="rf", value=100.0 + 2 * fold)
        )
    append(tmp_path / "steels_fold_0.jsonl", entry(task="steels", model="late", value=80.0))
    matbench_summary.summarise(tmp_path, "steels")
    found = load(tmp_path / "steels.jsonl")
    means = {(one["task"], one["model"]): one["value"] for one in found if one["metric"] == "mae"}
    assert means == {("steels", "x fine-tuned"): 92.0, ("steels@clean", "x fine-tuned"): 95.0, ("steels", "rf"): 104.0}
    (test,) = [one for one in found if one["metric"] == "p_value:mae"]
    assert (test["model"], test["against"], test["better"], test["n"]) == ("x fine-tuned", "rf", 5, 5)
    text = (tmp_path / "table.md").read_text()
    assert (
        text.index("late**, fold 0")
        < text.index("**x fine-tuned**")
        < text.index("RF-SCM/Magpie")
        < text.index("| Dummy")
    )
    before = (tmp_path / "steels.jsonl").read_bytes()
    matbench_summary.summarise(tmp_path, "steels")
    assert json.loads(before.splitlines()[0]) == json.loads((tmp_path / "steels.jsonl").read_bytes().splitlines()[0])


def test_moleculeace_means_wait_for_all_sets(tmp_path):
    sets = [f"CHEMBL{number}" for number in range(7)]
    for number, name in enumerate(sets):
        for metric, base in (("rmse", 0.7), ("rmse_cliff", 0.8)):
            baseline = entry(task=name, metric=metric, model=moleculeace_summary.BASELINE, value=base)
            better = entry(
                task=name, metric=metric, model="ours", value=base - 0.01 * (number + 1), contaminated_share=0.1
            )
            append(tmp_path / f"{name}.jsonl", baseline, better)
    append(
        tmp_path / f"{sets[0]}.jsonl",
        *(entry(task=sets[0], metric=m, model="late", value=0.1) for m in ("rmse", "rmse_cliff")),
    )
    moleculeace_summary.summarise(tmp_path, sets)
    found = load(tmp_path / "overall.jsonl")
    means = {(one["model"], one["metric"]): one["value"] for one in found if one["metric"] in ("rmse", "rmse_cliff")}
    assert means[("ours", "rmse")] == pytest.approx(0.66)
    assert means[(moleculeace_summary.BASELINE, "rmse_cliff")] == pytest.approx(0.8)
    assert not any(model == "late" for model, _ in means)
    (test,) = [
        one for one in found if one["metric"] == "p_value:rmse" and one["against"] == moleculeace_summary.BASELINE
    ]
    assert test["value"] == pytest.approx(2 / 2**7)
    text = (tmp_path / "table.md").read_text()
    assert text.index("**ours**") < text.index("| CheMeleon | 0.6660 | 0.7650 |") < text.index("**late**")
    assert "7 of 7" in text


def test_gain_over_random_weights_is_counted_where_both_are(tmp_path):
    def told(model, value, split=0, seed=0):
        return entry(task="expt_gap", model=model, value=value, split=split, seed=seed, backbone="x")

    own = [told("x fine-tuned [30 epochs]", 0.3), told("x fine-tuned [30 epochs]", 9.0, split=1)]
    twins = [told("x from scratch [30 epochs]", 0.5), told("x from scratch [30 epochs]", 0.7, seed=1)]
    others = [told("x from scratch [5 epochs]", 9.0), told("x embedding + ridge", 0.45)]
    assert gain(own, [*own, *twins, *others]) == pytest.approx(1 - 0.3 / 0.6)
    assert gain(twins, [*own, *twins]) is None
    assert gain(own[1:], [*own, *twins]) is None
    append(tmp_path / "expt_gap.jsonl", *own, *twins, others[1])
    summarise_pretraining(tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| expt_gap | mae (eV) | x embedding + ridge | 0.4500 ± 0.0000 | 25% | 1 × 1 |" in text
