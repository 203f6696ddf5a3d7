"""Embeddings kept on disk, found by what they were made from: weights, pooling and inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from matfm.core.files import atomic_path

# R rows, D width

_FORMAT = "2"
_SEPARATOR = b"\x00"


def values_digest(model: nn.Module) -> str:
    """SHA-256 of all names and values of a model, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode() + _SEPARATOR)
        digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class EmbeddingCache:
    """One file for each list of inputs that was embedded; a damaged file is made again."""

    folder: Path
    maker: str
    """What the vectors depend on beside the inputs: digest of the weights, kind, pooling."""

    def __call__(self, inputs: Sequence[str], embed: Callable[[], np.ndarray]) -> np.ndarray:
        """Vectors (R, D) of these inputs, from the cache or made by `embed` and kept."""
        path = self.folder / f"{self.key(inputs)}.safetensors"
        if (found := _read(path)) is not None:
            return found
        vectors_RD = embed()
        with atomic_path(path) as temporary:
            save_file({"vectors": np.ascontiguousarray(vectors_RD)}, temporary, {"format": _FORMAT})
        return vectors_RD

    def key(self, inputs: Sequence[str]) -> str:
        """SHA-256 of the maker and the inputs in their order."""
        digest = hashlib.sha256(self.maker.encode())
        for text in inputs:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()


def _read(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as content:
            if (content.metadata() or {}).get("format") != _FORMAT:
                return None
            vectors_RD: np.ndarray = content.get_tensor("vectors")
            return vectors_RD
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError):
        return None
