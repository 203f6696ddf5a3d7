"""The two streams of a permutation language model as one packed batch, which any encoder computes (XLNet, section 2.3).

Behind the tokens of each sequence lies one query for each token that is predicted. A query has its token's place but
not its identity, and no one attends to it, so that blocks need no second set of weights and no other code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matfm.core.attention_context import AttentionContext, AttentionRun
from matfm.core.layout import PackedLayout
from matfm.core.packed_index import lengths_of_sequences, rows_of_tokens
from matfm.core.permutation_lm import FactorisationOrder, packed_two_stream_masks
from matfm.core.positions import Rotary
from matfm.errors import MatfmError

# N tokens, M predicted tokens, P = N + M places, B sequences of a run, L their length with queries, D width


@dataclass(frozen=True)
class TwoStreams:
    """Where tokens and queries lie."""

    layout: PackedLayout
    """Of the sequences with their queries."""
    source_P: Tensor
    """What lies at each place: token i of the batch, or N + j for the query of the j-th predicted token."""
    queries_M: Tensor
    """Places of the queries, in the order of the predicted tokens."""
    positions_P: Tensor
    """Position, in its sequence, of each token and of the token that a query stands for."""
    rank_P: Tensor
    """Their ranks in the order."""

    @classmethod
    def join(cls, order: FactorisationOrder, layout: PackedLayout) -> TwoStreams:
        """Put the queries of the predicted tokens behind the tokens of their sequence.

        Raises:
            MatfmError: the first token of an order is predicted.
        """
        predicted_M, device = order.positions_M, order.rank_N.device
        if bool((order.rank_N[predicted_M] == 0).any()):
            raise MatfmError("the first token of an order cannot be predicted: nothing is known before it")
        row_N = rows_of_tokens(layout)
        row_M = row_N[predicted_M.cpu()]
        source_P = torch.cat([row_N, row_M]).argsort(stable=True)
        lengths_B = lengths_of_sequences(layout) + torch.bincount(row_M, minlength=layout.sequences)
        source_P, queries_M = source_P.to(device), source_P.argsort()[layout.tokens :].to(device)
        token_P = torch.cat([torch.arange(layout.tokens, device=device), predicted_M])[source_P]
        positions_P, rank_P = layout.positions(device)[token_P], order.rank_N[token_P]
        return cls(PackedLayout.from_lengths(lengths_B.tolist()), source_P, queries_M, positions_P, rank_P)

    def hidden(self, content_ND: Tensor, query_D: Tensor) -> Tensor:
        """Embedded tokens and the embedding of every query, joined; (P, D)."""
        queries_MD = query_D.expand(len(self.queries_M), -1)
        return torch.cat([content_ND, queries_MD])[self.source_P]

    def context(self, like: Tensor, rotary: Rotary | None = None) -> AttentionContext:
        """Tokens see themselves and what is known earlier, queries only what is known earlier, nobody a query."""
        is_query_P = torch.zeros_like(self.rank_P, dtype=torch.bool).index_fill(0, self.queries_M, True)
        sizes = self.layout.sizes()
        parts = zip(is_query_P.split(sizes), self.positions_P.split(sizes), strict=True)
        masks = packed_two_stream_masks(self.rank_P, self.layout)
        runs = []
        for (count, length), (is_query, position), (content_BLL, query_BLL) in zip(
            self.layout.runs, parts, masks, strict=True
        ):
            is_query_BL = is_query.view(count, length)
            seen_BLL = torch.where(is_query_BL[:, :, None], query_BLL, content_BLL) & ~is_query_BL[:, None, :]
            rotation = None if rotary is None else rotary(position.view(count, 1, length), like.dtype)
            runs.append(AttentionRun(count, length, length, seen_BLL[:, None], rotation=rotation))
        return AttentionContext(tuple(runs))
