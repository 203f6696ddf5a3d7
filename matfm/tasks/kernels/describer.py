"""Inputs to the parts of their views: what a fitted kernel regression reads with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matfm.models.backbones import load_encoder
from matfm.models.saving import save_model, save_tokenizer
from matfm.tasks.arrays import read_inputs
from matfm.tasks.embed import Embedder
from matfm.tasks.encoding import RowEncoder, row_encoder
from matfm.tasks.kernels.views import EMBEDDING, chosen_views, described_parts, parts_of
from matfm.tasks.kinds import backbone_encoder, backbone_kind

# R rows, D features of a part

ENCODER = "encoder"
"""Folder of the encoder's weights, in that of the estimator."""


@dataclass(frozen=True)
class Describer:
    """Views of one kind of input."""

    views: tuple[str, ...]
    encoder: RowEncoder
    embedder: Embedder | None
    """None without the view embedding."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of the views."""
        return parts_of(self.views)

    def __call__(self, X: Any, device: torch.device, parts: Collection[str]) -> dict[str, np.ndarray]:
        """Part to features (R, D), of some of the parts. Raises MatfmError at inputs that cannot be read."""
        examples, inputs = read_inputs(self.encoder, X, ())
        described = described_parts(parts, inputs, self.encoder.kind)
        if EMBEDDING in parts:
            assert self.embedder is not None
            described[EMBEDDING] = Embedder(self.embedder.model.to(device), device)(examples)
        return described

    def save(self, folder: Path, record: dict[str, Any]) -> None:
        """Write the encoder with its tokenizer, if there is one, in a folder of its own."""
        if self.embedder is not None:
            save_tokenizer(self.encoder.tokenizer, folder / ENCODER)
            save_model(self.embedder.model, folder / ENCODER, record)


def make_describer(backbone: str, features: str | Sequence[str], kind: str | None, device: torch.device) -> Describer:
    """Without the view embedding the backbone only says what is read where `kind` does not.

    Raises:
        MatfmError: there is no such backbone or view, or it is for another kind.
    """
    plain = row_encoder(backbone_kind(backbone) if kind is None else kind)
    views = chosen_views(features, plain.kind)
    if EMBEDDING not in views:
        return Describer(views, plain, None)
    return Describer(views, encoder := backbone_encoder(backbone, kind), _embedder(backbone, encoder.kind, device))


def load_describer(folder: Path, views: Sequence[str], kind: str) -> Describer:
    """What `Describer.save` wrote. Raises MatfmError for what is not there or damaged."""
    return make_describer(str(folder / ENCODER), views, kind, torch.device("cpu"))


def _embedder(backbone: str, kind: str, device: torch.device) -> Embedder:
    """The kind is what a foreign encoder is saved with."""
    return Embedder(load_encoder(backbone, kind).to(device), device)
