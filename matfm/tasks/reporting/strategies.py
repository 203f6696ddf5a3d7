"""Of a run of `matfm compare-strategies`: what each strategy trains, reaches and costs."""

from __future__ import annotations

from typing import Any

from matfm.tasks.reporting.html import Html, joined, number, table, tag, tile
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.pictures import picture_of
from matfm.tasks.reporting.run_files import RunFiles

PICTURE = "comparison.png"
_ENTRY = "strategies"


def strategies_tiles(run: RunFiles) -> list[Html]:
    """The strategy with the best validation score, and what it gives on the test rows."""
    scored = [row for row in run.entries(_ENTRY) if row.get("valid") is not None]
    if not scored:
        return []
    choose = max if _more_is_better(run) else min
    best = choose(scored, key=lambda row: row["valid"])
    note = f"{_metric(run)}: validation {number(best['valid'])}, test {number(best.get('test'))}"
    return [tile("best on validation rows", str(best.get("strategy")), note)]


def strategies_section(run: RunFiles) -> Section | None:
    """The comparison as a table and a picture."""
    rows = run.entries(_ENTRY)
    if run.task != "compare-strategies":
        return None
    dummy = run.mapping("dummy")
    cells = [_line(row) for row in rows]
    cells.append(("dummy", "", "", number(dummy.get("valid")), number(dummy.get("test")), "", "", "", ""))
    head = (
        "strategy",
        "trained share",
        "learning rate",
        "validation",
        "test",
        "gain (validation)",
        "gain (test)",
        "seconds",
        "memory at most (MiB)",
    )
    caption = f"{run.summary.get('target', 'Scores')}, {_metric(run)}, by strategy"
    note = (
        "The trained share counts the head. The gain is the improvement over the dummy (the mean of the training rows, "
        "or always one class) as a share of full fine-tuning's. Choose by the validation rows; the test rows say what "
        "the choice is worth."
    )
    picture = picture_of(
        run, PICTURE, "Score against trained share; the line is 90 % of full fine-tuning's gain over the dummy."
    )
    pages = joined(["Every strategy has a page of its own: ", tag("code", f"matfm report {run.path}/STRATEGY"), "."])
    body = [table(caption, head, cells), tag("p", note), picture, tag("p", pages)]
    return Section("strategies", "Strategies", joined(body))


def _line(row: dict[str, Any]) -> tuple[object, ...]:
    def share(name: str) -> str:
        value = row.get(name)
        return "–" if value is None else f"{value:.2%}" if name == "trainable_share" else f"{value:.1%}"

    return (
        row.get("strategy"),
        share("trainable_share"),
        number(row.get("learning_rate")),
        number(row.get("valid")),
        number(row.get("test")),
        share("valid_share_of_full"),
        share("test_share_of_full"),
        number(row.get("seconds")),
        number(row.get("peak_mb")),
    )


def _metric(run: RunFiles) -> str:
    return str(run.summary.get("metric", "score"))


def _more_is_better(run: RunFiles) -> bool:
    return _metric(run).startswith("balanced accuracy")
