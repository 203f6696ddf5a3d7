"""What a fine-tuning says about its uncertainty: held-out rows, applicability domain, scores and a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from matfm.chem.splits import CALIBRATION_PART
from matfm.core.conformal import conformal_rank
from matfm.core.uncertainty_scores import (
    brier_score,
    class_nll,
    coverage,
    ence,
    error_by_std,
    expected_calibration_error,
    gaussian_nll,
    interval_score,
    mean_width,
    reliability,
)
from matfm.errors import MatfmError
from matfm.tasks import plots
from matfm.tasks.predictions import Predicted
from matfm.tasks.splitting import identity_groups
from matfm.tasks.uncertainty.calibration import Calibration, HeldOut, by_target, out_of_fold, save_calibration
from matfm.tasks.uncertainty.domain import Domain, domain_of
from matfm.tasks.uncertainty.folds import fold_numbers
from matfm.tasks.uncertainty.intervals import IntervalConfig, fit_interval, fit_sets

if TYPE_CHECKING:
    from matfm.tasks.finetune import FinetuneConfig
    from matfm.tasks.labelled_rows import LabelledRows

# U usable rows, R rows, K targets

LEVEL = 0.9
"""Coverage that the intervals of the test rows are scored at; `_90` in the names of the scores."""
_FIGURE_LEVELS = np.linspace(0.05, 0.95, 19)
Curve = tuple[np.ndarray, np.ndarray]


def check_calibration(config: FinetuneConfig) -> None:
    """Raise MatfmError for options of calibration that contradict others."""
    share, folds = config.calibration_share, config.cross_conformal
    if not 0 <= share < 1:
        raise MatfmError(f"calibration_share is {share}; it is a share in [0, 1)")
    if folds < 0 or folds == 1:
        raise MatfmError(f"cross_conformal is {folds}; it is a number of folds, at least 2, or 0 for none")
    if folds and share:
        raise MatfmError(
            f"cross_conformal is {folds} and calibration_share {share}; the folds are the calibration rows, "
            "so leave one of them out"
        )
    if folds and config.ensemble > 1:
        raise MatfmError(
            f"cross_conformal is {folds} and ensemble {config.ensemble}; the models of the folds are the ensemble, "
            "so leave one of them out"
        )


def rows_of_members(labelled: LabelledRows, config: FinetuneConfig) -> list[np.ndarray]:
    """Usable rows that each member is trained on: all training rows, or those outside its fold."""
    train = np.flatnonzero(labelled.parts == "train")
    if not config.cross_conformal:
        return [train] * config.ensemble
    fold_U = _folds(labelled, config)
    return [train[fold_U[train] != number] for number in range(config.cross_conformal)]


def assess(
    out: Path, config: FinetuneConfig, labelled: LabelledRows, predicted: Predicted
) -> dict[str, dict[str, float]]:
    """Write `calibration.json`, `domain.safetensors` and `calibration.png`; scores of the test rows by target."""
    test = np.flatnonzero(labelled.parts == "test")
    held = np.flatnonzero(labelled.parts == _held_out_part(labelled))
    domain = _domain(config, labelled, predicted, held)
    domain.save(out)
    targets = labelled.targets
    if config.cross_conformal:
        train = np.flatnonzero(labelled.parts == "train")
        fold_R = _folds(labelled, config)[train]
        calibration = out_of_fold(targets, labelled.examples.exact_labels()[train], predicted.take(train), fold_R)
    else:
        calibration = Calibration(_held_out_part(labelled), _of_rows(labelled, predicted, held, domain))
    save_calibration(calibration, out)
    tested = _of_rows(labelled, predicted, test, domain)
    scores: dict[str, dict[str, float]] = {}
    for position, known in enumerate(targets.properties):
        rows = tested[known.name]
        if len(rows.true_R) == 0:
            continue
        to_score = class_scores if targets.classes else number_scores
        scores[known.name] = to_score(calibration.targets[known.name], rows, known.name, known.limits)
        if position == 0:
            panels = class_panels if targets.classes else number_panels
            plots.draw_calibration(out, panels(calibration.targets[known.name], rows, known.name, known.unit))
    return scores


def number_scores(calibration: HeldOut, tested: HeldOut, name: str, limits: tuple[float, float]) -> dict[str, float]:
    """Coverage, width and interval score of 90 % intervals; likelihood and calibration error of standard deviations.

    Intervals are scored where the held-out rows are enough for them, likelihoods where no std is 0.
    """
    scores: dict[str, float] = {}
    true_R, rows = tested.true_R, tested.rows
    if _enough(calibration, LEVEL):
        lower_R, upper_R = (ends.clip(*limits) for ends in fit_interval(calibration, IntervalConfig(LEVEL), name)(rows))
        scores["coverage_90"] = coverage(true_R, lower_R, upper_R)
        scores["width_90"] = mean_width(lower_R, upper_R)
        scores["interval_score_90"] = interval_score(true_R, lower_R, upper_R, LEVEL)
    if rows.std_R is not None and (rows.std_R > 0).all():
        scores["nll"] = gaussian_nll(true_R, rows.value_R, rows.std_R)
        scores["ence"] = ence(true_R, rows.value_R, rows.std_R)
    return scores


def class_scores(
    calibration: HeldOut, tested: HeldOut, name: str, _: tuple[float, float] = (0.0, 0.0)
) -> dict[str, float]:
    """Likelihood, Brier score and calibration error, also at the temperature; coverage and mean size of 90 % sets."""
    scores = _probability_scores(tested, "")
    if len(calibration.true_R):
        scaled = HeldOut(tested.true_R, calibration.calibrated(tested.rows))
        scores |= {"temperature": calibration.temperature(), **_probability_scores(scaled, "_calibrated")}
    if _enough(calibration, LEVEL):
        inside_RC = fit_sets(calibration, IntervalConfig(LEVEL), name)(tested.rows)
        scores["coverage_90"] = float(inside_RC[np.arange(len(inside_RC)), tested.true_R.astype(int)].mean())
        scores["set_size_90"] = float(inside_RC.sum(axis=1).mean())
    return scores


def _probability_scores(tested: HeldOut, ending: str) -> dict[str, float]:
    probability_RC = tested.rows.value_R
    return {
        f"nll{ending}": class_nll(tested.true_R, probability_RC),
        f"brier{ending}": brier_score(tested.true_R, probability_RC),
        f"ece{ending}": expected_calibration_error(tested.true_R, probability_RC),
    }


def number_panels(calibration: HeldOut, tested: HeldOut, name: str, unit: str) -> list[plots.CalibrationPanel]:
    """Coverage of intervals at all levels; with standard deviations also that of a normal law, and errors by std."""
    true_R, rows = tested.true_R, tested.rows
    levels = np.array([level for level in _FIGURE_LEVELS if _enough(calibration, level)])
    covered = [
        coverage(true_R, *fit_interval(calibration, IntervalConfig(float(level)), name)(rows)) for level in levels
    ]
    curves: dict[str, Curve] = {"conformal intervals": (levels, np.array(covered))} if len(levels) else {}
    if rows.std_R is None or not (rows.std_R > 0).all():
        return [plots.CalibrationPanel("wanted coverage", "share of test rows covered", curves)] if curves else []
    within_R = np.abs(true_R - rows.value_R) / rows.std_R
    reach = [NormalDist().inv_cdf((1 + float(level)) / 2) for level in _FIGURE_LEVELS]
    curves["normal distribution"] = (_FIGURE_LEVELS, np.array([(within_R <= z).mean() for z in reach]))
    suffix = f" ({unit})" if unit else ""
    return [
        plots.CalibrationPanel("wanted coverage", "share of test rows covered", curves),
        plots.CalibrationPanel(
            f"predicted std{suffix}",
            f"root mean squared error{suffix}",
            {"bins": error_by_std(true_R, rows.value_R, rows.std_R)},
        ),
    ]


def class_panels(calibration: HeldOut, tested: HeldOut, *_: str) -> list[plots.CalibrationPanel]:
    """Reliability of the likeliest class, as predicted and at the temperature."""
    curves = {"as predicted": reliability(tested.true_R, tested.rows.value_R)[1:]}
    if len(calibration.true_R):
        scaled = calibration.calibrated(tested.rows).value_R
        curves["at the temperature"] = reliability(tested.true_R, scaled)[1:]
    return [plots.CalibrationPanel("confidence", "share of test rows that are right", curves)]


def _held_out_part(labelled: LabelledRows) -> str:
    return CALIBRATION_PART if (labelled.parts == CALIBRATION_PART).any() else "valid"


def _domain(config: FinetuneConfig, labelled: LabelledRows, predicted: Predicted, held: np.ndarray) -> Domain:
    assert predicted.pooled_RD is not None
    train = np.flatnonzero(labelled.parts == "train")
    return domain_of(
        labelled.examples.take(train),
        predicted.pooled_RD[train],
        predicted.pooled_RD[held],
        labelled.encoder.tokenizer,
        config.seed,
    )


def _of_rows(labelled: LabelledRows, predicted: Predicted, rows: np.ndarray, domain: Domain) -> dict[str, HeldOut]:
    """Given rows with their exact labels, by target."""
    assert predicted.pooled_RD is not None
    true_RK, group_S = labelled.examples.exact_labels()[rows], labelled.examples.group_S
    distance_R = domain.distances(predicted.pooled_RD[rows])
    group_R = None if group_S is None else group_S[rows]
    return by_target(labelled.targets, true_RK, predicted.take(rows), distance_R, group_R)


def _folds(labelled: LabelledRows, config: FinetuneConfig) -> np.ndarray:
    """Fold of each training row; -1 for the others, (U,)."""
    train = np.flatnonzero(labelled.parts == "train")
    groups = identity_groups([labelled.inputs[row] for row in train.tolist()], labelled.encoder.kind)
    fold_U = np.full(len(labelled.parts), -1)
    fold_U[train] = fold_numbers(groups, config.cross_conformal, config.seed)
    return fold_U


def _enough(calibration: HeldOut, level: float) -> bool:
    rows = len(calibration.true_R)
    return conformal_rank(rows, level) <= rows
