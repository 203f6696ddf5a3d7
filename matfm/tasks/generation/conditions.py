"""What generated texts are conditioned on: asked for by value or range, and what a run predicts of it afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from matfm.chem.units import conversion_factor, property_named
from matfm.core.property_bins import OUTSIDE, PropertyBins
from matfm.core.sampling import uniforms
from matfm.errors import MatfmError
from matfm.tasks.targets import Targets

# n bins, C conditions

STREAM = 1
"""Of the random numbers that choose bins; those of tokens are stream 0."""
_RANGE = ".."


@dataclass(frozen=True)
class Condition:
    """One property that is asked for."""

    bins: PropertyBins
    low: float
    high: float
    """A range in the unit of the bins, or the bounds of the bin that holds a value."""
    rows_n: np.ndarray
    """About how many training rows of each bin are what is asked for."""
    number: int = OUTSIDE
    """Of the bin that holds a value; `OUTSIDE` for a range."""

    @classmethod
    def read(cls, bins: PropertyBins, text: str) -> Condition:
        """A value `2.0` or a range `1..2`, `1..`, `..2`.

        Raises:
            MatfmError: it is neither, or outside of all bins.
        """
        low, high = _limits(text, bins)
        if _RANGE in text:
            rows_n = bins.rows_between(low, high)
            low, high = (
                (low if math.isfinite(low) else bins.lower[0]),
                (high if math.isfinite(high) else bins.upper[-1]),
            )
            number = OUTSIDE
        else:
            number = int(bins.of(np.array([low]))[0])
            rows_n = np.array(bins.rows) * (np.arange(len(bins)) == number)
            low, high = bins.lower[number], bins.upper[number]
        if not rows_n.any():
            unit = f" {bins.unit}" if bins.unit else ""
            raise MatfmError(f"--condition {bins.name}={text} is in none of the bins {', '.join(bins.texts)}{unit}")
        return cls(bins, low, high, rows_n, number)

    @property
    def column(self) -> str:
        """Of the table."""
        return f"condition_{self.bins.name}"

    def draw(self, uniform: float) -> int:
        """Number of the bin at a quantile in [0, 1), as frequent as in training."""
        reached_n = self.rows_n.cumsum()
        last = int(self.rows_n.nonzero()[0][-1])
        return min(int(np.searchsorted(reached_n, uniform * reached_n[-1], side="right")), last)

    def holds(self, values_R: np.ndarray) -> np.ndarray:
        """Which values are in the range, or in the bin that was asked for, (R,) bool."""
        if self.number == OUTSIDE:
            return (self.low <= values_R) & (values_R <= self.high)
        return np.asarray(self.bins.of(values_R) == self.number)

    def training_share(self) -> float:
        """About which share of the training rows with this property is what is asked for."""
        return float(self.rows_n.sum() / sum(self.bins.rows))


@dataclass
class Conditions:
    """All that are asked for, in the order in which the model reads them, and what became of them."""

    asked: tuple[Condition, ...]
    seed: int
    _drawn: list[Counter[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._drawn = [Counter() for _ in self.asked]

    @classmethod
    def read(cls, texts: Sequence[str], saved: Sequence[dict[str, Any]] | None, model: str, seed: int) -> Conditions:
        """`band_gap=2.0`, `e_form=-1.5..-0.5` for a model that knows these properties.

        Args:
            texts: what is asked for. A property goes by its column or by a name of the table of properties.
            saved: bins in the configuration of the model.
            model: its name, for messages.
            seed: of the bins that are drawn.

        Raises:
            MatfmError: the model has no conditions or not this one, or a value is in no bin.
        """
        known = [PropertyBins.saved(values, model) for values in saved or ()]
        if texts and not known:
            raise MatfmError(
                f"{model} was not trained with conditions; give --condition to a model of "
                "matfm/models/configs/conditional_composition_matgpt.toml, or leave it out"
            )
        asked: dict[str, Condition] = {}
        for text in texts:
            name, sign, value = text.rpartition("=")
            if not sign:
                raise MatfmError(f"--condition {text!r} is not of the form property=value or property=low..high")
            bins = _named(name.strip(), known, model)
            if bins.name in asked:
                raise MatfmError(f"--condition: {bins.name!r} is asked for twice; give one value or range")
            asked[bins.name] = Condition.read(bins, value.strip())
        return cls(tuple(asked[bins.name] for bins in known if bins.name in asked), seed)

    def __bool__(self) -> bool:
        return bool(self.asked)

    def draw(self, index: int) -> tuple[int, ...]:
        """Bins of sample `index`, (C,): the same whatever else is drawn."""
        if not self.asked:
            return ()
        numbers = uniforms(self.seed, index, len(self.asked), STREAM).tolist()
        return tuple(condition.draw(number) for condition, number in zip(self.asked, numbers, strict=True))

    def tokens(self, numbers: Sequence[int]) -> list[str]:
        """Of the bins of a sample."""
        return [condition.bins.tokens[number] for condition, number in zip(self.asked, numbers, strict=True)]

    def columns(self) -> list[str]:
        """Of the table."""
        return [condition.column for condition in self.asked]

    def cells(self, numbers: Sequence[int]) -> dict[str, str]:
        """The bins of a sample as the table shows them, counted."""
        shown = [condition.bins.texts[number] for condition, number in zip(self.asked, numbers, strict=True)]
        for drawn, text in zip(self._drawn, shown, strict=True):
            drawn[text] += 1
        return dict(zip(self.columns(), shown, strict=True))

    def summary(self) -> list[dict[str, Any]]:
        """What was asked for, how often each bin was drawn, and the share of the training rows."""
        return [
            {
                "property": condition.bins.name,
                "unit": condition.bins.unit,
                "low": condition.low,
                "high": condition.high,
                "drawn": {text: drawn[text] for text in condition.bins.texts if drawn[text]},
                "training_share": round(condition.training_share(), 6),
            }
            for condition, drawn in zip(self.asked, self._drawn, strict=True)
        ]


class ConditionScores:
    """Of the rows that a run predicts the property of, how many have what was asked for."""

    def __init__(self, conditions: Conditions, targets: Targets) -> None:
        self._found = [predicted_column(condition, targets) for condition in conditions.asked]
        self._asked = conditions.asked
        self._rows = np.zeros((len(self._asked), 2), np.int64)

    def add(self, predicted: dict[str, list[Any]]) -> None:
        """Count the rows of a chunk."""
        for place, (condition, found) in enumerate(zip(self._asked, self._found, strict=True)):
            if found is None:
                continue
            column, factor = found
            values = np.array([value for value in predicted[column] if value is not None], np.float64) * factor
            self._rows[place] += (int(condition.holds(values).sum()), len(values))

    def summary(self) -> list[dict[str, Any]]:
        """One entry a condition; empty where the run does not predict the property."""
        return [
            {}
            if found is None
            else {
                "predicted_by_column": found[0],
                "rows_predicted": int(rows),
                "rows_as_asked": int(right),
                "share_as_asked": round(right / rows, 6) if rows else None,
            }
            for found, (right, rows) in zip(self._found, self._rows.tolist(), strict=True)
        ]


def predicted_column(condition: Condition, targets: Targets) -> tuple[str, float] | None:
    """The column in which a run predicts a condition, and the factor to its unit; None if it does not."""
    bins = condition.bins
    for known in () if targets.classes else targets.properties:
        same = known.name == bins.name or property_named(known.name).name == bins.quantity
        factor = conversion_factor(known.unit, bins.unit) if same else None
        if factor is not None:
            return f"predicted_{known.name}", factor
    return None


def _named(name: str, known: Sequence[PropertyBins], model: str) -> PropertyBins:
    """By column, else by what the column holds."""
    meant = property_named(name).name
    found = [bins for bins in known if bins.name == name] or [bins for bins in known if bins.quantity == meant]
    if len(found) != 1:
        choices = ", ".join(f"{bins.name} ({bins.unit})" if bins.unit else bins.name for bins in known)
        problem = "is more than one" if found else "is none"
        raise MatfmError(f"--condition: {name!r} {problem} of the conditions of {model}; it knows {choices}")
    return found[0]


def _limits(text: str, bins: PropertyBins) -> tuple[float, float]:
    """Both ends of a range, infinite where it is open, or twice the value."""
    low, is_range, high = (part.strip() for part in text.partition(_RANGE))
    try:
        given = [float(part) for part in (low, high) if part]
    except ValueError:
        given = []
    if not given or not all(map(math.isfinite, given)):
        raise MatfmError(f"--condition {bins.name}={text}: give a number (2.0) or a range (1.5..2.5, 1.5.., ..2.5)")
    if given != sorted(given):
        raise MatfmError(f"--condition {bins.name}={text}: the range ends before it begins")
    if not is_range:
        return given[0], given[0]
    return (given[0] if low else -math.inf), (given[-1] if high else math.inf)
