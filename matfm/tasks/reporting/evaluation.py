"""Predictions against labels: parity and residuals of numbers, ROC, precision-recall and confusion of classes."""

from __future__ import annotations

import numpy as np

from matfm.tasks.reporting.charts import Axis, axis, chart, square
from matfm.tasks.reporting.html import Html, joined, number, scrolling, shortened, tag
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.results import Results
from matfm.tasks.reporting.run_files import RunFiles

# R rows, C classes

TARGETS = 12
"""Targets with pictures; a page of more would be too large."""
_POINTS = 10_000
"""Points of all scatter plots together, so that a page stays below a few MB."""
_MOST_POINTS = 1500
_BINS = 40
_CURVES = 6
"""Classes with a curve of their own."""
_CONFUSED = 12
"""Classes of a confusion matrix."""


def predictions_section(run: RunFiles) -> Section | None:
    """Pictures of every target, up to `TARGETS`."""
    shown = run.results[:TARGETS]
    if not shown:
        return None
    points = min(_MOST_POINTS, _POINTS // len(shown))
    parts = [_of_classes(results) if results.classes else _of_numbers(results, points) for results in shown]
    several = len(run.results) > 1
    body = [
        joined([tag("h3", results.label) if several else None, part])
        for results, part in zip(shown, parts, strict=True)
    ]
    if len(run.results) > TARGETS:
        body.append(tag("p", f"{len(run.results) - TARGETS} more targets are in predictions.parquet.", class_="quiet"))
    return Section("predictions", "Predictions", joined(body))


def _of_numbers(results: Results, most: int) -> Html:
    pictures = [_parity(results, most), _residuals(results)]
    return tag("div", *pictures, class_="charts")


def _parity(results: Results, most: int) -> Html:
    true_R, value_R = results.true_R, results.value_R
    both = axis("", true_R, value_R)
    frame = square(
        Axis(f"measured {results.label}", both.low, both.high), Axis(f"predicted {results.label}", both.low, both.high)
    )
    rows = _sample(results, most)
    titles = [
        f"{shortened(results.inputs[row], 40)}: {number(float(true_R[row]))} → {number(float(value_R[row]))}"
        for row in rows
    ]
    ends = (both.low, both.high)
    marks = [frame.guide(ends, ends), frame.points(true_R[rows], value_R[rows], titles)]
    drawn = f"{len(rows):,} of the {len(true_R):,}" if len(rows) < len(true_R) else f"{len(true_R):,}"
    choice = " (the largest errors, and a random choice of the others)" if len(rows) < len(true_R) else ""
    rows_said = f"{drawn} {results.part_name} rows{choice}"
    caption = f"Predicted against measured {results.name}: {rows_said}. On the dashed line they agree."
    return chart(frame.drawn(caption, *marks), caption)


def _residuals(results: Results) -> Html:
    residual_R = results.value_R - results.true_R
    # A few huge errors would squeeze all others into one bar.
    reach = float(np.quantile(np.abs(residual_R), 0.99)) * 1.1 or 1.0
    bins = max(5, min(_BINS, len(residual_R) // 5))
    edges = np.linspace(-reach, reach, bins + 1)
    heights, _ = np.histogram(residual_R.clip(-reach, reach), edges)
    titles = [
        f"{number(float(low))} to {number(float(high))}: {count:,} rows"
        for low, high, count in zip(edges[:-1], edges[1:], heights, strict=True)
    ]
    label = f"predicted − measured {results.label}"
    frame = square(Axis(label, -reach, reach), axis("rows", heights.astype(float), from_zero=True))
    marks = [frame.bars(edges, heights, titles), frame.guide((0, 0), (frame.y.low, frame.y.high))]
    caption = (
        f"Residuals: mean {number(float(residual_R.mean()))}, median {number(float(np.median(residual_R)))}, "
        f"standard deviation {number(float(residual_R.std()))}. The outermost bars hold what lies beyond."
    )
    return chart(frame.drawn(caption, *marks), caption)


def _of_classes(results: Results) -> Html:
    present = [c for c in range(len(results.classes)) if 0 < (results.true_R == c).sum() < len(results.true_R)]
    # Of two classes, the curves of the second say it all.
    wanted = [1] if len(results.classes) == 2 and 1 in present else present[:_CURVES]
    pictures = [_roc(results, wanted), _precision_recall(results, wanted)] if wanted else []
    return joined([tag("div", *pictures, class_="charts"), _confusion(results)])


def _roc(results: Results, classes: list[int]) -> Html:
    from sklearn.metrics import roc_auc_score, roc_curve

    frame = square(Axis("false positive rate", 0.0, 1.0), Axis("true positive rate", 0.0, 1.0))
    marks, legend = [frame.guide((0, 1), (0, 1))], []
    for series, c in enumerate(classes):
        is_class = results.true_R == c
        false_N, true_N, _ = roc_curve(is_class, results.value_R[:, c])
        marks.append(frame.line(false_N, true_N, series))
        area = number(float(roc_auc_score(is_class, results.value_R[:, c])))
        legend.append(f"{shortened(results.classes[c], 30)}: {area}")
    caption = f"ROC of {results.name}, {results.part_name} rows; area under the curve of {', '.join(legend)}."
    return chart(frame.drawn(caption, *marks), caption, legend)


def _precision_recall(results: Results, classes: list[int]) -> Html:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    frame = square(Axis("recall", 0.0, 1.0), Axis("precision", 0.0, 1.0))
    marks, legend = [], []
    for series, c in enumerate(classes):
        is_class = results.true_R == c
        precision_N, recall_N, _ = precision_recall_curve(is_class, results.value_R[:, c])
        share = float(is_class.mean())
        marks += [frame.guide((0, 1), (share, share)), frame.line(recall_N, precision_N, series)]
        average = number(float(average_precision_score(is_class, results.value_R[:, c])))
        legend.append(f"{shortened(results.classes[c], 30)}: {average} (share {share:.0%})")
    caption = (
        f"Precision and recall of {results.name}; average precision of {', '.join(legend)}. "
        "The dashed line is what chance gives."
    )
    return chart(frame.drawn(caption, *marks), caption, legend)


def _confusion(results: Results) -> Html:
    """Rows of each class by predicted class, shaded by their share of the true class."""
    classes = results.classes
    if len(classes) > _CONFUSED:
        return tag("p", f"{len(classes)} classes: too many for a confusion matrix.", class_="quiet")
    counts_CC = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts_CC, (results.true_R.astype(int), results.value_R.argmax(axis=1)), 1)
    whole = tag(
        "table",
        tag("caption", f"Confusion matrix of {results.name}: rows are true classes, columns predicted ones"),
        tag("thead", tag("tr", tag("th", "true", scope="col"), *(_head(name) for name in classes))),
        tag("tbody", *(_confusion_line(name, of_class) for name, of_class in zip(classes, counts_CC, strict=True))),
    )
    return scrolling(whole, "Confusion matrix")


def _head(name: str) -> Html:
    return tag("th", shortened(name, 30), scope="col", class_="n")


def _confusion_line(name: str, of_class: np.ndarray) -> Html:
    total = max(int(of_class.sum()), 1)
    cells = [
        tag("td", f"{count:,} ({count / total:.0%})", class_=f"n cell h{min(7, int(8 * count / total))}")
        for count in of_class.tolist()
    ]
    return tag("tr", tag("th", shortened(name, 30), scope="row"), *cells)


def _sample(results: Results, most: int) -> np.ndarray:
    """All rows, or the worst ones and a random choice of the others."""
    if len(results.true_R) <= most:
        return np.arange(len(results.true_R))
    order = np.argsort(-results.errors, kind="stable")
    worst, others = order[: most // 10], order[most // 10 :]
    drawn: np.ndarray = np.random.default_rng(0).choice(others, most - len(worst), replace=False)
    return np.sort(np.concatenate([worst, drawn]))
