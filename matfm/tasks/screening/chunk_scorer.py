"""What a worker does with a chunk of a library: cells to tokens to vectors to scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from matfm.tasks.devices import resolve_device
from matfm.tasks.embed import Embedder, load_embedder
from matfm.tasks.encoding import EncodedRows, RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.few_shot.classical_features import FeatureBlock, Features, readable_features
from matfm.tasks.few_shot.features import EMBEDDING
from matfm.tasks.few_shot.support_scorer import SupportScorer
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.screening.support_domain import SupportDomain

# B readable rows of a chunk, D width, F classical features

DIGITS = 6
"""Significant digits of scores."""


@dataclass(frozen=True)
class DescribedChunk:
    """The readable rows of a chunk as tokens, with their classical features."""

    encoded: EncodedRows
    classical_BF: np.ndarray | None


@dataclass(frozen=True)
class ScoredChunk:
    """The readable rows of a chunk with their scores, and why the others are not."""

    reading: EncodedRows
    """Which rows, and what was wrong or odd; without tokens."""
    score_B: np.ndarray
    uncertainty_B: np.ndarray
    nearest_B: np.ndarray
    applicable_B: np.ndarray
    """Whether the row lies in the domain of the support; bool."""


@dataclass(frozen=True)
class Backbone:
    """An encoder by name, loaded once in every process that uses it."""

    name: str
    kind: str | None
    """composition, smiles or selfies; None is what it reads."""
    device: str
    """cpu, cuda or mps."""

    @property
    def reads(self) -> str:
        """composition, smiles or selfies."""
        return _encoder(self).kind

    def encode(self, cells: list[str]) -> EncodedRows:
        """Cells to tokens."""
        return _encoder(self)(cells)

    def embed(self, encoded: EncodedRows) -> np.ndarray:
        """Vectors (B, D) of the readable rows, float32. Computed on one thread, so every process gets the same bits."""
        embedder = _embedder(self)
        if not len(encoded.rows):
            return np.zeros((0, embedder.width), np.float32)
        with one_thread():
            return embedder(Examples(encoded.tokens))


@dataclass(frozen=True)
class Describer:
    """Cells to what a scorer compares: the vector of an encoder, and classical features beside it."""

    backbone: Backbone
    classical: FeatureBlock | None

    def __call__(self, cells: list[str]) -> DescribedChunk:
        """Tokens and classical features; rows that either cannot take have a reason."""
        encoded = self.backbone.encode(cells)
        if self.classical is None:
            return DescribedChunk(encoded, None)
        values_BF, kept, reasons = readable_features(
            self.classical, [cells[row] for row in encoded.rows.tolist()], self.backbone.reads
        )
        errors = encoded.errors | {int(encoded.rows[b]): reason for b, reason in reasons.items()}
        if reasons:
            encoded = replace(encoded, tokens=encoded.tokens.take(kept), rows=encoded.rows[kept], errors=errors)
        return DescribedChunk(encoded, values_BF)

    def features(self, chunk: DescribedChunk) -> Features:
        """Embedding and classical features side by side."""
        vectors_BD = self.backbone.embed(chunk.encoded)
        embedding = FeatureBlock(EMBEDDING, vectors_BD.shape[1], "rbf")
        if self.classical is None or chunk.classical_BF is None:
            return Features(vectors_BD, (embedding,))
        return Features(np.concatenate([vectors_BD, chunk.classical_BF], axis=1), (embedding, self.classical))


@dataclass(frozen=True)
class ChunkScorer:
    """Scores chunks; picklable and small, for worker processes."""

    describe: Describer
    scorer: SupportScorer
    domain: SupportDomain

    def __call__(self, cells: list[str]) -> ScoredChunk:
        """All of it."""
        return self.score(self.describe(cells))

    def score(self, chunk: DescribedChunk) -> ScoredChunk:
        """Scores of rows that are described already."""
        features = self.describe.features(chunk)
        with one_thread():
            score_B, uncertainty_B, nearest_B = self.scorer.score(features.vectors_RW)
            applicable_B = self.domain.covers(features.block(EMBEDDING).vectors_RW)
        score_B, uncertainty_B = significant(score_B), significant(uncertainty_B)
        reading = replace(chunk.encoded, tokens=chunk.encoded.tokens.take(np.zeros(0, np.int64)))
        return ScoredChunk(reading, score_B, uncertainty_B, nearest_B, applicable_B)


def significant(values_B: np.ndarray) -> np.ndarray:
    """Values to the six digits that float32 vectors are good for, so that equal rows tie wherever they stand."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values_B.tolist()], np.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and BLAS compute on one thread: processes share the cores, and sums do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _encoder(backbone: Backbone) -> RowEncoder:
    return backbone_encoder(backbone.name, backbone.kind)


@lru_cache(maxsize=1)
def _embedder(backbone: Backbone) -> Embedder:
    return load_embedder(backbone.name, None, None, resolve_device(backbone.device))
