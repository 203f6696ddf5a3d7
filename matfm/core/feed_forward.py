"""The part of a block that acts on every token alone."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, width: int, inner: int, activation: nn.Module, bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner, bias=bias)
        self.activation = activation
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.down(self.activation(self.up(hidden_ND)))


class GatedFeedForward(nn.Module):
    """`down(activation(gate(x)) * up(x))` (Shazeer 2020): SwiGLU with `nn.SiLU`, GEGLU with `nn.GELU`.

    Gate and up are one matrix, the gate's rows first. `dropout` acts on the product.
    """

    stacked: ClassVar[dict[str, int]] = {"gate_up": 2}
    """Maps that lie one below the other in a matrix."""

    def __init__(self, width: int, inner: int, activation: nn.Module, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=bias)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        gate, up = self.gate_up(hidden_ND).chunk(2, dim=-1)
        return self.down(self.dropout(self.activation(gate) * up))
