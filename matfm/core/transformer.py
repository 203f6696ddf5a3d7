"""Blocks and stacks, built from the parts handed in. They compute on packed sequences, or padded ones laid flat."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from matfm.core.attention import CrossAttention, SelfAttention
from matfm.core.attention_context import AttentionContext

# N tokens, M of them, D width


class PreNormBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))` (Xiong et al. 2020)."""

    def __init__(
        self,
        attention: SelfAttention,
        feed_forward: nn.Module,
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

    def forward(self, hidden_ND: Tensor, context: AttentionContext, rows_M: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D), or to (M, D) where only some tokens are wanted."""
        mixed = self.dropout(self.attention(self.attention_norm(hidden_ND), context, rows_M))
        hidden_MD = _chosen(hidden_ND, rows_M) + mixed
        return hidden_MD + self.dropout(self.feed_forward(self.feed_forward_norm(hidden_MD)))


class PreNormCrossBlock(nn.Module):
    """A pre-norm block that also attends to the context's memory, between attention and feed-forward."""

    def __init__(
        self,
        attention: SelfAttention,
        cross_attention: CrossAttention,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        cross_attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.cross_attention_norm = cross_attention_norm
        self.cross_attention = cross_attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_ND: Tensor, context: AttentionContext) -> Tensor:
        """(N, D) to (N, D)."""
        hidden_ND = hidden_ND + self.dropout(self.attention(self.attention_norm(hidden_ND), context))
        hidden_ND = hidden_ND + self.dropout(self.cross_attention(self.cross_attention_norm(hidden_ND), context))
        return hidden_ND + self.dropout(self.feed_forward(self.feed_forward_norm(hidden_ND)))


class PostNormBlock(nn.Module):
    """`norm(x + attention(x))`, then `norm(x + feed_forward(x))`: the original transformer (Vaswani et al. 2017)."""

    def __init__(
        self,
        attention: SelfAttention,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = attention_norm
        self.feed_forward = feed_forward
        self.feed_forward_norm = feed_forward_norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_ND: Tensor, context: AttentionContext, rows_M: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D), or to (M, D) where only some tokens are wanted."""
        mixed = self.dropout(self.attention(hidden_ND, context, rows_M))
        hidden_MD = self.attention_norm(_chosen(hidden_ND, rows_M) + mixed)
        return self.feed_forward_norm(hidden_MD + self.dropout(self.feed_forward(hidden_MD)))


BLOCKS = (PreNormBlock, PreNormCrossBlock, PostNormBlock)
"""Every kind of block: optimizers look for the matrices inside."""


class TransformerStack(nn.Module):
    """Blocks and a final norm (`nn.Identity()` after post-norm blocks). The context makes it encoder or decoder."""

    def __init__(self, blocks: Sequence[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, hidden_ND: Tensor, context: AttentionContext, rows_M: Tensor | None = None) -> list[Tensor]:
        """Hidden states: the input, after each block but the last, and the normed output (blocks + 1 in all).

        Where only the output of some tokens is wanted (`rows_M`), the last block computes no others: its output
        is (M, D). The values are the same; masked-token prediction at a rate of 15 % spares most of a block.
        """
        states = [hidden_ND]
        for layer, block in enumerate(self.blocks):
            chosen = () if rows_M is None or layer + 1 < len(self.blocks) else (rows_M,)
            states.append(block(states[-1], context.of_layer(layer), *chosen))
        states[-1] = self.norm(states[-1])
        return states


def _chosen(hidden_ND: Tensor, rows_M: Tensor | None) -> Tensor:
    return hidden_ND if rows_M is None else hidden_ND[rows_M]
