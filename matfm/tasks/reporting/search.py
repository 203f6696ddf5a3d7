"""Of a run of `matfm tune`: the best settings, what they are worth, and every trial."""

from __future__ import annotations

import csv
from pathlib import Path

from matfm.tasks.reporting.html import Html, joined, number, sentence, shortened, table, tag, tile
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.pictures import picture_of
from matfm.tasks.reporting.run_files import RunFiles, as_mapping
from matfm.tasks.reporting.scores import METRICS, score_tables, shown

TRIALS, PICTURE = "trials.csv", "search.png"
_LISTED = 200
"""Trials in the table; of more, the best."""
_TOLD = ("trial", "state", "score", "seconds", "reason")
"""Columns of `trials.csv` that are no settings."""


def search_tiles(run: RunFiles) -> list[Html]:
    """The best score with the usual one beside, the trials, and the score on test rows."""
    best, usual, counts = run.mapping("best"), run.mapping("usual"), run.mapping("trials")
    ends = ", ".join(
        f"{number(counts[state])} {state}" for state in ("complete", "pruned", "failed") if counts.get(state)
    )
    beside = f"usual settings: {number(usual['score'])}" if "score" in usual else ""
    tiles = [
        tile("best validation score", number(best.get("score")), beside),
        tile("trials", number(counts.get("counted")), ends),
    ]
    for target, scores in as_mapping(as_mapping(run.mapping("refit").get("metrics")).get("test")).items():
        metric = next((name for name in ("mae", "balanced_accuracy") if name in as_mapping(scores)), None)
        if metric:
            note = f"test rows: {number(scores.get('n'))}"
            tiles.append(tile(f"{METRICS[metric]} of {target}", number(scores[metric]), note))
    return tiles


def search_section(run: RunFiles) -> Section | None:
    """The best settings beside the usual ones, the picture of the search, and every trial."""
    if run.task != "tune":
        return None
    score = str(run.summary.get("score", "validation score"))
    note = str(run.summary.get("note", ""))
    picture = picture_of(
        run,
        PICTURE,
        f"{sentence(score)}: every trial and the best so far; how much each setting matters, where trials are enough.",
    )
    body = [
        tag("p", f"The score is the {score}, a mean over {number(run.summary.get('folds'))} fold(s)."),
        tag("p", f"{sentence(note)}.") if note else None,
        _settings(run),
        *_metrics(run),
        picture,
        _trials(run),
    ]
    return Section("search", "Search", joined(body))


def _settings(run: RunFiles) -> Html | None:
    """The best trial's settings and the usual ones."""
    best, usual = run.mapping("best"), run.mapping("usual")
    chosen, before = as_mapping(best.get("settings")), as_mapping(usual.get("settings"))
    if not chosen:
        return None
    importance = run.mapping("importance")
    names = dict.fromkeys((*chosen, *before))
    rows: list[tuple[object, ...]] = [
        (tag("code", name), shown(chosen.get(name)), shown(before.get(name)), number(importance.get(name)))
        for name in names
    ]
    rows.append(("score", number(best.get("score")), number(usual.get("score")), ""))
    head = ("setting", f"best (trial {shown(best.get('trial'))})", "usual", "importance")
    return table("Best settings, beside those that matfm finetune has anyway", head, rows, texts=(0, 1, 2))


def _metrics(run: RunFiles) -> list[Html]:
    """Scores of the best trial on the folds, and of the training at the end."""
    refit, best = run.mapping("refit"), as_mapping(run.mapping("best").get("metrics"))
    tables = list(score_tables({"valid": best}, {}, "Mean over the folds")) if best else []
    tables += score_tables(as_mapping(refit.get("metrics")), {}, "Scores of the last training")
    if refit.get("run"):
        # A folder may have been moved with all that is in it since.
        folder = run.path / "refit" / Path(str(refit["run"])).name
        call = tag("code", f"matfm report {folder}")
        tables.append(tag("p", joined(["The last training has a page of its own: ", call, "."])))
    return tables


def _trials(run: RunFiles) -> Html | None:
    """`trials.csv` as a table, best first, then those that were given up or failed."""
    path = run.path / TRIALS
    if not path.is_file():
        return None
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        trials = list(csv.DictReader(lines))
    settings = list(as_mapping(run.config.get("space")))
    trials.sort(key=lambda trial: (not trial.get("score"), _number(trial.get("score"))))
    rows = [
        [
            *(_cell(trial.get(name)) for name in _TOLD[:-1]),
            *(_cell(trial.get(name)) for name in settings),
            shortened(trial.get("reason") or ""),
        ]
        for trial in trials[:_LISTED]
    ]
    head = (*_TOLD[:-1], *(name.removeprefix("fit.") for name in settings), _TOLD[-1])
    listed = table("Every trial, best first", head, rows, texts=(0, 1, len(head) - 1))
    more = len(trials) - _LISTED
    return joined(
        [
            tag("details", tag("summary", f"{len(trials)} trials"), listed),
            tag("p", f"{more} more trials are in {TRIALS}.", class_="quiet") if more > 0 else None,
        ]
    )


def _number(text: str | None) -> float:
    try:
        return float(text or "inf")
    except ValueError:
        return float("inf")


def _cell(text: str | None) -> str:
    """A number for people, any other cell as it is."""
    value = _number(text)
    if not text or value == float("inf"):
        return shortened(text or "–", 60)
    return text if text.isdecimal() else number(value)
