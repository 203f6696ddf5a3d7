"""Multi-head attention within sequences and to a memory, through torch's fused kernels or step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matfm.core.attention_context import AttentionContext, AttentionRun
from matfm.core.recomputation import computed_again

# N tokens, B sequences, T queries, S keys, H heads, D width, d width of a head

Attend = Callable[[Tensor, Tensor, Tensor, AttentionRun, float, "float | None"], Tensor]
"""Queries (B, H, T, d), keys and values (B, H, S, d), what is seen, dropout, scale -> mixed values (B, H, T, d)."""


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, run: AttentionRun, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Torch's own kernels."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=run.mask, dropout_p=dropout, is_causal=run.causal, scale=scale
    )


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, run: AttentionRun, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """The same from the formula, with the whole map in memory."""
    return F.dropout(attention_map(query, key, run, scale), dropout) @ value


def attention_map(query: Tensor, key: Tensor, run: AttentionRun, scale: float | None = None) -> Tensor:
    """softmax(scale · q kᵀ + mask), (B, H, T, S). The scale is d ** -0.5 if None."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if run.causal:
        earlier = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~earlier, -torch.inf)
    if run.mask is not None:
        scores = scores.masked_fill(~run.mask, -torch.inf) if run.mask.dtype == torch.bool else scores + run.mask
    return scores.softmax(dim=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention within each sequence (Vaswani et al. 2017).

    Keys, queries and values come from one matrix. What is seen, and positions, are the context's.

    Args:
        width: D, a multiple of `heads`.
        heads: H.
        dropout: share of attention weights that are dropped in training.
        bias: of the linear maps.
        scale: factor on the scores, d ** -0.5 if None.
        attend: the kernel.
    """

    stacked: ClassVar[dict[str, int]] = {"qkv": 3}
    """Maps that lie one below the other in a matrix."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        scale: float | None = None,
        attend: Attend = fused_attention,
    ) -> None:
        super().__init__()
        _check(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.scale = scale
        self.attend = attend
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, hidden_ND: Tensor, context: AttentionContext, rows_M: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D), or to (M, D) for the given tokens, which attend to all of their sequence."""
        runs = zip(self.qkv(hidden_ND).split(context.sizes()), context.runs, strict=True)
        parts = [self._attend(qkv, run, context) for qkv, run in runs]
        if len(parts) == 1 or rows_M is not None:
            mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
            return self.out(mixed if rows_M is None else mixed[rows_M])
        # The kernels keep the parts for their own backward pass.
        mixed = torch.cat(parts)
        with computed_again(mixed, lambda: torch.cat(parts)):
            return self.out(mixed)

    def _attend(self, qkv: Tensor, run: AttentionRun, context: AttentionContext) -> Tensor:
        query, key, value = qkv.view(run.count, run.length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if run.rotation is not None:
            query, key = run.rotation(query), run.rotation(key)
        if context.cache is not None:
            key, value = context.cache.update(key, value, context.layer)
        if context.maps is not None:
            context.maps.append(attention_map(query, key, run, self.scale))
        dropout = self.dropout if self.training else 0.0
        return _tokens(self.attend(query, key, value, run, dropout, self.scale))


class CrossAttention(nn.Module):
    """Multi-head attention from each sequence to its memory, such as the encoder's output.

    Where runs carry rotations, scores depend on how far a key lies from the query's own place.

    Args: those of `SelfAttention`.
    """

    stacked: ClassVar[dict[str, int]] = {"kv": 2}
    """Maps that lie one below the other in a matrix."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        scale: float | None = None,
        attend: Attend = fused_attention,
    ) -> None:
        super().__init__()
        _check(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.scale = scale
        self.attend = attend
        self.q = nn.Linear(width, width, bias=bias)
        self.kv = nn.Linear(width, 2 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, hidden_ND: Tensor, context: AttentionContext) -> Tensor:
        """(N, D) to (N, D)."""
        memory = context.memory
        if memory is None:
            raise ValueError("attention to a memory needs a context with one")
        sizes = [run.count * run.length for run in memory.runs]
        mixed = []
        for query, (key, value), run in zip(
            self.q(hidden_ND).split(sizes), self._keys_values(context), memory.runs, strict=True
        ):
            query_BHTd = query.view(run.count, run.length, self.heads, -1).transpose(1, 2)
            if run.rotation is not None:
                query_BHTd = run.rotation(query_BHTd)
            if memory.maps is not None:
                memory.maps.append(attention_map(query_BHTd, key, run, self.scale))
            dropout = self.dropout if self.training else 0.0
            mixed.append(_tokens(self.attend(query_BHTd, key, value, run, dropout, self.scale)))
        return self.out(mixed[0] if len(mixed) == 1 else torch.cat(mixed))

    def _keys_values(self, context: AttentionContext) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each run, from the cache where they are known."""
        memory = context.memory
        assert memory is not None
        known = None if memory.cache is None else memory.cache.read(context.layer)
        if known is not None:
            return [known]
        pairs = []
        sizes = [run.count * run.keys for run in memory.runs]
        for both, run in zip(self.kv(memory.hidden_ND).split(sizes), memory.runs, strict=True):
            key, value = both.view(run.count, run.keys, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
            if run.key_rotation is not None:
                key = run.key_rotation(key)
            pairs.append((key, value))
            if memory.cache is not None:
                memory.cache.write(key, value, context.layer)
        return pairs


def _tokens(mixed_BHTd: Tensor) -> Tensor:
    return mixed_BHTd.transpose(1, 2).reshape(mixed_BHTd.shape[0] * mixed_BHTd.shape[2], -1)


def _check(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
