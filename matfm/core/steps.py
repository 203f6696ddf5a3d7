"""Step functions of the training objectives: what a model must offer, and how its loss is made from a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from matfm.core.batching import TokenBatch
from matfm.core.denoising import DenoisingConfig, add_noise
from matfm.core.layout import PackedLayout
from matfm.core.objectives import causal_lm_loss, info_nce_loss, masked_lm_loss
from matfm.core.permutation_lm import FactorisationOrder, draw_factorisation_order
from matfm.core.span_corruption import SpanConfig, corrupt_spans
from matfm.core.trainer import StepFunction, StepOutput

# N tokens, M tokens of the targets, B sequences, V vocabulary, D width

View = Callable[[TokenBatch, torch.Generator], TokenBatch]
"""The same sequences, in the same order, seen in another way."""


class CausalModel(Protocol):
    """A decoder."""

    def logits_packed(self, ids_N: Tensor, layout: PackedLayout) -> Tensor:
        """Logits (N, V) of the token after each one, from that token and those before it in its sequence."""
        ...


class EncoderDecoderModel(Protocol):
    """An encoder, and a decoder that reads from it."""

    def logits_packed(
        self, input_ids_N: Tensor, input_layout: PackedLayout, target_ids_M: Tensor, target_layout: PackedLayout
    ) -> Tensor:
        """Logits (M, V) of the target token after each one, from the input and the target up to that token."""
        ...


class PermutationModel(Protocol):
    """Two streams (see `two_stream_masks`)."""

    def logits_packed(self, ids_N: Tensor, layout: PackedLayout, order: FactorisationOrder) -> Tensor:
        """Logits (M, V) of the tokens at `order.positions_M`, from those known earlier."""
        ...


class EmbeddingModel(Protocol):
    """Sequences to vectors."""

    def embed_packed(self, ids_N: Tensor, amounts_N: Tensor, layout: PackedLayout) -> Tensor:
        """Embeddings (B, D)."""
        ...


def causal_step(label_smoothing: float = 0.0) -> StepFunction:
    """Next tokens; per predicted token."""

    def step(model: CausalModel, batch: TokenBatch, _: torch.Generator) -> StepOutput:
        logits_NV = model.logits_packed(batch.ids_N, batch.layout)
        return StepOutput(*causal_lm_loss(logits_NV, batch.ids_N, batch.layout, label_smoothing))

    return step


def span_step(
    ordinary_V: Tensor, sentinels: Tensor, start: int, end: int, config: SpanConfig, label_smoothing: float = 0.0
) -> StepFunction:
    """Hidden spans from the rest (T5); per predicted token. `ordinary_V` is false for ids never hidden."""

    def step(model: EncoderDecoderModel, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        ordinary_N = ordinary_V[batch.ids_N.cpu()]
        spans = corrupt_spans(batch.ids_N, batch.layout, ordinary_N, sentinels, start, end, config, rng)
        logits_MV = model.logits_packed(spans.input_ids_N, spans.input_layout, spans.target_ids_M, spans.target_layout)
        return StepOutput(*causal_lm_loss(logits_MV, spans.target_ids_M, spans.target_layout, label_smoothing))

    return step


def denoising_step(
    ordinary_V: Tensor,
    mask: int,
    separator: int,
    config: DenoisingConfig,
    label_smoothing: float = 0.0,
    start: int | None = None,
) -> StepFunction:
    """The whole sequence from a corrupted one (BART); per predicted token. Sequences begin with a start token.

    With `start` the decoder's input begins with that token in place of the sequence's own.
    """

    def step(model: EncoderDecoderModel, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        ordinary_N = ordinary_V[batch.ids_N.cpu()]
        noisy = add_noise(batch.ids_N, batch.layout, ordinary_N, mask, separator, config, rng)
        target_ids_N = batch.ids_N
        if start is not None:
            target_ids_N = target_ids_N.index_fill(0, batch.layout.first_tokens(target_ids_N.device), start)
        logits_MV = model.logits_packed(noisy.ids_N, noisy.layout, target_ids_N, batch.layout)
        return StepOutput(*causal_lm_loss(logits_MV, batch.ids_N, batch.layout, label_smoothing))

    return step


def permutation_step(ordinary_V: Tensor, one_in: float = 6.0, label_smoothing: float = 0.0) -> StepFunction:
    """The last tokens of a random order from those before them (XLNet); per predicted token."""

    def step(model: PermutationModel, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        ordinary_N = ordinary_V[batch.ids_N.cpu()]
        order = draw_factorisation_order(batch.ids_N, batch.layout, ordinary_N, one_in, rng)
        logits_MV = model.logits_packed(batch.ids_N, batch.layout, order)
        return StepOutput(*masked_lm_loss(logits_MV, order.labels_M, label_smoothing))

    return step


def contrastive_step(
    temperature: float = 0.05,
    view: View | None = None,
    groups: Callable[[TokenBatch], Tensor] | None = None,
    *,
    symmetric: bool = True,
    same_view: bool = False,
) -> StepFunction:
    """Two views of a sequence close, others far (see `info_nce_loss`); per sequence.

    Negatives come from the batch, so here, unlike elsewhere, accumulated small batches are not one big batch.

    Args:
        temperature: divides the cosines.
        view: makes each of the two views; None takes the batch twice, so that dropout alone tells the views
            apart (SimCSE, Gao et al. 2021).
        groups: a number for each sequence (B,); sequences of one number are no negatives of each other.
        symmetric: as in `info_nce_loss`.
        same_view: as in `info_nce_loss`.
    """

    def step(model: EmbeddingModel, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        views = [batch if view is None else view(batch, rng) for _ in range(2)]
        if any(not torch.equal(seen.rows_B, batch.rows_B) for seen in views):
            raise ValueError("a view must keep the sequences and their order")
        left_BD, right_BD = (model.embed_packed(seen.ids_N, seen.amounts_N, seen.layout) for seen in views)
        group_B = None if groups is None else groups(batch)
        return StepOutput(
            *info_nce_loss(left_BD, right_BD, temperature, symmetric=symmetric, same_view=same_view, group_B=group_B)
        )

    return step


def noisy_view(ordinary_V: Tensor, mask: int, separator: int, config: DenoisingConfig) -> View:
    """A view with tokens masked, deleted or moved; tokens keep their amounts, masks have the amount 0."""

    def view(batch: TokenBatch, rng: torch.Generator) -> TokenBatch:
        noisy = add_noise(batch.ids_N, batch.layout, ordinary_V[batch.ids_N.cpu()], mask, separator, config, rng)
        amounts_N = batch.amounts_N[noisy.source_N.clamp(min=0)].masked_fill(noisy.source_N < 0, 0.0)
        return replace(batch, ids_N=noisy.ids_N, amounts_N=amounts_N, layout=noisy.layout)

    return view
