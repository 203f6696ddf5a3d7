"""What padded tokens of a decoder see when earlier ones lie in one of Hugging Face's caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matfm.core.attention_context import AttentionContext, AttentionRun, Memory, causal_mask
from matfm.core.positions import RelativeBias, Rotary

# B sequences, T new tokens, S keys in the cache and new ones, H heads, d width of a head


def decoder_context(
    embeddings_BTD: Tensor,
    attention_mask: Tensor | None,
    cache: Any | None,
    position_ids: Tensor | None = None,
    rotary: Rotary | None = None,
    bias: RelativeBias | None = None,
    memory: Memory | None = None,
) -> AttentionContext:
    """One dense run of the new tokens.

    Args:
        embeddings_BTD: of the new tokens.
        attention_mask: (B, S), 1 = real token, or (B, 1, T, S) as Hugging Face makes them for static caches.
        cache: with `update`, `get_seq_length` and `get_mask_sizes`; None for a forward pass without one.
        position_ids: (B, T) or (1, T); from the mask if None, so that left padding does not count.
        rotary: turns queries and keys.
        bias: is added to the scores.
        memory: what is attended to besides.
    """
    count, length = embeddings_BTD.shape[:2]
    start = 0 if cache is None else cache.get_seq_length()
    keys = length if cache is None else cache.get_mask_sizes(length, 0)[0]
    slots_T = torch.arange(length, device=embeddings_BTD.device) + start
    if attention_mask is not None and attention_mask.ndim == 4:
        mask = attention_mask
    else:
        mask = causal_mask(attention_mask, length, keys, start, embeddings_BTD)
    if bias is not None:
        scores = bias(slots_T, torch.arange(keys, device=embeddings_BTD.device))[None].to(embeddings_BTD.dtype)
        mask = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    rotation = None
    if rotary is not None:
        positions = _positions(attention_mask, slots_T) if position_ids is None else position_ids
        rotation = rotary(positions[:, None, :], embeddings_BTD.dtype)
    return AttentionContext((AttentionRun(count, length, keys, mask, rotation=rotation),), cache, memory)


def _positions(attention_mask: Tensor | None, slots_T: Tensor) -> Tensor:
    """Number of real tokens before each new one, (B or 1, T)."""
    if attention_mask is None or attention_mask.ndim == 4:
        return slots_T[None]
    return (attention_mask.cumsum(dim=1) - 1).clamp_min(0)[:, -len(slots_T) :]


@dataclass(frozen=True)
class EncoderKeys:
    """Keys and values of the encoder's output in an `EncoderDecoderCache`, made at the first step."""

    cache: Any

    def read(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values (B, H, S, d), None at the first step."""
        if not self.cache.is_updated.get(layer):
            return None
        known = self.cache.cross_attention_cache.layers[layer]
        return known.keys, known.values

    def write(self, keys: Tensor, values: Tensor, layer: int) -> None:
        """Keep them for the steps to come."""
        self.cache.cross_attention_cache.update(keys, values, layer)
        self.cache.is_updated[layer] = True
