"""What a worker does with a chunk of a library: cells to tokens to vectors to scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from matfm.models.fewshot_encoder import FewShotEncoder
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import EncodedRows, RowEncoder
from matfm.tasks.few_shot.classical_features import FeatureBlock, Features
from matfm.tasks.few_shot.features import (
    EMBEDDING,
    ReadInputs,
    fewshot_encoder,
    read_inputs,
    side_by_side,
    vectors_of,
)
from matfm.tasks.few_shot.support_report import SupportSet
from matfm.tasks.few_shot.support_scorer import SupportScorer
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.screening.support_domain import SupportDomain

# B readable rows of a chunk, S support examples

DIGITS = 6
"""Significant digits of scores and distances."""


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
    distance_B: np.ndarray
    """To the nearest example, of the embeddings."""
    back_S: np.ndarray
    """Distance of each example to the nearest row of the chunk."""


@dataclass(frozen=True)
class Backbone:
    """An encoder by name, plain or trained over tasks, loaded once in every process that uses it."""

    name: str
    kind: str | None
    """composition, smiles or selfies; None is what it reads."""
    device: str
    """cpu, cuda or mps."""

    @property
    def encoder(self) -> RowEncoder:
        """How cells become tokens."""
        return _encoder(self)

    @property
    def model(self) -> FewShotEncoder:
        """Tokens, and classical features of one that was trained with them, to vectors; on its device."""
        return _model(self)


@dataclass(frozen=True)
class Describer:
    """Cells to what a scorer compares: the vector of an encoder, and classical features beside it."""

    backbone: Backbone
    classical: FeatureBlock | None

    def __call__(self, cells: list[str]) -> ReadInputs:
        """Tokens and classical features; rows that either cannot take have a reason."""
        return read_inputs(self.backbone.encoder, self.classical, cells)

    def features(self, read: ReadInputs) -> Features:
        """Embedding and classical features side by side; on one thread, so every process gets the same bits."""
        with one_thread():
            vectors_BD = vectors_of(self.backbone.model, read, self.classical, resolve_device(self.backbone.device))
        return side_by_side(vectors_BD, read, self.classical)

    def embeddings(self, cells: list[str]) -> np.ndarray:
        """Vectors (B, D) of the readable cells."""
        return self.features(self(cells)).block(EMBEDDING).vectors_RW


@dataclass(frozen=True)
class ChunkScorer:
    """Scores chunks; picklable and small, for worker processes."""

    describe: Describer
    scorer: SupportScorer
    domain: SupportDomain
    support: SupportSet

    def __call__(self, cells: list[str]) -> ScoredChunk:
        """All of it."""
        return self.score(self.describe(cells))

    def score(self, read: ReadInputs) -> ScoredChunk:
        """Scores of rows that are read already."""
        features = self.describe.features(read)
        vectors_BD = features.block(EMBEDDING).vectors_RW
        with one_thread():
            score_B, uncertainty_B, nearest_B = self.scorer.score(features.vectors_RW)
            applicable_B = self.domain.covers(vectors_BD)
            distance_B, back_S = self.support.measure(vectors_BD)
        reading = replace(read.encoded, tokens=read.encoded.tokens.take(np.zeros(0, np.int64)))
        return ScoredChunk(
            reading,
            significant(score_B),
            significant(uncertainty_B),
            nearest_B,
            applicable_B,
            significant(distance_B),
            significant(back_S),
        )


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
def _model(backbone: Backbone) -> FewShotEncoder:
    model = fewshot_encoder(backbone.name, _encoder(backbone).kind)
    return model.to(resolve_device(backbone.device)).eval()
