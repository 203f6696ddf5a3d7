"""Vectors of a data set from a frozen encoder."""

from __future__ import annotations

import numpy as np

from benchmarks.labelled import LabelledTable
from matfm.tasks.devices import resolve_device
from matfm.tasks.embed import load_embedder
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder


def embeddings(backbone: str, known: LabelledTable, device: str) -> np.ndarray:
    """Pooled hidden states of the last layer, (R, D), float32; every row must be readable."""
    encoded = backbone_encoder(backbone)(known.inputs)
    assert not encoded.errors, f"{known.recipe}: {next(iter(encoded.errors.values()))}"
    return load_embedder(backbone, None, None, resolve_device(device))(Examples(encoded.tokens))
