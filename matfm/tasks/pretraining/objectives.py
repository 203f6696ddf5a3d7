"""Objectives of pretraining: named terms whose weighted sum is the loss.

A term is a configuration (what a `[[objective]]` section may say), the families that can learn it, and a function
that makes its loss from what the terms of a batch share. A new term is one such function and one entry in `TERMS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from matfm.chem.composition_schemes import PAD, SEP
from matfm.chem.masking import MASK
from matfm.core.batching import TokenBatch
from matfm.core.denoising import DenoisingConfig
from matfm.core.objectives import REGRESSION_LOSSES, masked_lm_loss, multi_property_loss
from matfm.core.span_corruption import SpanConfig
from matfm.core.step import StepFunction, StepOutput
from matfm.core.steps import denoising_step, permutation_step, span_step
from matfm.errors import MatfmError
from matfm.tasks.pretraining.amounts import AmountsObjective, amounts
from matfm.tasks.pretraining.conditions import CausalObjective, conditional_step
from matfm.tasks.pretraining.contrastive import ContrastiveObjective, contrastive
from matfm.tasks.pretraining.setting import Objective, Setting, SharedBatch, TermLoss
from matfm.tasks.pretraining.translation import TranslationObjective, translation

# N tokens, M masked tokens, B sequences, K targets, F bits


@dataclass(frozen=True)
class SpanObjective(Objective):
    """Hidden spans from the rest (T5, Raffel et al. 2020)."""

    spans: SpanConfig = field(default_factory=SpanConfig)
    """How much is hidden."""
    sentinels: int = 100
    """Sentinels in the vocabulary, which is the most spans of a sequence."""
    rows: float = 1.0
    """Share of the rows of a batch, drawn at random, that the term learns from; the others cost it no time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rows <= 1:
            raise MatfmError(f"objective 'span': rows is {self.rows}; it is a share above 0, at most 1")


@dataclass(frozen=True)
class DenoisingObjective(Objective):
    """The whole sequence from a corrupted one (BART, Lewis et al. 2020)."""

    noise: DenoisingConfig = field(default_factory=DenoisingConfig)
    """Which corruptions."""


@dataclass(frozen=True)
class PermutationObjective(Objective):
    """The last tokens of a random order from those before them (XLNet, Yang et al. 2019)."""

    one_in: float = 6.0
    """One of so many tokens is predicted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.one_in < 1:
            raise MatfmError(f"objective 'permutation': one_in is {self.one_in}; it must be at least 1")


def _masked(_: Objective, setting: Setting) -> TermLoss:
    """Per masked token."""

    def loss(shared: SharedBatch) -> StepOutput:
        labels_M = shared.masked.labels_M
        logits_MV = shared.model.lm_head(shared.masked_MD)
        total, weight = masked_lm_loss(logits_MV, labels_M, setting.label_smoothing)
        right = (logits_MV.detach().argmax(dim=-1) == labels_M).sum().to(total.dtype)
        return StepOutput(total, weight, {"masked": (total, weight), "masked_accuracy": (right, weight)})

    return loss


def _property(_: Objective, setting: Setting) -> TermLoss:
    """Per label of the table that is present."""

    def loss(shared: SharedBatch) -> StepOutput:
        columns = slice(setting.columns)
        pointwise = REGRESSION_LOSSES[shared.model.config.property_loss]
        total, weight = multi_property_loss(shared.raw_BK[:, columns], shared.targets_BK[:, columns], pointwise)
        return StepOutput(total, weight, {"property": (total, weight)})

    return loss


def _descriptors(_: Objective, setting: Setting) -> TermLoss:
    """Mean over the computed descriptors; per row."""

    def loss(shared: SharedBatch) -> StepOutput:
        columns = slice(setting.columns, None)
        pointwise = REGRESSION_LOSSES[shared.model.config.property_loss]
        total, weight = multi_property_loss(shared.raw_BK[:, columns], shared.targets_BK[:, columns], pointwise)
        number = shared.raw_BK.shape[1] - setting.columns
        return StepOutput(total / number, weight / number, {"descriptors": (total, weight)})

    return loss


def _fingerprint(_: Objective, setting: Setting) -> TermLoss:
    """Cross-entropy (nats), mean over the bits; per row without a mask."""
    packed_RW = setting.part.fingerprints_RW

    def loss(shared: SharedBatch) -> StepOutput:
        assert packed_RW is not None
        logits_BF = shared.model.fingerprint_head(shared.pooled_BD)
        bits_BF = np.unpackbits(packed_RW[setting.part.rows_of(shared.batch)], axis=1, count=logits_BF.shape[1])
        target_BF = torch.from_numpy(bits_BF).to(logits_BF.device, logits_BF.dtype)
        loss_B = F.binary_cross_entropy_with_logits(logits_BF, target_BF, reduction="none").mean(dim=1)
        whole_B = (~shared.masked.masked_row_B).to(loss_B.dtype)
        total, weight = (loss_B * whole_B).sum(), whole_B.sum()
        return StepOutput(total, weight, {"fingerprint": (total, weight)})

    return loss


def _from_step(name: str, step: StepFunction) -> TermLoss:
    """A term that shares nothing."""

    def loss(shared: SharedBatch) -> StepOutput:
        output = step(shared.model, shared.batch, shared.generator)
        return replace(output, metrics={name: (output.loss_sum, output.weight)})

    return loss


def _causal(objective: Objective, setting: Setting) -> TermLoss:
    """Per predicted token."""
    assert isinstance(objective, CausalObjective)
    return _from_step("causal", conditional_step(objective, setting))


def _span(objective: Objective, setting: Setting) -> TermLoss:
    """Per predicted token. Targets start at padding, as `generate` does, and end with [SEP]."""
    assert isinstance(objective, SpanObjective)
    vocabulary = setting.vocabulary
    step = span_step(vocabulary.ordinary_V, vocabulary.sentinels, PAD, SEP, objective.spans, setting.label_smoothing)
    return _from_step("span", step if objective.rows == 1 else _of_some_rows(step, objective.rows))


def _of_some_rows(step: StepFunction, share: float) -> StepFunction:
    """The step on a share of the rows, at least one."""

    def of_some(model: Any, batch: TokenBatch, generator: torch.Generator) -> StepOutput:
        order_B = torch.randperm(batch.layout.sequences, generator=generator)
        return step(model, batch.take(order_B < math.ceil(share * len(order_B))), generator)

    return of_some


def _denoising(objective: Objective, setting: Setting) -> TermLoss:
    """Per predicted token. Targets start at padding, as `generate` does, and end with [SEP]."""
    assert isinstance(objective, DenoisingObjective)
    vocabulary = setting.vocabulary
    step = denoising_step(
        vocabulary.ordinary_V, MASK, vocabulary.separator, objective.noise, setting.label_smoothing, PAD
    )
    return _from_step("denoising", step)


def _permutation(objective: Objective, setting: Setting) -> TermLoss:
    """Per predicted token."""
    assert isinstance(objective, PermutationObjective)
    step = permutation_step(setting.vocabulary.ordinary_V, objective.one_in, setting.label_smoothing)
    return _from_step("permutation", step)


@dataclass(frozen=True)
class Term:
    """What a name of an objective stands for."""

    families: tuple[str, ...]
    """Model families that can learn it."""
    build: Callable[[Objective, Setting], TermLoss]
    config: type[Objective] = Objective
    """What its section may say."""


TERMS: dict[str, Term] = {
    "masked": Term(("matbert",), _masked),
    "property": Term(("matbert",), _property),
    "amounts": Term(("matbert",), amounts, AmountsObjective),
    "descriptors": Term(("matbert",), _descriptors),
    "fingerprint": Term(("matbert",), _fingerprint),
    "contrastive": Term(("matbert",), contrastive, ContrastiveObjective),
    "permutation": Term(("matbert",), _permutation, PermutationObjective),
    "causal": Term(("matgpt",), _causal, CausalObjective),
    "span": Term(("matt5",), _span, SpanObjective),
    "denoising": Term(("matt5",), _denoising, DenoisingObjective),
    "translation": Term(("matt5",), translation, TranslationObjective),
}


def check_objectives(objectives: tuple[Objective, ...], family: str) -> None:
    """Raise MatfmError for a term that the family cannot learn, or that comes twice."""
    known = [name for name, term in TERMS.items() if family in term.families]
    names = [objective.name for objective in objectives]
    for name in names:
        if name not in known:
            raise MatfmError(
                f"model.family {family!r} cannot learn the objective {name!r}; it learns {', '.join(known)}"
            )
        if names.count(name) > 1:
            raise MatfmError(f"the objective {name!r} is given {names.count(name)} times; give it once, with a weight")


def objective_step(objectives: tuple[Objective, ...], setting: Setting) -> StepFunction:
    """The weighted sum of the terms.

    One term alone is a mean over what it counts (tokens, labels, rows). Of several terms the sums are added and
    divided by the number of sequences, so that accumulated batches equal one big batch whatever they hold.
    """
    terms = [(objective.weight, TERMS[objective.name].build(objective, setting)) for objective in objectives]

    def step(model: Any, batch: TokenBatch, generator: torch.Generator) -> StepOutput:
        shared = SharedBatch(model, batch, generator, setting)
        outputs = [(weight, term(shared)) for weight, term in terms]
        total = sum(
            (weight * output.loss_sum for weight, output in outputs[1:]), outputs[0][0] * outputs[0][1].loss_sum
        )
        divisor = outputs[0][1].weight
        if len(outputs) > 1:
            divisor = torch.tensor(float(batch.layout.sequences), device=total.device)
        return StepOutput(total, divisor, {k: v for _, output in outputs for k, v in output.metrics.items()})

    return step
