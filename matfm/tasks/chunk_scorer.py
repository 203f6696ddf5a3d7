"""What a worker does with a chunk of a library: cells to tokens to vectors to scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from matfm.tasks.devices import resolve_device
from matfm.tasks.embed import Embedder, load_embedder
from matfm.tasks.encoding import EncodedRows, RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.support_scorer import SupportDomain, SupportScorer

# B readable rows of a chunk, D width

DIGITS = 6
"""Significant digits of scores."""


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
class ChunkScorer:
    """Scores chunks; picklable and small, for worker processes."""

    backbone: Backbone
    scorer: SupportScorer
    domain: SupportDomain

    def __call__(self, cells: list[str]) -> ScoredChunk:
        """All of it."""
        return self.score(self.backbone.encode(cells))

    def score(self, encoded: EncodedRows) -> ScoredChunk:
        """Scores of rows that are tokens already."""
        vectors_BD = self.backbone.embed(encoded)
        with one_thread():
            score_B, uncertainty_B, nearest_B = self.scorer.score(vectors_BD)
            applicable_B = self.domain.covers(vectors_BD, nearest_B)
        score_B, uncertainty_B = significant(score_B), significant(uncertainty_B)
        reading = replace(encoded, tokens=encoded.tokens.take(np.zeros(0, np.int64)))
        return ScoredChunk(reading, score_B, uncertainty_B, nearest_B, applicable_B)


def significant(values_B: np.ndarray) -> np.ndarray:
    """Values to the six digits that float32 vectors are good for, so that equal rows tie wherever they stand."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values_B.tolist()], np.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: the processes share the cores, and sums do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _encoder(backbone: Backbone) -> RowEncoder:
    return backbone_encoder(backbone.name, backbone.kind)


@lru_cache(maxsize=1)
def _embedder(backbone: Backbone) -> Embedder:
    return load_embedder(backbone.name, None, None, resolve_device(backbone.device))
