"""MatBERT: a bidirectional encoder, loadable by Hugging Face, computing on packed sequences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput
from transformers.utils import ModelOutput

from matfm.core.attention import SelfAttention
from matfm.core.attention_context import AttentionContext, AttentionRun
from matfm.core.feed_forward import FeedForward
from matfm.core.layout import PackedLayout, PaddedIndex
from matfm.core.objectives import masked_lm_loss
from matfm.core.transformer import PreNormBlock, TransformerStack
from matfm.models.deltas import restore_deltas
from matfm.models.embeddings import AmountEmbedding
from matfm.models.heads import MaskedTokenHead, PropertyHead
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.pooling import POOLINGS
from matfm.models.pretrained import FamilyPreTrainedModel, mask_or_ones, position_parts
from matfm.models.property_config import PropertyConfig

# N packed tokens, B sequences, T padded length, D width, K targets, V vocabulary


class MatBERTPreTrainedModel(FamilyPreTrainedModel):
    """Weight initialisation and loading for all MatBERT classes."""

    config_class = MatBERTConfig
    base_model_prefix = "matbert"
    # The losses are means of a batch; else Hugging Face's Trainer would not divide by the accumulated batches.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = [
        rf"^{part}\." for part in ("lm_head", "property_head", "embed_query", "fingerprint_head", "amount_head")
    ]


class MatBERTModel(MatBERTPreTrainedModel):
    """Embeddings and encoder stack."""

    def __init__(self, config: MatBERTConfig) -> None:
        super().__init__(config)
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.embed_tokens = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.embed_amounts = AmountEmbedding(width, config.amount_frequencies)
        self.embed_positions, self.rotary = position_parts(config)
        self.encoder = TransformerStack(
            [
                PreNormBlock(
                    SelfAttention(width, config.num_attention_heads, config.attention_probs_dropout_prob),
                    FeedForward(width, config.intermediate_size, nn.GELU()),
                    nn.LayerNorm(width, eps=epsilon),
                    nn.LayerNorm(width, eps=epsilon),
                    config.hidden_dropout_prob,
                )
                for _ in range(config.num_hidden_layers)
            ],
            nn.LayerNorm(width, eps=epsilon),
        )
        restore_deltas(self)
        self.post_init()

    def forward_packed(
        self, ids_N: Tensor, amounts_N: Tensor | None, layout: PackedLayout, rows_M: Tensor | None = None
    ) -> Tensor:
        """The fast path: packed tokens to hidden states (N, D), or (M, D) of the tokens that are wanted."""
        return self._encode(self.embed_tokens(ids_N), amounts_N, layout, rows_M)[-1]

    def embed_packed(
        self,
        ids_N: Tensor,
        amounts_N: Tensor | None,
        layout: PackedLayout,
        pooling: str | None = None,
        layer: int = -1,
    ) -> Tensor:
        """One vector per sequence (B, D): hidden states pooled as `pooling` says, or `config.pooling`.

        Layer 0 is the input of the first block, layer l the output of block l; the last one is normed.
        """
        states = self._encode(self.embed_tokens(ids_N), amounts_N, layout)
        return self.pool(states[layer], layout, pooling)

    def pool(self, hidden_ND: Tensor, layout: PackedLayout, pooling: str | None = None) -> Tensor:
        """Hidden states to one vector per sequence (B, D), as `pooling` says, or `config.pooling`."""
        return POOLINGS[pooling or self.config.pooling](hidden_ND, layout, 1)

    def _encode(
        self, hidden_ND: Tensor, amounts_N: Tensor | None, layout: PackedLayout, rows_M: Tensor | None = None
    ) -> list[Tensor]:
        if amounts_N is not None:
            hidden_ND = hidden_ND + self.embed_amounts(amounts_N)
        hidden_ND = self.embed_positions(hidden_ND, layout.positions(hidden_ND.device))
        return self.encoder(hidden_ND, AttentionContext.packed(layout, hidden_ND, rotary=self.rotary), rows_M)

    def encode_padded(
        self,
        hidden_BTD: Tensor,
        mask_BT: Tensor,
        amounts_BT: Tensor | None = None,
        maps: list[Tensor] | None = None,
        prefix: Any = None,
    ) -> list[Tensor]:
        """The slow twin, one dense block with a mask: for export, attention maps, and prefixes of PEFT.

        Args:
            hidden_BTD: embedded tokens.
            mask_BT: 1 = real token.
            amounts_BT: beside the tokens, if any.
            maps: gets the attention weights (B, H, T, T) of every block.
            prefix: Hugging Face's cache with keys and values (B, H, P, d) of every layer, which all tokens see.

        Returns:
            Hidden states (B, T, D) as of the encoder; what they hold at padding means nothing.
        """
        if amounts_BT is not None:
            hidden_BTD = hidden_BTD + self.embed_amounts(amounts_BT.flatten()).view_as(hidden_BTD)
        positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp_min(0)
        hidden_BTD = self.embed_positions(hidden_BTD, positions_BT)
        rotation = None if self.rotary is None else self.rotary(positions_BT[:, None, :], hidden_BTD.dtype)
        count, length = mask_BT.shape
        before = 0 if prefix is None else prefix.get_seq_length()
        seen_BS = F.pad(mask_BT.bool(), (before, 0), value=True) if before else mask_BT.bool()
        run = AttentionRun(count, length, before + length, seen_BS[:, None, None, :], rotation=rotation)
        states = self.encoder(hidden_BTD.flatten(0, 1), AttentionContext((run,), cache=prefix, maps=maps))
        return [state.view_as(hidden_BTD) for state in states]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        amounts: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> BaseModelOutput:
        """The Hugging Face path: padded (B, T) batches; hidden states and attention weights are zero at padding.

        As PEFT's prompts need it: of `inputs_embeds` that are longer than `amounts` the first ones have no amount, and
        `past_key_values` are a prefix, for which the mask may begin with as many ones.
        """
        embeddings = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        length = embeddings.shape[1]
        mask = mask_or_ones(None if attention_mask is None else attention_mask[:, -length:], embeddings)
        if amounts is not None and amounts.shape[1] < length:
            amounts = F.pad(amounts, (length - amounts.shape[1], 0))
        with_states, with_maps = self._wanted(output_hidden_states, output_attentions)
        maps: list[Tensor] | None = [] if with_maps else None
        if maps is None and past_key_values is None:
            index = PaddedIndex.from_mask(mask)
            packed_amounts = None if amounts is None else index.pack(amounts)
            packed = self._encode(index.pack(embeddings), packed_amounts, index.layout)
            states = [index.unpack(state) for state in (packed if with_states else packed[-1:])]
        else:
            padded = self.encode_padded(embeddings, mask, amounts, maps, past_key_values)
            states = [state * mask[..., None] for state in padded]
        return BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if with_states else None,
            attentions=None if maps is None else tuple(weights * mask[:, None, :, None] for weights in maps),
        )

    def layers_from_top(self, name: str) -> int:
        """Distance of a parameter from the head: 0 outside the encoder, 1 the last block, then downwards."""
        depth = self.config.num_hidden_layers
        block = re.search(r"encoder\.blocks\.(\d+)\.", name)
        if block:
            return depth - int(block.group(1))
        return depth + 1 if "embed_" in name else 0


class MatBERTForMaskedLM(MatBERTPreTrainedModel):
    """Predicts masked tokens."""

    _tied_weights_keys = {"lm_head.decoder.weight": "matbert.embed_tokens.weight"}

    def __init__(self, config: MatBERTConfig) -> None:
        super().__init__(config)
        self.matbert = MatBERTModel(config)
        self.lm_head = MaskedTokenHead(config.hidden_size, config.vocab_size, config.layer_norm_eps)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The projection to the vocabulary."""
        return self.lm_head.decoder

    def forward(self, input_ids: Tensor | None = None, labels: Tensor | None = None, **inputs: Any) -> MaskedLMOutput:
        """`labels` are token ids, -100 where there is nothing to predict; loss is their mean cross-entropy."""
        output = self.matbert(input_ids, **inputs)
        logits = self.lm_head(output.last_hidden_state)
        loss = None
        if labels is not None:
            total, weight = masked_lm_loss(logits[labels >= 0], labels[labels >= 0])
            loss = total / weight
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


@dataclass
class PropertyOutput(ModelOutput):
    """`logits` (B, K) in the property's units, or class scores (B, C)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class PropertyPrediction:
    """What a model with an encoder (`base_model`), `property_head` and `config` does with properties."""

    config: PropertyConfig
    base_model: Any
    """A `MatBERTModel`, or what embeds and pools as it does."""
    property_head: PropertyHead

    def raw_packed(
        self, ids_N: Tensor, amounts_N: Tensor | None, layout: PackedLayout, conditions_BC: Tensor | None = None
    ) -> Tensor:
        """The fast path: raw outputs of the head."""
        return self.property_head(self.base_model.embed_packed(ids_N, amounts_N, layout), conditions_BC)

    def predict_packed(
        self, ids_N: Tensor, amounts_N: Tensor | None, layout: PackedLayout, conditions_BC: Tensor | None = None
    ) -> Tensor:
        """Predictions in physical units (B, K), or class probabilities (B, C)."""
        return self.property_head.physical(self.raw_packed(ids_N, amounts_N, layout, conditions_BC))

    def estimate_packed(
        self, ids_N: Tensor, amounts_N: Tensor | None, layout: PackedLayout, conditions_BC: Tensor | None = None
    ) -> Tensor:
        """Statistics of the predictions (B, K, S), named by `property_head.statistics`."""
        return self.property_head.estimate(self.raw_packed(ids_N, amounts_N, layout, conditions_BC))

    def loss(self, raw: Tensor, targets_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Loss sum and weight of raw outputs against targets in physical units (or class indices)."""
        return self.property_head.loss(raw, targets_BK)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        conditions: Tensor | None = None,
        **inputs: Any,
    ) -> PropertyOutput:
        """`labels` (B, K) in physical units with NaN for missing ones; `conditions` (B, C) if the model has them."""
        output = self.base_model(input_ids, attention_mask, **inputs)
        hidden = output.last_hidden_state
        mask = mask_or_ones(attention_mask, hidden)
        index = PaddedIndex.from_mask(mask)
        pooled = self.base_model.pool(index.pack(hidden), index.layout)
        order = torch.argsort(mask.sum(dim=1), stable=True)
        raw = self.property_head(torch.empty_like(pooled).index_copy(0, order, pooled), conditions)
        loss = None
        if labels is not None:
            total, weight = self.loss(raw, labels.view(len(raw), -1).to(raw.dtype))
            loss = total / weight.clamp_min(1)
        return PropertyOutput(
            loss=loss,
            logits=self.property_head.physical(raw),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class MatBERTForProperty(PropertyPrediction, MatBERTPreTrainedModel):
    """Predicts properties in their units: encoder, pooling, head."""

    def __init__(self, config: MatBERTConfig) -> None:
        super().__init__(config)
        self.matbert = MatBERTModel(config)
        self.property_head = PropertyHead.of(config)
        self.post_init()


class MatBERTForPretraining(PropertyPrediction, MatBERTPreTrainedModel):
    """Encoder with its heads, trained together; its file serves the masked-LM and the property class."""

    _tied_weights_keys = {"lm_head.decoder.weight": "matbert.embed_tokens.weight"}

    def __init__(self, config: MatBERTConfig) -> None:
        super().__init__(config)
        self.matbert = MatBERTModel(config)
        self.property_head = PropertyHead.of(config)
        self.lm_head = MaskedTokenHead(config.hidden_size, config.vocab_size, config.layer_norm_eps)
        if config.fingerprint_bits:
            self.fingerprint_head = nn.Linear(config.pooled_width, config.fingerprint_bits)
        if config.amount_head:
            self.amount_head = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The projection to the vocabulary."""
        return self.lm_head.decoder
