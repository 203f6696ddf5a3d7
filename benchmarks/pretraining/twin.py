"""The architecture of a pretrained encoder with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from matfm.core.bundled import MODEL_FILE
from matfm.models.matbert import MatBERTModel
from matfm.models.saving import load_model, save_model
from matfm.tasks.kinds import backbone_encoder


def random_twin(backbone: str, folder: Path, seed: int) -> Path:
    """Folder of an encoder with the configuration and tokenizer of `backbone` and new weights, made once."""
    if not (folder / MODEL_FILE).is_file():
        config = load_model(MatBERTModel, backbone).config
        torch.manual_seed(seed)
        twin = MatBERTModel(config)
        backbone_encoder(backbone).tokenizer.save_pretrained(str(folder))
        save_model(twin, folder, {"random_twin_of": Path(backbone).name, "seed": seed})
    return folder
