"""Prompts and prefixes for encoders of Hugging Face: through `inputs_embeds`, and through `past_key_values`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from matfm.core.prompts import PrefixVectors
from matfm.errors import MatfmError

# B sequences, T tokens, P learned vectors, L layers, H heads, D width, d width of a head

Call = Callable[..., Any]
"""The wrapped encoder, called with keywords."""


class ForeignPrompt(nn.Module):
    """Prompt tuning: P learned tokens before each sequence, as PEFT's `PromptTuning` puts them.

    They take the first P positions. Outputs are those of the tokens.

    Args:
        tokens_PD: what the prompt begins as.
    """

    def __init__(self, tokens_PD: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens_PD.clone())

    def forward(self, encoder: Call, embedding: nn.Module, ids_BT: Tensor, mask_BT: Tensor, **inputs: Any) -> Any:
        """What the encoder returns for the tokens behind the prompt."""
        embedded_BTD = embedding(ids_BT)
        prompt_BPD = self.tokens.to(embedded_BTD.dtype).expand(len(ids_BT), -1, -1)
        output = encoder(
            inputs_embeds=torch.cat([prompt_BPD, embedded_BTD], dim=1),
            attention_mask=_longer(mask_BT, len(self.tokens)),
            **inputs,
        )
        return _cut(output, len(self.tokens))


class ForeignPrefix(PrefixVectors):
    """Prefix tuning: P learned keys and values before those of the tokens, in every layer, as PEFT's `PrefixTuning`."""

    def forward(self, encoder: Call, embedding: nn.Module, ids_BT: Tensor, mask_BT: Tensor, **inputs: Any) -> Any:
        """What the encoder returns with the prefix."""
        embedded_BTD = embedding(ids_BT)
        cache = DynamicCache()
        for layer, (keys_PD, values_PD) in enumerate(zip(self.keys, self.values, strict=True)):
            pair = (self._by_head(side_PD, embedded_BTD) for side_PD in (keys_PD, values_PD))
            cache.update(*pair, layer)
        mask = _longer(mask_BT, self.keys.shape[1])
        return encoder(input_ids=ids_BT, attention_mask=mask, past_key_values=cache, **inputs)

    def _by_head(self, vectors_PD: Tensor, like: Tensor) -> Tensor:
        vectors_HPd = vectors_PD.to(like.dtype).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        return vectors_HPd.expand(len(like), -1, -1, -1)


class PromptedInput(nn.Module):
    """Named prompts and prefixes before an encoder, of which the active one acts."""

    def __init__(self) -> None:
        super().__init__()
        self.added = nn.ModuleDict()
        self.active: str | None = None

    def forward(self, encoder: Call, embedding: nn.Module, ids_BT: Tensor, mask_BT: Tensor, **inputs: Any) -> Any:
        """What the encoder returns for padded tokens."""
        if self.active is None:
            return encoder(input_ids=ids_BT, attention_mask=mask_BT, **inputs)
        return self.added[self.active](encoder, embedding, ids_BT, mask_BT, **inputs)


@torch.no_grad()
def keys_and_values_of(encoder: Any, tokens_PD: Tensor, heads: int, layers: int) -> tuple[Tensor, Tensor]:
    """Keys and values (L, P, D) that tokens, each a sequence of its own, have in a frozen encoder.

    Raises:
        MatfmError: the encoder does not take `past_key_values`, so that it can have no prefix.
    """
    cache = DynamicCache()
    try:
        with without_dropout(encoder):
            encoder(inputs_embeds=tokens_PD[:, None], past_key_values=cache, return_dict=True)
        sides = [[getattr(kept, side) for kept in cache.layers] for side in ("keys", "values")]
        stacked = [torch.stack(of_layers)[:, :, :, 0].flatten(2) for of_layers in sides]  # (L, P, H, 1, d) to (L, P, D)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise MatfmError(_no_prefix(encoder)) from error
    shape = (layers, len(tokens_PD), tokens_PD.shape[1])
    if any(side.shape != shape for side in stacked) or cache.layers[0].keys.shape[1] != heads:
        raise MatfmError(_no_prefix(encoder))
    return stacked[0], stacked[1]


@torch.no_grad()
def check_prefix(encoder: Any, prefix: ForeignPrefix, token: int) -> None:
    """Raise MatfmError where a prefix does nothing, or cannot be computed."""
    ids_BT = torch.full((1, 2), token, device=prefix.keys.device)
    mask_BT = torch.ones_like(ids_BT)
    try:
        with without_dropout(encoder):
            plain = encoder(input_ids=ids_BT, attention_mask=mask_BT, return_dict=True).last_hidden_state
            output = prefix(encoder, encoder.get_input_embeddings(), ids_BT, mask_BT, return_dict=True)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise MatfmError(_no_prefix(encoder)) from error
    if output.last_hidden_state.shape != plain.shape or torch.equal(output.last_hidden_state, plain):
        raise MatfmError(_no_prefix(encoder))


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, and put back."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _no_prefix(encoder: Any) -> str:
    name = type(encoder).__name__
    return f"{name} does not take the keys and values of a prefix (past_key_values); choose prompt, lora or adapter"


def _longer(mask_BT: Tensor, length: int) -> Tensor:
    return torch.cat([mask_BT.new_ones(len(mask_BT), length), mask_BT], dim=1)


def _cut(output: Any, length: int) -> Any:
    """Outputs of the tokens behind the prompt; attention maps keep the prompt among their keys."""
    output.last_hidden_state = output.last_hidden_state[:, length:]
    if output.get("hidden_states") is not None:
        output.hidden_states = tuple(state[:, length:] for state in output.hidden_states)
    if output.get("attentions") is not None:
        output.attentions = tuple(weights[:, :, length:] for weights in output.attentions)
    return output
