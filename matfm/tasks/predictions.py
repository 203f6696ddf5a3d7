"""Predictions of one model or an ensemble, and the columns they are written as."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from matfm.models.backbones import PropertyModel
from matfm.models.dropout_samples import thinned
from matfm.models.heads import ZERO
from matfm.models.inference import predict_statistics, statistics_and_pooled
from matfm.tasks.examples import Examples
from matfm.tasks.targets import Targets

# M members, E networks (the members, or those drawn from them by MC dropout), S sequences, R rows, D width,
# K targets or classes, T statistics

_VALUES = frozenset({"value", "probability"})


@dataclass(frozen=True)
class DropoutSamples:
    """MC dropout: how many networks are drawn from each member, and their seed."""

    count: int
    seed: int = 0


@dataclass(frozen=True)
class Predicted:
    """Predictions of rows, in physical units."""

    value: np.ndarray
    """(R, K), or class probabilities."""
    std: np.ndarray
    """(R, K): of the head's distribution and the spread over the networks together; 0 where there is neither."""
    has_std: bool
    """Whether the model says how sure it is."""
    further: dict[str, np.ndarray] = field(default_factory=dict)
    """Quantiles (`q0.1`) and the probability of 0 (`zero`) by name, each (R, K)."""
    aleatoric: np.ndarray | None = None
    """(R, K): std of the head's distribution, root mean square over the networks; None without such a head."""
    epistemic: np.ndarray | None = None
    """(R, K): std of the networks' values; None for a single network."""
    members_MRK: np.ndarray | None = None
    """Value, or class probabilities, of each member."""
    networks_ERK: np.ndarray | None = None
    """Of each network: the members again, unless MC dropout drew others."""
    pooled_RD: np.ndarray | None = None
    """What the head of the first member reads, where that was asked for."""

    def take(self, rows: np.ndarray) -> Predicted:
        """The given rows."""

        def of(values: np.ndarray | None, axis: int = 0) -> np.ndarray | None:
            return None if values is None else values.take(rows, axis)

        return Predicted(
            self.value[rows],
            self.std[rows],
            self.has_std,
            {name: values[rows] for name, values in self.further.items()},
            of(self.aleatoric),
            of(self.epistemic),
            of(self.members_MRK, 1),
            of(self.networks_ERK, 1),
            of(self.pooled_RD),
        )


def predict_members(
    members: list[PropertyModel],
    examples: Examples,
    device: torch.device,
    samples: DropoutSamples | None = None,
    pooled: bool = False,
) -> Predicted:
    """Mean over the members, and over the written forms of a row if it has several.

    The standard deviation is that of the mixture of the members (Lakshminarayanan et al., NeurIPS 2017): the mean
    variance of their distributions (aleatoric) and the variance of their means (epistemic). With `samples` both are
    those of networks drawn by MC dropout, and the values stay those of the members.

    Raises:
        MatfmError: MC dropout of models without dropout.
    """
    tokens, beside, every, vectors = examples.tokens, examples.conditions_SC, [], None
    for number, member in enumerate(members):
        model = member.to(device)
        if pooled and number == 0:
            statistics, vectors = statistics_and_pooled(model, tokens, device, beside)
        else:
            statistics = predict_statistics(model, tokens, device, beside)
        every.append(statistics)
    drawn = _drawn(members, examples, device, samples) if samples else None
    if vectors is not None and examples.forms is not None:
        vectors = vectors[examples.forms[:-1]]
    return _combined(np.stack(every), members[0].property_head.statistics, examples.forms, drawn, vectors)


def no_rows(members: list[PropertyModel], samples: DropoutSamples | None = None) -> Predicted:
    """Predictions of zero rows: they tell the columns."""
    head = members[0].property_head
    shape = (0, head.targets, len(head.statistics))
    drawn = np.zeros((samples.count * len(members), *shape), np.float32) if samples else None
    return _combined(np.zeros((len(members), *shape), np.float32), head.statistics, None, drawn)


def prediction_columns(targets: Targets, predicted: Predicted) -> dict[str, np.ndarray]:
    """Output columns: values with what is known beside them, or class probabilities and the likeliest class."""
    if targets.classes:
        return _class_columns(targets, targets.classes, predicted)
    columns = {}
    for k, known in enumerate(targets.properties):
        columns[f"predicted_{known.name}"] = predicted.value[:, k].astype(np.float64)
        for ending, values in _spreads(predicted).items():
            columns[f"predicted_{known.name}_{ending}"] = values[:, k].astype(np.float64)
        for statistic, values in predicted.further.items():
            if statistic != ZERO:
                columns[f"predicted_{known.name}_{statistic}"] = values[:, k].astype(np.float64)
            elif targets.two_part[k]:
                columns[f"probability_zero_{known.name}"] = values[:, k].astype(np.float64)
    return columns


def _class_columns(
    targets: Targets, classes: tuple[tuple[str, ...], ...], predicted: Predicted
) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    networks = predicted.networks_ERK
    of_each = zip(
        targets.properties,
        classes,
        targets.class_columns("probability"),
        targets.of_each(predicted.value),
        [None] * len(classes) if networks is None else targets.of_each(networks),
        strict=True,
    )
    for known, names, written, value_RC, networks_ERC in of_each:
        columns[f"predicted_{known.name}"] = np.array(names, dtype=object)[value_RC.argmax(axis=1)]
        columns.update({name: value_RC[:, c].astype(np.float64) for c, name in enumerate(written)})
        columns.update(_entropy_columns(known.name, networks_ERC))
    return columns


def _spreads(predicted: Predicted) -> dict[str, np.ndarray]:
    """The standard deviation, and its two sources where it has two."""
    if not predicted.has_std:
        return {}
    if predicted.aleatoric is None or predicted.epistemic is None:
        return {"std": predicted.std}
    return {"std": predicted.std, "std_aleatoric": predicted.aleatoric, "std_epistemic": predicted.epistemic}


def _entropy_columns(name: str, networks_ERC: np.ndarray | None) -> dict[str, np.ndarray]:
    """Of several networks: entropy of their mean, and the part of it that is their disagreement, in nats.

    The mutual information of class and network (Houlsby et al., arXiv:1112.5745 (2011)) is 0 where all agree.
    """
    if networks_ERC is None or len(networks_ERC) < 2:
        return {}
    total_R = _entropy(networks_ERC.mean(axis=0, dtype=np.float64))
    disagreement_R = total_R - _entropy(networks_ERC.astype(np.float64)).mean(axis=0)
    return {
        f"predicted_{name}_entropy": total_R,
        f"predicted_{name}_mutual_information": disagreement_R.clip(0),
    }


def _entropy(probability: np.ndarray) -> np.ndarray:
    """Along the last axis, in nats."""
    logarithm = np.log(probability, out=np.zeros_like(probability), where=probability > 0)
    entropy: np.ndarray = -(probability * logarithm).sum(axis=-1)
    return entropy


def _drawn(
    members: list[PropertyModel], examples: Examples, device: torch.device, samples: DropoutSamples
) -> np.ndarray:
    """Statistics (E, S, K, T) of the networks that dropout draws from the members."""
    drawn = []
    for number, model in enumerate(members):
        for sample in range(samples.count):
            with thinned(model, [samples.seed, number, sample]):
                drawn.append(predict_statistics(model, examples.tokens, device, examples.conditions_SC))
    return np.stack(drawn)


def _combined(
    every_MSKT: np.ndarray,
    statistics: tuple[str, ...],
    forms: np.ndarray | None,
    drawn_ESKT: np.ndarray | None = None,
    pooled_RD: np.ndarray | None = None,
) -> Predicted:
    of = _of_rows(every_MSKT, statistics, forms)
    networks = of if drawn_ESKT is None else _of_rows(drawn_ESKT, statistics, forms)
    value_MRK, value_ERK = of[statistics[0]], networks[statistics[0]]
    epistemic = value_ERK.std(axis=0)
    aleatoric = np.sqrt(networks["std"].mean(axis=0)) if "std" in networks else None
    std = epistemic if aleatoric is None else np.hypot(epistemic, aleatoric)
    several = len(value_ERK) > 1
    return Predicted(
        value_MRK.mean(axis=0),
        std,
        aleatoric is not None or several,
        {name: values.mean(axis=0) for name, values in of.items() if name not in {*_VALUES, "std"}},
        aleatoric,
        epistemic if several else None,
        value_MRK,
        value_ERK,
        pooled_RD,
    )


def _of_rows(every_MSKT: np.ndarray, statistics: tuple[str, ...], forms: np.ndarray | None) -> dict[str, np.ndarray]:
    """Each statistic (M, R, K) as the mean over the written forms of a row; `std` becomes a variance."""
    of = {name: every_MSKT[..., position] for position, name in enumerate(statistics)}
    if "std" in of:
        of["std"] = np.square(of["std"])
    if forms is not None:
        counts_R = np.diff(forms)[None, :, None]
        of = {name: np.add.reduceat(values, forms[:-1], axis=1) / counts_R for name, values in of.items()}
    return of
