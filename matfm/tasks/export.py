"""Make a finished run small enough to ship: weights as float16, with configuration, tokenizer and card."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from matfm.core.bundled import MODEL_FILE, resolve_weights
from matfm.core.files import atomic_path

_ROUNDED = "\nThe shipped matrices are rounded to float16; the errors above were measured before rounding.\n"
_COMPANIONS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "card.md",
    "metrics.json", "curves.png",
)  # fmt: skip


def export_half(run: Path, folder: Path) -> int:
    """Write the run's model to `folder`, matrices as float16; returns the size of the weights in bytes.

    Vectors (biases, norms, target scaling) stay float32: they are small, and scaling needs the digits.
    Loading gives float32 weights again, as the configuration says.
    """
    source = Path(resolve_weights(str(run)))
    tensors = {
        name: tensor.to(torch.float16) if tensor.ndim > 1 else tensor
        for name, tensor in load_file(source / MODEL_FILE).items()
    }
    with atomic_path(folder / MODEL_FILE) as temporary:
        save_file(tensors, temporary, {"format": "pt"})
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    with (folder / "card.md").open("a", encoding="utf-8") as card:
        card.write(_ROUNDED)
    return (folder / MODEL_FILE).stat().st_size
