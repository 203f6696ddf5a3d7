"""MatGPT: a causal decoder with rotary positions, RMSNorm and SwiGLU (the architecture of Llama)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from matfm.core.attention import SelfAttention
from matfm.core.attention_context import AttentionContext
from matfm.core.feed_forward import GatedFeedForward
from matfm.core.layout import PackedLayout, PaddedIndex
from matfm.core.objectives import IGNORED, next_token_loss
from matfm.core.positions import Rotary
from matfm.core.transformer import PreNormBlock, TransformerStack
from matfm.models.decoding import decoder_context
from matfm.models.matgpt_config import MatGPTConfig
from matfm.models.pretrained import FamilyPreTrainedModel, mask_or_ones

# N packed tokens, B sequences, T padded length, D width, V vocabulary


class MatGPTPreTrainedModel(FamilyPreTrainedModel):
    """Configuration and prefix of all MatGPT classes."""

    config_class = MatGPTConfig
    base_model_prefix = "matgpt"
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]


class MatGPTModel(MatGPTPreTrainedModel):
    """Embeddings and decoder stack."""

    def __init__(self, config: MatGPTConfig) -> None:
        super().__init__(config)
        width, heads, epsilon = config.hidden_size, config.num_attention_heads, config.rms_norm_eps
        self.embed_tokens = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.rotary = Rotary(width // heads, config.rotary_base)
        self.decoder = TransformerStack(
            [
                PreNormBlock(
                    SelfAttention(width, heads, config.attention_probs_dropout_prob, bias=False),
                    GatedFeedForward(width, config.intermediate_size, nn.SiLU(), bias=False),
                    nn.RMSNorm(width, eps=epsilon),
                    nn.RMSNorm(width, eps=epsilon),
                    config.hidden_dropout_prob,
                )
                for _ in range(config.num_hidden_layers)
            ],
            nn.RMSNorm(width, eps=epsilon),
        )
        self.post_init()

    def forward_packed(self, ids_N: Tensor, layout: PackedLayout) -> Tensor:
        """The fast path: packed tokens to hidden states (N, D)."""
        return self._decode_packed(self.embed_tokens(ids_N), layout)[-1]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """The Hugging Face path: padded (B, T) batches, padding on either side.

        Without cache, explicit positions and attention maps the batch is packed, and hidden states are zero at padding.
        """
        embeddings = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        with_states, with_maps = self._wanted(output_hidden_states, output_attentions)
        maps: list[Tensor] | None = [] if with_maps else None
        if past_key_values is None and position_ids is None and maps is None:
            index = PaddedIndex.from_mask(mask_or_ones(attention_mask, embeddings))
            states = self._decode_packed(index.pack(embeddings), index.layout)
            padded = tuple(index.unpack(state) for state in states)
        else:
            context = decoder_context(embeddings, attention_mask, past_key_values, position_ids, self.rotary)
            context = replace(context, maps=maps)
            padded = tuple(state.view_as(embeddings) for state in self.decoder(embeddings.flatten(0, 1), context))
        return BaseModelOutputWithPast(
            last_hidden_state=padded[-1],
            past_key_values=past_key_values,
            hidden_states=padded if with_states else None,
            attentions=None if maps is None else tuple(maps),
        )

    def layers_from_top(self, name: str) -> int:
        """Distance of a parameter from the head: 0 outside the decoder, 1 the last block, then downwards."""
        depth = self.config.num_hidden_layers
        block = re.search(r"decoder\.blocks\.(\d+)\.", name)
        if block:
            return depth - int(block.group(1))
        return depth + 1 if "embed_" in name else 0

    def _decode_packed(self, hidden_ND: Tensor, layout: PackedLayout) -> list[Tensor]:
        return self.decoder(hidden_ND, AttentionContext.packed(layout, hidden_ND, causal=True, rotary=self.rotary))


class MatGPTForCausalLM(MatGPTPreTrainedModel, GenerationMixin):
    """Predicts the next token, and generates.

    A prompt for `generate` begins with [CLS] and has no [SEP], which ends a sequence:
    `tokenizer("[CLS]CC", add_special_tokens=False)`. Without a prompt, `generate` starts at [CLS].
    """

    _tied_weights_keys = {"lm_head.weight": "matgpt.embed_tokens.weight"}

    def __init__(self, config: MatGPTConfig) -> None:
        super().__init__(config)
        self.matgpt = MatGPTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def logits_packed(self, ids_N: Tensor, layout: PackedLayout) -> Tensor:
        """The fast path: packed tokens to logits (N, V). Row i scores the token after token i."""
        return self.lm_head(self.matgpt.forward_packed(ids_N, layout))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **inputs: Any,
    ) -> CausalLMOutputWithPast:
        """`labels` (B, T) are the input ids, -100 where there is nothing to predict; they are shifted here.

        The loss is the mean cross-entropy in nats, or its sum over `num_items_in_batch`. `logits_to_keep`
        leaves all but the last logits out (0 keeps all).
        """
        output = self.matgpt(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache, **inputs
        )
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            total, weight = next_token_loss(logits, _after_real_tokens(labels, attention_mask))
            loss = total / (weight if num_items_in_batch is None else num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def layers_from_top(self, name: str) -> int:
        """Distance of a parameter from the head; see `MatGPTModel`."""
        return self.matgpt.layers_from_top(name)


def _after_real_tokens(labels_BT: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Labels without those that follow padding: the first token after left padding is no one's next."""
    if attention_mask is None or attention_mask.shape != labels_BT.shape:
        return labels_BT
    predicted_BT = F.pad(attention_mask[:, :-1], (1, 0), value=1).bool()
    return labels_BT.masked_fill(~predicted_BT, IGNORED)
