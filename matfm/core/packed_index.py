"""Where the tokens of packed sequences are, and random choices within each sequence, without a loop over tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout

# N tokens, B sequences (or other groups), C chosen places


def lengths_of_sequences(layout: PackedLayout) -> Tensor:
    """Tokens of each sequence, shape (B,)."""
    counts, lengths = torch.tensor(layout.runs, dtype=torch.long).view(-1, 2).T
    return lengths.repeat_interleave(counts)


def rows_of_tokens(layout: PackedLayout) -> Tensor:
    """Sequence of each packed token, shape (N,)."""
    return torch.arange(layout.sequences).repeat_interleave(lengths_of_sequences(layout))


def places_in_groups(sizes_B: Tensor) -> Tensor:
    """0, 1, … size - 1 for each group, one after the other; shape (sum of sizes,)."""
    starts_B = sizes_B.cumsum(0) - sizes_B
    return torch.arange(int(sizes_B.sum())) - starts_B.repeat_interleave(sizes_B)


def layout_of_rows(row_N: Tensor, sequences: int) -> PackedLayout:
    """Layout of tokens whose sequences are given in ascending order. Raises ValueError for an empty sequence."""
    return PackedLayout.from_lengths(torch.bincount(row_N, minlength=sequences).tolist())


def random_ranks(sizes_B: Tensor, generator: torch.Generator) -> Tensor:
    """A uniformly random permutation of 0 … size - 1 for each group, shape (sum of sizes,)."""
    group_N = torch.arange(len(sizes_B)).repeat_interleave(sizes_B)
    # Float64 leaves the draws of a million groups 33 bits each, so that equal draws do not bias the order.
    draw_N = torch.rand(len(group_N), generator=generator, dtype=torch.float64)
    order_N = torch.argsort(group_N + draw_N)
    return torch.empty_like(order_N).index_copy(0, order_N, places_in_groups(sizes_B))


def random_places(sizes_B: Tensor, counts_B: Tensor, generator: torch.Generator) -> Tensor:
    """`count` of the places 0 … size - 1 of each group, ascending, every set equally likely; shape (sum of counts,)."""
    chosen_N = random_ranks(sizes_B, generator) < counts_B.repeat_interleave(sizes_B)
    return places_in_groups(sizes_B)[chosen_N]
