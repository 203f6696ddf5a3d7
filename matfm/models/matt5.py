"""MatT5: encoder and decoder with relative positions, RMSNorm and gated GELU (the architecture of T5 v1.1)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput

from matfm.core.attention import CrossAttention, SelfAttention
from matfm.core.attention_context import AttentionContext, AttentionRun, Memory
from matfm.core.feed_forward import GatedFeedForward
from matfm.core.layout import PackedLayout, PaddedIndex
from matfm.core.objectives import IGNORED, token_loss
from matfm.core.positions import RelativeBias, Rotary
from matfm.core.transformer import PreNormBlock, PreNormCrossBlock, TransformerStack
from matfm.models.decoding import EncoderKeys, decoder_context
from matfm.models.matt5_config import MatT5Config
from matfm.models.pretrained import FamilyPreTrainedModel, mask_or_ones

# N packed tokens, B sequences, S source and T target length, D width, V vocabulary


class MatT5PreTrainedModel(FamilyPreTrainedModel):
    """Configuration, prefix and initial weights of all MatT5 classes."""

    config_class = MatT5Config
    base_model_prefix = "matt5"
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding, of sources and of targets."""
        return self.base_model.encoder.embed_tokens

    def set_input_embeddings(self, embedding: nn.Embedding) -> None:
        """Replace it."""
        self.base_model.encoder.embed_tokens = embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if not isinstance(module, nn.Linear):
            return
        # Scores are not divided by sqrt(d), so the queries' weights start that much smaller (Raffel et al. 2020).
        # Done at the map, because Hugging Face skips parts without weights of their own, such as attention.
        width, heads = self.config.hidden_size, self.config.num_attention_heads
        small = (width // heads) ** -0.5
        for part in self.modules():
            if isinstance(part, SelfAttention) and part.qkv is module:
                init.copy_(module.weight, torch.cat([module.weight[:width] * small, module.weight[width:]]))
            elif isinstance(part, CrossAttention) and part.q is module:
                init.copy_(module.weight, module.weight * small)


class MatT5Encoder(nn.Module):
    """Tokens to hidden states."""

    main_input_name = "input_ids"

    def __init__(self, config: MatT5Config) -> None:
        super().__init__()
        # Not `padding_idx`: decoding starts from the padding token, whose embedding is trained.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.relative_bias = _relative_bias(config, causal=False)
        self.dropout = nn.Dropout(config.dropout_rate)
        blocks = [
            PreNormBlock(
                _self_attention(config), _feed_forward(config), _norm(config), _norm(config), config.dropout_rate
            )
            for _ in range(config.num_hidden_layers)
        ]
        self.stack = TransformerStack(blocks, _norm(config))

    def forward_packed(self, ids_N: Tensor, layout: PackedLayout) -> Tensor:
        """The fast path: packed tokens to hidden states (N, D)."""
        return self._encode(self.embed_tokens(ids_N), layout)[-1]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """The Hugging Face path: padded (B, S) batches; hidden states and attention weights are zero at padding."""
        embeddings = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        attention_mask = mask_or_ones(attention_mask, embeddings)
        maps: list[Tensor] | None = [] if output_attentions else None
        if maps is None:
            index = PaddedIndex.from_mask(attention_mask)
            packed = self._encode(index.pack(embeddings), index.layout)
            states = [index.unpack(state) for state in (packed if output_hidden_states else packed[-1:])]
        else:
            padded = self.encode_padded(embeddings, attention_mask, maps)
            states = [state * attention_mask[..., None] for state in padded]
        return BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=None if maps is None else tuple(each * attention_mask[:, None, :, None] for each in maps),
        )

    def encode_padded(self, hidden_BSD: Tensor, mask_BS: Tensor, maps: list[Tensor] | None = None) -> list[Tensor]:
        """The slow twin, one dense block with a mask (1 = real token): for attention maps.

        `maps` gets the attention weights (B, H, S, S) of every block.

        Returns:
            Hidden states (B, S, D); what they hold at padding means nothing.
        """
        count, length = mask_BS.shape
        positions = torch.arange(length, device=hidden_BSD.device)
        scores = self.relative_bias(positions, positions)[None].to(hidden_BSD.dtype)
        # Not infinity, so that a row of padding alone has finite values too.
        scores = scores.masked_fill(~mask_BS.bool()[:, None, None, :], torch.finfo(scores.dtype).min)
        context = AttentionContext((AttentionRun(count, length, length, scores),), maps=maps)
        return [state.view_as(hidden_BSD) for state in self._through(hidden_BSD.flatten(0, 1), context)]

    def _encode(self, hidden_ND: Tensor, layout: PackedLayout) -> list[Tensor]:
        return self._through(hidden_ND, AttentionContext.packed(layout, hidden_ND, bias=self.relative_bias))

    def _through(self, hidden_ND: Tensor, context: AttentionContext) -> list[Tensor]:
        states = self.stack(self.dropout(hidden_ND), context)
        return [*states[:-1], self.dropout(states[-1])]


class MatT5Decoder(nn.Module):
    """Embedded target tokens and the encoder's output to hidden states."""

    def __init__(self, config: MatT5Config) -> None:
        super().__init__()
        self.relative_bias = _relative_bias(config, causal=True)
        self.rotary = (
            Rotary(config.hidden_size // config.num_attention_heads) if config.rotary_cross_attention else None
        )
        self.dropout = nn.Dropout(config.dropout_rate)
        blocks = [
            PreNormCrossBlock(
                _self_attention(config),
                CrossAttention(*_attention(config), bias=False, scale=1.0),
                _feed_forward(config),
                _norm(config),
                _norm(config),
                _norm(config),
                config.dropout_rate,
            )
            for _ in range(config.num_hidden_layers)
        ]
        self.stack = TransformerStack(blocks, _norm(config))

    def forward_packed(self, hidden_ND: Tensor, layout: PackedLayout, memory: Memory) -> Tensor:
        """The fast path: packed target embeddings to hidden states (N, D)."""
        context = AttentionContext.packed(layout, hidden_ND, True, bias=self.relative_bias, memory=memory)
        return self.dropout(self.stack(self.dropout(hidden_ND), context)[-1])

    def forward(
        self,
        embeddings_BTD: Tensor,
        attention_mask: Tensor | None,
        memory_BSD: Tensor,
        memory_mask: Tensor | None,
        cache: EncoderDecoderCache | None,
        maps: list[Tensor] | None = None,
        memory_maps: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Padded target tokens, of which earlier ones may lie in the cache, to all hidden states (B, T, D).

        `maps` and `memory_maps` get the attention weights of every block, to targets and to the memory.
        """
        encoder_keys = None if cache is None else EncoderKeys(cache)
        earlier = None if cache is None else cache.self_attention_cache
        start = 0 if earlier is None else earlier.get_seq_length()
        slots_T = torch.arange(embeddings_BTD.shape[1], device=embeddings_BTD.device) + start
        memory = Memory.padded(memory_BSD, memory_mask, slots_T, encoder_keys, self.rotary)
        memory = replace(memory, maps=memory_maps)
        context = decoder_context(embeddings_BTD, attention_mask, earlier, bias=self.relative_bias, memory=memory)
        states = self.stack(self.dropout(embeddings_BTD).flatten(0, 1), replace(context, maps=maps))
        return [state.view_as(embeddings_BTD) for state in (*states[:-1], self.dropout(states[-1]))]


class MatT5Model(MatT5PreTrainedModel):
    """Encoder and decoder with one token embedding."""

    def __init__(self, config: MatT5Config) -> None:
        super().__init__(config)
        self.encoder = MatT5Encoder(config)
        self.decoder = MatT5Decoder(config)
        self.post_init()

    def forward_packed(
        self, ids_N: Tensor, layout: PackedLayout, target_ids_M: Tensor, targets: PackedLayout
    ) -> Tensor:
        """The fast path: packed sources and shifted targets, sequence by sequence, to hidden states (M, D)."""
        memory = Memory.packed(self.encoder.forward_packed(ids_N, layout), layout, targets, self.decoder.rotary)
        return self.decoder.forward_packed(self.encoder.embed_tokens(target_ids_M), targets, memory)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **_: Any,
    ) -> Seq2SeqModelOutput:
        """The Hugging Face path: padded sources (B, S), on either side, and targets (B, T)."""
        with_states, with_maps = self._wanted(output_hidden_states, output_attentions)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds, with_states, with_maps)
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        if decoder_inputs_embeds is None:
            decoder_inputs_embeds = self.encoder.embed_tokens(decoder_input_ids)
        maps: list[Tensor] | None = [] if with_maps else None
        cross_maps: list[Tensor] | None = [] if with_maps else None
        memory = encoder_outputs[0]
        states = self.decoder(
            decoder_inputs_embeds, decoder_attention_mask, memory, attention_mask, past_key_values, maps, cross_maps
        )
        return Seq2SeqModelOutput(
            last_hidden_state=states[-1],
            past_key_values=past_key_values,
            decoder_hidden_states=tuple(states) if with_states else None,
            decoder_attentions=None if maps is None else tuple(maps),
            cross_attentions=None if cross_maps is None else tuple(cross_maps),
            encoder_last_hidden_state=memory,
            encoder_hidden_states=encoder_outputs.get("hidden_states") if with_states else None,
            encoder_attentions=encoder_outputs.get("attentions") if with_maps else None,
        )

    def layers_from_top(self, name: str) -> int:
        """Distance of a parameter from the head: the decoder's blocks from 1, below them the encoder's."""
        depth = self.config.num_hidden_layers
        above = depth if "encoder." in name else 0
        block = re.search(r"\.blocks\.(\d+)\.", name)
        if block:
            return above + depth - int(block.group(1))
        return above + depth + 1 if "embed_" in name or "relative_bias" in name else above


class MatT5ForConditionalGeneration(MatT5PreTrainedModel, GenerationMixin):
    """Predicts the target's next token, and generates targets."""

    _tied_weights_keys = {"lm_head.weight": "matt5.encoder.embed_tokens.weight"}

    def __init__(self, config: MatT5Config) -> None:
        super().__init__(config)
        self.matt5 = MatT5Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def logits_packed(self, ids_N: Tensor, layout: PackedLayout, target_ids_M: Tensor, targets: PackedLayout) -> Tensor:
        """The fast path: packed sources and decoder inputs, sequence by sequence, to logits (M, V)."""
        return self.lm_head(self.matt5.forward_packed(ids_N, layout, target_ids_M, targets))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> Seq2SeqLMOutput:
        """`labels` (B, T) are target ids, -100 at padding; shifted, they are the decoder's input if none is given.

        The loss is the mean cross-entropy in nats, or its sum over `num_items_in_batch`.
        """
        if labels is not None and decoder_input_ids is None and inputs.get("decoder_inputs_embeds") is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        output = self.matt5(input_ids, attention_mask, decoder_input_ids, **inputs)
        logits = self.lm_head(output.last_hidden_state)
        loss = None
        if labels is not None:
            total, weight = token_loss(logits, labels)
            loss = total / (weight if num_items_in_batch is None else num_items_in_batch)
        states_and_maps = {name: value for name, value in output.items() if name != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **states_and_maps)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels moved one to the right, behind the start token (Hugging Face's collators call this)."""
        shifted = labels.roll(1, dims=1).masked_fill(labels.roll(1, dims=1) == IGNORED, self.config.pad_token_id)
        shifted[:, 0] = self.config.decoder_start_token_id
        return shifted

    def layers_from_top(self, name: str) -> int:
        """Distance of a parameter from the head; see `MatT5Model`."""
        return self.matt5.layers_from_top(name)


def _attention(config: MatT5Config) -> tuple[int, int, float]:
    return config.hidden_size, config.num_attention_heads, config.dropout_rate


def _self_attention(config: MatT5Config) -> SelfAttention:
    return SelfAttention(*_attention(config), bias=False, scale=1.0)


def _feed_forward(config: MatT5Config) -> GatedFeedForward:
    gelu = nn.GELU(approximate="tanh")
    return GatedFeedForward(config.hidden_size, config.intermediate_size, gelu, bias=False, dropout=config.dropout_rate)


def _norm(config: MatT5Config) -> nn.Module:
    return nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


def _relative_bias(config: MatT5Config, causal: bool) -> RelativeBias:
    buckets, farthest = config.relative_attention_num_buckets, config.relative_attention_max_distance
    return RelativeBias(config.num_attention_heads, buckets, farthest, causal)
