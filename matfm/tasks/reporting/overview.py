"""What a run is and how well it does: summary, scores, data, environment and configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matfm.core.metrics import balanced_accuracy, bootstrap_interval
from matfm.tasks.reporting.html import Html, bullets, joined, number, shortened, table, tag
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.run_files import Results, RunFiles

_HEADLINES = 6
"""Targets that have a tile of their own."""
_REASONS = 12
"""Reasons of rejected rows that are listed."""
_PARTS = {"test": "test", "valid": "validation", "train": "training"}
_METRICS = {
    "n": "rows",
    "mae": "mean absolute error",
    "mae_low": "95 % interval of it, from",
    "mae_high": "to",
    "rmse": "root mean squared error",
    "r2": "R²",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC area",
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
_SHARED = {"same_reduced_formula": "the reduced formula", "same_canonical": "the canonical SMILES"}


def summary_section(run: RunFiles) -> Section:
    """The headline scores, and the rows they rest on."""
    summary = run.summary
    tiles = [_headline(run, results) for results in run.results[:_HEADLINES]] or _held_out_tiles(run)
    if "rows_in" in summary:
        rejected = summary.get("rows_rejected", 0)
        tiles.append(
            _tile("rows used", number(summary["rows_used"]), f"{rejected:,} of {summary['rows_in']:,} rejected")
        )
    if "parameters" in summary:
        tiles.append(_tile("parameters", number(summary["parameters"]), str(summary.get("family", ""))))
    if "seconds" in summary:
        tiles.append(
            _tile("time", _duration(summary["seconds"]), f"seed {summary.get('seed', run.config.get('seed'))}")
        )
    further = len(run.results) - _HEADLINES
    notes = [
        f"{further} more targets are in the table of scores." if further > 0 else None,
        _caution(run.results),
    ]
    body = joined([tag("div", *tiles, class_="tiles"), *(tag("p", note) for note in notes if note)])
    return Section("summary", "Summary", body)


def scores_section(run: RunFiles) -> Section | None:
    """Every score of the run, by part and target."""
    metrics = run.summary.get("metrics")
    if isinstance(metrics, list) and metrics and isinstance(metrics[0], dict):
        names = list(dict.fromkeys(name for record in metrics for name in record))
        records = [[_shown(record.get(name)) for name in names] for record in metrics]
        return Section("scores", "Scores", table("Scores of the test tasks", names, records))
    if isinstance(metrics, dict) and all(isinstance(targets, dict) for targets in metrics.values()):
        return Section("scores", "Scores", joined(_of_parts(run, metrics)))
    valid = run.summary.get("valid")
    if not isinstance(valid, dict) or not valid:
        return None
    units = run.summary.get("units", {})
    rows = [(name, number(value), units.get(name.removeprefix("mae_"), "")) for name, value in valid.items()]
    return Section(
        "scores", "Scores", table("Scores of the rows held out of training", ("metric", "value", "unit"), rows)
    )


def data_section(run: RunFiles) -> Section | None:
    """Rows by part, what was rejected and why, and what the parts share."""
    summary = run.summary
    if "rows_in" not in summary:
        return None
    parts = summary.get("rows", {})
    lines: list[object] = [
        f"{summary['rows_in']:,} rows: {summary['rows_used']:,} used, {summary['rows_rejected']:,} rejected",
        _source(run),
        f"split {run.config['split']}" if "split" in run.config else None,
        ", ".join(f"{rows:,} {_PARTS.get(part, part)}" for part, rows in parts.items() if rows) or None,
        f"{summary['rows_held_out']:,} rows held out of training" if "rows_held_out" in summary else None,
        *_leakage(summary.get("leakage", {})),
        *(
            f"censored labels of {name}, not scored: {count['below']:,} below, {count['above']:,} above a bound"
            for name, count in summary.get("censored", {}).items()
        ),
        f"conditions: {', '.join(summary['conditions'])}" if summary.get("conditions") else None,
        *_readings(summary),
    ]
    return Section("data", "Data", joined([bullets(line for line in lines if line), _rejects(run)]))


def environment_section(run: RunFiles) -> Section:
    """What the numbers depend on beside the configuration."""
    known = run.environment
    lines = [
        joined(["command: ", tag("code", shortened(known["command"], 1000))]) if "command" in known else None,
        f"device: {known['device']}"
        if "device" in known
        else f"device asked for: {run.config.get('device', 'unknown')}",
        f"machine: {known['machine']}, {known['threads']} thread(s)" if "machine" in known else None,
        f"seed: {run.config.get('seed', 'unknown')}",
        f"time: {_duration(run.summary['seconds'])}" if "seconds" in run.summary else None,
    ]
    versions = known.get("versions", {})
    body = [
        bullets(line for line in lines if line),
        table("Versions", ("package", "version"), versions.items(), texts=(0, 1)) if versions else None,
    ]
    if not known:
        body.append(tag("p", "This run did not record its command and versions; its card.md may name them."))
    return Section("environment", "Environment", joined(body))


def config_section(run: RunFiles) -> Section:
    """The resolved configuration, every option by its dotted name."""
    rows = [(name, shortened(_shown(value))) for name, value in _flat(run.config)]
    listed = table("Resolved configuration", ("option", "value"), rows, texts=(0, 1))
    body = tag("details", tag("summary", f"{len(rows)} options"), listed)
    return Section("configuration", "Configuration", body)


def headline_metric(results: Results) -> str:
    """The score that a target is told by."""
    return "balanced_accuracy" if results.classes else "mae"


def _headline(run: RunFiles, results: Results) -> Html:
    scores = run.summary["metrics"][results.part][results.name]
    part = f"{_PARTS[results.part]} rows: {len(results.true_R):,}"
    value = number(scores[headline_metric(results)])
    if results.classes:
        chosen = results.value_R.argmax(axis=1)
        low, high = bootstrap_interval(balanced_accuracy, results.true_R, chosen)
        area = f"ROC area {number(scores['roc_auc'])}; " if "roc_auc" in scores else ""
        return _tile(
            f"balanced accuracy of {results.name}", value, f"95 %: {number(low)} to {number(high)}; {area}{part}"
        )
    ends = f"95 %: {number(scores['mae_low'])} to {number(scores['mae_high'])}; " if "mae_low" in scores else ""
    return _tile(f"mean absolute error of {results.name}", f"{value} {results.unit}".strip(), f"{ends}{part}")


def _held_out_tiles(run: RunFiles) -> list[Html]:
    valid = run.summary.get("valid")
    return [_tile("held-out score", number(valid["score"]), "")] if isinstance(valid, dict) and "score" in valid else []


def _tile(what: str, value: str, note: str) -> Html:
    return tag("div", tag("span", what), tag("b", value), tag("span", note) if note else None, class_="tile")


def _caution(shown: list[Results]) -> str | None:
    other = {results.part for results in shown} - {"test"}
    if not other:
        return None
    part = " and ".join(_PARTS[part] for part in sorted(other))
    return f"There are no labelled test rows: scores and pictures are those of the {part} rows, which are too good."


def _of_parts(run: RunFiles, metrics: dict[str, Any]) -> Iterator[Html]:
    units = run.summary.get("units", {})
    for target in dict.fromkeys(target for targets in metrics.values() for target in targets):
        of_parts = [targets.get(target, {}) for targets in metrics.values()]
        names = dict.fromkeys(name for scores in of_parts for name in scores)
        rows = [[_METRICS.get(name, name), *(_shown(scores.get(name)) for scores in of_parts)] for name in names]
        unit = f" ({units[target]})" if units.get(target) else ""
        yield table(f"Scores of {target}{unit}", ["metric", *(_PARTS.get(part, part) for part in metrics)], rows)


def _source(run: RunFiles) -> Html | None:
    of = run.config.get("data", run.config)
    named = of.get("table") or of.get("recipe") or of.get("tokens")
    return joined(["data: ", tag("code", named)]) if named else None


def _leakage(shared: dict[str, float]) -> list[str]:
    return [
        f"{share:.1%} of the test rows have {_SHARED.get(name, name)} of a training row"
        for name, share in shared.items()
    ]


def _readings(summary: dict[str, Any]) -> list[str]:
    lines = []
    if summary.get("rows_to_check"):
        first = "; ".join(f"row {one['row']}: {shortened(one['reading'])}" for one in summary["first_to_check"][:3])
        lines.append(f"to check, though used: how {summary['rows_to_check']:,} row(s) were read ({first})")
    unknown = summary.get("unknown_tokens", {})
    if unknown.get("count"):
        lines.append(f"{unknown['count']:,} tokens are outside the vocabulary; the model sees them as unknown")
    if summary.get("rows_truncated"):
        lines.append(f"{summary['rows_truncated']:,} rows are longer than the model reads and lost their end")
    return lines


def _rejects(run: RunFiles) -> Html | None:
    reasons = run.reject_reasons
    if not reasons:
        return None
    rows = [(shortened(reason), column, number(count), first) for column, reason, count, first in reasons[:_REASONS]]
    more = len(reasons) - _REASONS
    return joined(
        [
            table(
                "Why rows or values were rejected", ("reason", "column", "how often", "first row"), rows, texts=(0, 1)
            ),
            tag("p", f"{more} more reasons are in rejects.csv.", class_="quiet") if more > 0 else None,
        ]
    )


def _shown(value: Any) -> str:
    """A value of a configuration or a record."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "–"}[value]
    if isinstance(value, (int, float)):
        return number(value) if isinstance(value, float) else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(one) for one in value) or "–"
    return str(value) or "–"


def _flat(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(config, list) and any(isinstance(one, dict) for one in config):
        for place, value in enumerate(config):
            yield from _flat(value, f"{name}.{place}")
    else:
        yield name, config


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
