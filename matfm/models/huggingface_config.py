"""The configuration of a wrapped encoder. Imports no Auto class, for these register it while they load."""

from __future__ import annotations

from typing import Any

from matfm.models.property_config import PropertyConfig


class HuggingFaceConfig(PropertyConfig):
    """The wrapped architecture, and how its input is read."""

    model_type = "huggingface_backbone"

    architecture: dict[str, Any] | None = None
    """Configuration of the wrapped encoder."""
    vocab_size: int = 0
    input_kind: str | None = None
    """composition, smiles or selfies."""
    first_token_is_special: bool = True
    """Whether the tokenizer puts a token of its own, such as [CLS], first."""
    deltas: dict[str, dict[str, Any]] | None = None
    """Named additions to the encoder, as `matfm.models.deltas.DeltaSpec`; None for none."""
    active_delta: str | None = None
    """The one that acts."""
