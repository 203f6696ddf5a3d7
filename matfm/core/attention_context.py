"""What the tokens of a batch may attend to: made once for a forward pass, shared by all blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from matfm.core.layout import PackedLayout
from matfm.core.positions import RelativeBias, Rotary, Rotation

# N packed tokens, B sequences, T queries, S keys, H heads, D width, d width of a head


class KeyValueCache(Protocol):
    """Keys and values of earlier tokens, by layer (Hugging Face's `Cache` is one)."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, H, T, d); returns all of them (B, H, S, d)."""
        ...


@dataclass(frozen=True)
class FixedKeysValues:
    """Keys and values before those of every sequence, the same for all: a `KeyValueCache` that keeps nothing."""

    keys_LHPd: Tensor
    """By layer; P of them."""
    values_LHPd: Tensor

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, d) behind the fixed ones, (B, H, P + S, d)."""
        count = keys.shape[0]
        return (
            torch.cat([self.keys_LHPd[layer].expand(count, -1, -1, -1), keys], dim=2),
            torch.cat([self.values_LHPd[layer].expand(count, -1, -1, -1), values], dim=2),
        )


class MemoryCache(Protocol):
    """Keys and values of a memory, which are the same at every step of generation."""

    def read(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values (B, H, S, d), None before they were written."""
        ...

    def write(self, keys: Tensor, values: Tensor, layer: int) -> None:
        """Keep them."""
        ...


@dataclass(frozen=True)
class AttentionRun:
    """A dense block of sequences of one length."""

    count: int
    length: int
    keys: int
    """Number of keys of each sequence: `length` within a sequence, another number for a memory or a cache."""
    mask: Tensor | None = None
    """Broadcast against (B, H, T, S): true where a query sees a key, or a number that is added to the score."""
    causal: bool = False
    """Queries see no later key. Only without a mask, which else says so itself."""
    rotation: Rotation | None = None
    """Of the queries, and of the keys within a sequence."""
    key_rotation: Rotation | None = None
    """Of the keys of a memory."""


@dataclass(frozen=True)
class Memory:
    """Tokens of other sequences that are attended to, such as an encoder's output."""

    hidden_ND: Tensor
    runs: tuple[AttentionRun, ...]
    cache: MemoryCache | None = None
    maps: list[Tensor] | None = None
    """Where given, each attention to the memory appends its weights (B, H, T, S), as self-attention does."""

    @classmethod
    def packed(
        cls, hidden_ND: Tensor, layout: PackedLayout, queries: PackedLayout, rotary: Rotary | None = None
    ) -> Memory:
        """Sequence i of `queries` attends to sequence i of the memory. Runs have one length on both sides."""
        pairs = zip(queries.lengths(), layout.lengths(), strict=True)
        runs = [(sum(1 for _ in group), length, keys) for (length, keys), group in groupby(pairs)]
        if rotary is None:
            return cls(hidden_ND, tuple(AttentionRun(count, length, keys) for count, length, keys in runs))
        positions = torch.arange(max(max(length, keys) for _, length, keys in runs), device=hidden_ND.device)
        turn = rotary(positions, hidden_ND.dtype)
        return cls(
            hidden_ND,
            tuple(
                AttentionRun(count, length, keys, rotation=turn.first(length), key_rotation=turn.first(keys))
                for count, length, keys in runs
            ),
        )

    @classmethod
    def padded(
        cls,
        hidden_BSD: Tensor,
        mask_BS: Tensor | None,
        queries_T: Tensor,
        cache: MemoryCache | None = None,
        rotary: Rotary | None = None,
    ) -> Memory:
        """The tokens at places `queries_T` of row i attend to the real tokens (mask 1) of row i of the memory."""
        count, keys = hidden_BSD.shape[:2]
        mask = None if mask_BS is None else mask_BS.bool()[:, None, None, :]
        run = AttentionRun(count, len(queries_T), keys, mask)
        if rotary is not None:
            slots_S = torch.arange(keys, device=hidden_BSD.device)[None]
            places = slots_S if mask_BS is None else (mask_BS.long().cumsum(dim=1) - 1).clamp_min(0)
            run = replace(
                run,
                rotation=rotary(queries_T, hidden_BSD.dtype),
                key_rotation=rotary(places[:, None, :], hidden_BSD.dtype),
            )
        return cls(hidden_BSD.flatten(0, 1), (run,), cache)


@dataclass(frozen=True)
class AttentionContext:
    """Runs of a batch's tokens, with the cache and the memory of the layer that is computed."""

    runs: tuple[AttentionRun, ...]
    cache: KeyValueCache | None = None
    memory: Memory | None = None
    layer: int = 0
    maps: list[Tensor] | None = None
    """Where given, each self-attention appends its weights (B, H, T, S), run by run, which costs a second pass."""

    @classmethod
    def packed(
        cls,
        layout: PackedLayout,
        like: Tensor,
        causal: bool = False,
        rotary: Rotary | None = None,
        bias: RelativeBias | None = None,
        memory: Memory | None = None,
    ) -> AttentionContext:
        """Each sequence attends to itself; positions restart at 0 in each. `like` gives device and type."""
        positions = torch.arange(max(length for _, length in layout.runs), device=like.device)
        rotation = rotary(positions, like.dtype) if rotary is not None else None
        scores = None
        if bias is not None:
            scores = bias(positions, positions)
            if causal:
                scores = scores.masked_fill(positions[None, :] > positions[:, None], -torch.inf)
        runs = tuple(
            AttentionRun(
                count,
                length,
                length,
                None if scores is None else scores[None, :, :length, :length].to(like.dtype),
                causal and scores is None,
                None if rotation is None else rotation.first(length),
            )
            for count, length in layout.runs
        )
        return cls(runs, memory=memory)

    def of_layer(self, layer: int) -> AttentionContext:
        """The same for another layer."""
        return replace(self, layer=layer)

    def sizes(self) -> list[int]:
        """Tokens in each run."""
        return [run.count * run.length for run in self.runs]

    @property
    def writes(self) -> bool:
        """Whether blocks leave keys and values in a cache, so that computing them twice would be wrong."""
        growing = self.cache is not None and not isinstance(self.cache, FixedKeysValues)
        return growing or (self.memory is not None and self.memory.cache is not None)


def causal_mask(mask_BS: Tensor | None, queries: int, keys: int, start: int | Tensor, like: Tensor) -> Tensor:
    """Which keys the padded queries see, (B or 1, 1, T, S) bool.

    Query t lies in slot `start + t`. It sees earlier slots that hold a real token (mask 1; the mask may
    be shorter than the cache), and itself, so that padding has finite values too.
    """
    slots_T = torch.arange(queries, device=like.device) + start
    slots_S = torch.arange(keys, device=like.device)
    earlier_TS = slots_S[None, :] <= slots_T[:, None]
    if mask_BS is None:
        return earlier_TS[None, None]
    real_BS = torch.nn.functional.pad(mask_BS.bool(), (0, keys - mask_BS.shape[1]))
    itself_TS = slots_S[None, :] == slots_T[:, None]
    return ((earlier_TS & real_BS[:, None, :]) | itself_TS)[:, None]
