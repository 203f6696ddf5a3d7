"""An encoder that is trained over many tasks to compare inputs: embedding, classical features, projection, head."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matfm.core.batching import TokenBatch
from matfm.core.bundled import resolve_weights
from matfm.core.config import from_mapping
from matfm.core.files import atomic_path, write_json
from matfm.errors import MatfmError
from matfm.models.backbones import Encoder, load_encoder
from matfm.models.prototypes import DISTANCES, KernelHead, PrototypeHead
from matfm.models.saving import save_model

# B sequences, D width of the encoder, F classical features, E width of the result

FORMAT = 1
DESCRIPTION, WEIGHTS = "fewshot.json", "fewshot.safetensors"
"""Beside the encoder's own files, so that the folder is a backbone of every other task too."""


@dataclass(frozen=True)
class FewShotConfig:
    """What stands on the encoder."""

    distance: str = "mahalanobis"
    """euclidean, cosine or mahalanobis."""
    width: int = 256
    """Width of the projection of embedding and classical features together; 0 compares the embeddings alone."""
    classical: str = "none"
    """Name of the classical features that the projection takes; none where there are none."""
    classical_width: int = 0
    """F."""
    dropout: float = 0.1
    """In the projection."""
    refinements: int = 0
    """Rounds of soft k-means with the queries (transductive)."""

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise MatfmError(f"distance is {self.distance!r}; choose one of {', '.join(DISTANCES)}")
        if self.width < 0 or self.refinements < 0:
            raise MatfmError(f"width {self.width} and refinements {self.refinements} must not be negative")
        if not 0 <= self.dropout < 1:
            raise MatfmError(f"dropout is {self.dropout}; it is a share in [0, 1)")
        if self.classical_width and not self.width:
            raise MatfmError(f"width is 0, which leaves no place for the features {self.classical}; choose a width")


class FewShotEncoder(nn.Module):
    """Inputs to vectors (B, E) that distances between examples are taken in."""

    def __init__(self, backbone: Encoder, config: FewShotConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = config
        inside = backbone.config.pooled_width
        self.classical: nn.Module | None = None
        self.projection: nn.Module | None = None
        if config.classical_width:
            self.classical = nn.Sequential(nn.Linear(config.classical_width, inside), nn.LayerNorm(inside))
        if config.width:
            joined = inside * (2 if config.classical_width else 1)
            self.projection = nn.Sequential(
                nn.LayerNorm(joined),
                nn.Dropout(config.dropout),
                nn.Linear(joined, 2 * config.width),
                nn.GELU(),
                nn.Linear(2 * config.width, config.width),
            )
        self.prototype_head = PrototypeHead(config.distance, self.width, config.refinements)
        self.kernel_head = KernelHead(self.width)

    @property
    def width(self) -> int:
        """E."""
        return int(self.settings.width or self.backbone.config.pooled_width)

    def embed(self, batch: TokenBatch, classical_BF: Tensor | None = None) -> Tensor:
        """Vectors (B, E)."""
        embedded_BD: Tensor = self.backbone.embed_packed(batch.ids_N, batch.amounts_N, batch.layout)
        if self.projection is None:
            return embedded_BD
        if self.classical is not None:
            if classical_BF is None:
                raise ValueError(f"this encoder takes the features {self.settings.classical} beside the tokens")
            embedded_BD = torch.cat([embedded_BD, self.classical(classical_BF)], dim=1)
        projected: Tensor = self.projection(embedded_BD)
        return projected

    def layers_from_top(self, name: str) -> int:
        """Distance of a parameter from the head, as of the encoder; 0 for what stands on it."""
        return self.backbone.layers_from_top(name) if name.startswith("backbone.") else 0


def save_fewshot(model: FewShotEncoder, folder: Path, record: dict[str, Any]) -> None:
    """Write what stands on the encoder, then the encoder: a folder with its weights is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = {name: value.contiguous() for name, value in model.state_dict().items() if _beside_encoder(name)}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(beside, temporary)
    write_json(folder / DESCRIPTION, {"format": FORMAT, **asdict(model.settings)})
    save_model(model.backbone, folder, record)


def is_fewshot(name: str) -> bool:
    """Whether these weights were trained over tasks by `matfm fewshot`."""
    return (Path(resolve_weights(name)) / DESCRIPTION).is_file()


def load_fewshot(name: str) -> FewShotEncoder:
    """A saved encoder with what stands on it, in evaluation mode.

    Raises:
        MatfmError: there is none of that name, its files are damaged, or a newer matfm wrote them.
    """
    folder = Path(resolve_weights(name))
    try:
        described = dict(json.loads((folder / DESCRIPTION).read_text("utf-8")))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise MatfmError(f"the few-shot model {name!r} cannot be loaded: {error}") from error
    if described.pop("format", None) != FORMAT:
        raise MatfmError(f"{folder / DESCRIPTION} is not of format {FORMAT}; use the version of matfm that wrote it")
    settings = from_mapping(FewShotConfig, described, str(folder / DESCRIPTION))
    model = FewShotEncoder(load_encoder(name), settings)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or any(_beside_encoder(key) for key in missing):
        raise MatfmError(f"{folder / WEIGHTS} does not fit {DESCRIPTION}; train again")
    return model.eval()


def _beside_encoder(name: str) -> bool:
    return not name.startswith("backbone.")
