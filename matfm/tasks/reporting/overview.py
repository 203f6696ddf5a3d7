"""What a run is and how well it does: summary, scores, data, environment and configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matfm.core.metrics import balanced_accuracy, bootstrap_interval
from matfm.tasks.reporting.adaptation import adaptation_tiles
from matfm.tasks.reporting.html import Html, bullets, joined, number, shortened, table, tag, tile
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.results import PARTS, Results
from matfm.tasks.reporting.run_files import RunFiles, as_mapping
from matfm.tasks.reporting.scores import duration, headline_score, shown
from matfm.tasks.reporting.search import search_tiles
from matfm.tasks.reporting.strategies import strategies_tiles

_HEADLINES = 6
"""Targets that have a tile of their own."""
_REASONS = 12
"""Reasons of rejected rows that are listed."""
_SHARED = {"same_reduced_formula": "the reduced formula", "same_canonical": "the canonical SMILES"}


def summary_section(run: RunFiles) -> Section:
    """The headline scores, and the rows they rest on."""
    summary = run.summary
    tiles = [_headline(run, results) for results in run.results[:_HEADLINES]] or _held_out_tiles(run)
    tiles += _TILES[run.task](run) if run.task in _TILES else []
    if "rows_in" in summary:
        note = f"{_count(summary, 'rows_rejected')} of {_count(summary, 'rows_in')} rejected"
        tiles.append(tile("rows used", _count(summary, "rows_used"), note))
    if "parameters" in summary:
        tiles.append(tile("parameters", _count(summary, "parameters"), str(summary.get("family", ""))))
    seconds = summary.get("seconds", summary.get("seconds_of_trials"))
    if seconds is not None:
        tiles.append(
            tile("time", duration(seconds), f"seed {summary.get('seed', run.training.get('seed', 'unknown'))}")
        )
    further = len(run.results) - _HEADLINES
    notes = [
        f"{further} more targets are in the table of scores." if further > 0 else None,
        _caution(run),
    ]
    body = joined([tag("div", *tiles, class_="tiles") if tiles else None, *(tag("p", note) for note in notes if note)])
    return Section("summary", "Summary", body)


_TILES = {"adapt": adaptation_tiles, "tune": search_tiles, "compare-strategies": strategies_tiles}
"""What the verdict of other runs is."""


def data_section(run: RunFiles) -> Section | None:
    """Rows by part, what was rejected and why, and what the parts share."""
    summary = run.summary
    counted = "rows_in" in summary
    rows = ", ".join(f"{count:,} {PARTS.get(part, part)}" for part, count in run.mapping("rows").items() if count)
    lines: list[object] = [
        f"{_count(summary, 'rows_in')} rows: {_count(summary, 'rows_used')} used, "
        f"{_count(summary, 'rows_rejected')} rejected"
        if counted
        else None,
        *_sources(run),
        f"split {run.training['split']}" if run.training.get("split") else None,
        f"split of the target {run.config['target_split']}" if run.config.get("target_split") else None,
        rows or None,
        f"{_count(summary, 'rows_held_out')} rows held out of training" if "rows_held_out" in summary else None,
        *_leakage(run),
        *(
            f"censored labels of {name}, not scored: {count['below']:,} below, {count['above']:,} above a bound"
            for name, count in run.mapping("censored").items()
        ),
        _conditions(summary.get("conditions")),
        *_readings(run),
    ]
    body = [bullets(line for line in lines if line), _rejects(run)]
    return Section("data", "Data", joined(body)) if any(body) else None


def environment_section(run: RunFiles) -> Section:
    """What the numbers depend on beside the configuration."""
    known, seconds = run.environment, run.summary.get("seconds", run.summary.get("seconds_of_trials"))
    asked = run.training.get("device", "unknown")
    lines = [
        joined(["command: ", tag("code", shortened(known["command"], 1000))]) if "command" in known else None,
        f"device: {known['device']}" if "device" in known else f"device asked for: {asked}",
        f"machine: {known['machine']}, {known.get('threads', 'unknown')} thread(s)" if "machine" in known else None,
        f"seed: {run.training.get('seed', 'unknown')}",
        f"time: {duration(seconds)}" if seconds is not None else None,
    ]
    versions = as_mapping(known.get("versions")) | run.mapping("versions")
    body = [
        bullets(line for line in lines if line),
        table("Versions", ("package", "version"), versions.items(), texts=(0, 1)) if versions else None,
    ]
    if not known:
        body.append(tag("p", "This run did not record its command and versions; its card.md may name them."))
    return Section("environment", "Environment", joined(body))


def config_section(run: RunFiles) -> Section:
    """The resolved configuration, every option by its dotted name."""
    rows = [(name, shortened(shown(value))) for name, value in _flat(run.config)]
    listed = table("Resolved configuration", ("option", "value"), rows, texts=(0, 1))
    body = tag("details", tag("summary", f"{len(rows)} options"), listed)
    return Section("configuration", "Configuration", body)


def _headline(run: RunFiles, results: Results) -> Html:
    scores, value = run.scores_of(results), number(headline_score(run, results))
    part = f"{results.part_name} rows: {len(results.true_R):,}"
    if results.classes:
        chosen = results.value_R.argmax(axis=1)
        low, high = bootstrap_interval(balanced_accuracy, results.true_R, chosen)
        area = f"ROC area {number(scores['roc_auc'])}; " if "roc_auc" in scores else ""
        return tile(
            f"balanced accuracy of {results.name}", value, f"95 %: {number(low)} to {number(high)}; {area}{part}"
        )
    known = {"mae_low", "mae_high"} <= scores.keys()
    ends = f"95 %: {number(scores['mae_low'])} to {number(scores['mae_high'])}; " if known else ""
    return tile(f"mean absolute error of {results.name}", f"{value} {results.unit}".strip(), f"{ends}{part}")


def _held_out_tiles(run: RunFiles) -> list[Html]:
    score = run.mapping("valid").get("score")
    return [] if score is None else [tile("held-out score", number(score), "")]


def _count(summary: dict[str, Any], name: str) -> str:
    return number(summary.get(name))


def _caution(run: RunFiles) -> str | None:
    """Where other rows than test rows are shown."""
    tested = "target_test" if run.task == "adapt" else "test"
    other = sorted({results.part_name for results in run.results} - {PARTS[tested]})
    if not other:
        return None
    said = (
        f"There are no labelled {PARTS[tested]} rows: scores and pictures are those of the {' and '.join(other)} rows"
    )
    return f"{said}." if other[0].startswith("source") else f"{said}, which are too good."


def _sources(run: RunFiles) -> list[Html]:
    """The tables, recipes or token files that rows come from."""
    of = as_mapping(run.training.get("data")) or run.training
    named = {"data": [of.get("table") or of.get("recipe") or of.get("tokens")]}
    if run.task == "adapt":
        named = {
            side: [as_mapping(one).get("table") for one in run.config.get(side, ())] for side in ("source", "target")
        }
    return [
        joined([f"{side}: ", joined((tag("code", name) for name in names if name), ", ")])
        for side, names in named.items()
        if any(names)
    ]


def _leakage(run: RunFiles) -> list[str]:
    lines = [
        f"{share:.1%} of the test rows have {_SHARED.get(name, name)} of a training row"
        for name, share in run.mapping("leakage").items()
    ]
    overlap = run.summary.get("overlap")
    if overlap is not None:
        lines.append(f"{overlap:.1%} of the target rows have the formula or molecule of a source training row")
    return lines


def _conditions(names: Any) -> str | None:
    return f"conditions: {', '.join(names)}" if names else None


def _readings(run: RunFiles) -> list[str]:
    summary, lines = run.summary, []
    if summary.get("rows_to_check"):
        first = "; ".join(
            f"row {one.get('row')}: {shortened(one.get('reading'))}" for one in run.entries("first_to_check")[:3]
        )
        shown_first = f" ({first})" if first else ""
        lines.append(f"to check, though used: how {summary['rows_to_check']:,} row(s) were read{shown_first}")
    unknown = run.mapping("unknown_tokens")
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
