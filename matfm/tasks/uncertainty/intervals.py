"""Conformal intervals of numbers and sets of classes, from held-out rows: the methods and groups there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from matfm.core.conformal import (
    SET_SCORES,
    conformal_quantile,
    conformal_rank,
    cross_interval,
    cross_sets,
    group_quantiles,
    sets_below,
)
from matfm.errors import MatfmError
from matfm.tasks.uncertainty.calibration import HeldOut, TargetRows

# R rows, C classes

INTERVAL_METHODS = ("absolute", "std", "distance", "quantile")
METHODS = ("auto", *INTERVAL_METHODS, *SET_SCORES)
GROUPINGS: dict[str, Callable[[TargetRows], np.ndarray] | None] = {
    "none": None,
    "zero": lambda rows: np.where(rows.value_R == 0, "zero", "not zero"),
    "class": lambda rows: rows.value_R.argmax(axis=1).astype(str),
}
COLUMN_GROUP = "column:"
_STABILISER = 0.1
"""Share of the mean of the held-out rows that is added to a spread, so that nothing is divided by nearly 0."""
_MEDIAN = 0.5

Ends = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class IntervalConfig:
    """What intervals or sets are wanted."""

    level: float
    """Coverage, between 0 and 1."""
    method: str = "auto"
    """For numbers: absolute (one width for all), std or distance (wider where the model is less sure, or farther from
    the training rows), quantile (around predicted quantiles). For classes: lac (smallest sets) or aps (adaptive sets).
    auto is quantile for models that have quantiles, absolute for the others, and lac for classes."""
    groups: str = "none"
    """Cover each group on its own: zero (predicted 0 or not), class (the predicted one), or column:NAME."""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise MatfmError(f"--interval is {self.level}; it is a coverage between 0 and 1, for example 0.9")
        if self.method not in METHODS:
            raise MatfmError(f"--interval-method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.groups not in GROUPINGS and not self.group_column:
            offered = ", ".join([*GROUPINGS, f"{COLUMN_GROUP}NAME"])
            raise MatfmError(f"--interval-groups is {self.groups!r}; choose one of {offered}")

    @property
    def group_column(self) -> str:
        """Column that names the groups; empty where none does."""
        return self.groups.removeprefix(COLUMN_GROUP) if self.groups.startswith(COLUMN_GROUP) else ""


def fit_interval(held_out: HeldOut, config: IntervalConfig, name: str) -> Callable[[TargetRows], Ends]:
    """From held-out rows of a target, the function of rows to the ends (R,) of their intervals.

    Rows of a group that has too few held-out rows get infinite ends.

    Raises:
        MatfmError: too few rows for the level, or method or groups that do not fit the predictions.
    """
    if config.method in SET_SCORES or config.groups == "class":
        raise MatfmError(f"{name!r} is a number; lac, aps and groups by class are for classes, so leave them out")
    if held_out.fold_R is not None:
        _check_cross(held_out, config, name)
        error_R = np.abs(held_out.true_R - held_out.rows.value_R)
        return lambda rows: cross_interval(*_by_member(rows, error_R, held_out), config.level)
    base, scale = _centre(held_out.rows, config, name), _scale(held_out.rows, config, name)
    low_R, high_R = base(held_out.rows)
    score_R = np.maximum(low_R - held_out.true_R, held_out.true_R - high_R) / scale(held_out.rows)
    threshold = _threshold(score_R, held_out, config, name)

    def interval(rows: TargetRows) -> Ends:
        low_R, high_R = base(rows)
        reach_R = threshold(rows) * scale(rows)
        # Where quantiles were far too wide the ends may cross; the interval is then the middle of the quantiles.
        reach_R = np.maximum(reach_R, (low_R - high_R) / 2)
        return low_R - reach_R, high_R + reach_R

    return interval


def fit_sets(held_out: HeldOut, config: IntervalConfig, name: str) -> Callable[[TargetRows], np.ndarray]:
    """From held-out rows of classes, the function of rows to the classes (R, C) of their sets, bool.

    Raises:
        MatfmError: as `fit_interval`.
    """
    if config.method in INTERVAL_METHODS or config.groups == "zero":
        raise MatfmError(f"{name!r} is a class; choose the --interval-method lac or aps, and no groups by zero")
    scores = SET_SCORES["lac" if config.method == "auto" else config.method]
    score_R = np.take_along_axis(scores(held_out.rows.value_R), held_out.true_R.astype(int)[:, None], axis=1)[:, 0]
    if held_out.fold_R is not None:
        _check_cross(held_out, config, name)

        def cross(rows: TargetRows) -> np.ndarray:
            members, of_member = _by_member(rows, score_R, held_out)
            return cross_sets(np.stack([scores(probability_RC) for probability_RC in members]), of_member, config.level)

        return cross
    threshold = _threshold(score_R, held_out, config, name)
    return lambda rows: sets_below(scores(rows.value_R), threshold(rows))


def _centre(held_out: TargetRows, config: IntervalConfig, name: str) -> Callable[[TargetRows], Ends]:
    """The interval before it is widened: the prediction itself, or the quantiles nearest to those of the level.

    With quantiles it is conformalized quantile regression (Romano, Patterson & Candès, NeurIPS 2019).
    """
    lower = [level for level in held_out.quantiles if level < _MEDIAN]
    upper = [level for level in held_out.quantiles if level > _MEDIAN]
    both = bool(lower and upper)
    if config.method == "quantile" and not both:
        raise MatfmError(f"{name!r} has no quantiles below and above 0.5; fine-tune with fit.loss=quantile")
    if config.method not in ("auto", "quantile") or not both:
        return lambda rows: (rows.value_R, rows.value_R)
    tail = (1 - config.level) / 2
    low, high = (min(levels, key=lambda level: abs(level - at)) for levels, at in ((lower, tail), (upper, 1 - tail)))
    return lambda rows: (rows.quantiles[low], rows.quantiles[high])


def _scale(held_out: TargetRows, config: IntervalConfig, name: str) -> Callable[[TargetRows], np.ndarray]:
    """What widths are proportional to: 1, or a spread (Papadopoulos, Vovk & Gammerman, J. AI Res. 40, 815 (2011))."""
    if config.method not in ("std", "distance"):
        return lambda rows: np.ones(len(rows.value_R))
    field = f"{config.method}_R"
    spread_R = getattr(held_out, field)
    if spread_R is None or not (spread_R > 0).any():
        remedy = "fine-tune an ensemble or with fit.loss=gaussian" if config.method == "std" else "fine-tune again"
        raise MatfmError(f"{name!r} has no {config.method} to scale intervals by; {remedy}, or leave the method out")
    added = _STABILISER * float(spread_R.mean())
    return lambda rows: getattr(rows, field) + added


def _threshold(
    score_R: np.ndarray, held_out: HeldOut, config: IntervalConfig, name: str
) -> Callable[[TargetRows], np.ndarray]:
    """Conformal quantile of the scores for each row, by its group."""
    _refuse_too_few(len(score_R), config, name)
    groups = GROUPINGS.get(config.groups, _named_groups)
    if groups is None:
        quantile = conformal_quantile(score_R, config.level)
        return lambda rows: np.full(len(rows.value_R), quantile)
    of_group = group_quantiles(score_R, groups(held_out.rows), config.level)
    if not np.isfinite(list(of_group.values())).any():
        raise MatfmError(
            f"no group of {name!r} has enough held-out rows for --interval {config.level}; leave --interval-groups out"
        )
    return lambda rows: np.array([of_group.get(str(group), np.inf) for group in groups(rows)], dtype=np.float64)


def _named_groups(rows: TargetRows) -> np.ndarray:
    if rows.group_R is None:
        raise MatfmError("the run kept no groups of its held-out rows; fine-tune with --set calibration_group=COLUMN")
    return rows.group_R


def _check_cross(held_out: HeldOut, config: IntervalConfig, name: str) -> None:
    if config.method not in ("auto", "absolute", *SET_SCORES) or config.groups != "none":
        raise MatfmError(
            f"the run is cross-conformal, whose intervals have neither --interval-groups nor the --interval-method "
            f"{config.method}; leave them out, or fine-tune with calibration_share"
        )
    _refuse_too_few(len(held_out.true_R), config, name)


def _refuse_too_few(rows: int, config: IntervalConfig, name: str) -> None:
    if conformal_rank(rows, config.level) > rows:
        raise MatfmError(
            f"there are {rows} held-out rows of {name!r}, too few for --interval {config.level}; fine-tune with more "
            "validation rows, with calibration_share or with cross_conformal"
        )


def _by_member(rows: TargetRows, score_R: np.ndarray, held_out: HeldOut) -> tuple[np.ndarray, list[np.ndarray]]:
    """Predictions of the members, and of each the scores of the rows that it did not see."""
    members = rows.members_MR
    assert members is not None
    assert held_out.fold_R is not None
    return members, [score_R[held_out.fold_R == number] for number in range(len(members))]
