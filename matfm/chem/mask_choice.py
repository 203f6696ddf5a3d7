"""Which tokens to hide: single tokens, units that belong together, or spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout
from matfm.core.packed_index import rows_of_tokens

# N tokens, B sequences, U units, P memberships of a token in a unit, S segments, X tokens or units

MAX_SPAN = 10
"""Tokens of the longest span (Joshi et al. 2020)."""

_STOP = 0.2
"""Parameter of the geometric distribution of span lengths (Joshi et al. 2020)."""


@dataclass(frozen=True)
class Candidates:
    """Tokens that masks may fall on, on the CPU."""

    row_N: Tensor
    """Sequence of each token."""
    maskable_N: Tensor
    """False for special tokens."""
    chosen_row_B: Tensor
    """Sequences that get a mask."""


@dataclass(frozen=True)
class PackedUnits:
    """Tokens that are masked together. Units may overlap (fused rings) and may leave tokens out."""

    row_U: Tensor
    """Sequence of each unit."""
    unit_P: Tensor
    position_P: Tensor
    """Packed position of the token that is in unit `unit_P`."""

    @classmethod
    def from_classes(cls, class_N: Tensor, layout: PackedLayout) -> PackedUnits:
        """One unit for all tokens of one class in one sequence; class -1 is in no unit."""
        position_P = (class_N >= 0).nonzero()[:, 0]
        classes = int(class_N.max()) + 1 if len(class_N) else 1
        keys_U, unit_P = (rows_of_tokens(layout) * classes + class_N)[position_P].unique(return_inverse=True)
        return cls(keys_U // classes, unit_P, position_P)

    @classmethod
    def from_positions(
        cls, units: Sequence[Sequence[Sequence[int]]], layout: PackedLayout, before: int = 1, after: int = 1
    ) -> PackedUnits:
        """From each sequence's units, as lists of token positions counted without special tokens.

        Args:
            units: as from `molecule_units`, one entry a sequence, in the order of `layout`.
            layout: of the packed sequences with their special tokens.
            before: special tokens at the start of a sequence ([CLS]).
            after: special tokens at its end ([SEP]).

        Units that reach beyond a truncated sequence are left out: half a ring is no ring. Raises ValueError if
        `units` does not have one entry a sequence.
        """
        lengths = [length for count, length in layout.runs for _ in range(count)]
        firsts = layout.first_tokens().tolist()
        kept = [
            (row, [first + before + position for position in unit])
            for row, (row_units, first, length) in enumerate(zip(units, firsts, lengths, strict=True))
            for unit in row_units
            if unit and max(unit) < length - before - after
        ]
        sizes = torch.tensor([len(positions) for _, positions in kept], dtype=torch.long)
        return cls(
            torch.tensor([row for row, _ in kept], dtype=torch.long),
            torch.repeat_interleave(torch.arange(len(kept)), sizes),
            torch.tensor(list(chain.from_iterable(positions for _, positions in kept)), dtype=torch.long),
        )


def pick_tokens(tokens: Candidates, rate: float, generator: torch.Generator) -> Tensor:
    """Each token with chance `rate`, and at least one per chosen sequence. Boolean, shape (N,)."""
    draw_N = torch.rand(len(tokens.row_N), generator=generator)
    return _picked(draw_N, tokens.row_N, tokens.maskable_N, tokens.chosen_row_B, rate)


def pick_units(tokens: Candidates, units: PackedUnits, rate: float, generator: torch.Generator) -> Tensor:
    """Each unit with chance `rate`, and at least one per chosen sequence; sequences without a unit by single tokens."""
    maskable_P = tokens.maskable_N[units.position_P]
    eligible_U = torch.zeros(len(units.row_U), dtype=torch.bool).index_fill(0, units.unit_P[maskable_P], True)
    draw_U = torch.rand(len(units.row_U), generator=generator)
    picked_U = _picked(draw_U, units.row_U, eligible_U, tokens.chosen_row_B, rate)
    in_units_N = torch.zeros_like(tokens.maskable_N)
    in_units_N = in_units_N.index_fill(0, units.position_P[maskable_P & picked_U[units.unit_P]], True)
    has_unit_B = torch.zeros_like(tokens.chosen_row_B).index_fill(0, units.row_U[eligible_U], True)
    others = replace(tokens, chosen_row_B=tokens.chosen_row_B & ~has_unit_B)
    return in_units_N | pick_tokens(others, rate, generator)


def pick_spans(tokens: Candidates, rate: float, generator: torch.Generator) -> Tensor:
    """Spans of geometric length (SpanBERT, Joshi et al. 2020), so many that each token is hidden with chance `rate`.

    The chance is the same at the edges and in the middle. Spans lie between special tokens of one sequence. In a
    chosen sequence without any, one span starts at a random token (which comes on top of the rate).
    """
    start_chance = span_start_chance(rate)
    index_N = torch.arange(len(tokens.row_N))
    first_S, segment_end_N = _segments(tokens, index_N)
    draw_N = torch.rand(len(index_N), generator=generator).masked_fill(~tokens.maskable_N, 2.0)
    # No span crosses its segment's end, so one running maximum over all sequences tells what is covered.
    stop_N = torch.minimum(index_N + _span_lengths(index_N.shape, generator), segment_end_N)
    end_N = torch.where(draw_N < start_chance, stop_N, 0)
    # Spans that start before the segment, so that its first tokens have the same chance as all others.
    starts = torch.rand((len(first_S), MAX_SPAN - 1), generator=generator) < start_chance
    overhang = _span_lengths(starts.shape, generator) - torch.arange(1, MAX_SPAN)
    reach_S = torch.where(starts, overhang, 0).clamp(min=0).amax(dim=1)
    end_N = end_N.scatter_reduce(0, first_S, torch.minimum(first_S + reach_S, segment_end_N[first_S]), "amax")
    covered_N = _covered(end_N, index_N)
    empty_B = torch.ones_like(tokens.chosen_row_B).index_fill(0, tokens.row_N[covered_N], False)
    needed_N = _picked(draw_N, tokens.row_N, tokens.maskable_N, empty_B, 0.0)
    return _covered(torch.where(needed_N, stop_N, end_N), index_N) & tokens.chosen_row_B[tokens.row_N]


def span_start_chance(rate: float) -> float:
    """Chance that a span starts at a token, such that a token is covered by one or more with chance `rate`.

    Solves prod_d (1 - start · P(length > d)) = 1 - rate over the distances d = 0 … MAX_SPAN - 1 by bisection.
    """
    longer = [1.0, *(1 - _span_cdf()[:-1]).tolist()]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        uncovered = 1.0
        for share in longer:
            uncovered *= 1 - middle * share
        low, high = (middle, high) if uncovered > 1 - rate else (low, middle)
    return high if rate > 0 else 0.0


def _picked(draw_X: Tensor, row_X: Tensor, eligible_X: Tensor, chosen_row_B: Tensor, rate: float) -> Tensor:
    """Of the eligible in chosen rows: draws below `rate`, and the lowest draw of each row."""
    draw_X = draw_X.masked_fill(~eligible_X, 2.0)
    lowest_B = torch.full((len(chosen_row_B),), 2.0).scatter_reduce(0, row_X, draw_X, "amin")
    return eligible_X & chosen_row_B[row_X] & ((draw_X < rate) | (draw_X == lowest_B[row_X]))


def _segments(tokens: Candidates, index_N: Tensor) -> tuple[Tensor, Tensor]:
    """Runs of maskable tokens in a sequence: the first token of each, and for every token the end of its run."""
    inner_N = tokens.maskable_N
    same_row = tokens.row_N[1:] == tokens.row_N[:-1]
    joined_N = torch.cat([torch.zeros(1, dtype=torch.bool), inner_N[1:] & inner_N[:-1] & same_row])
    last_N = inner_N & ~joined_N.roll(-1)
    end_N = torch.where(last_N, index_N + 1, len(index_N)).flip(0).cummin(0).values.flip(0)
    return (inner_N & ~joined_N).nonzero()[:, 0], end_N


def _covered(end_N: Tensor, index_N: Tensor) -> Tensor:
    return end_N.cummax(0).values > index_N


def _span_cdf() -> Tensor:
    """P(length <= 1 … MAX_SPAN): geometric, normalised over the lengths allowed (mean 3.8, as in the paper)."""
    chance = _STOP * (1 - _STOP) ** torch.arange(MAX_SPAN, dtype=torch.float64)
    return chance.cumsum(0) / chance.sum()


def _span_lengths(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    draw = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    return 1 + torch.searchsorted(_span_cdf()[:-1].contiguous(), draw, right=True)
