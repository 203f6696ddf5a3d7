"""From hidden states of tokens to one vector per sequence."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from matfm.core.layout import PackedLayout


def _first_token(hidden_ND: Tensor, layout: PackedLayout) -> Tensor:
    return hidden_ND[layout.first_tokens(hidden_ND.device)]


POOLINGS: dict[str, Callable[[Tensor, PackedLayout], Tensor]] = {
    "mean": lambda hidden_ND, layout: layout.mean(hidden_ND, skip=1),
    "cls": _first_token,
}
"""Name to function of (N, D) hidden states and their layout, giving (B, D)."""
