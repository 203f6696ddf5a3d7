"""`matfm embed`: a table of any size in, one vector per row out, streaming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from matfm.core.batching import TokenBatch
from matfm.errors import MatfmError
from matfm.models.backbones import Encoder, load_encoder
from matfm.models.inference import map_rows
from matfm.models.pooling import POOLINGS, pooled_width
from matfm.tasks.devices import resolve_device
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.streaming.journal import weights_digest
from matfm.tasks.streaming.rows import RowStream
from matfm.tasks.tables import check_output, table_format

# R rows, D width

EMBEDDING = "embedding"


@dataclass(frozen=True)
class EmbedConfig:
    """`matfm embed`."""

    model: str
    """Bundled name, folder, Hub id or run directory."""
    table: str
    """Table to read, or - for CSV on standard input."""
    input: str
    """Column with the formulas, SMILES or SELFIES."""
    out: str
    """Parquet file to write."""
    layer: int | None = None
    """Hidden states to pool: 0 the input of the first block, l the output of block l; the last (normed) if None."""
    pooling: str | None = None
    """mean (over all but the first, special token) or cls (that token); as the model was trained if None."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    kind: str | None = None
    """What the input column holds: composition, smiles or selfies; None is what the model reads."""

    def __post_init__(self) -> None:
        if table_format(self.out) != "parquet":
            raise MatfmError(f"--out {self.out} must be a .parquet file; the other formats have no columns of vectors")
        _check_pooling(self.pooling)
        check_output(self.out, self.table)


def run(config: EmbedConfig, resume: bool = False) -> dict[str, Any]:
    """Write every row of the table with its vector in `embedding`; unreadable rows get none and a reason in `error`.

    `resume` continues an interrupted one.
    """
    device = resolve_device(config.device)
    encoder = backbone_encoder(config.model, config.kind)
    embedder = load_embedder(config.model, config.layer, config.pooling, device)
    stream = RowStream(
        config.table,
        config.input,
        config.out,
        encoder,
        {EMBEDDING: pa.list_(pa.float32(), embedder.width)},
        label="embed",
        begun_with={"model": weights_digest(config.model), "layer": config.layer, "pooling": config.pooling},
    )
    summary = stream.run(lambda examples, _: {EMBEDDING: embedder(examples)}, resume)
    return {
        "task": "embed",
        "model": config.model,
        "kind": encoder.kind,
        "out": config.out,
        "width": embedder.width,
        "layer": embedder.model.config.num_hidden_layers if config.layer is None else config.layer,
        "pooling": config.pooling or embedder.model.config.pooling,
        "rows_in": summary.pop("rows_in"),
        "rows_embedded": summary.pop("rows_done"),
        **summary,
    }


@dataclass(frozen=True)
class Embedder:
    """Rows to vectors."""

    model: Encoder
    device: torch.device
    layer: int = -1
    pooling: str | None = None

    @property
    def width(self) -> int:
        """D, twice the model's of mean-max."""
        return pooled_width(self.pooling or self.model.config.pooling, int(self.model.config.hidden_size))

    def __call__(self, examples: Examples) -> np.ndarray:
        """Vectors (R, D), float32."""
        return map_rows(self.model, examples.tokens, self._of_batch, self.device)

    def _of_batch(self, batch: TokenBatch) -> Tensor:
        return self.model.embed_packed(batch.ids_N, batch.amounts_N, batch.layout, self.pooling, self.layer)


def load_embedder(name: str, layer: int | None, pooling: str | None, device: torch.device) -> Embedder:
    """An encoder by name; layer and pooling as in `EmbedConfig`.

    Raises:
        MatfmError: there is no such model, or it has no such layer or pooling.
    """
    model: Encoder = load_encoder(name).to(device)
    layers = model.config.num_hidden_layers
    if layer is not None and not 0 <= layer <= layers:
        raise MatfmError(f"--layer is {layer}; {name} has the layers 0 (input of the first block) to {layers}")
    _check_pooling(pooling)
    return Embedder(model, device, -1 if layer is None else layer, pooling)


def _check_pooling(pooling: str | None) -> None:
    if pooling is not None and pooling not in POOLINGS:
        raise MatfmError(f"--pooling is {pooling!r}; choose one of {', '.join(POOLINGS)}")
