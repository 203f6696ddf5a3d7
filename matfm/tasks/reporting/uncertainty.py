"""Whether stated uncertainties can be believed: reliability, coverage of intervals, errors against stated spreads."""

from __future__ import annotations

import numpy as np

from matfm.errors import MatfmError
from matfm.tasks.plots import CalibrationPanel
from matfm.tasks.reporting.charts import Axis, axis, chart, square
from matfm.tasks.reporting.evaluation import TARGETS
from matfm.tasks.reporting.html import Html, joined, number, sentence, tag
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.results import Results
from matfm.tasks.reporting.run_files import RunFiles, read_object
from matfm.tasks.uncertainty.calibration import CALIBRATION, CROSS, Calibration, HeldOut, TargetRows, load_calibration
from matfm.tasks.uncertainty.held_out import class_panels, number_panels


def uncertainty_section(run: RunFiles) -> Section | None:
    """Of the test rows, against the held-out rows that calibrate; None where the run states no uncertainty."""
    calibration, problem = _calibration(run)
    parts = [
        joined([tag("h3", results.label) if len(run.results) > 1 else None, body])
        for results in run.results[:TARGETS]
        if (body := _of_target(run, results, calibration)) is not None
    ]
    if not parts:
        return None
    told = None
    if calibration is not None:
        rows = max((len(held.true_R) for held in calibration.targets.values()), default=0)
        source = {"valid": "validation rows, which also chose the epoch", "calibration": "calibration rows"}
        told = (
            f"Calibrated on {rows:,} {source.get(calibration.source, 'rows, each by the model that did not see it')}."
        )
    return Section("uncertainty", "Uncertainty", joined([tag("p", told or problem), *parts]))


def _calibration(run: RunFiles) -> tuple[Calibration | None, str]:
    """What the run kept, or why there is nothing that can be used. Raises MatfmError for a damaged file."""
    if not (run.path / CALIBRATION).is_file():
        return None, f"{run.path} has no {CALIBRATION}: nothing was held out to calibrate on, or the file was removed."
    read_object(run.path / CALIBRATION, "fine-tune again")
    try:
        return load_calibration(run.path), ""
    except MatfmError as error:  # of another version of matfm: the other sections do not need it
        return None, f"{error}."


def _of_target(run: RunFiles, results: Results, calibration: Calibration | None) -> Html | None:
    held = None if calibration is None else calibration.targets.get(results.name)
    scores = run.scores_of(results)
    pictures = [_picture(results, panel) for panel in _panels(results, calibration, held)]
    if not pictures:
        return None
    return joined([_coverage(results, scores), tag("div", *pictures, class_="charts")])


def _coverage(results: Results, scores: dict[str, float]) -> Html | None:
    """How well the 90 % intervals or sets did; None where the held-out rows are too few for any."""
    if "coverage_90" not in scores:
        return None
    size = (
        f"hold {number(scores['set_size_90'])} of {len(results.classes)} classes"
        if results.classes
        else f"are {number(scores['width_90'])} {results.unit}".rstrip() + " wide"
    )
    what = "Sets" if results.classes else "Intervals"
    held = f"hold it in {scores['coverage_90']:.1%}"
    return tag("p", f"{what} that should hold the label in 90 % of cases {held}, and {size} on average.")


def _panels(results: Results, calibration: Calibration | None, held: HeldOut | None) -> list[CalibrationPanel]:
    tested = HeldOut(results.true_R, TargetRows(results.value_R, results.std_R, results.quantiles))
    if held is None or (calibration is not None and calibration.source == CROSS and not results.classes):
        # Cross-conformal intervals need the predictions of every model, which the run does not keep.
        held = _without_rows(results)
    panels = class_panels if results.classes else number_panels
    return panels(held, tested, results.name, results.unit)


def _without_rows(results: Results) -> HeldOut:
    return HeldOut(np.zeros(0), TargetRows(results.value_R[:0], None, {}))


def _picture(results: Results, panel: CalibrationPanel) -> Html:
    values = [values for curve in panel.curves.values() for values in curve]
    shares = "std" not in panel.expected
    both = Axis("", 0.0, 1.0) if shares else axis("", *values, from_zero=True)
    frame = square(Axis(panel.expected, both.low, both.high), Axis(panel.observed, both.low, both.high))
    ends = (both.low, both.high)
    marks = [
        frame.line(expected, observed, series, dots=True)
        for series, (expected, observed) in enumerate(panel.curves.values())
    ]
    caption = (
        f"{sentence(panel.observed)} against {panel.expected} of {results.name}, {results.part_name} "
        f"rows ({', '.join(panel.curves)}). On the dashed line uncertainties are right."
    )
    return chart(frame.drawn(caption, frame.guide(ends, ends), *marks), caption, list(panel.curves))
