"""What the architectures of all families share."""

from __future__ import annotations

from typing import Any, Self

from transformers import PreTrainedConfig

from matfm.core.bundled import bundled_or_same
from matfm.errors import MatfmError
from matfm.models.sizes import of_size

_MOST = {
    "hidden_size": 65_536,
    "num_hidden_layers": 1_000,
    "num_attention_heads": 1_000,
    "intermediate_size": 1_000_000,
}
"""Far above any model, and small enough that a made-up file cannot keep a machine busy with building one."""
_NUMBERS = (
    *("initializer_range", "layer_norm_eps", "rms_norm_eps", "rotary_base"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
)


class FamilyConfig(PreTrainedConfig):
    """Widths, depth and initial weights; loading by name; the size dial."""

    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 512
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    run: dict[str, Any] | None = None
    """Resolved configuration of the run that made the weights."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 < value <= most:
                raise MatfmError(f"model.{name} is {value!r}; it is a whole number from 1 to {most:,}")
        for name in _NUMBERS:
            if not isinstance(getattr(self, name, 0.0), (int, float)):
                raise MatfmError(f"model.{name} is {getattr(self, name)!r}; it is a number")
        if not isinstance(self.run, (dict, type(None))):
            raise MatfmError(f"the configuration of the run is {self.run!r}; it is a section")

    @classmethod
    def from_pretrained(cls, name: Any, *arguments: Any, **options: Any) -> Self:
        """By bundled name, folder or Hub id."""
        return super().from_pretrained(bundled_or_same(str(name)), *arguments, **options)

    @classmethod
    def of_size(cls, size: str, **overrides: Any) -> Self:
        """tiny, small, base or large; weights start with a standard deviation of width ** -0.5."""
        return cls(**{**of_size(size), **overrides})


class DecoderConfig(FamilyConfig):
    """Of models that generate. Special tokens are those of matfm's tokenizers."""

    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 362
    rms_norm_eps: float = 1e-6
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    use_cache: bool = True
