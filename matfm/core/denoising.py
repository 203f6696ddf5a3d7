"""BART's corruptions: masked and deleted tokens, infilled spans, permuted fragments (Lewis et al. 2020).

Each function takes the tokens as the one before left them, so they compose; `add_noise` does that. The target is the
sequence as it was. All is on the CPU; only the result of `add_noise` goes back to the device of the ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout
from matfm.core.packed_index import layout_of_rows, places_in_groups, random_ranks, rows_of_tokens
from matfm.core.span_placement import covered_places, place_spans
from matfm.errors import MatfmError

# N tokens, B sequences, C ordinary tokens, S spans, I insertions, X draws of lengths

_SPARE_DRAWS = 8
"""Span lengths drawn beyond one per token to hide: all of them 0 has chance e^-24 at a mean of 3."""


@dataclass(frozen=True)
class DenoisingConfig:
    """Which corruptions, in the order of their use. The defaults are BART's."""

    permuted: bool = True
    """Whether fragments between separators change places."""
    infilled: float = 0.3
    """Share of the ordinary tokens hidden in spans, of which each becomes one mask."""
    mean_length: float = 3.0
    """Mean of the Poisson distribution of span lengths; a span of length 0 is a mask put in."""
    masked: float = 0.0
    """Chance of each ordinary token to become a mask."""
    deleted: float = 0.0
    """Chance of each ordinary token to be left out."""

    def __post_init__(self) -> None:
        for name in ("infilled", "masked", "deleted"):
            if not 0 <= getattr(self, name) < 1:
                raise MatfmError(f"denoising.{name} is {getattr(self, name)}; it is a share in [0, 1)")
        if self.mean_length <= 0:
            raise MatfmError(f"denoising.mean_length is {self.mean_length}; it must be positive")


@dataclass(frozen=True)
class NoisyTokens:
    """Tokens of packed sequences in the course of corruption."""

    ids_N: Tensor
    row_N: Tensor
    """Sequence of each token, ascending."""
    source_N: Tensor
    """Packed position in the original, -1 for masks: where a token's amount is found."""
    ordinary_N: Tensor
    """False for special tokens and for masks: these are not touched any more."""
    sequences: int

    @classmethod
    def of(cls, ids_N: Tensor, layout: PackedLayout, ordinary_N: Tensor) -> NoisyTokens:
        """Of intact sequences."""
        ids_N = ids_N.cpu()
        return cls(ids_N, rows_of_tokens(layout), torch.arange(len(ids_N)), ordinary_N.cpu(), layout.sequences)

    @property
    def layout(self) -> PackedLayout:
        """Lengths differ between sequences that were as long before, so there are many runs."""
        return layout_of_rows(self.row_N, self.sequences)

    def take(self, index: Tensor) -> NoisyTokens:
        """Some of the tokens, in another order."""
        return NoisyTokens(
            self.ids_N[index], self.row_N[index], self.source_N[index], self.ordinary_N[index], self.sequences
        )

    def masked_at(self, positions: Tensor, mask: int) -> NoisyTokens:
        """Masks in place of the tokens at these positions."""
        return replace(
            self,
            ids_N=self.ids_N.index_fill(0, positions, mask),
            source_N=self.source_N.index_fill(0, positions, -1),
            ordinary_N=self.ordinary_N.index_fill(0, positions, False),
        )


def add_noise(
    ids_N: Tensor,
    layout: PackedLayout,
    corruptible_N: Tensor,
    mask: int,
    separator: int,
    config: DenoisingConfig,
    generator: torch.Generator,
) -> NoisyTokens:
    """Corrupt packed sequences; special tokens stay, and stay in order.

    Args:
        ids_N: packed token ids, on any device; ids and source positions of the result are on that device too.
        layout: of the sequences.
        corruptible_N: true for ordinary tokens.
        mask: id of the mask.
        separator: id of the token between fragments (the dot of a SMILES).
        config: which corruptions, and how strong.
        generator: on the CPU; the same state gives the same noise.
    """
    noisy = NoisyTokens.of(ids_N, layout, corruptible_N)
    if config.permuted:
        noisy = permute_fragments(noisy, separator, generator)
    if config.infilled:
        noisy = infill_spans(noisy, config.infilled, config.mean_length, mask, generator)
    if config.masked:
        noisy = mask_single_tokens(noisy, config.masked, mask, generator)
    if config.deleted:
        noisy = delete_tokens(noisy, config.deleted, generator)
    return replace(noisy, ids_N=noisy.ids_N.to(ids_N.device), source_N=noisy.source_N.to(ids_N.device))


def mask_single_tokens(noisy: NoisyTokens, share: float, mask: int, generator: torch.Generator) -> NoisyTokens:
    """Each ordinary token becomes a mask with chance `share`."""
    chosen_N = (torch.rand(len(noisy.ids_N), generator=generator) < share) & noisy.ordinary_N
    return noisy.masked_at(chosen_N.nonzero()[:, 0], mask)


def delete_tokens(noisy: NoisyTokens, share: float, generator: torch.Generator) -> NoisyTokens:
    """Each ordinary token is left out with chance `share`; of a sequence that would vanish one random token stays."""
    draw_N = torch.rand(len(noisy.ids_N), generator=generator).masked_fill(~noisy.ordinary_N, 2.0)
    highest_B = torch.zeros(noisy.sequences).scatter_reduce(0, noisy.row_N, draw_N, "amax")
    kept_N = (draw_N >= share) | (draw_N == highest_B[noisy.row_N])
    return noisy.take(kept_N.nonzero()[:, 0])


def infill_spans(
    noisy: NoisyTokens, share: float, mean_length: float, mask: int, generator: torch.Generator
) -> NoisyTokens:
    """Hide `share` of each sequence's ordinary tokens in spans of Poisson length, and put one mask for each span.

    The number of hidden tokens is rounded up or down at random, so that its mean is exact; the last span is cut to
    reach it. Spans never touch, and of spans that would not fit apart the last ones are left out. A special token
    inside a span stays, after the mask.
    """
    position_C = noisy.ordinary_N.nonzero()[:, 0]
    size_B = torch.bincount(noisy.row_N[position_C], minlength=noisy.sequences)
    draw_B = torch.rand(noisy.sequences, generator=generator, dtype=torch.float64)
    length_S, spans_B = _span_lengths((size_B * share + draw_B).long(), size_B, mean_length, generator)
    first_S = place_spans(size_B, length_S, spans_B, generator)
    row_S = torch.arange(noisy.sequences).repeat_interleave(spans_B)
    offset_S = (size_B.cumsum(0) - size_B)[row_S] + first_S
    covered_C = covered_places(size_B, spans_B, first_S, length_S)
    masked_C = torch.zeros_like(covered_C).index_fill(0, offset_S[length_S > 0], True)
    kept_N = torch.ones_like(noisy.ordinary_N).index_fill(0, position_C[covered_C & ~masked_C], False)
    # Keys between which masks are put in: token p has 2 p + 1, a mask before it 2 p. After the last ordinary token of
    # its sequence a mask has the key of one before the next sequence; the stable sort leaves it in front of those.
    inserted_S = length_S == 0
    at_end_I = (first_S == size_B[row_S])[inserted_S].long()
    key_I = 2 * (position_C[offset_S[inserted_S] - at_end_I] + at_end_I)
    order = torch.cat([2 * torch.arange(len(kept_N)) + 1, key_I])
    order = order.argsort(stable=True)
    order = order[torch.cat([kept_N, torch.ones_like(key_I, dtype=torch.bool)])[order]]
    return _with_masks(noisy.masked_at(position_C[masked_C], mask), row_S[inserted_S], mask).take(order)


def permute_fragments(noisy: NoisyTokens, separator: int, generator: torch.Generator) -> NoisyTokens:
    """Put the fragments between separators of each sequence in a random order."""
    position_C = noisy.ordinary_N.nonzero()[:, 0]
    row_C = noisy.row_N[position_C]
    separates_C = noisy.ids_N[position_C] == separator
    fragments_B = 1 + torch.bincount(row_C[separates_C], minlength=noisy.sequences)
    # Fragments are numbered through all sequences; a separator belongs to the one before it.
    fragment_C = separates_C.long().cumsum(0) - separates_C.long() + row_C
    first_B = fragments_B.cumsum(0) - fragments_B
    slot_of_fragment = first_B.repeat_interleave(fragments_B) + random_ranks(fragments_B, generator)
    slot_C = torch.where(separates_C, fragment_C, slot_of_fragment[fragment_C])
    order_C = (2 * slot_C + separates_C.long()).argsort(stable=True)
    order_N = torch.arange(len(noisy.ids_N)).index_copy(0, position_C, position_C[order_C])
    return noisy.take(order_N)


def _span_lengths(
    hidden_B: Tensor, size_B: Tensor, mean_length: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Poisson lengths until their sum is `hidden`, the last one cut; and how many each sequence has."""
    draws_B = torch.where(hidden_B > 0, hidden_B + _SPARE_DRAWS, 0)
    row_X = torch.arange(len(hidden_B)).repeat_interleave(draws_B)
    length_X = torch.poisson(torch.full((len(row_X),), mean_length), generator=generator).long()
    length_X[draws_B.cumsum(0)[draws_B > 0] - 1] = int(hidden_B.max())  # the sum is always reached
    drawn_B = torch.zeros_like(hidden_B).index_add(0, row_X, length_X)
    before_X = length_X.cumsum(0) - length_X - (drawn_B.cumsum(0) - drawn_B)[row_X]
    fits_X = places_in_groups(draws_B) <= (size_B - hidden_B)[row_X]
    used_X = (before_X < hidden_B[row_X]) & fits_X
    length_S = torch.minimum(length_X, hidden_B[row_X] - before_X)[used_X]
    return length_S, torch.bincount(row_X[used_X], minlength=len(hidden_B))


def _with_masks(noisy: NoisyTokens, row_I: Tensor, mask: int) -> NoisyTokens:
    """Masks of the given sequences behind all tokens."""
    return NoisyTokens(
        torch.cat([noisy.ids_N, torch.full_like(row_I, mask, dtype=noisy.ids_N.dtype)]),
        torch.cat([noisy.row_N, row_I]),
        torch.cat([noisy.source_N, torch.full_like(row_I, -1)]),
        torch.cat([noisy.ordinary_N, torch.zeros_like(row_I, dtype=torch.bool)]),
        noisy.sequences,
    )
