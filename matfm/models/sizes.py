"""The size dial, the same for all families."""

from __future__ import annotations

from typing import Any

from matfm.errors import MatfmError

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512},
    "base": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048},
    "large": {"hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16, "intermediate_size": 4096},
}
"""Name to widths and depth. Encoder and decoder of MatT5 have that depth each."""


def of_size(size: str) -> dict[str, Any]:
    """Values of a configuration; weights start with a standard deviation of width ** -0.5.

    Raises:
        MatfmError: there is no such size.
    """
    if size not in SIZES:
        raise MatfmError(f"model.size is {size!r}; choose one of {', '.join(SIZES)}")
    return {**SIZES[size], "initializer_range": SIZES[size]["hidden_size"] ** -0.5}
