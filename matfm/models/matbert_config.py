"""The architecture of MatBERT."""

from __future__ import annotations

from typing import Any

from matfm.errors import MatfmError
from matfm.models.property_config import PropertyConfig

POSITION_EMBEDDINGS = ("none", "rotary", "absolute", "sinusoidal")
"""Formulas are sets of elements and need none; strings such as SMILES need one of the others."""

HEAD_FIELDS = (
    "pooling",
    "property_names",
    "property_units",
    "property_loss",
    "property_quantiles",
    "property_two_part",
    "property_log",
    "condition_names",
    "class_names",
    "predict_enumerations",
)
"""What of a configuration belongs to a task and its head, not to the encoder."""


class MatBERTConfig(PropertyConfig):
    """Architecture of MatBERT and of its heads."""

    model_type = "matbert"

    vocab_size: int = 123
    amount_frequencies: int = 16
    position_embedding: str = "none"
    """none (formulas: tokens form a set), rotary, absolute (learned) or sinusoidal."""
    max_position_embeddings: int = 512
    """Longest sequence, in tokens, of absolute positions; the others have no limit."""
    rotary_base: float = 10_000.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-6
    fingerprint_bits: int = 0
    """Bits of the fingerprint that was learned in pretraining; 0 for none."""
    amount_head: bool = False
    """Whether pretraining learned amounts from elements."""
    deltas: dict[str, dict[str, Any]] | None = None
    """Named additions to the encoder, as `matfm.models.deltas.DeltaSpec`; None for none."""
    active_delta: str | None = None
    """The one that acts."""
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.position_embedding not in POSITION_EMBEDDINGS:
            choices = ", ".join(POSITION_EMBEDDINGS)
            raise MatfmError(f"model.position_embedding is {self.position_embedding!r}; choose one of {choices}")
