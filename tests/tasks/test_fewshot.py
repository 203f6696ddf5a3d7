"""Training over tasks, evaluating, and screening: what is learned, kept, resumed and refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from matfm import FewShotScreener, MatBERTConfig, MatBERTModel, MatfmError, SmilesTokenizer
from matfm.core.config import from_mapping
from matfm.core.layout import PackedLayout
from matfm.core.optim import OptimizerConfig
from matfm.models.fewshot_encoder import (
    WEIGHTS,
    FewShotConfig,
    FewShotEncoder,
    is_fewshot,
    load_fewshot,
    save_fewshot,
)
from matfm.models.matbert import MatBERTModel as Encoder
from matfm.models.saving import save_model
from matfm.tasks import fewshot
from matfm.tasks.encoding import encode_formulas
from matfm.tasks.few_shot.episodes import EpisodeBatches, EpisodeSampler, TaskTable
from matfm.tasks.few_shot.evaluation import episode_scores, summarise
from matfm.tasks.few_shot.features import Featuriser
from matfm.tasks.few_shot.training import episode_step, meta_train
from matfm.tasks.kinds import backbone_encoder

CPU = torch.device("cpu")
METALS, ANIONS = "Li Na K Mg Ca Sr Ba Ti Zr Fe Co Ni Cu Zn Al Ga In".split(), "O S N F Cl Br I Se".split()
COMPOUNDS = [f"{metal}{count}{anion}" for metal in METALS for anion in ANIONS for count in ("", "2")]


@pytest.fixture
def backbone(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "backbone"
    save_model(Encoder(MatBERTConfig.of_size("tiny")), folder, {})
    return str(folder)


@pytest.fixture
def task_csv(tmp_path):
    """Four tasks that are each about an element; some labels are missing and one row cannot be read."""
    generator = np.random.default_rng(0)
    lines = ["formula,O,S,F,Cl", "Xx2O,1,0,0,0"]
    for formula in COMPOUNDS:
        cells = [str(int(formula.endswith(anion))) for anion in ("O", "S", "F", "Cl")]
        cells = ["" if generator.random() < 0.1 else cell for cell in cells]
        lines.append(",".join([formula, *cells]))
    path = tmp_path / "tasks.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def config_of(table, backbone, **changes):
    values = {
        "table": table,
        "input": "formula",
        "train_tasks": ["O", "S"],
        "valid_tasks": ["F"],
        "test_tasks": ["Cl"],
        "backbone": backbone,
        "width": 16,
        "device": "cpu",
        "episodes": {"support": [8], "queries": 16, "copies": 2},
        "train": {"steps": 6, "accumulate": 2, "evaluations": 2, "valid_episodes": 3, "checkpoint_every": 2},
        "evaluate": {"episodes": 2, "methods": ["prototypes", "kernel", "rf", "lr", "knn", "gp", "linear-probe"]},
    }
    return from_mapping(fewshot.FewshotConfig, {**values, **changes}, "test")


def test_a_run_trains_evaluates_and_leaves_a_backbone(backbone, task_csv, tmp_path):
    out = tmp_path / "run"
    summary = fewshot.run(config_of(task_csv, backbone), out)
    assert (summary["rows_in"], summary["rows_used"], summary["rows_rejected"]) == (273, 272, 1)
    assert "Xx" in (out / "rejects.csv").read_text()
    with pytest.raises(MatfmError, match=r"row \d+, column 'formula': .*Xx.*on_bad = 'stop'"):
        fewshot.run(config_of(task_csv, backbone, on_bad="stop"), tmp_path / "stopped")
    assert summary["steps"] == 6
    methods = {row["method"] for row in summary["metrics"]}
    assert methods == {"prototypes", "kernel", "rf", "lr", "knn", "gp", "linear-probe"}
    row = next(row for row in summary["metrics"] if row["method"] == "kernel" and row["metric"] == "delta_auprc")
    assert row["interval"][0] <= row["value"] <= row["interval"][1]
    assert (row["episodes"], row["tasks"], row["support"]) == (2, 1, 8)
    assert len((out / "episodes.jsonl").read_text().splitlines()) == 2 * 7
    assert fewshot.run(config_of(task_csv, backbone), out, resume=True) == summary
    assert is_fewshot(str(out))
    evaluated = fewshot.run(
        config_of(task_csv, str(out), train_tasks=[], valid_tasks=[]), tmp_path / "again"
    )  # the backbone brings its projection
    assert evaluated["metrics"] == summary["metrics"]


def test_a_killed_run_resumes_to_equal_weights(backbone, task_csv, tmp_path, monkeypatch):
    config = config_of(task_csv, backbone, test_tasks=[])
    fewshot.run(config, tmp_path / "whole")
    whole = load_fewshot(str(tmp_path / "whole")).state_dict()
    original, calls = EpisodeBatches.next, []

    def killed(self):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(EpisodeBatches, "next", killed)
    with pytest.raises(MatfmError, match="interrupted after step 3"):
        fewshot.run(config, tmp_path / "cut")
    fewshot.run(config, tmp_path / "cut", resume=True)
    for name, value in load_fewshot(str(tmp_path / "cut")).state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_training_over_tasks_teaches_a_task_that_was_not_among_them(backbone, tmp_path):
    """A task an anion: which half of the metals? In every other task the labels are swapped: only the support tells."""
    early = np.array([metal in METALS[:8] for metal in METALS for _ in range(2 * len(ANIONS))])
    has = np.array([[formula.endswith(anion) for anion in ANIONS] for formula in COMPOUNDS])
    labels = np.where(has, early[:, None] ^ (np.arange(len(ANIONS)) % 2 == 1), np.nan)
    table, tokens = TaskTable(tuple(ANIONS), labels), encode_formulas(COMPOUNDS).tokens
    torch.manual_seed(0)
    model = FewShotEncoder(Encoder.from_pretrained(backbone), FewShotConfig("euclidean", 16, dropout=0.0))
    batches = EpisodeBatches(EpisodeSampler(table.only(ANIONS[:6]), (12,), 24, ratio="balanced"), tokens)

    def accuracy(task):
        judged = EpisodeBatches(EpisodeSampler(table.only([task]), (12,), 24, ratio="balanced"), tokens)
        with torch.no_grad():
            told = [
                episode_step(False)(model.eval(), judged.next(), torch.Generator()).metrics["accuracy"]
                for _ in range(10)
            ]
        return np.mean([float(right / count) for right, count in told])

    before = [accuracy(task) for task in ANIONS[6:]]
    options = fewshot.TrainConfig(accumulate=1, checkpoint_every=1000)
    meta_train(
        model, batches, None, options, OptimizerConfig(learning_rate=1e-3), 60, tmp_path / "run",
        strategy="full", seed=0, device=CPU, record={},
    )  # fmt: skip
    after = [accuracy(task) for task in ANIONS[6:]]
    assert min(after) > 0.9
    assert max(before) < 0.7


def test_episodes_are_the_same_packed_together_or_one_input_at_a_time(backbone):
    torch.manual_seed(0)
    model = FewShotEncoder(Encoder.from_pretrained(backbone), FewShotConfig("mahalanobis", 8)).eval().double()
    tokens = encode_formulas(COMPOUNDS[:40]).tokens
    tokens.amounts_N = tokens.amounts_N.astype(np.float64)
    labels = (np.arange(40)[:, None] % 2).astype(float)
    batch = EpisodeBatches(EpisodeSampler(TaskTable(("t",), labels), (6,), 8), tokens).next()
    packed = model.embed(batch)
    for place, row in enumerate(batch.rows_B.tolist()):
        alone = tokens.batch(np.array([row]))
        assert alone.layout == PackedLayout.from_lengths([batch.layout.lengths()[place]])
        torch.testing.assert_close(model.embed(alone)[0], packed[place])


@pytest.mark.parametrize(("strategy", "moved"), [("feature", 0), ("partial", 2), ("full", 3)])
def test_a_strategy_trains_that_part_of_the_encoder(backbone, tmp_path, strategy, moved):
    model = FewShotEncoder(Encoder.from_pretrained(backbone), FewShotConfig(width=8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokens = encode_formulas(COMPOUNDS).tokens
    sampler = EpisodeSampler(TaskTable(("t",), np.arange(272)[:, None] % 2 * 1.0), (6,), 8)
    meta_train(
        model, EpisodeBatches(sampler, tokens), None, fewshot.TrainConfig(accumulate=1), OptimizerConfig(), 2, tmp_path,
        strategy=strategy, seed=0, device=CPU, record={},
    )  # fmt: skip
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("projection.") for name in changed)
    assert not any(name.startswith("kernel_head.") for name in changed)
    parts = [any(part in name for name in changed) for part in ("blocks.0.", "blocks.1.", "embed_tokens")]
    assert sum(parts) == moved


def test_numbers_are_learned_with_the_kernel_head(backbone, task_csv, tmp_path):
    lines = ["formula,a,b,c"]
    for row, formula in enumerate(COMPOUNDS):
        lines.append(f"{formula},{len(formula) + 0.01 * row},{formula.count('2') + 0.1 * (row % 7)},{row % 5}")
    table = tmp_path / "numbers.csv"
    table.write_text("\n".join(lines))
    config = config_of(
        str(table), backbone, train_tasks=["a", "b"], valid_tasks=[], test_tasks=["c"], labels="numbers",
        evaluate={"episodes": 2, "methods": ["kernel", "rf", "lr", "knn"]},
    )  # fmt: skip
    summary = fewshot.run(config, tmp_path / "run")
    assert {row["metric"] for row in summary["metrics"]} == {"mae", "r2"}


def test_finetuning_is_a_baseline_too(backbone, task_csv, tmp_path, monkeypatch):
    monkeypatch.setattr("matfm.tasks.few_shot.methods.FINETUNING_EPOCHS", 1.0)
    evaluate = {"episodes": 1, "methods": ["finetune", "rf"]}
    summary = fewshot.run(
        config_of(task_csv, backbone, train_tasks=[], valid_tasks=[], evaluate=evaluate), tmp_path / "run"
    )
    assert {row["method"] for row in summary["metrics"]} == {"finetune", "rf"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_tasks": ["O"]}, "task 'O' is named twice"),
        ({"train_tasks": [], "test_tasks": []}, "neither train_tasks nor test_tasks"),
        ({"distance": "l7"}, "distance is 'l7'"),
        ({"evaluate": {"methods": ["svm"]}}, "choose from prototypes, kernel"),
        ({"labels": "numbers", "evaluate": {"methods": ["prototypes"]}}, "prototypes are for classes"),
        ({"episodes": {"support": [1]}}, "needs at least 2 examples"),
        ({"train": {"strategy": "lots"}}, "train.strategy is 'lots'"),
    ],
)
def test_contradictions_are_named(backbone, task_csv, changes, message):
    with pytest.raises(MatfmError, match=message):
        config_of(task_csv, backbone, **changes)


def test_an_encoder_over_tasks_survives_its_folder(backbone, tmp_path):
    model = FewShotEncoder(Encoder.from_pretrained(backbone), FewShotConfig("cosine", 8, "fractions", 118)).eval()
    save_fewshot(model, tmp_path / "saved", {})
    again = load_fewshot(str(tmp_path / "saved"))
    batch = encode_formulas(COMPOUNDS[:5]).tokens.batch(np.arange(5))
    beside = torch.rand(5, 118)
    assert torch.equal(model.embed(batch, beside), again.embed(batch, beside))
    assert again.settings == model.settings
    with pytest.raises(MatfmError, match="was trained with the features fractions"):
        Featuriser(again, backbone_encoder(backbone), "none", CPU)
    (tmp_path / "saved" / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(MatfmError, match="cannot be loaded"):
        load_fewshot(str(tmp_path / "saved"))


def test_scores_of_an_episode_and_their_intervals():
    true, high = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    scores = episode_scores(true, np.stack([1 - high, high], axis=1))
    assert scores["accuracy"] == 0.75
    assert scores["roc_auc"] == 0.75
    assert scores["delta_auprc"] == pytest.approx((1 + 2 / 3) / 2 - 0.5)
    records = [
        {"task": task, "support": 16, "episode": number, "method": method, "delta_auprc": base + 0.1 * (method == "x")}
        for task, base in (("a", 0.1), ("b", 0.3))
        for number in range(4)
        for method in ("rf", "x")
    ]
    forest, other = summarise(records, ["delta_auprc"])
    assert forest["value"] == pytest.approx(0.2)
    assert other["minus_rf_interval"] == pytest.approx([0.1, 0.1])
    assert other["ratio_to_rf"] == pytest.approx(1.5)
    easier = {"task": "b", "support": 16, "episode": 9, "method": "rf", "delta_auprc": 0.9}  # not answered by the other
    assert summarise([*records, easier], ["delta_auprc"])[1]["ratio_to_rf"] == pytest.approx(1.5)


def test_a_screener_ranks_what_is_like_the_known_ones(backbone, tmp_path):
    known = ["NaCl", "KCl", "LiCl", "CaCl2", "NaF", "KI", "MgO", "ZnS", "FeS", "GaN"]
    active = ["Cl" in formula for formula in known]
    library = [*[f for f in COMPOUNDS if f not in known], "Qq3"]
    screener = FewShotScreener(backbone, cache=tmp_path / "cache", device="cpu").fit(known, active)
    hits = screener.rank(iter(library), top=20)
    assert len(hits) == 20
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(library[hit.row] == hit.input and hit.nearest in known for hit in hits)
    assert np.mean(["Cl" in hit.input for hit in hits]) > 0.8
    assert list(screener.rejects_) == [len(library) - 1]
    again = FewShotScreener(backbone, cache=tmp_path / "cache", device="cpu").fit(known, active)
    assert again.rank(library, top=20) == hits
    assert len(list((tmp_path / "cache").iterdir())) == 2
    score, _, nearest = screener.score(["NaCl", "GaN"])
    assert score[0] > score[1]
    assert nearest.tolist() == [0, 9]
    assert screener.report(library[:-1]).classes == {"0.0": 6, "1.0": 4}
    assert [row["labels"] for row in screener.labels_curve([4, 6], repeats=3)] == [4, 6]
    prototypes = FewShotScreener(backbone, scorer="prototypes", device="cpu").fit(known, active)
    assert len(prototypes.rank(library, top=5)) == 5


def test_a_screener_says_what_is_wrong(backbone):
    screener = FewShotScreener(backbone, device="cpu")
    with pytest.raises(MatfmError, match="row 1: 'Qq3' at position 0"):
        screener.fit(["NaCl", "Qq3"], [0, 1])
    with pytest.raises(MatfmError, match="all 2 support examples have the label"):
        screener.fit(["NaCl", "KCl"], [1, 1])
    with pytest.raises(MatfmError, match="2 inputs but 3 labels"):
        screener.fit(["NaCl", "KCl"], [1, 0, 1])
    with pytest.raises(MatfmError, match="scorer is 'svm'"):
        FewShotScreener(backbone, scorer="svm", device="cpu").fit(["NaCl", "KCl"], [0, 1])
    screener.fit(["NaCl", "MgO"], [0, 1])
    with pytest.raises(MatfmError, match="the library is one text"):
        screener.rank("NaCl")


def test_molecules_are_screened_with_their_fingerprints(tmp_path):
    torch.manual_seed(0)
    tokenizer = SmilesTokenizer()
    config = MatBERTConfig.of_size("tiny", vocab_size=len(tokenizer), position_embedding="rotary")
    folder = tmp_path / "molecules"
    save_model(MatBERTModel(config), folder, {})
    tokenizer.save_pretrained(str(folder))
    alcohols, others = ["CCO", "CCCO", "CCCCO", "OCC(C)C"], ["CC", "CCN", "c1ccccc1", "CC(=O)C"]
    screener = FewShotScreener(str(folder), device="cpu").fit([*alcohols, *others], [1] * 4 + [0] * 4)
    hits = screener.rank(["CCCCCO", "CCCC", "CCCCN", "Cc1ccccc1", "C1CC1CO"], top=2)
    assert {hit.input for hit in hits} == {"CCCCCO", "C1CC1CO"}
    assert json.dumps([hit.__dict__ for hit in hits])


def test_the_python_of_the_documentation_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "fewshot.md").read_text("utf-8")
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert len(capsys.readouterr().out.splitlines()) == 4
