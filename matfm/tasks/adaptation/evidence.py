"""Whether adaptation helped: paired errors of the adapted model and the control, never on test rows of the target.

On held-out source rows the errors are those of the wrong distribution. Weighted by the odds of being a target row they
estimate errors on the target, if the two differ in their inputs and not in what a label means (covariate shift;
Sugiyama et al., J. Mach. Learn. Res. 8, 985 (2007)). The weighted mean is steadied by a control variate, as in deep
embedded validation (You et al., ICML 2019).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from matfm.tasks.targets import Targets

# R rows, B bootstrap samples

FEWEST_ROWS = 10
"""Held-out rows (or as many effective ones) below which nothing is judged."""
LARGEST_ODDS = 50.0
"""Weights are cut here: a classifier is no judge of odds larger than that."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Evidence:
    """Errors of the adapted model against those of the control, on the same rows."""

    rows: int
    control: float
    """Mean error of the control: absolute in the label's unit, or one minus the probability of the true class."""
    adapted: float
    difference: float
    """Adapted minus control; positive is worse."""
    low: float
    """95 % bootstrap interval of the difference."""
    high: float
    effective_rows: float
    """(Σw)² / Σw²: as many rows of equal weight say as much."""

    @property
    def enough(self) -> bool:
        """Whether it says anything."""
        return self.effective_rows >= FEWEST_ROWS


@dataclass(frozen=True)
class Verdict:
    """What the evidence comes to."""

    negative: bool | None
    """Whether adaptation made predictions of the target worse; None where there is too little evidence."""
    basis: str
    """target labels, weighted source rows, source rows, or none."""
    warning: str = ""
    """One sentence, where it did."""


def row_errors(targets: Targets, true_R: np.ndarray, value_RK: np.ndarray) -> np.ndarray:
    """Error of each row: absolute, or one minus the probability of the true class."""
    if targets.classes:
        return 1.0 - value_RK[np.arange(len(true_R)), true_R.astype(int)].astype(np.float64)
    return np.abs(value_RK[:, 0].astype(np.float64) - true_R)


def compare(control_R: np.ndarray, adapted_R: np.ndarray, weight_R: np.ndarray | None, seed: int) -> Evidence | None:
    """Mean errors and the paired bootstrap interval of their difference; None for no rows.

    Args:
        control_R: error of each row.
        adapted_R: likewise.
        weight_R: odds of a row being the target's over those of being the source's, with mean about 1; None for 1.
        seed: of the bootstrap.
    """
    count = len(control_R)
    if count == 0:
        return None
    weight_R = np.ones(count) if weight_R is None else weight_R
    drawn_BR = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    difference_R = adapted_R - control_R
    samples = steadied_mean(difference_R[drawn_BR], weight_R[drawn_BR])
    low, high = np.quantile(samples, [0.025, 0.975])
    control = float(steadied_mean(control_R[None], weight_R[None])[0])
    difference = float(steadied_mean(difference_R[None], weight_R[None])[0])
    effective = float(weight_R.sum() ** 2 / np.square(weight_R).sum()) if weight_R.any() else 0.0
    return Evidence(count, control, control + difference, difference, float(low), float(high), effective)


def steadied_mean(value_BR: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    """Importance-weighted means (B,): mean(w v) + η (mean(w) - 1), with η = -cov(w v, w) / var(w) (DEV, eq. 7-9)."""
    weighted_BR = value_BR * weight_BR
    mean_B, weight_B = weighted_BR.mean(axis=1), weight_BR.mean(axis=1)
    variance_B = weight_BR.var(axis=1)
    covariance_B = (weighted_BR * weight_BR).mean(axis=1) - mean_B * weight_B
    slope_B = np.divide(-covariance_B, variance_B, out=np.zeros_like(mean_B), where=variance_B > 1e-12)
    steadied: np.ndarray = mean_B + slope_B * (weight_B - 1)
    return steadied


def importance(odds_R: np.ndarray) -> np.ndarray:
    """Odds of being a target row, cut, with mean 1."""
    cut_R = np.minimum(odds_R, LARGEST_ODDS)
    return cut_R / cut_R.mean()


def judge(
    source: Evidence | None,
    weighted: Evidence | None,
    target: Evidence | None,
    tolerance: float,
    same_meaning: bool,
    names: dict[str, str],
) -> Verdict:
    """Target labels decide where there are enough; else the source rows, if labels mean the same on both sides.

    Args:
        source: on held-out source rows.
        weighted: the same with importance weights.
        target: on labelled target rows that were held out.
        tolerance: share of the control's error by which the error on source rows may grow.
        same_meaning: False where the model learned target labels, which may differ from the source's by design.
        names: `unit`, `error` and the folder of the `control`, for the sentence.
    """
    if target is not None and target.enough:
        worse, better = target.low > 0, target.high < 0
        if worse or better or not same_meaning:
            told = f"{target.rows} held-out labelled target rows"
            return Verdict(worse, "target labels", _sentence(target, told, names) if worse else "")
    if not same_meaning:
        return Verdict(None, "none")
    basis, found = "weighted source rows", weighted
    if found is None or not found.enough:
        basis, found = "source rows", source
    if found is None or not found.enough:
        return Verdict(None, "none")
    worse = found.low > tolerance * max(found.control, 0.0)
    how = f"{found.rows} held-out source rows" + (" weighted like the target" if basis.startswith("weighted") else "")
    return Verdict(worse, basis, _sentence(found, how, names) if worse else "")


def _sentence(found: Evidence, rows: str, names: dict[str, str]) -> str:
    unit = f" {names['unit']}" if names["unit"] else ""
    return (
        f"negative transfer: on {rows} the {names['error']} of the adapted model is {found.adapted:.4g}{unit}, that of "
        f"the control without adaptation {found.control:.4g}{unit} (difference {found.difference:.3g}, 95 % interval "
        f"{found.low:.3g} to {found.high:.3g}); prefer the control in {names['control']}"
    )


def as_record(found: Evidence | None) -> dict[str, Any] | None:
    """For the summary."""
    return None if found is None else asdict(found)
