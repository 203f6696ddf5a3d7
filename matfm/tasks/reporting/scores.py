"""Scores as tables, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matfm.core.metrics import balanced_accuracy, mean_absolute_error
from matfm.tasks.reporting.html import Html, joined, number, table
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.results import PARTS, SHOWN_PARTS_OF_SIDES, Results
from matfm.tasks.reporting.run_files import RunFiles, as_mapping

METRICS = {
    "n": "rows",
    "mae": "mean absolute error",
    "mae_low": "95 % interval of it, from",
    "mae_high": "to",
    "rmse": "root mean squared error",
    "r2": "R²",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC area",
    "delta_auprc": "average precision less the share of positives",
    "coverage_90": "coverage of 90 % intervals or sets",
    "width_90": "mean width of 90 % intervals",
    "set_size_90": "mean size of 90 % sets of classes",
    "interval_score_90": "interval score at 90 %",
    "nll": "negative log-likelihood (nats)",
    "ence": "calibration error of standard deviations (ENCE)",
    "ece": "calibration error of probabilities (ECE)",
    "brier": "Brier score",
    "temperature": "temperature that fits held-out rows",
    "nll_calibrated": "negative log-likelihood at the temperature",
    "ece_calibrated": "calibration error at the temperature",
    "brier_calibrated": "Brier score at the temperature",
}
"""Names of scores for people; others are shown as they are."""


def scores_section(run: RunFiles) -> Section | None:
    """Every score of the run, by part and target."""
    units = run.mapping("units")
    if run.task == "adapt":
        parts = _of_models(run)
    elif records := run.entries("metrics"):
        names = list(dict.fromkeys(name for record in records for name in record))
        rows = [[shown(record.get(name)) for name in names] for record in records]
        parts = [table("Scores of the test tasks", names, rows)]
    elif run.mapping("metrics"):
        parts = list(score_tables(run.mapping("metrics"), units))
    elif valid := run.mapping("valid"):
        of_valid = [(name, number(value), units.get(name.removeprefix("mae_"), "")) for name, value in valid.items()]
        parts = [table("Scores of the rows held out of training", ("metric", "value", "unit"), of_valid)]
    else:
        parts = []
    return Section("scores", "Scores", joined(parts)) if parts else None


def score_tables(metrics: dict[str, Any], units: dict[str, Any], of: str = "Scores") -> Iterator[Html]:
    """A table for each target of `metrics`: part to target to metric to value."""
    by_part = {part: as_mapping(targets) for part, targets in metrics.items()}
    for target in dict.fromkeys(target for targets in by_part.values() for target in targets):
        of_parts = [as_mapping(targets.get(target)) for targets in by_part.values()]
        names = dict.fromkeys(name for scores in of_parts for name in scores)
        rows = [[METRICS.get(name, name), *(shown(scores.get(name)) for scores in of_parts)] for name in names]
        unit = f" ({units[target]})" if units.get(target) else ""
        yield table(f"{of} of {target}{unit}", ["metric", *(PARTS.get(part, part) for part in by_part)], rows)


def headline_metric(results: Results) -> str:
    """The score that a target is told by."""
    return "balanced_accuracy" if results.classes else "mae"


def headline_score(run: RunFiles, results: Results) -> float:
    """Its value: as the run wrote it, or else computed from the rows that are shown."""
    known = run.scores_of(results).get(headline_metric(results))
    if isinstance(known, (int, float)):
        return float(known)
    if results.classes:
        return balanced_accuracy(results.true_R, results.value_R.argmax(axis=1))
    return mean_absolute_error(results.true_R, results.value_R)


def shown(value: Any) -> str:
    """A value of a configuration or a record."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "–"}[value]
    if isinstance(value, (int, float)):
        return number(value) if isinstance(value, float) else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(one) for one in value) or "–"
    return str(value) or "–"


def duration(seconds: float) -> str:
    """In seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _of_models(run: RunFiles) -> list[Html]:
    """Of an adaptation: the control and the adapted model side by side, by target, side and part."""
    models = {name: as_mapping(run.mapping("metrics").get(name)) for name in ("control", "adapted")}
    heads = {"control": "without adaptation", "adapted": "adapted"}
    if not models["control"]:  # the method none: the model is the control
        del models["control"]
        heads["adapted"] = "without adaptation"
    found = dict.fromkeys(part for of_model in models.values() for part in of_model)
    parts = [*(part for part in SHOWN_PARTS_OF_SIDES if part in found), *(p for p in found if p not in PARTS)]
    tables = []
    for target in dict.fromkeys(t for of in models.values() for part in parts for t in as_mapping(of.get(part))):
        rows = []
        for part in parts:
            scores = [as_mapping(as_mapping(of_model.get(part)).get(target)) for of_model in models.values()]
            for name in dict.fromkeys(name for of_model in scores for name in of_model):
                values = [shown(of_model.get(name)) for of_model in scores]
                rows.append((PARTS.get(part, part), METRICS.get(name, name), *values))
        unit = run.mapping("units").get(target)
        caption = f"Scores of {target}{f' ({unit})' if unit else ''} by side and part"
        tables.append(table(caption, ("rows", "metric", *(heads[name] for name in models)), rows, texts=(0, 1)))
    return tables
