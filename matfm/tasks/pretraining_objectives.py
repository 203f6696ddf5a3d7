"""Objectives of pretraining: named terms whose weighted sum is the loss.

A term is a configuration (what a `[[objective]]` section may say), the families that can learn it, and a function
that makes its loss from what the terms of a batch share. A new term is one such function and one entry in `TERMS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matfm.chem.augment import jitter_amounts
from matfm.chem.composition_schemes import PAD, SEP
from matfm.chem.mask_choice import PackedUnits
from matfm.chem.masking import MASK, MaskedTokens, MaskingConfig, mask_tokens
from matfm.core.batching import TokenBatch
from matfm.core.denoising import DenoisingConfig
from matfm.core.objectives import REGRESSION_LOSSES, info_nce_loss, masked_lm_loss, multi_property_loss
from matfm.core.span_corruption import SpanConfig
from matfm.core.step import StepFunction, StepOutput
from matfm.core.steps import causal_step, denoising_step, noisy_view, span_step
from matfm.errors import MatfmError
from matfm.models.pooling import POOLINGS
from matfm.tasks.pretraining_rows import Part
from matfm.tasks.pretraining_vocabulary import PretrainingVocabulary

# N tokens, M masked tokens, B sequences, K targets, D width

VIEWS = ("dropout", "noise", "jitter", "enumeration")


@dataclass(frozen=True)
class Objective:
    """One term of the loss; `name` decides which."""

    name: str
    """masked, property, descriptors, fingerprint, contrastive, causal, span or denoising."""
    weight: float = 1.0
    """Factor on the term's loss."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise MatfmError(f"objective {self.name!r}: weight is {self.weight}; it must be positive")

    @classmethod
    def class_of(cls, values: Mapping[str, Any]) -> type[Objective]:
        """The configuration that a section stands for, by its name."""
        name = values.get("name")
        if not isinstance(name, str) or name not in TERMS:
            raise MatfmError(f"objective: name is {name!r}; choose one of {', '.join(TERMS)}")
        return TERMS[name].config


@dataclass(frozen=True)
class ContrastiveObjective(Objective):
    """Two views of a sequence close, those of others far (InfoNCE, Oord et al. 2018)."""

    temperature: float = 0.1
    """Divides the cosines."""
    view: str = "dropout"
    """What tells the second view from the first: dropout (SimCSE; needs model.dropout), noise (tokens masked, left out,
    infilled), jitter (amounts of a formula) or enumeration (another SMILES; needs data.enumerations)."""
    scale: float = 0.1
    """Relative standard deviation of the jitter."""
    noise: DenoisingConfig = field(
        default_factory=lambda: DenoisingConfig(permuted=False, infilled=0.0, masked=0.15, deleted=0.1)
    )
    """The noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise MatfmError(f"objective 'contrastive': temperature is {self.temperature}; it must be positive")
        if self.view not in VIEWS:
            raise MatfmError(f"objective 'contrastive': view is {self.view!r}; choose one of {', '.join(VIEWS)}")


@dataclass(frozen=True)
class SpanObjective(Objective):
    """Hidden spans from the rest (T5, Raffel et al. 2020)."""

    spans: SpanConfig = field(default_factory=SpanConfig)
    """How much is hidden."""
    sentinels: int = 100
    """Sentinels in the vocabulary, which is the most spans of a sequence."""


@dataclass(frozen=True)
class DenoisingObjective(Objective):
    """The whole sequence from a corrupted one (BART, Lewis et al. 2020)."""

    noise: DenoisingConfig = field(default_factory=DenoisingConfig)
    """Which corruptions."""


@dataclass(frozen=True)
class Setting:
    """What terms know beside the batch."""

    vocabulary: PretrainingVocabulary
    masking: MaskingConfig
    part: Part
    """The rows that the batches are from."""
    columns: int
    """Target columns of the table; those behind are computed descriptors."""
    label_smoothing: float
    terms: frozenset[str]
    """Names of the terms that share a batch."""


class SharedBatch:
    """A batch and what several terms compute of it, each once: masks, hidden states, pooled states, properties."""

    def __init__(self, model: Any, batch: TokenBatch, generator: torch.Generator, setting: Setting) -> None:
        self.model = model
        self.batch = batch
        self.generator = generator
        self.setting = setting

    @cached_property
    def masked(self) -> MaskedTokens:
        """Masks, if the loss has the term; else the tokens as they are."""
        batch, setting = self.batch, self.setting
        if "masked" not in setting.terms:
            nowhere = batch.ids_N[:0]
            intact_B = torch.zeros(batch.layout.sequences, dtype=torch.bool, device=batch.ids_N.device)
            return MaskedTokens(batch.ids_N, nowhere, nowhere, intact_B)
        classes, units = setting.vocabulary.classes, None
        if setting.masking.scheme == "element_group":
            units = PackedUnits.from_classes(classes.of(batch.ids_N), batch.layout)
        elif setting.part.units is not None:
            units = setting.part.units.packed(batch.rows_B.cpu().numpy(), batch.layout)
        return mask_tokens(batch.ids_N, batch.layout, classes, setting.masking, self.generator, units)

    @cached_property
    def hidden_ND(self) -> Tensor:  # noqa: N802 - the shape is part of the name
        """Of MatBERT's encoder."""
        batch = self.batch
        return self.model.matbert.forward_packed(self.masked.ids_N, batch.amounts_N, batch.layout)

    @cached_property
    def masked_MD(self) -> Tensor:  # noqa: N802
        """Of the masked tokens; where no other term needs the rest, the last block computes only these."""
        batch, positions_M = self.batch, self.masked.positions_M
        if self.setting.terms != {"masked"}:
            return self.hidden_ND[positions_M]
        return self.model.matbert.forward_packed(self.masked.ids_N, batch.amounts_N, batch.layout, positions_M)

    @cached_property
    def pooled_BD(self) -> Tensor:  # noqa: N802
        """One vector per sequence."""
        return POOLINGS[self.model.config.pooling](self.hidden_ND, self.batch.layout)

    @cached_property
    def raw_BK(self) -> Tensor:  # noqa: N802
        """Of the property head."""
        return self.model.property_head(self.pooled_BD)

    @cached_property
    def targets_BK(self) -> Tensor:  # noqa: N802
        """In units of the head's scale; a row with a mask is another material and has none."""
        targets_BK = self.batch.targets_BK.masked_fill(self.masked.masked_row_B[:, None], math.nan)
        return self.model.property_head.scaled(targets_BK)


TermLoss = Callable[[SharedBatch], StepOutput]


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


def _contrastive(objective: Objective, setting: Setting) -> TermLoss:
    """Per sequence. The first view is what the other terms see, masks included."""
    assert isinstance(objective, ContrastiveObjective)
    second = _SECOND_VIEWS[objective.view](objective, setting)

    def loss(shared: SharedBatch) -> StepOutput:
        view, place_B = second(shared)
        embedded_BD = shared.model.matbert.embed_packed(view.ids_N, view.amounts_N, view.layout)
        right_BD = embedded_BD if place_B is None else embedded_BD[place_B]
        groups_R, rows_B = setting.part.group_R, setting.part.rows_of(shared.batch)
        group_B = None if groups_R is None else torch.from_numpy(groups_R[rows_B]).to(right_BD.device)
        total, weight = info_nce_loss(shared.pooled_BD, right_BD, objective.temperature, group_B=group_B)
        return StepOutput(total, weight, {"contrastive": (total, weight)})

    return loss


SecondView = Callable[[SharedBatch], tuple[TokenBatch, Tensor | None]]
"""The second view, and where in it each sequence of the batch is (None: at its own place)."""


def _dropout_view(_: ContrastiveObjective, __: Setting) -> SecondView:
    return lambda shared: (replace(shared.batch, ids_N=shared.masked.ids_N), None)


def _noise_view(objective: ContrastiveObjective, setting: Setting) -> SecondView:
    vocabulary = setting.vocabulary
    view = noisy_view(vocabulary.ordinary_V, MASK, vocabulary.separator, objective.noise)

    def second(shared: SharedBatch) -> tuple[TokenBatch, None]:
        return view(shared.batch, shared.generator), None

    return second


def _jitter_view(objective: ContrastiveObjective, _: Setting) -> SecondView:
    def second(shared: SharedBatch) -> tuple[TokenBatch, None]:
        batch = shared.batch
        seed = int(torch.randint(2**63 - 1, (1,), generator=shared.generator))
        offsets = np.concatenate([[0], np.cumsum(batch.layout.lengths())])
        amounts_N = jitter_amounts(batch.amounts_N.cpu().numpy(), offsets, objective.scale, np.random.default_rng(seed))
        return replace(batch, amounts_N=torch.from_numpy(amounts_N).to(batch.ids_N.device)), None

    return second


def _enumeration_view(_: ContrastiveObjective, setting: Setting) -> SecondView:
    return lambda shared: setting.part.other_way(shared.batch, shared.generator)


_SECOND_VIEWS: dict[str, Callable[[ContrastiveObjective, Setting], SecondView]] = {
    "dropout": _dropout_view,
    "noise": _noise_view,
    "jitter": _jitter_view,
    "enumeration": _enumeration_view,
}


def _from_step(name: str, step: StepFunction) -> TermLoss:
    """A term that shares nothing."""

    def loss(shared: SharedBatch) -> StepOutput:
        output = step(shared.model, shared.batch, shared.generator)
        return replace(output, metrics={name: (output.loss_sum, output.weight)})

    return loss


def _causal(_: Objective, setting: Setting) -> TermLoss:
    """Per predicted token."""
    return _from_step("causal", causal_step(setting.label_smoothing))


def _span(objective: Objective, setting: Setting) -> TermLoss:
    """Per predicted token. Targets start at padding, as `generate` does, and end with [SEP]."""
    assert isinstance(objective, SpanObjective)
    vocabulary = setting.vocabulary
    step = span_step(vocabulary.ordinary_V, vocabulary.sentinels, PAD, SEP, objective.spans, setting.label_smoothing)
    return _from_step("span", step)


def _denoising(objective: Objective, setting: Setting) -> TermLoss:
    """Per predicted token. Targets start at padding, as `generate` does, and end with [SEP]."""
    assert isinstance(objective, DenoisingObjective)
    vocabulary = setting.vocabulary
    step = denoising_step(
        vocabulary.ordinary_V, MASK, vocabulary.separator, objective.noise, setting.label_smoothing, PAD
    )
    return _from_step("denoising", step)


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
    "descriptors": Term(("matbert",), _descriptors),
    "fingerprint": Term(("matbert",), _fingerprint),
    "contrastive": Term(("matbert",), _contrastive, ContrastiveObjective),
    "causal": Term(("matgpt",), _causal),
    "span": Term(("matt5",), _span, SpanObjective),
    "denoising": Term(("matt5",), _denoising, DenoisingObjective),
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
