"""T5's span corruption: spans become sentinels in the input, and the target spells them out (Raffel et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout
from matfm.core.packed_index import layout_of_rows, places_in_groups, random_places, rows_of_tokens
from matfm.core.span_placement import covered_places, place_spans
from matfm.errors import MatfmError

# N tokens, H hidden tokens, M tokens of the targets, B sequences, S spans


@dataclass(frozen=True)
class SpanConfig:
    """How much is hidden."""

    density: float = 0.15
    """Share of the ordinary tokens of a sequence that are hidden, rounded, but one at least and never all."""
    mean_length: float = 3.0
    """Mean tokens of a span."""

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise MatfmError(f"spans.density is {self.density}; it is a share between 0 and 1")
        if self.mean_length < 1:
            raise MatfmError(f"spans.mean_length is {self.mean_length}; a span has at least 1 token")


@dataclass(frozen=True)
class SpanCorrupted:
    """Inputs and targets for an encoder-decoder; sequence b of one belongs to sequence b of the other."""

    input_ids_N: Tensor
    input_layout: PackedLayout
    input_source_N: Tensor
    """Packed position that each input token had, -1 for a sentinel: where its amount is found."""
    target_ids_M: Tensor
    """Start, then for each span its sentinel and its tokens, then end. The decoder predicts all but the start."""
    target_layout: PackedLayout


def corrupt_spans(
    ids_N: Tensor,
    layout: PackedLayout,
    corruptible_N: Tensor,
    sentinels: Tensor,
    start: int,
    end: int,
    config: SpanConfig,
    generator: torch.Generator,
) -> SpanCorrupted:
    """Replace spans of each sequence by the sentinels in turn.

    The number of hidden tokens and of spans depends on the number of ordinary tokens only, so sequences of equal
    length stay of equal length and the packed layouts keep few runs. Sequences with fewer than two ordinary tokens
    stay whole. Unlike in T5's own code, a span may come first and need not come last: every choice of so many
    spans with so many tokens is equally likely.

    Args:
        ids_N: packed token ids, on any device; the results are on that device too.
        layout: of the sequences.
        corruptible_N: true for ordinary tokens; special tokens are never hidden, and split a span.
        sentinels: ids of the sentinels, in the order of their use.
        start: id that every target begins with.
        end: id that every target ends with.
        config: density and mean length.
        generator: on the CPU; the same state gives the same spans.

    Raises:
        MatfmError: a sequence needs more sentinels than there are.
    """
    row_N = rows_of_tokens(layout)
    hidden_N = hidden_spans(row_N, layout.sequences, corruptible_N.cpu(), config, generator)
    first_N = hidden_N & ~_follows_hidden(hidden_N, row_N)
    spans_B = torch.bincount(row_N[first_N], minlength=layout.sequences)
    if (most := int(spans_B.max())) > len(sentinels):
        raise MatfmError(
            f"a sequence has {most} hidden spans but there are {len(sentinels)} sentinels; lower spans.density, raise "
            "spans.mean_length, or use a vocabulary with more sentinels"
        )
    sentinel_S = sentinels.to(ids_N.device)[places_in_groups(spans_B)]
    kept_N = ~hidden_N | first_N
    source_N = torch.where(first_N, -1, torch.arange(len(row_N)))[kept_N]
    with_sentinels_N = ids_N.index_copy(0, first_N.nonzero()[:, 0].to(ids_N.device), sentinel_S)
    hidden_H = hidden_N.nonzero()[:, 0]
    target_ids_M, target_layout = _targets(
        ids_N[hidden_H.to(ids_N.device)], row_N[hidden_H], first_N[hidden_H], sentinel_S, spans_B, (start, end)
    )
    return SpanCorrupted(
        with_sentinels_N[kept_N.to(ids_N.device)],
        layout_of_rows(row_N[kept_N], layout.sequences),
        source_N.to(ids_N.device),
        target_ids_M,
        target_layout,
    )


def _targets(
    ids_H: Tensor, row_H: Tensor, first_H: Tensor, sentinel_S: Tensor, spans_B: Tensor, ends: tuple[int, int]
) -> tuple[Tensor, PackedLayout]:
    """Start, each span's sentinel and hidden tokens, and end, for every sequence."""
    device = ids_H.device
    lengths_B = 2 + torch.bincount(row_H, minlength=len(spans_B)) + spans_B
    # Before a hidden token come the hidden ones before it, all sentinels so far, and start and end of every sequence.
    place_H = torch.arange(len(row_H)) + first_H.long().cumsum(0) + 2 * row_H + 1
    target_ids_M = torch.full((int(lengths_B.sum()),), ends[0], dtype=ids_H.dtype, device=device)
    target_ids_M[(lengths_B.cumsum(0) - 1).to(device)] = ends[1]
    target_ids_M[place_H.to(device)] = ids_H
    target_ids_M[(place_H[first_H] - 1).to(device)] = sentinel_S
    return target_ids_M, PackedLayout.from_lengths(lengths_B.tolist())


def hidden_spans(
    row_N: Tensor, sequences: int, corruptible_N: Tensor, config: SpanConfig, generator: torch.Generator
) -> Tensor:
    """Which tokens are hidden: boolean, shape (N,). All on the CPU."""
    ordinary_B = torch.bincount(row_N[corruptible_N], minlength=sequences)
    hidden_B = (ordinary_B * config.density).round().long().clamp(min=1).minimum((ordinary_B - 1).clamp(min=0))
    spans_B = (hidden_B / config.mean_length).round().long().clamp(min=1)
    spans_B = spans_B.minimum(hidden_B).minimum(ordinary_B - hidden_B + 1)
    return corruptible_N.masked_scatter(corruptible_N, _covered(ordinary_B, hidden_B, spans_B, generator))


def _covered(ordinary_B: Tensor, hidden_B: Tensor, spans_B: Tensor, generator: torch.Generator) -> Tensor:
    """Hidden places among the ordinary tokens: lengths are a random composition of the hidden tokens."""
    cuts_B = (spans_B - 1).clamp(min=0)
    row_S = torch.arange(len(spans_B)).repeat_interleave(spans_B)
    begin_S = torch.zeros(len(row_S), dtype=torch.long)
    later_S = places_in_groups(spans_B) > 0
    begin_S[later_S] = 1 + random_places((hidden_B - 1).clamp(min=0), cuts_B, generator)
    end_S = torch.cat([begin_S[1:], begin_S[:0].new_zeros(1)])[: len(begin_S)]
    last_S = places_in_groups(spans_B) == spans_B[row_S] - 1
    lengths_S = torch.where(last_S, hidden_B[row_S], end_S) - begin_S
    return covered_places(ordinary_B, spans_B, place_spans(ordinary_B, lengths_S, spans_B, generator), lengths_S)


def _follows_hidden(hidden_N: Tensor, row_N: Tensor) -> Tensor:
    """True where the token before is hidden and of the same sequence."""
    follows_N = torch.zeros_like(hidden_N)
    follows_N[1:] = hidden_N[:-1] & (row_N[1:] == row_N[:-1])
    return follows_N
