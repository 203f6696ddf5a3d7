"""What the objectives of pretraining share: their configuration, their setting, and what they compute of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from matfm.chem.mask_choice import PackedUnits
from matfm.chem.masking import MaskedTokens, MaskingConfig, mask_tokens
from matfm.core.batching import TokenBatch
from matfm.core.packed_index import rows_of_tokens
from matfm.core.step import StepOutput
from matfm.errors import MatfmError
from matfm.models.pooling import POOLINGS
from matfm.tasks.pretraining.rows import Part
from matfm.tasks.pretraining.vocabulary import PretrainingVocabulary

# N tokens, M masked tokens, B sequences, K targets, D width


@dataclass(frozen=True)
class Objective:
    """One term of the loss; `name` decides which."""

    name: str
    """masked, property, amounts, descriptors, fingerprint, contrastive, permutation, causal, span, denoising or
    translation."""
    weight: float = 1.0
    """Factor on the term's loss."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise MatfmError(f"objective {self.name!r}: weight is {self.weight}; it must be positive")

    @classmethod
    def class_of(cls, values: Mapping[str, Any]) -> type[Objective]:
        """The configuration that a section stands for, by its name."""
        from matfm.tasks.pretraining.objectives import TERMS  # they refer to this class

        name = values.get("name")
        if not isinstance(name, str) or name not in TERMS:
            raise MatfmError(f"objective: name is {name!r}; choose one of {', '.join(TERMS)}")
        return TERMS[name].config


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
    amounts: float = 0.0
    """Share of the rows whose amounts are hidden; those with a mask keep theirs."""


@dataclass(frozen=True)
class HiddenAmounts:
    """Amounts of a batch, those of some rows hidden."""

    amounts_N: Tensor
    positions_P: Tensor
    """Tokens whose amount is hidden."""
    row_B: Tensor
    """True for the rows without amounts."""


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
    def hidden_amounts(self) -> HiddenAmounts:
        """Rows without amounts, if the loss has the term; else the amounts as they are."""
        batch, share = self.batch, self.setting.amounts
        if not share:
            intact_B = torch.zeros_like(self.masked.masked_row_B)
            return HiddenAmounts(batch.amounts_N, batch.ids_N[:0], intact_B)
        draw_B = torch.rand(batch.layout.sequences, generator=self.generator)
        row_B = (draw_B < share).to(batch.ids_N.device) & ~self.masked.masked_row_B
        chosen_N = row_B[rows_of_tokens(batch.layout).to(row_B.device)] & (batch.amounts_N > 0)
        return HiddenAmounts(batch.amounts_N.masked_fill(chosen_N, 0.0), chosen_N.nonzero()[:, 0], row_B)

    @cached_property
    def hidden_ND(self) -> Tensor:  # noqa: N802 - the shape is part of the name
        """Of MatBERT's encoder."""
        return self.model.matbert.forward_packed(self.masked.ids_N, self.hidden_amounts.amounts_N, self.batch.layout)

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
        return POOLINGS[self.model.config.pooling](self.hidden_ND, self.batch.layout, 1)

    @cached_property
    def raw_BK(self) -> Tensor:  # noqa: N802
        """Of the property head."""
        return self.model.property_head(self.pooled_BD)

    @cached_property
    def targets_BK(self) -> Tensor:  # noqa: N802
        """In units of the head's scale; a row with a mask or without amounts is another material and has none."""
        other_B = self.masked.masked_row_B | self.hidden_amounts.row_B
        targets_BK = self.batch.targets_BK.masked_fill(other_B[:, None], math.nan)
        return self.model.property_head.scaled(targets_BK)


TermLoss = Callable[[SharedBatch], StepOutput]
