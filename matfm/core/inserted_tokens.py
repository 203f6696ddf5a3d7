"""Tokens put behind the first one of packed sequences: what a text is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout
from matfm.core.objectives import masked_lm_loss, predicting_positions

# N tokens, M tokens with those put in, B sequences, C places to fill, V vocabulary

NOTHING = -1
"""Stands where no token is put in."""


@dataclass(frozen=True)
class InsertedTokens:
    """The sequences with further tokens, sorted by length."""

    ids_M: Tensor
    layout: PackedLayout
    inserted_M: Tensor
    """True for the tokens that were put in."""

    def causal_loss(self, logits_MV: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy (nats) of each token of the text, given those before; tokens put in are never predicted."""
        positions = predicting_positions(self.layout, self.ids_M.device)
        positions = positions[~self.inserted_M[positions + 1]]
        return masked_lm_loss(logits_MV[positions], self.ids_M[positions + 1], label_smoothing)


def insert_after_first(ids_N: Tensor, layout: PackedLayout, ids_BC: Tensor) -> InsertedTokens:
    """Put up to C tokens behind the first token of every sequence, in their order.

    Args:
        ids_N: packed sequences.
        layout: of these.
        ids_BC: tokens to put in, on the CPU; `NOTHING` leaves a place out.
    """
    places, lengths_B = ids_BC.shape[1], torch.tensor(layout.lengths())
    put_in_BC = ids_BC != NOTHING
    longer_B = lengths_B + put_in_BC.sum(dim=1)
    order_B = torch.argsort(longer_B, stable=True)
    rank_B = torch.empty_like(order_B)
    rank_B[order_B] = torch.arange(len(order_B))
    place_N = layout.positions()
    place_N = place_N + places * (place_N > 0)
    row_A, column_A = put_in_BC.nonzero(as_tuple=True)
    row_M = torch.cat([torch.repeat_interleave(rank_B, lengths_B), rank_B[row_A]])
    place_M = torch.cat([place_N, column_A + 1])
    order_M = torch.argsort(row_M * (int(lengths_B.max()) + places) + place_M)
    both_M = torch.cat([ids_N, ids_BC[put_in_BC].to(ids_N.device)])
    inserted_M = (order_M >= len(ids_N)).to(ids_N.device)
    return InsertedTokens(
        both_M[order_M.to(ids_N.device)], PackedLayout.from_lengths(longer_B[order_B].tolist()), inserted_M
    )
