"""Inputs to the features that few-shot methods compare: the vector of an encoder, and classical features beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from matfm.core.batching import RaggedTokens, TokenBatch
from matfm.errors import MatfmError
from matfm.models.backbones import load_encoder
from matfm.models.fewshot_encoder import FewShotConfig, FewShotEncoder, is_fewshot, load_fewshot
from matfm.models.inference import map_rows
from matfm.models.prototypes import PrototypeHead
from matfm.tasks.encoding import EncodedRows, RowEncoder
from matfm.tasks.few_shot.classical_features import (
    FeatureBlock,
    Features,
    classical_block,
    network_inputs,
    readable_features,
)
from matfm.tasks.few_shot.embedding_cache import EmbeddingCache, values_digest
from matfm.tasks.kinds import backbone_encoder

# R rows, B those that can be read, D width of the vectors, F classical features

EMBEDDING = "embedding"


@dataclass(frozen=True)
class ReadInputs:
    """The readable rows of some inputs as tokens, with their classical features."""

    encoded: EncodedRows
    classical_BF: np.ndarray | None


def read_inputs(encoder: RowEncoder, classical: FeatureBlock | None, inputs: Sequence[str]) -> ReadInputs:
    """Tokens and classical features; rows that either cannot take have a reason."""
    encoded = encoder(list(inputs))
    if classical is None:
        return ReadInputs(encoded, None)
    values_BF, kept, reasons = readable_features(classical, [inputs[r] for r in encoded.rows.tolist()], encoder.kind)
    errors = encoded.errors | {int(encoded.rows[b]): reason for b, reason in reasons.items()}
    if reasons:
        encoded = replace(encoded, tokens=encoded.tokens.take(kept), rows=encoded.rows[kept], errors=errors)
    return ReadInputs(encoded, values_BF)


def vectors_of(
    model: FewShotEncoder, read: ReadInputs, classical: FeatureBlock | None, device: torch.device
) -> np.ndarray:
    """Vectors (B, D), float32: of the encoder, or of what `matfm fewshot` trained on it and on classical features."""
    if not len(read.encoded.rows):
        return np.zeros((0, model.width), np.float32)
    beside = None
    if model.settings.classical != "none":
        assert classical is not None
        assert read.classical_BF is not None
        beside = torch.from_numpy(network_inputs(classical, read.classical_BF))
    return embed_rows(model, read.encoded.tokens, beside, device)


def classical_of(name: str, kind: str, settings: FewShotConfig) -> FeatureBlock | None:
    """The block of a name as `classical_block` says; of a model trained with classical features, auto is those.

    Raises:
        MatfmError: there is no such block, or the model was trained with another.
    """
    needed = settings.classical
    block = classical_block(needed if name == "auto" and needed != "none" else name, kind)
    if needed != "none" and (block is None or block.name != needed):
        raise MatfmError(f"this model was trained with the features {needed}; choose classical {needed}")
    return block


def side_by_side(vectors_BD: np.ndarray, read: ReadInputs, classical: FeatureBlock | None) -> Features:
    """Embedding and classical features."""
    embedding = FeatureBlock(EMBEDDING, vectors_BD.shape[1], "rbf")
    if classical is None or read.classical_BF is None:
        return Features(vectors_BD, (embedding,))
    return Features(np.concatenate([vectors_BD, read.classical_BF], axis=1), (embedding, classical))


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
        self.classical = classical_of(classical, encoder.kind, model.settings)
        self.cache: EmbeddingCache | None = None
        if cache is not None:
            self.cache = EmbeddingCache(cache, f"{encoder.kind} {fewshot_digest(model)}")

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
        return cls(fewshot_encoder(backbone, encoder.kind), encoder, classical, device, cache)

    def __call__(self, inputs: Sequence[str]) -> Described:
        """Features of the inputs that can be read, and reasons for the others."""
        read = read_inputs(self.encoder, self.classical, inputs)
        rows = read.encoded.rows
        if self.cache is None:
            vectors_BD = self._embedded(read)
        else:
            vectors_BD = self.cache([inputs[row] for row in rows.tolist()], lambda: self._embedded(read))
        return Described(side_by_side(vectors_BD, read, self.classical), rows, read.encoded.errors)

    def _embedded(self, read: ReadInputs) -> np.ndarray:
        return vectors_of(self.model, read, self.classical, self.device)


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


def trained_head(model: FewShotEncoder, backbone: str) -> PrototypeHead | None:
    """Distance and temperature that `matfm fewshot` learned, if the backbone of that name was trained by it."""
    return model.prototype_head if is_fewshot(backbone) else None


def fewshot_digest(model: FewShotEncoder) -> str:
    """What tells the vectors and the head of one model from those of another: weights, settings, pooling."""
    return f"{values_digest(model)} {model.settings} {model.backbone.config.pooling}"
