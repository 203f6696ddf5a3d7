"""`matfm report`: what the page shows of every kind of run, and that nothing of a table becomes markup."""

import json
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import FORMULAS

from matfm import parse_formula
from matfm.errors import MatfmError
from matfm.tasks import finetune, pretrain, report
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.pretraining.config import CorpusConfig, ModelConfig, PretrainConfig, TrainConfig

SCRIPT = "<script>alert(1)</script>"
MOLECULES = (Path(__file__).parents[1] / "data/drug_like.smi").read_text("utf-8").split()[:50]


def _regression_table(path):
    def share(formula):
        return sum(v for symbol, v in parse_formula(formula).fractions.items() if symbol in "O S N F I".split())

    rows = [f"{f},{4 * share(f):.4f},{5 - 3 * share(f):.4f}" for f in FORMULAS * 2]
    rows += [f"{SCRIPT},1,2", "Xx2O3,1,1", "Xx,1,1", "GaN,much,1", "Fe2O3,,"]
    path.write_text("\n".join([f"formula,gap,{SCRIPT}", *rows]) + "\n", "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """Two targets, an ensemble of two that knows its spread; the second target has a hostile name."""
    folder = tmp_path_factory.mktemp("regression")
    config = finetune.FinetuneConfig(
        table=_regression_table(folder / "table.csv"),
        input="formula",
        targets=("gap", SCRIPT),
        valid_share=0.3,
        test_share=0.3,
        ensemble=2,
        fit=FitConfig(backbone="scratch:tiny", epochs=2, loss="gaussian", log_every=1),
    )
    finetune.run(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def classification(tmp_path_factory):
    """Molecules in two classes, one of which has a hostile name."""
    folder = tmp_path_factory.mktemp("classification")
    rows = [f"{smiles},{SCRIPT if 'N' in smiles or place % 4 == 0 else 'no'}" for place, smiles in enumerate(MOLECULES)]
    (folder / "table.csv").write_text("\n".join(["smiles,active", *rows, "C1CC,no"]) + "\n", "utf-8")
    config = finetune.FinetuneConfig(
        table=str(folder / "table.csv"),
        input="smiles",
        targets=("active",),
        kind="smiles",
        valid_share=0.3,
        test_share=0.4,
        fit=FitConfig(backbone="scratch:tiny", epochs=1, task="classification", log_every=1),
    )
    finetune.run(config, folder / "run")
    return folder / "run"


class _Reader(HTMLParser):
    """Elements, text and identifiers of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.ids, self.links, self.open = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset", "action")]
        if tag not in ("meta", "link", "br") and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise AssertionError(f"</{tag}> closes nothing")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def _page(run, tmp_path):
    summary = report.run(report.ReportConfig(str(run), str(tmp_path / "page.html")))
    page = (tmp_path / "page.html").read_text("utf-8")
    assert summary["bytes"] == len(page.encode()) < 5_000_000
    return page, _Reader(page), summary["sections"]


def test_a_regression_run_shows_everything_it_holds(regression, tmp_path):
    page, reader, sections = _page(regression, tmp_path)
    wanted = "summary scores baselines predictions uncertainty elements hardest curves data contamination environment"
    assert sections == [*wanted.split(), "configuration"]
    known = json.loads((regression / "summary.json").read_text("utf-8"))
    mae = known["metrics"]["test"]["gap"]["mae"]
    assert f"{mae:.4g}" in reader.text
    assert f"{known['rows_rejected']} of {known['rows_in']} rejected" in reader.text
    environment = json.loads((regression / "environment.json").read_text("utf-8"))
    assert environment["versions"]["torch"] in reader.text
    assert environment["device"] in ("cpu", "mps") or environment["device"].startswith("cuda")
    assert "fit.optimizer.learning_rate" in reader.text
    assert "model 2" in reader.text
    assert "SiO" in reader.text
    assert "<sub>2</sub>" in page


def test_a_page_is_whole_valid_and_asks_for_nothing(regression, classification, tmp_path):
    for run in (regression, classification):
        page, reader, sections = _page(run, tmp_path)
        assert page.startswith("<!doctype html>\n<html lang=")
        assert reader.open == []
        assert len(set(reader.ids)) == len(reader.ids)
        assert {f"#{name}" for name in sections} == {link for link in reader.links if link.startswith("#")}
        assert all(link.startswith("#") or link == "data:," for link in reader.links)
        assert "url(" not in page
        assert "@import" not in page
        policy = next(attrs["content"] for tag, attrs in reader.tags if attrs.get("http-equiv"))
        assert policy.startswith("default-src 'none'")


def test_headings_pictures_and_tables_can_be_read_out(regression, classification, tmp_path):
    for run in (regression, classification):
        _, reader, _ = _page(run, tmp_path)
        levels = [int(tag[1]) for tag, _ in reader.tags if tag in ("h1", "h2", "h3", "h4")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        for tag, attrs in reader.tags:
            if tag == "svg":
                assert attrs["role"] == "img"
                assert attrs["aria-label"]
            if tag == "th":
                assert attrs["scope"] in ("row", "col")
        counted = {
            name: sum(tag == name for tag, _ in reader.tags) for name in ("table", "caption", "figure", "figcaption")
        }
        assert counted["table"] == counted["caption"] > 0
        assert counted["figure"] == counted["figcaption"] > 0


def test_nothing_of_a_table_becomes_markup(regression, classification, tmp_path):
    for run in (regression, classification):
        page, reader, _ = _page(run, tmp_path)
        assert not [tag for tag, _ in reader.tags if tag in ("script", "iframe", "object", "embed", "form", "img")]
        assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
        assert "<script" not in page.lower()
        assert SCRIPT in reader.text


def test_a_classification_of_molecules_shows_curves_confusion_groups_and_drawings(classification, tmp_path):
    page, reader, sections = _page(classification, tmp_path)
    assert {"predictions", "uncertainty", "elements", "groups", "hardest"} <= set(sections)
    for said in ("ROC of active", "Precision and recall", "Confusion matrix", "functional", "scaffold", "temperature"):
        assert said.lower() in reader.text.lower()
    assert "always the commonest class" in reader.text
    assert "var(--atom-o)" in page
    assert "#000000" not in page.split("</style>")[1]
    assert "rdkit" not in page.split("</style>")[1].lower().replace(str(classification).lower(), "")


def test_reasons_of_rejects_are_counted_without_their_values(regression, tmp_path):
    _, reader, _ = _page(regression, tmp_path)
    assert "'Xx' is not a chemical element formula 2 51" in " ".join(reader.text.split())
    assert "… is not a number" in reader.text
    assert "no label: the target cell is empty" in reader.text


def test_baselines_are_the_constants_of_the_training_labels(regression, classification):
    import pyarrow.parquet as pq

    from matfm.tasks.reporting.comparison import constant_scores
    from matfm.tasks.reporting.run_files import RunFiles

    results = RunFiles.read(regression).results[0]
    table = pq.read_table(regression / "predictions.parquet").to_pylist()
    train = [row["gap"] for row in table if row["part"] == "train"]
    test = np.array([row["gap"] for row in table if row["part"] == "test"])
    scores = constant_scores(results)
    assert scores["training mean"] == pytest.approx(np.abs(test - np.mean(train)).mean())
    assert scores["training median"] == pytest.approx(np.abs(test - np.median(train)).mean())
    (commonest,) = constant_scores(RunFiles.read(classification).results[0]).values()
    assert commonest == 0.5


def test_the_error_of_an_element_is_that_of_its_rows(regression):
    from matfm.tasks.reporting.errors import mean_errors

    found = mean_errors([{"Ga", "N"}, {"Ga", "As"}, set()], np.array([1.0, 3.0, 100.0]))
    assert (found["Ga"].value, found["Ga"].rows) == (2.0, 2)
    assert (found["As"].value, found["N"].value) == (3.0, 1.0)
    assert set(found) == {"Ga", "N", "As"}


def test_contamination_is_told_from_the_audit_or_called_unknown(regression, tmp_path):
    from matfm.tasks.audit import read_audit
    from matfm.tasks.recipes.recipe import load_recipe

    assert "random weights" in _page(regression, tmp_path)[1].text
    known = _changed(regression, tmp_path / "known", backbone="matbert-small")
    assert "Unknown for this table" in _page(known, tmp_path)[1].text
    hub = _changed(regression, tmp_path / "hub", backbone="someone/encoder")
    assert "no weights of that name could be had from the Hub" in _page(hub, tmp_path)[1].text
    rows = load_recipe("matbench_expt_gap").rows
    bench = _changed(regression, tmp_path / "bench", backbone="matbert-small", rows_in=rows)
    _configured(bench, table="data/matbench_expt_gap.parquet", targets=["gap"])
    text = _page(bench, tmp_path)[1].text
    assert "Unknown for this table" in text  # the recipe has no target of that name
    assert read_audit("matbert-small")["pairs"][0]["evaluate"] in text


def test_published_scores_stand_beside_those_of_a_recipe(regression, tmp_path):
    from matfm.tasks.recipes.recipe import load_recipe

    recipe = load_recipe("matbench_expt_gap")
    run = _changed(regression, tmp_path / "run", backbone="matbert-small", rows_in=recipe.rows)
    _configured(run, table="data/matbench_expt_gap.parquet", targets=["band_gap"])
    _renamed(run, "gap", "band_gap")
    text = _page(run, tmp_path)[1].text
    assert "May be scored" in text
    for entry in recipe.published:
        assert entry.model in text
        assert entry.source in text


def test_a_pretraining_run_has_its_own_sections(tmp_path):
    table = tmp_path / "corpus.csv"
    table.write_text("\n".join(["formula", *FORMULAS]) + "\n", "utf-8")
    config = PretrainConfig(
        name="tiny",
        data=CorpusConfig(table=str(table), kind="composition", input="formula", held_out=0.2),
        model=ModelConfig(size="tiny"),
        train=TrainConfig(steps=2, log_every=1, evaluations=1),
    )
    pretrain.run(config, tmp_path / "run")
    _, reader, sections = _page(tmp_path / "run", tmp_path)
    assert sections == ["summary", "scores", "curves", "data", "contamination", "environment", "configuration"]
    assert "these weights have no audit" in reader.text
    assert "masked" in reader.text


def test_what_is_missing_is_left_out_and_what_is_damaged_is_named(regression, tmp_path):
    bare = _changed(regression, tmp_path / "bare")
    for name in ("predictions.parquet", "log.jsonl", "calibration.json", "environment.json", "rejects.csv"):
        (bare / name).unlink()
    shutil.rmtree(bare / "ensemble")
    _, reader, sections = _page(bare, tmp_path)
    assert sections == ["summary", "scores", "data", "contamination", "environment", "configuration"]
    assert "did not record" in reader.text
    (bare / "environment.json").write_text("{", "utf-8")
    with pytest.raises(MatfmError, match=r"environment\.json is not readable"):
        _page(bare, tmp_path)
    (bare / "environment.json").unlink()
    (bare / "predictions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MatfmError, match="run it again"):
        _page(bare, tmp_path)
    (bare / "summary.json").unlink()
    with pytest.raises(MatfmError, match="no finished run"):
        _page(bare, tmp_path)
    with pytest.raises(MatfmError, match="is no folder"):
        _page(tmp_path / "nowhere", tmp_path)
    (tmp_path / "quickstart").mkdir()
    shutil.copytree(regression, tmp_path / "quickstart" / "run")
    with pytest.raises(MatfmError, match="did you mean"):
        _page(tmp_path / "quickstart", tmp_path)


def test_scores_of_many_small_tasks_are_a_table(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"run": {"table": "t.csv", "seed": 0}}), "utf-8")
    record = {"task": "Fe", "method": "rf", "support": 16, "roc_auc": 0.75, "n": None}
    summary = {"task": "fewshot", "kind": "smiles", "backbone": "scratch:tiny", "rows_in": 3, "rows_used": 2}
    said = json.dumps({**summary, "rows_rejected": 1, "metrics": [record], "seconds": 1.0, "run": "x"})
    (tmp_path / "summary.json").write_text(said, "utf-8")
    _, reader, sections = _page(tmp_path, tmp_path)
    assert sections == ["summary", "scores", "data", "contamination", "environment", "configuration"]
    assert "Fe rf 16 0.75 –" in " ".join(reader.text.split())


def test_without_test_rows_the_page_says_whose_scores_it_shows(tmp_path):
    rows = [f"{formula},{len(formula)}" for formula in FORMULAS]
    (tmp_path / "table.csv").write_text("\n".join(["formula,size", *rows]) + "\n", "utf-8")
    config = finetune.FinetuneConfig(
        table=str(tmp_path / "table.csv"),
        input="formula",
        targets=("size",),
        valid_share=0.0,
        test_share=0.0,
        fit=FitConfig(backbone="scratch:tiny", epochs=1),
    )
    finetune.run(config, tmp_path / "run")
    _, reader, _ = _page(tmp_path / "run", tmp_path)
    assert "those of the training rows, which are too good" in reader.text


def _changed(run, to, **summary):
    """A copy of a run with another summary."""
    shutil.copytree(run, to)
    path = to / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | summary), "utf-8")
    return to


def _configured(run, **values):
    path = run / "config.json"
    said = json.loads(path.read_text("utf-8"))
    said["run"] |= values
    path.write_text(json.dumps(said), "utf-8")


def _renamed(run, old, new):
    """The target under another name, in every file that the page is made of."""
    import pyarrow.parquet as pq

    table = pq.read_table(run / "predictions.parquet")
    names = [new if n == old else n.replace(f"predicted_{old}", f"predicted_{new}") for n in table.column_names]
    pq.write_table(table.rename_columns(names), run / "predictions.parquet")
    path = run / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    for targets in summary["metrics"].values():
        targets[new] = targets.pop(old)
    path.write_text(json.dumps(summary), "utf-8")
