"""What the target columns mean, and the head that their training labels call for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from matfm.chem.units import Property
from matfm.errors import MatfmError
from matfm.models.output_laws import output_law
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig

# R training labels of one target, K targets

POINT_MASS = 0.1
"""Share of training labels that are exactly 0 from which on `head = "auto"` takes two parts."""
FEWEST = 10
"""Labels that each part of a two-part head needs, where it is chosen automatically."""
SKEWED = 1.0
"""Skewness of the training labels above which `transform = "auto"` tries logarithms."""


@dataclass(frozen=True)
class Targets:
    """What the columns of the target table mean, and what else a head needs to know."""

    properties: tuple[Property, ...]
    classes: tuple[tuple[str, ...], ...] | None = None
    """Names of the classes of each property; a target is then the index of its class."""
    conditions: tuple[str, ...] = ()
    """Names of the numeric columns beside the input."""
    two_part: tuple[bool, ...] = ()
    """Which properties have a probability of 0; none if empty."""
    log: tuple[bool, ...] = ()
    """Which properties are trained as logarithms; none if empty."""

    def of_each(self, probabilities: np.ndarray) -> list[np.ndarray]:
        """Probabilities of all classes (…, ·) apart: (…, C) for each property."""
        sizes = [len(names) for names in self.classes or ()]
        return np.split(probabilities, np.cumsum(sizes)[:-1], axis=-1)

    def class_columns(self, beginning: str) -> list[list[str]]:
        """Names of columns with a number for each class (`probability_yes`), for each property.

        Raises:
            MatfmError: two of several properties would share a name.
        """
        several = len(self.properties) > 1
        columns = [
            [f"{beginning}_{known.name}_{label}" if several else f"{beginning}_{label}" for label in names]
            for known, names in zip(self.properties, self.classes or (), strict=True)
        ]
        flat = [name for names in columns for name in names]
        if len(set(flat)) < len(flat):
            double = next(name for name in flat if flat.count(name) > 1)
            raise MatfmError(f"two classes would have the column {double!r}; rename a target column or a class")
        return columns

    def heads(self) -> dict[str, dict[str, str]]:
        """Head and transform of every property, for people."""
        return {
            known.name: {
                "head": "two-part" if self.two_part and self.two_part[k] else "plain",
                "transform": "log" if self.log and self.log[k] else "none",
            }
            for k, known in enumerate(self.properties)
        }


def with_heads(targets: Targets, config: FitConfig, train: Examples) -> Targets:
    """The targets with head and transform of each, chosen on the training labels alone.

    Raises:
        MatfmError: a target has no training label, or labels that the loss, head or transform cannot use.
    """
    for k, known in enumerate(targets.properties):
        if np.isnan(train.tokens.targets_RK[:, k]).all():
            raise MatfmError(f"no training row has a label of {known.name!r}; choose another split or leave it out")
    if targets.classes:
        targets.class_columns("probability")
        return targets
    two_part, log = [], []
    for k, known in enumerate(targets.properties):
        labels_R = train.tokens.targets_RK[:, k]
        censored = train.side_SK is not None and bool(train.side_SK[:, k].any())
        _refuse_censored(config, known.name, censored)
        two_part.append(_two_part(config, known.name, labels_R, censored))
        valued_R = labels_R[~np.isnan(labels_R) & ~(two_part[-1] & (labels_R == 0))]
        log.append(_log(config.transform, known.name, valued_R))
    return replace(targets, two_part=tuple(two_part), log=tuple(log))


def censored_counts(targets: Targets, examples: Examples) -> dict[str, Any]:
    """How many labels of each target are bounds; nothing for a table without such labels."""
    if examples.side_SK is None:
        return {}
    below_K, above_K = (examples.side_SK < 0).sum(axis=0), (examples.side_SK > 0).sum(axis=0)
    return {
        "censored": {
            known.name: {"below": int(below), "above": int(above)}
            for known, below, above in zip(targets.properties, below_K, above_K, strict=True)
        }
    }


def _refuse_censored(config: FitConfig, name: str, censored: bool) -> None:
    remedy = "give numbers without < and >"
    if censored and not output_law(config.loss).takes_censored:
        raise MatfmError(f"{name!r} has censored labels, which the loss {config.loss} cannot use; {remedy}, or l1")
    if censored and config.head == "two-part":
        raise MatfmError(f"{name!r} has censored labels, which a two-part head cannot use; {remedy}, or head=plain")


def _two_part(config: FitConfig, name: str, labels_R: np.ndarray, censored: bool) -> bool:
    labels_R = labels_R[~np.isnan(labels_R)]
    zeros = int((labels_R == 0).sum())
    if config.head == "two-part" and zeros in (0, len(labels_R)):
        raise MatfmError(
            f"head is two-part, but {zeros} of the {len(labels_R)} training labels of {name!r} are 0; choose plain"
        )
    if config.head != "auto":
        return config.head == "two-part"
    enough = min(zeros, len(labels_R) - zeros) >= FEWEST and zeros >= POINT_MASS * len(labels_R)
    return enough and not censored and config.loss != "quantile"


def _log(transform: str, name: str, valued_R: np.ndarray) -> bool:
    positive = bool((valued_R > 0).all())
    if transform == "log" and not positive:
        raise MatfmError(
            f"transform is log, but a training label of {name!r} is {valued_R.min():g}; "
            "choose none, or head=two-part if only zeros are in the way"
        )
    if transform != "auto":
        return transform == "log"
    if not positive:
        return False
    skewness = _skewness(valued_R)
    return skewness > SKEWED and abs(_skewness(np.log(valued_R))) < skewness


def _skewness(values_R: np.ndarray) -> float:
    """Third standardised moment; 0 for a constant."""
    deviation_R = values_R.astype(np.float64) - values_R.mean(dtype=np.float64)
    std = float(np.sqrt(np.square(deviation_R).mean()))
    return float((deviation_R**3).mean() / std**3) if std > 0 else 0.0
