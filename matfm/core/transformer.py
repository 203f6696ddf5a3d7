"""Encoder parts over packed sequences. A stack is built from blocks, a block from the parts handed in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matfm.core.layout import PackedLayout

# N tokens, B sequences, L length of a run, H heads, D width


class SelfAttention(nn.Module):
    """Multi-head self-attention within each sequence (Vaswani et al. 2017), without positions.

    Keys, queries and values come from one matrix. `dropout` acts on attention weights in training.
    """

    stacked_projections = 3
    """Maps that lie one below the other in `qkv.weight`."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, self.stacked_projections * width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden_ND: Tensor, layout: PackedLayout) -> Tensor:
        """(N, D) to (N, D)."""
        runs = zip(self.qkv(hidden_ND).split(layout.sizes()), layout.runs, strict=True)
        mixed = [self._attend(qkv, count, length) for qkv, (count, length) in runs]
        return self.out(mixed[0] if len(mixed) == 1 else torch.cat(mixed))

    def _attend(self, qkv: Tensor, count: int, length: int) -> Tensor:
        q_BHLd, k_BHLd, v_BHLd = qkv.view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed_BHLd = F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, dropout_p=dropout)
        return mixed_BHLd.transpose(1, 2).reshape(count * length, -1)


class FeedForward(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, width: int, inner: int, activation: nn.Module) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.activation = activation
        self.down = nn.Linear(inner, width)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.down(self.activation(self.up(hidden_ND)))


class PreNormBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))` (Xiong et al. 2020)."""

    def __init__(
        self,
        attention: SelfAttention,
        feed_forward: FeedForward,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_ND: Tensor, layout: PackedLayout) -> Tensor:
        """(N, D) to (N, D)."""
        hidden_ND = hidden_ND + self.dropout(self.attention(self.attention_norm(hidden_ND), layout))
        return hidden_ND + self.dropout(self.feed_forward(self.feed_forward_norm(hidden_ND)))


class EncoderStack(nn.Module):
    """Blocks and a final norm."""

    def __init__(self, blocks: list[PreNormBlock], norm: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, hidden_ND: Tensor, layout: PackedLayout) -> list[Tensor]:
        """Hidden states: the input, after each block but the last, and the normed output (blocks + 1 in all)."""
        states = [hidden_ND]
        for block in self.blocks:
            states.append(block(states[-1], layout))
        states[-1] = self.norm(states[-1])
        return states
