"""`matfm report` of a run of every verb: what is shown, and that a page is made whatever the summary lacks."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import FORMULAS
from matplotlib.figure import Figure

from matfm import MatBERTConfig, MatBERTModel
from matfm.core.config import from_mapping
from matfm.errors import MatfmError
from matfm.models.saving import save_model
from matfm.tasks import adapt, compare_strategies, fewshot, finetune, plots, pretrain, report
from matfm.tasks.adaptation import pictures
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.pretraining.config import CorpusConfig, ModelConfig, PretrainConfig, TrainConfig
from matfm.tasks.reporting import overview
from matfm.tasks.reporting.run_files import RunFiles
from matfm.tasks.reporting.titles import titles

METALS = "Li Na K Mg Ca Fe Zn Ti Al Ga".split()
OXIDES, HALIDES = (
    [f"{metal}{n}{anion}" for metal in METALS for anion in anions for n in (1, 2)] for anions in ("OS", "FC")
)
VERBS = ("regression", "two_classes", "classes", "pretrain", "adapt", "fewshot", "tune", "strategies")
WAYS = ("PCA", "t-SNE")
TINY = {"backbone": "scratch:tiny", "epochs": 1, "log_every": 1}


def _table(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return str(path)


def _tuning(folder, targets, task="regression", backbone="scratch:tiny", **options):
    rows = [
        f"{formula},{len(formula) / 7},{'metal' if place % 2 else '<b>other</b>'},{'$_abc'[place % 5]}"
        for place, formula in enumerate(FORMULAS * 2)
    ]
    table = _table(folder / "table.csv", "formula,size,two,many", rows)
    fit = FitConfig(**{**TINY, "backbone": backbone, "task": task})
    return finetune.FinetuneConfig(
        table, "formula", targets, valid_share=0.3, test_share=0.4, device="cpu", fit=fit, **options
    )


def _regression(folder):
    finetune.run(_tuning(folder, ("size",)), folder / "run")


def _two_classes(folder):
    finetune.run(_tuning(folder, ("two",), "classification"), folder / "run")


def _classes(folder):
    finetune.run(_tuning(folder, ("many",), "classification"), folder / "run")


def _pretrain(folder):
    table = _table(folder / "corpus.csv", "formula", FORMULAS)
    config = PretrainConfig(
        name="tiny",
        data=CorpusConfig(table=table, kind="composition", input="formula", held_out=0.2),
        model=ModelConfig(size="tiny"),
        train=TrainConfig(steps=2, log_every=1, evaluations=1),
    )
    pretrain.run(config, folder / "run")


def _adapt(folder):
    """Nearly as `matfm adapt` is called: some labels in the target, held out to validate and test."""
    source = _table(folder / "oxides.csv", "formula,gap", [f"{text},{len(text) / 3}" for text in OXIDES])
    labels = [f"{text},{len(text) if place % 2 else ''}" for place, text in enumerate([*HALIDES, *HALIDES])]
    target = _table(folder / "halides.csv", "formula,gap", labels)
    config = adapt.AdaptConfig(
        (adapt.DomainTable(source),), (adapt.DomainTable(target),), "formula", "gap", device="cpu",
        target_valid_share=0.4, target_test_share=0.4, fit=FitConfig(**TINY),
    )  # fmt: skip
    adapt.run(config, folder / "run")


def _backbone(folder):
    torch.manual_seed(0)
    save_model(MatBERTModel(MatBERTConfig.of_size("tiny")), folder / "backbone", {})
    return str(folder / "backbone")


def _fewshot(folder):
    rows = [",".join([text, *(str(int(anion in text)) for anion in "OSF")]) for text in [*OXIDES, *HALIDES]]
    values = {
        "table": _table(folder / "tasks.csv", "formula,O,S,F", [*rows, "Xx,1,1,1"]), "input": "formula",
        "train_tasks": ["O"], "valid_tasks": ["S"], "test_tasks": ["F"], "backbone": _backbone(folder), "width": 8,
        "device": "cpu", "episodes": {"support": [6, 12], "queries": 16},
        "train": {"steps": 3, "accumulate": 1, "evaluations": 1, "valid_episodes": 2, "log_every": 1},
        "evaluate": {"episodes": 2, "methods": ["prototypes", "rf"]},
    }  # fmt: skip
    fewshot.run(from_mapping(fewshot.FewshotConfig, values, "tasks.toml"), folder / "run")


def _tune(folder):
    """Trials without training, and a last training."""
    pytest.importorskip("optuna")
    from matfm.tasks import tune

    def fold(search, fit, fold, folder, on_evaluation):
        final = abs(np.log10(fit.optimizer.learning_rate) + 3)
        on_evaluation(10, 10, final)
        return {"size": {"mae": final, "n": 5}}

    space = {"fit": {"optimizer": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}, "loss": ["l1", "l2"]}}
    config = tune.TuneConfig(_tuning(folder, ("size",)), space, trials=5, folds=2, pruner="none")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tune, "_fold", fold)
        tune.run(config, folder / "run")


def _strategies(folder):
    """Each strategy in this process, not in one of its own."""
    tuning = _tuning(folder, ("size",), backbone=_backbone(folder))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compare_strategies, "_measured", compare_strategies._train)
        compare_strategies.run(compare_strategies.CompareStrategiesConfig(tuning, ("full", "bitfit")), folder / "run")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The run directory of a verb, made when it is first asked for; with small pictures, and without t-SNE."""
    made, savefig = {}, Figure.savefig

    def run(verb):
        if verb not in made:
            folder = tmp_path_factory.mktemp(verb)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(Figure, "savefig", lambda self, *to, **how: savefig(self, *to, **how | {"dpi": 20}))
                patched.setattr(pictures, "two_dimensions", lambda values, _: dict.fromkeys(WAYS, values[:, :2]))
                globals()[f"_{verb}"](folder)
            made[verb] = folder / "run"
        return made[verb]

    return run


def _page(run, tmp_path):
    summary = report.run(report.ReportConfig(str(run), str(tmp_path / "page.html")))
    html = (tmp_path / "page.html").read_text("utf-8")
    pictures = re.findall(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="([^"]+)">', html)
    assert html.count("<img") == len(pictures)
    assert "<script" not in html
    text = " ".join(re.sub(r"<[^>]*>", " ", html.split("</style>")[1]).split())
    return SimpleNamespace(html=html, text=text, pictures=pictures, sections=summary["sections"])


OF_PREDICTIONS = ["baselines", "predictions", "uncertainty", "elements", "hardest"]
ABOUT = ["data", "contamination", "environment", "configuration"]
WANTED = {
    "regression": ["summary", "scores", *OF_PREDICTIONS, "curves", *ABOUT],
    "two_classes": ["summary", "scores", *OF_PREDICTIONS, "curves", *ABOUT],
    "classes": ["summary", "scores", *OF_PREDICTIONS, "curves", *ABOUT],
    "pretrain": ["summary", "scores", "curves", *ABOUT],
    "adapt": ["summary", "adaptation", "scores", *OF_PREDICTIONS, "curves", *ABOUT],
    "fewshot": ["summary", "support", "scores", "curves", *ABOUT],
    "tune": ["summary", "search", "data", "environment", "configuration"],
    "strategies": ["summary", "strategies", "data", "environment", "configuration"],
}
TITLES = {
    "regression": ("size from formula", "regression, scratch:tiny fine-tuned (strategy full) on "),
    "two_classes": ("two from formula", "classification, scratch:tiny"),
    "classes": ("many from formula", "classification, scratch:tiny"),
    "pretrain": ("tiny", "matbert pretrained on compositions: "),
    "adapt": ("gap from formula", "scratch:tiny adapted (dann) from oxides.csv to halides.csv"),
    "fewshot": ("Few-shot learning on tasks.csv", "1 train task(s), 1 valid task(s), 1 test task(s)"),
    "tune": ("Search of settings: size from formula", "5 trials on the training rows of "),
    "strategies": ("Strategies compared: size from formula", "one split for all"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_of_every_verb_has_a_page(verb, run_of, tmp_path):
    page = _page(run_of(verb), tmp_path)
    assert page.sections == WANTED[verb]
    title, subtitle = TITLES[verb]
    assert f"<h1>{title}</h1>" in page.html
    assert subtitle in page.text
    assert "did not record" not in page.text
    assert "device: cpu" in page.text


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_is_made_whatever_the_summary_lacks(verb, run_of, monkeypatch):
    monkeypatch.setattr(overview, "bootstrap_interval", lambda *_: (0.0, 1.0))
    whole = RunFiles.read(run_of(verb))
    lacking = [{key: value for key, value in whole.summary.items() if key != missing} for missing in whole.summary]
    bare = [{"task": whole.summary["task"]}, {}]
    for summary in (*lacking, *bare):
        run = replace(whole, summary=summary)
        assert titles(run)[0]
        # What is made of predictions and logs alone knows nothing of the summary but scores.
        found = [section_of(run) for section_of in report.SECTIONS if section_of.__name__ not in _OF_ROWS]
        assert sum(section is not None for section in found) >= 3


_OF_ROWS = {"predictions_section", "elements_section", "groups_section", "hardest_section", "curves_section"}


def test_an_adaptation_shows_both_models_the_verdict_and_the_domains(run_of, tmp_path):
    run = run_of("adapt")
    page, summary = _page(run, tmp_path), json.loads((run / "summary.json").read_text("utf-8"))
    assert summary["units"] == {"gap": ""}
    for model in ("adapted", "control"):
        for part in ("target_test", "target_valid", "source_valid"):
            assert f"{summary['metrics'][model][part]['gap']['mae']:.4g}" in page.text
    row = "target test mean absolute error {:.4g} {:.4g}"
    maes = [summary["metrics"][model]["target_test"]["gap"]["mae"] for model in ("control", "adapted")]
    assert row.format(*maes) in page.text
    assert "target test rows: 16" in page.text
    assert "held-out labelled target rows" in page.text
    assert "proxy A-distance" in page.text
    assert "Both models on the same 16 target test rows" in page.text
    assert "the control, without adaptation" in page.text
    assert len(page.pictures) == 2
    assert "halides.csv" in page.text
    worse = summary | {
        "negative_transfer": {"negative": True, "basis": "source rows", "warning": "negative transfer: x"}
    }
    page = _page(_with_summary(run, tmp_path / "worse", worse), tmp_path)
    assert '<span class="bad">Negative transfer: x.</span>' in page.html
    for judged, said in ((False, "No sign of harm"), (None, "Too little evidence")):
        other = summary | {"negative_transfer": {"negative": judged, "basis": "none", "warning": ""}}
        assert said in _page(_with_summary(run, tmp_path / str(judged), other), tmp_path).text


def test_a_search_shows_settings_trials_and_the_last_training(run_of, tmp_path):
    run = run_of("tune")
    page, summary = _page(run, tmp_path), json.loads((run / "summary.json").read_text("utf-8"))
    assert "optimistic" in page.text
    assert f"best (trial {summary['best']['trial']})" in page.text
    assert "fit.optimizer.learning_rate" in page.text
    assert "5 trials" in page.text
    assert page.text.count(" complete ") >= 5
    test = summary["refit"]["metrics"]["test"]["size"]
    assert f"{test['mae']:.4g} test rows: {test['n']}" in page.text
    assert len(page.pictures) == 1
    inner = run / "refit" / f"trial-{summary['best']['trial']}"
    assert f"matfm report {inner}" in page.text
    assert "predictions" in _page(inner, tmp_path).sections


def test_a_comparison_of_strategies_is_a_table_and_a_picture(run_of, tmp_path):
    run = run_of("strategies")
    page, summary = _page(run, tmp_path), json.loads((run / "summary.json").read_text("utf-8"))
    full, bitfit = summary["strategies"]
    assert f"full 100.00% 0.0005 {full['valid']:.4g} {full['test']:.4g} 100.0% 100.0%" in page.text
    assert f"bitfit {bitfit['trainable_share']:.2%}" in page.text
    best = min(summary["strategies"], key=lambda row: row["valid"])["strategy"]
    assert f"best on validation rows {best}" in page.text
    assert len(page.pictures) == 1


def test_tasks_are_shown_by_method_and_size(run_of, tmp_path):
    page = _page(run_of("fewshot"), tmp_path)
    assert "labelled examples" in page.text
    assert page.html.count('class="key"') >= 2
    assert "Scores of the test tasks" in page.text


def test_a_run_over_tasks_leaves_what_every_run_leaves(run_of):
    run = run_of("fewshot")
    wanted = "config.json model.safetensors tokenizer_config.json metrics.json summary.json log.jsonl environment.json card.md "
    assert {*wanted.split(), "predictions.parquet", "curves.png", "roc.png"} <= {path.name for path in run.iterdir()}
    records = [json.loads(line) for line in (run / "episodes.jsonl").read_text("utf-8").splitlines()]
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    lines = (run.parent / "tasks.csv").read_text("utf-8").splitlines()[1:]
    assert all(lines[row["row"]].split(",")[0] == row["input"] for row in rows)
    assert {row["label"] for row in rows} == {0.0, 1.0}
    for record in records:
        if record["episode"]:
            continue
        of = [r for r in rows if all(r[key] == record[key] for key in ("task", "support", "method"))]
        assert len(of) == record["queries"]
        assert np.mean([r["predicted"] == r["label"] for r in of]) == pytest.approx(record["accuracy"])
        assert all((r["score_1"] > r["score_0"]) == bool(r["predicted"]) for r in of)
    card = (run / "card.md").read_text("utf-8")
    assert "- Evaluated on 1 task(s): F" in card
    assert "| 12 | prototypes | accuracy |" in card


@pytest.mark.parametrize("verb", ["two_classes", "classes"])
def test_every_classification_has_a_roc_picture(verb, run_of):
    assert (run_of(verb) / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_a_confusion_is_that_of_scikit_learn():
    from sklearn.metrics import confusion_matrix

    generator = np.random.default_rng(0)
    true, chosen = generator.integers(0, 3, 50), generator.integers(0, 4, 50)
    found = plots.confusion(np.stack([true == c for c in range(4)]), chosen)
    expected = confusion_matrix(true, chosen, labels=range(4), normalize="true")
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("name", ["config.json", "summary.json", "environment.json", "calibration.json"])
def test_damaged_json_is_named(name, run_of, tmp_path):
    shutil.copytree(run_of("regression"), tmp_path / "run")
    for content in ("{", "[1]", "[" * 100_000):
        (tmp_path / "run" / name).write_text(content, "utf-8")
        with pytest.raises(MatfmError, match=re.escape(str(tmp_path / "run" / name))):
            _page(tmp_path / "run", tmp_path)


def test_what_is_no_run_is_refused_in_a_sentence(run_of, tmp_path):
    wrong = [
        (tmp_path / "nowhere", "is no folder; give the --out of a run"),
        (tmp_path, "holds no run .config.json is missing.; give the --out"),
        (run_of("adapt") / "control", f"holds no finished run .*it belongs to the run {run_of('adapt')}"),
    ]
    for folder, message in wrong:
        with pytest.raises(MatfmError, match=message):
            _page(folder, tmp_path)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text('{"run": {}}', "utf-8")
    with pytest.raises(MatfmError, match="end it with --resume"):
        _page(tmp_path / "begun", tmp_path)


def test_a_damaged_picture_is_named(run_of, tmp_path):
    shutil.copytree(run_of("strategies"), tmp_path / "run")
    (tmp_path / "run" / "comparison.png").write_bytes(b"<svg>")
    with pytest.raises(MatfmError, match="comparison.png is no PNG picture"):
        _page(tmp_path / "run", tmp_path)


def _with_summary(run, to, summary):
    shutil.copytree(run, to)
    (to / "summary.json").write_text(json.dumps(summary), "utf-8")
    return to
