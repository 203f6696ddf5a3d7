"""Learned vectors before the tokens of every sequence: at the input, in every layer, or as keys and values there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matfm.core.attention_context import AttentionContext, AttentionRun, FixedKeysValues
from matfm.core.positions import Rotary, Rotation
from matfm.core.transformer import PreNormBlock, TransformerStack

# N tokens, M of them, P learned vectors, L layers, B sequences, T tokens of one, H heads, D width, d width of a head

Stack = Callable[[Tensor, AttentionContext, "Tensor | None"], list[Tensor]]
"""Hidden states (N, D), what they see and which tokens are wanted, to the hidden states of all layers."""


class Prompt(nn.Module):
    """Prompt tuning: P learned tokens before each sequence, seen by all its tokens (Lester et al. 2021).

    The tokens keep the positions they have without a prompt. Rotary positions of the prompt are -P to -1; others are
    part of what is learned. Outputs are those of the tokens: the prompt's own are dropped, and in the last block not
    computed.

    Args:
        tokens_PD: what the prompt begins as.
        rotary: of the stack's attention.
    """

    def __init__(self, tokens_PD: Tensor, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens_PD.clone())
        self.rotary = rotary

    def forward(
        self,
        stack: Stack,
        blocks: Sequence[nn.Module],  # noqa: ARG002  (called as the others)
        hidden_ND: Tensor,
        context: AttentionContext,
        rows_M: Tensor | None = None,
    ) -> list[Tensor]:
        """What the stack gives for the tokens behind the prompt."""
        tokens_PD = self.tokens.to(hidden_ND.dtype)
        parts = zip(hidden_ND.split(context.sizes()), context.runs, strict=True)
        longer = torch.cat([_behind(tokens_PD, part, run) for part, run in parts])
        kept_N = self._places(context.runs, hidden_ND.device)
        runs = tuple(self._longer(run, hidden_ND) for run in context.runs)
        maps: list[Tensor] | None = None if context.maps is None else []
        wanted = kept_N if rows_M is None else kept_N[rows_M]
        states = stack(longer, replace(context, runs=runs, maps=maps), wanted)
        if context.maps is not None and maps is not None:
            context.maps.extend(map_BHTS[..., len(tokens_PD) :, :] for map_BHTS in maps)
        return [hidden_ND, *(state[kept_N] for state in states[1:-1]), states[-1]]

    def _places(self, runs: tuple[AttentionRun, ...], device: torch.device) -> Tensor:
        """Where the tokens are among tokens and prompts, (N,)."""
        length = self.tokens.shape[0]
        places, start = [], 0
        for run in runs:
            size = run.count * (length + run.length)
            block = torch.arange(start, start + size, device=device).view(run.count, length + run.length)
            places.append(block[:, length:].flatten())
            start = start + size
        return torch.cat(places)

    def _longer(self, run: AttentionRun, like: Tensor) -> AttentionRun:
        length = self.tokens.shape[0]
        rotation = run.rotation
        if rotation is not None and self.rotary is not None:
            own = self.rotary(torch.arange(-length, 0, device=like.device), like.dtype)
            rotation = Rotation(_before(own.cosine, rotation.cosine), _before(own.sine, rotation.sine))
        return replace(
            run,
            length=run.length + length,
            keys=run.keys + length,
            mask=_seen_before(run.mask, length),
            rotation=rotation,
        )


class PrefixVectors(nn.Module):
    """Learned keys and values of P places in every layer.

    Args:
        length: P.
        layers: L.
        heads: H.
        width: D.
        std: of the normal distribution that the numbers are drawn from.
    """

    def __init__(self, length: int, layers: int, heads: int, width: int, std: float) -> None:
        super().__init__()
        self.heads = heads
        self.keys = nn.Parameter(torch.empty(layers, length, width))
        self.values = nn.Parameter(torch.empty(layers, length, width))
        nn.init.normal_(self.keys, std=std)
        nn.init.normal_(self.values, std=std)


class Prefix(PrefixVectors):
    """Prefix tuning: P learned keys and values before those of the tokens, in every layer (Li & Liang 2021).

    They have no positions of their own: rotary attention does not turn them.
    """

    def forward(
        self,
        stack: Stack,
        blocks: Sequence[nn.Module],  # noqa: ARG002  (called as the others)
        hidden_ND: Tensor,
        context: AttentionContext,
        rows_M: Tensor | None = None,
    ) -> list[Tensor]:
        """What the stack gives with the prefix."""
        fixed = FixedKeysValues(
            _by_head(self.keys.to(hidden_ND.dtype), self.heads), _by_head(self.values.to(hidden_ND.dtype), self.heads)
        )
        return stack(hidden_ND, _behind_keys(context, fixed), rows_M)


class DeepPrompt(nn.Module):
    """Deep prompt tuning: P learned tokens before each sequence, others in every layer (VPT-deep, Jia et al. 2022).

    A layer's output at its prompt is dropped, for the next layer has a prompt of its own. So prompts act through the
    keys and values that the layers make of them, which are those of all sequences: no further token is computed.
    Rotary positions of the prompt are -P to -1.

    Args:
        tokens_LPD: what the prompts begin as.
        rotary: of the stack's attention.
    """

    def __init__(self, tokens_LPD: Tensor, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens_LPD.clone())
        self.rotary = rotary

    def forward(
        self,
        stack: Stack,
        blocks: Sequence[nn.Module],
        hidden_ND: Tensor,
        context: AttentionContext,
        rows_M: Tensor | None = None,
    ) -> list[Tensor]:
        """What the stack of these blocks gives for the tokens behind the prompts."""
        tokens_LPD = self.tokens.to(hidden_ND.dtype)
        heads = _pre_norm(blocks[0]).attention.heads
        pairs = [keys_and_values(block, tokens_PD) for block, tokens_PD in zip(blocks, tokens_LPD, strict=True)]
        keys, values = (_by_head(torch.stack(side), heads) for side in zip(*pairs, strict=True))
        if self.rotary is not None:
            positions = torch.arange(-tokens_LPD.shape[1], 0, device=hidden_ND.device)
            keys = self.rotary(positions, hidden_ND.dtype)(keys)
        return stack(hidden_ND, _behind_keys(context, FixedKeysValues(keys, values)), rows_M)


def keys_and_values(block: nn.Module, hidden_PD: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (P, D) that a block makes of its input, before any rotation."""
    part = _pre_norm(block)
    _, keys_PD, values_PD = part.attention.qkv(part.attention_norm(hidden_PD)).chunk(3, dim=-1)
    return keys_PD, values_PD


class AdaptedStack(TransformerStack):
    """A stack with named prompts or prefixes, of which the active one acts. It takes over the stack's parts.

    Args:
        stack: of an encoder.
    """

    def __init__(self, stack: TransformerStack) -> None:
        nn.Module.__init__(self)
        self.blocks, self.norm = stack.blocks, stack.norm
        self.added = nn.ModuleDict()
        self.active: str | None = None

    def forward(self, hidden_ND: Tensor, context: AttentionContext, rows_M: Tensor | None = None) -> list[Tensor]:
        """As the stack: hidden states of the tokens alone."""
        if self.active is None:
            return super().forward(hidden_ND, context, rows_M)
        states: list[Tensor] = self.added[self.active](super().forward, self.blocks, hidden_ND, context, rows_M)
        return states


def _pre_norm(block: nn.Module) -> PreNormBlock:
    if not isinstance(block, PreNormBlock):
        raise TypeError(f"deep prompts are for encoders of pre-norm blocks, not {type(block).__name__}")
    return block


def _by_head(vectors_LPD: Tensor, heads: int) -> Tensor:
    """(L, P, D) to (L, H, P, d)."""
    return vectors_LPD.unflatten(-1, (heads, -1)).transpose(1, 2)


def _behind_keys(context: AttentionContext, fixed: FixedKeysValues) -> AttentionContext:
    """The context of sequences that see P keys more, before their own."""
    length = fixed.keys_LHPd.shape[2]
    runs = tuple(replace(run, keys=run.keys + length, mask=_seen_before(run.mask, length)) for run in context.runs)
    return replace(context, runs=runs, cache=fixed)


def _behind(tokens_PD: Tensor, part_ND: Tensor, run: AttentionRun) -> Tensor:
    """Tokens of a run, each of its sequences behind the prompt."""
    tokens_BTD = part_ND.view(run.count, run.length, -1)
    return torch.cat([tokens_PD.expand(run.count, -1, -1), tokens_BTD], dim=1).flatten(0, 1)


def _before(first_Pd: Tensor, then: Tensor) -> Tensor:
    return torch.cat([first_Pd.expand(*then.shape[:-2], -1, -1), then], dim=-2)


def _seen_before(mask: Tensor | None, length: int) -> Tensor | None:
    """The mask of keys (B, 1, 1, S) with `length` more before them, which all see."""
    if mask is None:
        return None
    if mask.dtype != torch.bool or mask.shape[-2] != 1:
        raise ValueError("prompts are for encoders: their masks say which keys are real, for all queries alike")
    return F.pad(mask, (length, 0), value=True)
