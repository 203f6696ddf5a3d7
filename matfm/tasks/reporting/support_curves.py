"""Of a run of `matfm fewshot`: scores of the methods against the number of labelled examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from matfm.tasks.reporting.charts import Axis, Frame, axis, chart
from matfm.tasks.reporting.html import Html, sentence, tag
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.run_files import RunFiles
from matfm.tasks.reporting.scores import METRICS

_METHODS = 6
"""Colours there are, and so methods in one picture."""
_LESS_IS_BETTER = frozenset({"mae"})


def support_section(run: RunFiles) -> Section | None:
    """A picture for each metric; None where no task was evaluated."""
    if run.task != "fewshot":
        return None
    whole = [row for row in run.entries("metrics") if {"support", "method", "metric", "value"} <= row.keys()]
    metrics = dict.fromkeys(row["metric"] for row in whole)
    pictures = [_picture(metric, [row for row in whole if row["metric"] == metric]) for metric in metrics]
    return Section("support", "Methods", tag("div", *pictures, class_="charts")) if pictures else None


def _picture(metric: str, rows: list[dict[str, Any]]) -> Html:
    most = max(row["support"] for row in rows)
    sign = 1 if metric in _LESS_IS_BETTER else -1
    # Those that were judged at the largest size first, the best of them first.
    order = sorted(rows, key=lambda row: (row["support"] != most, sign * row["value"]))
    methods = list(dict.fromkeys(row["method"] for row in order))
    what = METRICS.get(metric, metric)
    ends = [np.array([row["value"], *row.get("interval", ())], np.float64) for row in rows]
    sizes = np.array(sorted({row["support"] for row in rows}), np.float64)
    room = 0.05 * (sizes[-1] - sizes[0]) or 1.0
    frame = Frame(Axis("labelled examples", sizes[0] - room, sizes[-1] + room), axis(what, *ends))
    marks = []
    for series, method in enumerate(methods[:_METHODS]):
        of_method = sorted((row for row in rows if row["method"] == method), key=lambda row: row["support"])
        support_N, value_N = (np.array([row[key] for row in of_method], np.float64) for key in ("support", "value"))
        marks.append(frame.line(support_N, value_N, series, dots=True))
        marks += [frame.guide([row["support"]] * 2, row["interval"]) for row in of_method if "interval" in row]
    more = f", the best {_METHODS} of {len(methods)} methods" if len(methods) > _METHODS else ""
    caption = (
        f"{sentence(what)} on the queries of the test tasks{more}. Dashed: 95 % intervals of drawing episodes, given "
        "the tasks."
    )
    return chart(frame.drawn(caption, *marks), caption, methods[:_METHODS])
