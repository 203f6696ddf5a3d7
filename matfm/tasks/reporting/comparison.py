"""What a score is worth: beside simple baselines and published scores, and beside what pretraining had seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from matfm.core.metrics import balanced_accuracy, mean_absolute_error
from matfm.errors import MatfmError
from matfm.tasks.audit import ALL, FILE, may_be_scored, read_audit
from matfm.tasks.kinds import SCRATCH
from matfm.tasks.recipes.recipe import Recipe, load_recipe, recipe_names
from matfm.tasks.reporting.html import Html, joined, number, sentence, table, tag
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.results import Results
from matfm.tasks.reporting.run_files import RunFiles, as_mapping
from matfm.tasks.reporting.scores import headline_score

_OF_OTHER_RUNS = frozenset({"tune", "compare-strategies"})
"""Verbs whose runs hold other runs, which have pages of their own."""
_EXPLAINED = (
    "Substances in common are counted by reduced composition or canonical SMILES. A label is the same if it is of the "
    "same family and origin."
)


def baselines_section(run: RunFiles) -> Section | None:
    """The score of each target beside those of constant predictions, and beside published ones for a recipe."""
    if not run.results:
        return None
    recipe = recipe_of(run)
    parts = [_of_target(run, results, recipe) for results in run.results if len(results.train_R)]
    note = "Constants are those of the training labels. Nothing else was trained for this page."
    if recipe is not None and recipe.published:
        note += " Published scores are means over folds, with their standard deviation; this run is one split."
    return Section("baselines", "Baselines", joined([*parts, tag("p", note, class_="quiet")])) if parts else None


def audit_section(run: RunFiles) -> Section | None:
    """What the backbone's pretraining shares with evaluation sets, as the audit beside its weights says."""
    backbone = run.summary.get("backbone")
    if run.task == "pretrain":
        own = run.path / FILE
        if not own.is_file():
            return _said(joined([_bad("Unknown: "), "these weights have no audit. ", _remedy(f"--out {run.path}")]))
        return Section("contamination", "Contamination", _pairs(read_audit(str(run.path))))
    if backbone is None or run.task in _OF_OTHER_RUNS:
        return None
    if str(backbone).startswith(SCRATCH):
        return _said(joined([_good("None: "), "the network began with random weights, without pretraining."]))
    try:
        audit = read_audit(str(backbone))
    except MatfmError as error:
        return _said(joined([_bad("Unknown: "), f"{error}."]))
    return Section("contamination", "Contamination", joined([*_verdicts(run, str(backbone)), _pairs(audit)]))


def _table_of(run: RunFiles) -> str:
    """The table whose rows are predicted; of several, the first."""
    of = (run.config.get("target") or [{}])[0] if run.task == "adapt" else run.config
    return str(as_mapping(of).get("table", ""))


def recipe_of(run: RunFiles) -> Recipe | None:
    """The shipped recipe whose table the run was given: one of that name, those targets and that many rows."""
    name = Path(_table_of(run)).stem
    if name not in recipe_names():
        return None
    recipe = load_recipe(name)
    columns = {column.name for column in recipe.columns()}
    fits = set(run.targets) <= columns and recipe.rows == run.summary.get("rows_in")
    return recipe if fits else None


def constant_scores(results: Results) -> dict[str, float]:
    """The headline score of constant predictions, by what is predicted."""
    true_R, train_R = results.true_R, results.train_R
    if results.classes:
        most = np.bincount(train_R.astype(int), minlength=len(results.classes)).argmax()
        return {
            f"always the commonest class ({results.classes[most]})": balanced_accuracy(
                true_R, np.full_like(true_R, most)
            )
        }
    return {
        f"training {what}": mean_absolute_error(true_R, np.full_like(true_R, value))
        for what, value in (("mean", train_R.mean()), ("median", np.median(train_R)))
    }


def _of_target(run: RunFiles, results: Results, recipe: Recipe | None) -> Html:
    own = f"this run ({run.summary.get('backbone', 'model')})"
    where = f"{results.part_name} rows of this run"
    rows: list[tuple[float, str, Any, str]] = [(headline_score(run, results), own, None, where)]
    if results.control_R is not None:
        rows.append(
            (mean_absolute_error(results.true_R, results.control_R), "the control, without adaptation", None, where)
        )
    rows += [(score, name, None, where) for name, score in constant_scores(results).items()]
    if recipe is not None and not results.classes:
        folds = f"{recipe.folds.count} official folds" if recipe.folds else "published"
        rows += [(entry.mae, entry.model, entry.std, f"{folds}: {entry.source}") for entry in recipe.published]
    rows.sort(key=lambda row: -row[0] if results.classes else row[0])
    metric = "balanced accuracy" if results.classes else results.error_name
    cells = [
        (tag("strong", name) if name == own else name, number(score), "" if std is None else f"± {number(std)}", where)
        for score, name, std, where in rows
    ]
    caption = f"{sentence(metric)} of {results.name}, best first"
    return table(caption, ("predictor", metric, "std", "measured on"), cells, texts=(0, 3))


def _verdicts(run: RunFiles, backbone: str) -> list[Html]:
    recipe = recipe_of(run)
    if recipe is None:
        table_name = _table_of(run)
        return [
            tag(
                "p",
                _bad("Unknown for this table: "),
                f"{table_name} was not recognised as a shipped recipe that the audit of {backbone} knows. ",
                _remedy(f"--evaluate {table_name}"),
            )
        ]
    said = []
    for target in run.targets:
        try:
            verdict = may_be_scored(backbone, recipe.name, target)
            mark = _good("May be scored: ") if verdict.allowed else _bad("Must not be scored: ")
            said.append(tag("p", mark, verdict.sentence))
        except MatfmError as error:
            said.append(tag("p", _bad("Unknown: "), f"{error}."))
    return said


def _pairs(audit: dict[str, Any]) -> Html:
    rows = [
        (
            pair["evaluate"],
            "all of it" if pair["pretrain"] == ALL else pair["pretrain"],
            label["label"] if label else "",
            f"{pair['identical_share']:.1%} of {pair['rows']:,}",
            f"{label['same_family_share']:.1%}" if label else "",
            f"{label['same_label_share']:.1%}" if label else "",
        )
        for pair in audit["pairs"]
        for label in pair["labels"] or [None]
    ]
    head = (
        "evaluation set",
        "pretraining",
        "label",
        "substances in common",
        "with a label of the family",
        "same label",
    )
    listed = table("Shares of the test rows of evaluation sets", head, rows, texts=(0, 1, 2))
    return joined([tag("p", _EXPLAINED), tag("details", tag("summary", f"The audit: {len(rows)} lines"), listed)])


def _said(body: Html) -> Section:
    return Section("contamination", "Contamination", tag("p", body))


def _remedy(options: str) -> Html:
    return joined(["To know, run ", tag("code", f"matfm data audit --pretrain … {options}"), "."])


def _bad(text: str) -> Html:
    return tag("span", text, class_="bad")


def _good(text: str) -> Html:
    return tag("span", text, class_="good")
