"""Of a run of `matfm adapt`: whether adaptation helped, on what evidence, and how far apart the domains are."""

from __future__ import annotations

import numpy as np

from matfm.tasks.reporting.charts import Axis, axis, chart, square
from matfm.tasks.reporting.html import Html, joined, number, sentence, table, tag, tile
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.pictures import picture_of
from matfm.tasks.reporting.results import Results
from matfm.tasks.reporting.run_files import RunFiles, as_mapping

_POINTS = 600
"""Of each model in the picture of both."""
_EVIDENCE = {
    "target_labels": "held-out labelled target rows",
    "weighted_source": "held-out source rows, weighted like the target",
    "source": "held-out source rows",
}
_VERDICTS = {True: "negative", False: "no sign of harm", None: "not judged"}


def adaptation_tiles(run: RunFiles) -> list[Html]:
    """The verdict."""
    if run.summary.get("method") == "none":
        return []
    verdict = run.mapping("negative_transfer")
    basis = verdict.get("basis", "none")
    return [tile("transfer", _VERDICTS[verdict.get("negative")], "" if basis == "none" else f"judged on {basis}")]


def adaptation_section(run: RunFiles) -> Section | None:
    """Verdict, paired errors, both models' predictions, and what tells the domains apart."""
    if run.task != "adapt":
        return None
    pictures = [
        picture_of(
            run,
            "embeddings.png",
            "Vectors of source and target rows by model, in two principal components and by t-SNE. Axes of one panel "
            "say nothing of another's; t-SNE keeps neighbours, not distances.",
        ),
        picture_of(
            run,
            "elements.png",
            "Which elements are more common on which side and, where the target has held-out labels, the mean error "
            "of the rows with each.",
        ),
    ]
    body = [tag("p", _verdict(run)), _evidence(run), _both(run), _apart(run), *pictures]
    return Section("adaptation", "Adaptation", joined(body))


def _verdict(run: RunFiles) -> Html:
    verdict = run.mapping("negative_transfer")
    if run.summary.get("method") == "none":
        return joined(["This is the model without adaptation, the control of the other methods."])
    if verdict.get("negative"):
        return tag("span", sentence(f"{verdict.get('warning') or 'negative transfer'}."), class_="bad")
    if verdict.get("negative") is None:
        return joined(["Too little evidence to judge the transfer: label a few target rows to know."])
    good = tag("span", "No sign of harm", class_="good")
    return joined([good, f", judged on {verdict.get('basis')}. No warning is no proof."])


def _evidence(run: RunFiles) -> Html | None:
    """Paired errors of both models, by the rows they rest on."""
    rows = []
    for name, told in _EVIDENCE.items():
        found = as_mapping(run.mapping("evidence").get(name))
        if found:
            values = [number(found.get(key)) for key in ("rows", "control", "adapted", "difference")]
            rows.append((told, *values, f"{number(found.get('low'))} to {number(found.get('high'))}"))
    classes = run.architecture.get("class_names")
    what = "share of probability on wrong classes" if classes else "mean absolute error"
    unit = "" if classes else next((f" ({unit})" for unit in run.mapping("units").values() if unit), "")
    head = ("rows of", "rows", "without adaptation", "adapted", "difference", "95 % interval of it")
    caption = f"{sentence(what)}{unit} of both models on the same rows, none of them trained on; below 0 is better"
    return table(caption, head, rows) if rows else None


def _both(run: RunFiles) -> Html | None:
    """Predictions of both models against the labels; None for classes and for one model alone."""
    results = next((results for results in run.results if results.control_R is not None), None)
    return None if results is None else tag("div", _parity(results), class_="charts")


def _parity(results: Results) -> Html:
    assert results.control_R is not None
    true_R = results.true_R
    both = axis("", true_R, results.value_R, results.control_R)
    ends = (both.low, both.high)
    frame = square(Axis(f"measured {results.label}", *ends), Axis(f"predicted {results.label}", *ends))
    drawn = np.sort(np.random.default_rng(0).permutation(len(true_R))[:_POINTS])
    models = (("adapted", results.value_R), ("without adaptation", results.control_R))
    # The control first: what it got wrong lies below what the adapted model made of it.
    marks = [
        frame.points(true_R[drawn], value_R[drawn], series=s) for s, (_, value_R) in reversed([*enumerate(models)])
    ]
    caption = f"Both models on the same {len(drawn):,} {results.part_name} rows. On the dashed line they are right."
    return chart(frame.drawn(caption, frame.guide(ends, ends), *marks), caption, [name for name, _ in models])


def _apart(run: RunFiles) -> Html | None:
    """How well a linear classifier tells the domains apart by the vectors of each model."""
    found = {name: as_mapping(record) for name, record in run.mapping("domains_apart").items() if record}
    if not found:
        return None
    several = any("all_domains_accuracy" in record for record in found.values())
    keys = ("domain_accuracy", "proxy_a_distance", *(("all_domains_accuracy",) if several else ()))
    heads = ("accuracy", "proxy A-distance", *(("accuracy over all domains",) if several else ()))
    rows = [(name, *(number(record.get(key)) for key in keys)) for name, record in found.items()]
    caption = (
        "Source or target? A linear classifier on the vectors; accuracy 0.5 and distance 0 where they cannot be told "
        "apart, 1 and 2 where they always can"
    )
    return table(caption, ("vectors of", *heads), rows)
