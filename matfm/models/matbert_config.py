"""The architecture of MatBERT."""

from __future__ import annotations

from typing import Any

from matfm.errors import MatfmError
from matfm.models.family_config import FamilyConfig
from matfm.models.output_laws import PROPERTY_LOSSES, QUANTILES
from matfm.models.pooling import POOLINGS

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


class MatBERTConfig(FamilyConfig):
    """Architecture of MatBERT and of its heads."""

    model_type = "matbert"

    vocab_size: int = 123
    amount_frequencies: int = 16
    position_embedding: str = "none"
    """none (formulas: tokens form a set), rotary, absolute (learned) or sinusoidal."""
    max_position_embeddings: int = 512
    """Longest sequence, in tokens, of absolute positions; the others have no limit."""
    rotary_base: float = 10_000.0
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-6
    pooling: str = "mean"
    """mean (over all but the first, special token) or cls (that first token)."""
    property_names: list[str] | None = None
    property_units: list[str] | None = None
    property_loss: str = "l1"
    """l1, l2, huber, gaussian or quantile."""
    property_quantiles: list[float] | tuple[float, ...] = QUANTILES
    """Levels of the loss quantile; 0.5, the prediction, is one of them."""
    property_two_part: list[bool] | None = None
    """Which properties have a probability of 0 beside their value; None for none."""
    property_log: list[bool] | None = None
    """Which properties are trained as logarithms; None for none."""
    condition_names: list[str] | None = None
    """Numeric columns beside the input that the head takes, in this order."""
    class_names: list[str] | None = None
    """Names of the classes of a classifier; None for regression."""
    fingerprint_bits: int = 0
    """Bits of the fingerprint that was learned in pretraining; 0 for none."""
    amount_head: bool = False
    """Whether pretraining learned amounts from elements."""
    predict_enumerations: int = 0
    """Written forms of a molecule that a prediction is the mean over; 0 reads the canonical one."""
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
        if self.pooling not in POOLINGS:
            raise MatfmError(f"model.pooling is {self.pooling!r}; choose one of {', '.join(POOLINGS)}")
        if self.property_loss not in PROPERTY_LOSSES:
            raise MatfmError(f"model.loss is {self.property_loss!r}; choose one of {', '.join(PROPERTY_LOSSES)}")

    @property
    def head_outputs(self) -> int:
        """Properties or classes of the property head."""
        return len(self.class_names or self.property_names or [""])
