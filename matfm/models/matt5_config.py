"""The architecture of MatT5."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from matfm.core.bundled import bundled_or_same
from matfm.errors import MatfmError
from matfm.models.sizes import of_size


class MatT5Config(PreTrainedConfig):
    """Architecture of MatT5. Special tokens are those of matfm's tokenizers; decoding starts from padding, as in T5."""

    model_type = "matt5"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 362
    hidden_size: int = 256
    num_hidden_layers: int = 4
    """Blocks of the encoder, and as many of the decoder."""
    num_attention_heads: int = 4
    intermediate_size: int = 512
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    """Distance, in tokens, from which on all pairs share a bucket."""
    rms_norm_eps: float = 1e-6
    dropout_rate: float = 0.0
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    decoder_start_token_id: int | None = 0
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    """Whether the projection to the vocabulary is the token embedding; in T5 v1.1 it is not."""
    use_cache: bool = True
    run: dict[str, Any] | None = None
    """Resolved configuration of the run that made the weights."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        buckets, farthest = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if buckets < 4 or buckets % 2:
            raise MatfmError(f"model.relative_attention_num_buckets is {buckets}; it must be even and at least 4")
        if farthest <= buckets // 2:
            raise MatfmError(f"model.relative_attention_max_distance is {farthest}; it must exceed {buckets // 2}")

    @classmethod
    def from_pretrained(cls, name: Any, *arguments: Any, **options: Any) -> MatT5Config:
        """By bundled name, folder or Hub id."""
        return super().from_pretrained(bundled_or_same(str(name)), *arguments, **options)

    @classmethod
    def of_size(cls, size: str, **overrides: Any) -> MatT5Config:
        """tiny, small, base or large; weights start with a standard deviation of width ** -0.5."""
        return cls(**{**of_size(size), **overrides})
