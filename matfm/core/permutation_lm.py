"""Permutation language modelling: tokens are predicted in a random order of their places (XLNet, Yang et al. 2019).

Only the order changes; every token keeps its place, and with it its position embedding. Two streams run through the
model (section 2.3): the content stream knows each token itself, the query stream only its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout
from matfm.core.packed_index import lengths_of_sequences, random_ranks, rows_of_tokens

# N tokens, M predicted tokens, B sequences of a run, L its length


@dataclass(frozen=True)
class FactorisationOrder:
    """In which order the tokens of each sequence come to be known, and which of them are predicted."""

    rank_N: Tensor
    """Rank of each token among those of its sequence: 0 is known first."""
    positions_M: Tensor
    """Packed positions of the predicted tokens, ascending: in each sequence the last ones of the order."""
    labels_M: Tensor


def draw_factorisation_order(
    ids_N: Tensor, layout: PackedLayout, predictable_N: Tensor, one_in: float, generator: torch.Generator
) -> FactorisationOrder:
    """A uniformly random order of the ordinary tokens of each sequence, after its special tokens.

    Of n ordinary tokens the last n / `one_in` are predicted (K of section 2.3), rounded, but one at least and never
    the first token of the order, for which nothing would be known.

    Args:
        ids_N: packed token ids, on any device; the results are on that device too.
        layout: of the sequences.
        predictable_N: true for ordinary tokens; special tokens are known from the start, in their own order.
        one_in: at least 1; XLNet took 6 and 7.
        generator: on the CPU; the same state gives the same order.

    Raises:
        ValueError: `one_in` is below 1.
    """
    if one_in < 1:
        raise ValueError(f"one_in is {one_in}; at most all tokens are predicted, so it is at least 1")
    row_N = rows_of_tokens(layout)
    lengths_B = lengths_of_sequences(layout)
    ordinary_N = predictable_N.cpu()
    ordinary_B = torch.bincount(row_N[ordinary_N], minlength=layout.sequences)
    special_B = lengths_B - ordinary_B
    specials_so_far_N = (~ordinary_N).long().cumsum(0) - 1 - (special_B.cumsum(0) - special_B)[row_N]
    random_N = torch.zeros_like(row_N).masked_scatter(ordinary_N, random_ranks(ordinary_B, generator))
    rank_N = torch.where(ordinary_N, special_B[row_N] + random_N, specials_so_far_N)
    predicted_B = (ordinary_B / one_in).round().long().clamp(min=1).minimum(ordinary_B).minimum(lengths_B - 1)
    positions_M = (rank_N >= (lengths_B - predicted_B)[row_N]).nonzero()[:, 0].to(ids_N.device)
    return FactorisationOrder(rank_N.to(ids_N.device), positions_M, ids_N[positions_M])


def two_stream_masks(rank_BL: Tensor) -> tuple[Tensor, Tensor]:
    """What the tokens of a run may attend to: content and query stream, both (B, L, L), true where row sees column.

    The content stream sees itself and what is known earlier, the query stream only what is known earlier (equations
    3 and 4). The query of the first token of the order sees nothing; it is never predicted.
    """
    content_BLL = rank_BL[:, :, None] >= rank_BL[:, None, :]
    query_BLL = rank_BL[:, :, None] > rank_BL[:, None, :]
    return content_BLL, query_BLL


def packed_two_stream_masks(rank_N: Tensor, layout: PackedLayout) -> list[tuple[Tensor, Tensor]]:
    """`two_stream_masks` of every run of the layout."""
    runs = zip(rank_N.split(layout.sizes()), layout.runs, strict=True)
    return [two_stream_masks(rank.view(count, length)) for rank, (count, length) in runs]
