"""How far the predictions of a run can be trusted: intervals, calibrated numbers and the applicability domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.core.temperature import at_temperature
from matfm.errors import MatfmError
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.predictions import Predicted
from matfm.tasks.targets import Targets
from matfm.tasks.uncertainty.calibration import Calibration, HeldOut, TargetRows, load_calibration, rows_of_target
from matfm.tasks.uncertainty.domain import Domain, load_domain
from matfm.tasks.uncertainty.intervals import IntervalConfig, fit_interval, fit_sets

# R rows, C classes, K targets

IN_DOMAIN, DISTANCE, REASON = "in_domain", "domain_distance", "domain_reason"


@dataclass(frozen=True)
class Trust:
    """What a run knows beside its models, and what of it is asked for."""

    targets: Targets
    encoder: RowEncoder
    domain: Domain | None = None
    """Of the training rows, where the run has it and it is needed."""
    tell_domain: bool = False
    """Whether the domain has columns of its own."""
    calibration: Calibration | None = None
    """Held-out rows, where predictions are to be calibrated."""
    bounds: dict[str, Callable[[TargetRows], Any]] = field(default_factory=dict)
    """Target to function of its rows: ends of intervals, or sets of classes."""
    group_column: str = ""
    """Column of the table that names groups."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows, over all chunks, that the summary tells of."""

    @property
    def needs_vectors(self) -> bool:
        """Whether `columns` needs what the head reads."""
        return self.domain is not None

    def fields(self) -> dict[str, pa.DataType]:
        """Types of the columns."""
        fields: dict[str, pa.DataType] = {}
        sets = self.targets.class_columns("in_set") if self.targets.classes else []
        for name in () if sets else self.bounds:
            fields |= {f"predicted_{name}_{end}": pa.float64() for end in ("lower", "upper")}
        for columns in sets if self.bounds else ():
            fields |= dict.fromkeys(columns, pa.bool_())
        if self.tell_domain:
            fields |= {IN_DOMAIN: pa.bool_(), DISTANCE: pa.float64(), REASON: pa.string()}
        return fields

    def calibrated(self, predicted: Predicted) -> Predicted:
        """Probabilities at the temperature, or std times their factors; as they are if that is not asked for."""
        if self.calibration is None:
            return predicted
        of_target = [self.calibration.targets[known.name] for known in self.targets.properties]
        if self.targets.classes:
            return at_temperatures(self.targets, predicted, [held_out.temperature() for held_out in of_target])
        factor_K = np.array([held_out.std_factor() for held_out in of_target])
        spreads = (predicted.std, predicted.aleatoric, predicted.epistemic)
        std, aleatoric, epistemic = (None if spread is None else spread * factor_K for spread in spreads)
        assert std is not None
        return replace(predicted, std=std, aleatoric=aleatoric, epistemic=epistemic)

    def columns(self, predicted: Predicted, examples: Examples) -> dict[str, np.ndarray]:
        """Output columns of rows, each of which is in one written form in `examples`."""
        distance_R = None
        columns: dict[str, np.ndarray] = {}
        if self.domain is not None:
            assert predicted.pooled_RD is not None
            distance_R = self.domain.distances(predicted.pooled_RD)
        for k, known in enumerate(self.targets.properties):
            if known.name in self.bounds:
                rows = rows_of_target(self.targets, predicted, k, distance_R, examples.group_S)
                columns |= self._bound_columns(k, self.bounds[known.name](rows))
        if self.domain is not None and distance_R is not None and self.tell_domain:
            reason_R = self.domain.reasons(examples, distance_R, self.encoder.tokenizer, self.targets.conditions)
            columns |= {IN_DOMAIN: reason_R == "", DISTANCE: distance_R, REASON: reason_R}
            self.counts["rows_outside_domain"] += int((reason_R != "").sum())
        return columns

    def summary(self) -> dict[str, Any]:
        """Counts for the summary."""
        found: dict[str, Any] = {}
        if self.tell_domain and self.domain is not None:
            outside = self.counts["rows_outside_domain"]
            found = {"rows_outside_domain": outside, "domain_threshold": self.domain.threshold}
        if unbounded := self.counts["rows_without_interval"]:
            found["rows_without_interval"] = unbounded
        return found

    def _bound_columns(self, k: int, bounds: Any) -> dict[str, Any]:
        name, limits = self.targets.properties[k].name, self.targets.properties[k].limits
        if self.targets.classes:
            return {column: bounds[:, c] for c, column in enumerate(self.targets.class_columns("in_set")[k])}
        infinite_R = np.isinf(bounds[0])  # a group without held-out rows: nothing is known, so the cells stay empty
        self.counts["rows_without_interval"] += int(infinite_R.sum())
        ends = [np.where(infinite_R, None, end.clip(*limits)) for end in bounds]
        return {f"predicted_{name}_lower": ends[0], f"predicted_{name}_upper": ends[1]}


def at_temperatures(targets: Targets, predicted: Predicted, temperatures: Sequence[float]) -> Predicted:
    """Probabilities of the classes of each target, of each member too, at the target's temperature."""

    def scaled(probabilities: np.ndarray) -> np.ndarray:
        of_each = zip(targets.of_each(probabilities), temperatures, strict=True)
        return np.concatenate([at_temperature(of, temperature) for of, temperature in of_each], axis=-1)

    members = predicted.members_MRK
    return replace(
        predicted,
        value=scaled(predicted.value),
        members_MRK=None if members is None else np.stack([scaled(of_member) for of_member in members]),
    )


def load_trust(
    folder: Path,
    targets: Targets,
    encoder: RowEncoder,
    intervals: IntervalConfig | None,
    calibrated: bool,
    tell_domain: bool,
) -> Trust:
    """What a run directory keeps, as far as it is asked for.

    Raises:
        MatfmError: the run has no held-out rows, too few, or none that the method can use.
    """
    wanted = intervals is not None or calibrated
    calibration = load_calibration(folder) if wanted else None
    by_distance = intervals is not None and intervals.method == "distance"
    domain = load_domain(folder) if tell_domain or by_distance else None
    if by_distance and domain is None:
        raise MatfmError(f"{folder} does not say what its training rows are like; fine-tune again")
    return trust_of(targets, encoder, domain, calibration, intervals, calibrated, tell_domain)


def trust_of(
    targets: Targets,
    encoder: RowEncoder,
    domain: Domain | None,
    calibration: Calibration | None,
    intervals: IntervalConfig | None,
    calibrated: bool = False,
    tell_domain: bool = False,
) -> Trust:
    """As `load_trust`, of what is in memory; `calibration` is there where `intervals` or `calibrated` need it."""
    bounds: dict[str, Callable[[TargetRows], Any]] = {}
    if calibration is not None:
        names = [known.name for known in targets.properties]
        of_target = {name: calibration.targets[name] for name in names}
        if calibrated:
            of_target = {name: _calibrated(held_out, name) for name, held_out in of_target.items()}
        if intervals is not None:
            fit = fit_sets if targets.classes else fit_interval
            bounds = {name: fit(held_out, intervals, name) for name, held_out in of_target.items()}
    return Trust(
        targets,
        encoder,
        domain,
        tell_domain and domain is not None,
        calibration if calibrated else None,
        bounds,
        intervals.group_column if intervals is not None else "",
    )


def _calibrated(held_out: HeldOut, name: str) -> HeldOut:
    numbers = held_out.rows.value_R.ndim == 1
    if len(held_out.true_R) == 0 or (numbers and held_out.rows.std_R is None):
        what = "standard deviations" if numbers else "probabilities"
        raise MatfmError(f"there are no held-out rows of {name!r} with {what}, so --calibrated has nothing to go by")
    return replace(held_out, rows=held_out.calibrated(held_out.rows))
