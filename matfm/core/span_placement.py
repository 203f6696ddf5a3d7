"""Spans of given lengths at random places of packed sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from matfm.core.packed_index import random_places

# B sequences, S spans of all sequences


def place_spans(size_B: Tensor, lengths_S: Tensor, spans_B: Tensor, generator: torch.Generator) -> Tensor:
    """First place of every span: those of a sequence are laid out at random, in order, none touching the next.

    Every layout is equally likely.

    Args:
        size_B: places of each sequence.
        lengths_S: length of each span, 0 allowed, those of one sequence after the other.
        spans_B: number of spans of each sequence, at most one more than the places that they leave free.
        generator: on the CPU.
    """
    row_S = torch.arange(len(size_B)).repeat_interleave(spans_B)
    hidden_B = torch.zeros_like(size_B).index_add(0, row_S, lengths_S)
    before_S = random_places(size_B - hidden_B + 1, spans_B, generator)
    earlier_S = lengths_S.cumsum(0) - lengths_S
    return before_S + earlier_S - (hidden_B.cumsum(0) - hidden_B)[row_S]


def covered_places(size_B: Tensor, spans_B: Tensor, first_S: Tensor, lengths_S: Tensor) -> Tensor:
    """True for places inside a span, shape (sum of sizes,)."""
    offset_S = (size_B.cumsum(0) - size_B).repeat_interleave(spans_B) + first_S
    step = torch.zeros(int(size_B.sum()) + 1, dtype=torch.long)
    step.index_add_(0, offset_S, torch.ones_like(offset_S))
    step.index_add_(0, offset_S + lengths_S, -torch.ones_like(offset_S))
    return step.cumsum(0)[:-1] > 0
