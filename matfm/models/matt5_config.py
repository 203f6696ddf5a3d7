"""The architecture of MatT5."""

from __future__ import annotations

from typing import Any

from matfm.errors import MatfmError
from matfm.models.family_config import DecoderConfig


class MatT5Config(DecoderConfig):
    """Architecture of MatT5. Special tokens are those of matfm's tokenizers; decoding starts from padding, as in T5."""

    model_type = "matt5"

    num_hidden_layers: int = 4
    """Blocks of the encoder, and as many of the decoder."""
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    """Distance, in tokens, from which on all pairs share a bucket."""
    rotary_cross_attention: bool = False
    """Whether queries and keys of the cross-attention are turned by their places (Su et al. 2021). T5's knows contents
    only; with it, a target token looks at the same place of the source from the first step on, which a translation that
    keeps the order needs."""
    dropout_rate: float = 0.0
    decoder_start_token_id: int | None = 0
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    """Whether the projection to the vocabulary is the token embedding; in T5 v1.1 it is not."""

    translation_tasks: list[str] | None = None
    """What it was trained to translate: to_selfies, to_smiles, to_text, to_composition, answer."""
    translation_properties: list[str] | None = None
    """Properties that its texts say, by their names in `matfm.chem.units`."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        buckets, farthest = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if buckets < 4 or buckets % 2:
            raise MatfmError(f"model.relative_attention_num_buckets is {buckets}; it must be even and at least 4")
        if farthest <= buckets // 2:
            raise MatfmError(f"model.relative_attention_max_distance is {farthest}; it must exceed {buckets // 2}")
