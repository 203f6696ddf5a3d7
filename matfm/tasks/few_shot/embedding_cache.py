"""Embeddings kept on disk, found by what they were made from: weights, pooling and inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from matfm.core.files import atomic_path

# R rows, D width

_FORMAT = "1"
_SEPARATOR = b"\x00"

Embed = Callable[[Sequence[str]], tuple[np.ndarray, dict[int, str]]]
"""Inputs to vectors (R, D), NaN where an input cannot be read, and the reasons by position."""


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

    def __call__(self, inputs: Sequence[str], embed: Embed) -> tuple[np.ndarray, dict[int, str]]:
        """Vectors and reasons of these inputs, from the cache or made by `embed` and kept."""
        path = self.folder / f"{self.key(inputs)}.safetensors"
        if (found := _read(path)) is not None:
            return found
        vectors_RD, errors = embed(inputs)
        about = {"format": _FORMAT, "errors": json.dumps(errors)}
        with atomic_path(path) as temporary:
            save_file({"vectors": np.ascontiguousarray(vectors_RD)}, temporary, about)
        return vectors_RD, errors

    def key(self, inputs: Sequence[str]) -> str:
        """SHA-256 of the maker and the inputs in their order."""
        digest = hashlib.sha256(self.maker.encode())
        for text in inputs:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()


def _read(path: Path) -> tuple[np.ndarray, dict[int, str]] | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as content:
            about = content.metadata() or {}
            if about.get("format") != _FORMAT:
                return None
            errors = {int(row): reason for row, reason in json.loads(about["errors"]).items()}
            return content.get_tensor("vectors"), errors
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError):
        return None
