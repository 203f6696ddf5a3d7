"""From hidden states of tokens to one vector per sequence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout

# N packed tokens, B sequences, D width


def _mean(hidden_ND: Tensor, layout: PackedLayout, special: int) -> Tensor:
    return layout.mean(hidden_ND, special)


def _mean_and_maximum(hidden_ND: Tensor, layout: PackedLayout, special: int) -> Tensor:
    return torch.cat([layout.mean(hidden_ND, special), layout.maximum(hidden_ND, special)], dim=1)


def _first_token(hidden_ND: Tensor, layout: PackedLayout, _: int) -> Tensor:
    return hidden_ND[layout.first_tokens(hidden_ND.device)]


POOLINGS: dict[str, Callable[[Tensor, PackedLayout, int], Tensor]] = {
    "mean": _mean,
    "mean-max": _mean_and_maximum,
    "cls": _first_token,
}
"""Name to function of (N, D) hidden states, their layout and the number of special tokens before each sequence, which
only `cls` looks at; giving (B, D), or (B, 2 D) of mean-max."""


def pooled_width(pooling: str, width: int) -> int:
    """Width of the vectors that a pooling makes of hidden states of that width."""
    return 2 * width if pooling == "mean-max" else width
