"""The architecture of MatGPT."""

from __future__ import annotations

from typing import Any

from matfm.models.family_config import DecoderConfig


class MatGPTConfig(DecoderConfig):
    """Architecture of MatGPT. Special tokens are those of matfm's tokenizers."""

    model_type = "matgpt"

    rotary_base: float = 10_000.0
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    tie_word_embeddings: bool = True
    """Whether the projection to the vocabulary is the token embedding."""
    conditions: list[dict[str, Any]] | None = None
    """Bins of the properties that texts can be conditioned on; see `matfm.core.property_bins.PropertyBins.mapping`."""
