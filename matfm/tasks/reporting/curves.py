"""How training went: losses, held-out scores and learning rate against the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matfm.tasks.reporting.charts import Axis, Frame, axis, chart
from matfm.tasks.reporting.html import Html, joined, number, sentence, tag
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.pictures import picture_of
from matfm.tasks.reporting.run_files import RunFiles, as_mapping

_BESIDE_LOSS = frozenset({"step", "lr", "tokens_per_s", "loss"})
_SERIES = 6
"""Colours there are, and so lines in one picture."""

_DIAGNOSTICS = {
    "diagnostics.png": "Gradient norms and relative updates of the layers, and activations of the blocks.",
    "attention.png": "What the tokens of one sequence attend to, by block.",
}
"""Pictures of a run that was diagnosed, with their captions."""

Records = list[dict[str, Any]]
Line = tuple[str, np.ndarray, np.ndarray]
"""Name, steps and values."""


def curves_section(run: RunFiles) -> Section | None:
    """From `log.jsonl`; of an ensemble, one line for each of the first models."""
    logs = dict(list(run.logs.items())[:_SERIES])
    if not logs:
        return None
    first = next(iter(logs.values()))
    terms = [name for name in _numbers(first) if name not in _BESIDE_LOSS]
    pictures = [
        _picture("training loss", _lines(logs, lambda record: record.get("loss")), log=True),
        _picture(
            "validation score", _lines(logs, lambda record: as_mapping(record.get("valid")).get("score")), dots=True
        ),
        _picture("learning rate", _lines({"": first}, lambda record: record.get("lr"))),
        *(_picture(name, _lines({"": first}, lambda record, name=name: record.get(name))) for name in terms[:_SERIES]),
    ]
    shown = [picture for picture in pictures if picture is not None]
    drawn = [picture_of(run, name, caption) for name, caption in _DIAGNOSTICS.items()]
    return Section("curves", "Training", joined([tag("div", *shown, class_="charts"), *drawn])) if shown else None


def _numbers(records: Records) -> list[str]:
    """Names of the numbers that records of training have."""
    return list(
        dict.fromkeys(
            name
            for record in records
            if "loss" in record
            for name, value in record.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        )
    )


def _lines(logs: dict[str, Records], value_of: Any) -> list[Line]:
    found = []
    for name, records in logs.items():
        points = [(record["step"], value) for record in records if (value := value_of(record)) is not None]
        if points:
            steps, values = np.array(points, np.float64).T
            found.append((name, steps, values))
    return found


def _picture(what: str, lines: Sequence[Line], log: bool = False, dots: bool = False) -> Html | None:
    """None where nothing was recorded."""
    if not lines:
        return None
    positive = log and all((values > 0).all() for _, _, values in lines)
    steps = axis("step", *(steps for _, steps, _ in lines))
    x = Axis("step", 0.0, max(steps.high, 1.0))
    frame = Frame(x, axis(what, *(values for _, _, values in lines), log=positive))
    marks = [
        frame.line(steps_N, values_N, series, dots or len(steps_N) == 1)
        for series, (_, steps_N, values_N) in enumerate(lines)
    ]
    last = ", ".join(number(float(values[-1])) for _, _, values in lines)
    caption = f"{sentence(what)} against the step; at the end {last}."
    return chart(frame.drawn(caption, *marks), caption, [name for name, _, _ in lines])
