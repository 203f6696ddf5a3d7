"""Inputs to the features that few-shot methods compare: the vector of an encoder, and classical features beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from matfm.core.batching import RaggedTokens, TokenBatch
from matfm.errors import MatfmError
from matfm.models.backbones import load_encoder
from matfm.models.fewshot_encoder import FewShotConfig, FewShotEncoder, is_fewshot, load_fewshot
from matfm.models.inference import map_rows
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.few_shot.classical_features import (
    FeatureBlock,
    Features,
    classical_block,
    classical_features,
    network_inputs,
    readable_features,
)
from matfm.tasks.few_shot.embedding_cache import EmbeddingCache, values_digest
from matfm.tasks.kinds import backbone_encoder

# R rows, D width of the vectors, F classical features

EMBEDDING = "embedding"


@dataclass(frozen=True)
class Described:
    """The readable rows of a list of inputs."""

    features: Features
    rows: np.ndarray
    """Position of each in the list."""
    errors: dict[int, str]
    """Position to reason of the others."""

    def all_of(self, inputs: Sequence[str]) -> Features:
        """The features, if every input could be read. Raises MatfmError naming the first that could not."""
        if self.errors:
            row, reason = min(self.errors.items())
            raise MatfmError(f"row {row}: {reason} ({len(self.errors)} of {len(inputs)} inputs cannot be read)")
        return self.features


class Featuriser:
    """Reads inputs, embeds them and computes their classical features.

    Args:
        model: encoder, plain or trained over tasks, in its place.
        encoder: how inputs become tokens.
        classical: name of the classical features: auto, none, ecfp, fractions or magpie.
        device: of the model.
        cache: folder that keeps embeddings; None keeps none.
    """

    def __init__(
        self,
        model: FewShotEncoder,
        encoder: RowEncoder,
        classical: str,
        device: torch.device,
        cache: Path | None = None,
    ) -> None:
        self.model = model.to(device).eval()
        self.encoder = encoder
        self.device = device
        self.classical = classical_block(classical, encoder.kind)
        needed = model.settings.classical
        if needed != "none" and (self.classical is None or self.classical.name != needed):
            raise MatfmError(f"this model was trained with the features {needed}; choose classical {needed}")
        self.cache: EmbeddingCache | None = None
        if cache is not None:
            maker = f"{values_digest(model)} {encoder.kind} {model.settings} {model.backbone.config.pooling}"
            self.cache = EmbeddingCache(cache, maker)

    @classmethod
    def load(
        cls,
        backbone: str,
        kind: str | None,
        classical: str,
        device: torch.device,
        cache: Path | None = None,
    ) -> Featuriser:
        """Of a backbone by name; one trained by `matfm fewshot` brings its classical features.

        Raises:
            MatfmError: there is no such backbone, or it reads another kind.
        """
        encoder = backbone_encoder(backbone, kind)
        model = fewshot_encoder(backbone, encoder.kind)
        needed = model.settings.classical
        return cls(model, encoder, needed if classical == "auto" and needed != "none" else classical, device, cache)

    @property
    def blocks(self) -> tuple[FeatureBlock, ...]:
        """Of the features: embedding, and the classical ones."""
        embedding = FeatureBlock(EMBEDDING, self.model.width, "rbf")
        return (embedding,) if self.classical is None else (embedding, self.classical)

    def __call__(self, inputs: Sequence[str]) -> Described:
        """Features of the inputs that can be read, and reasons for the others."""
        inputs = list(inputs)
        made = self.cache(inputs, self._embedded) if self.cache is not None else self._embedded(inputs)
        vectors_RD, errors = made
        rows = np.array([row for row in range(len(inputs)) if row not in errors], np.int64)
        if self.classical is None:
            return Described(Features(vectors_RD[rows], self.blocks), rows, errors)
        values, kept, reasons = readable_features(self.classical, [inputs[row] for row in rows], self.encoder.kind)
        errors = errors | {int(rows[position]): reason for position, reason in reasons.items()}
        rows = rows[kept]
        parts = [vectors_RD[rows], values]
        return Described(Features(np.concatenate(parts, axis=1), self.blocks), rows, errors)

    def _embedded(self, inputs: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
        encoded = self.encoder(list(inputs))
        vectors_RD = np.full((len(inputs), self.model.width), np.nan, np.float32)
        if len(encoded.rows):
            beside = None
            if self.model.settings.classical != "none":
                assert self.classical is not None
                readable = [inputs[row] for row in encoded.rows]
                values = classical_features(self.classical, readable, self.encoder.kind)
                beside = torch.from_numpy(network_inputs(self.classical, values))
            vectors_RD[encoded.rows] = embed_rows(self.model, encoded.tokens, beside, self.device)
        return vectors_RD, encoded.errors


def embed_rows(
    model: FewShotEncoder, tokens: RaggedTokens, classical_RF: Tensor | None, device: torch.device
) -> np.ndarray:
    """Vectors (R, D), float32, of all rows."""

    def compute(batch: TokenBatch) -> Tensor:
        beside = None if classical_RF is None else classical_RF[batch.rows_B.cpu()].to(device)
        return model.embed(batch, beside)

    return map_rows(model, tokens, compute, device)


def fewshot_encoder(backbone: str, kind: str | None = None) -> FewShotEncoder:
    """An encoder by name: as it was trained over tasks, or as it is (`width` 0). `kind` is what a foreign one reads."""
    if is_fewshot(backbone):
        return load_fewshot(backbone)
    return FewShotEncoder(load_encoder(backbone, kind), FewShotConfig(distance="cosine", width=0)).eval()
