"""Predictions of one model or an ensemble, and the columns they are written as."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from matfm.models.heads import ZERO
from matfm.models.inference import predict_statistics
from matfm.models.matbert import MatBERTForProperty
from matfm.tasks.examples import Examples
from matfm.tasks.targets import Targets

# M members, S sequences, R rows, K targets or classes

_VALUES = frozenset({"value", "probability"})


@dataclass(frozen=True)
class Predicted:
    """Predictions of rows, in physical units."""

    value: np.ndarray
    """(R, K), or class probabilities."""
    std: np.ndarray
    """(R, K): of the head's distribution and the spread over the members together; 0 where there is neither."""
    has_std: bool
    """Whether the model says how sure it is."""
    further: dict[str, np.ndarray] = field(default_factory=dict)
    """Quantiles (`q0.1`) and the probability of 0 (`zero`) by name, each (R, K)."""


def predict_members(members: list[MatBERTForProperty], examples: Examples, device: torch.device) -> Predicted:
    """Mean over the members, and over the written forms of a row if it has several.

    Standard deviations are those of the mixture of the members (Lakshminarayanan et al. 2017).
    """
    every = [predict_statistics(m.to(device), examples.tokens, device, examples.conditions_SC) for m in members]
    return _combined(np.stack(every), members[0].property_head.statistics, examples.forms)


def no_rows(members: list[MatBERTForProperty]) -> Predicted:
    """Predictions of zero rows: they tell the columns."""
    head = members[0].property_head
    shape = (len(members), 0, head.targets, len(head.statistics))
    return _combined(np.zeros(shape, np.float32), head.statistics, None)


def prediction_columns(targets: Targets, predicted: Predicted) -> dict[str, np.ndarray]:
    """Output columns: values with what is known beside them, or class probabilities and the likeliest class."""
    if targets.classes:
        name = targets.properties[0].name
        value = predicted.value
        columns = {f"probability_{label}": value[:, c].astype(np.float64) for c, label in enumerate(targets.classes)}
        likeliest = np.array(targets.classes, dtype=object)[value.argmax(axis=1)]
        return {f"predicted_{name}": likeliest, **columns}
    columns = {}
    for k, known in enumerate(targets.properties):
        columns[f"predicted_{known.name}"] = predicted.value[:, k].astype(np.float64)
        if predicted.has_std:
            columns[f"predicted_{known.name}_std"] = predicted.std[:, k].astype(np.float64)
        for statistic, values in predicted.further.items():
            if statistic != ZERO:
                columns[f"predicted_{known.name}_{statistic}"] = values[:, k].astype(np.float64)
            elif targets.two_part[k]:
                columns[f"probability_zero_{known.name}"] = values[:, k].astype(np.float64)
    return columns


def _combined(every_MSKT: np.ndarray, statistics: tuple[str, ...], forms: np.ndarray | None) -> Predicted:
    of = {name: every_MSKT[..., position] for position, name in enumerate(statistics)}
    if "std" in of:
        of["std"] = np.square(of["std"])
    if forms is not None:
        counts_R = np.diff(forms)[None, :, None]
        of = {name: np.add.reduceat(values, forms[:-1], axis=1) / counts_R for name, values in of.items()}
    value_MRK = of[statistics[0]]
    std = value_MRK.std(axis=0)
    if "std" in of:
        std = np.sqrt(np.square(std) + of["std"].mean(axis=0))
    further = {name: values.mean(axis=0) for name, values in of.items() if name not in {*_VALUES, "std"}}
    return Predicted(value_MRK.mean(axis=0), std, "std" in of or len(value_MRK) > 1, further)
