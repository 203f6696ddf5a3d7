"""What the models of all families share: names of weights, initial weights, and parts for positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init

from matfm.core.acceleration import checkpoint_activations, keep_activations
from matfm.core.bundled import bundled_or_same
from matfm.core.positions import LearnedPositions, NoPositions, Rotary, SinusoidalPositions
from matfm.models.heads import PropertyHead


class FamilyPreTrainedModel(PreTrainedModel):
    """Loading by name, initial weights, activation checkpointing by Hugging Face's switches."""

    supports_gradient_checkpointing = True
    gradient_checkpointing = False
    _no_split_modules = ["PreNormBlock", "PreNormCrossBlock"]
    _supports_sdpa = True

    @classmethod
    def from_pretrained(cls, name: Any, *arguments: Any, **options: Any) -> Any:
        """By bundled name, folder or Hub id."""
        return super().from_pretrained(bundled_or_same(str(name)), *arguments, **options)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        every_n_layers: int = 1,
    ) -> None:
        """What `activation_checkpointing_enable`, its older name and `TrainingArguments` come down to."""
        if enable:
            checkpoint_activations(self, every_n_layers, gradient_checkpointing_func)
        else:
            keep_activations(self)
        for module in self.modules():
            if isinstance(module, FamilyPreTrainedModel):
                module.gradient_checkpointing = enable

    def _wanted(self, hidden_states: bool | None, attentions: bool | None) -> tuple[bool, bool]:
        """Whether hidden states and attention maps are returned: as the call says, else as the configuration."""
        return (
            self.config.output_hidden_states if hidden_states is None else hidden_states,
            self.config.output_attentions if attentions is None else attentions,
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=std)
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            init.ones_(module.weight)
            if isinstance(module, nn.LayerNorm):
                init.zeros_(module.bias)
        elif isinstance(module, PropertyHead):
            for name, value in module.initial.items():
                init.constant_(getattr(module, name), value)


def mask_or_ones(mask_BT: Tensor | None, like: Tensor) -> Tensor:
    """The attention mask; without one, every token of `like` (B, T, …) is real."""
    return torch.ones(like.shape[:2], dtype=torch.long, device=like.device) if mask_BT is None else mask_BT


def position_parts(config: Any) -> tuple[nn.Module, Rotary | None]:
    """The part that adds positions to the input, and the one that turns queries and keys, of a checked config."""
    if config.position_embedding == "absolute":
        return LearnedPositions(config.max_position_embeddings, config.hidden_size), None
    if config.position_embedding == "sinusoidal":
        return SinusoidalPositions(), None
    if config.position_embedding == "rotary":
        return NoPositions(), Rotary(config.hidden_size // config.num_attention_heads, config.rotary_base)
    return NoPositions(), None
