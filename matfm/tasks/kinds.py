"""What a saved model reads, and the encoder of a column that fits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from matfm.core.bundled import resolve_weights
from matfm.errors import MatfmError
from matfm.tasks.encoding import KINDS, RowEncoder, row_encoder

SCRATCH = "scratch:"
"""`scratch:small` starts from random weights of that size."""

_KIND_OF = {"CompositionTokenizer": "composition", "SmilesTokenizer": "smiles", "SelfiesTokenizer": "selfies"}
"""Class that `tokenizer_config.json` names, to kind."""


def saved_kind(name: str | Path) -> str | None:
    """What a model reads, by the tokenizer in its folder: composition, smiles or selfies; None if it has none of ours.

    Args:
        name: bundled name, folder or Hub id.

    Raises:
        MatfmError: there is no such model, or `tokenizer_config.json` is damaged.
    """
    path = Path(resolve_weights(str(name)))
    file = path / "tokenizer_config.json"
    try:
        config = json.loads(file.read_text("utf-8")) if file.is_file() else _of_hub(path, str(name))
    except ValueError as error:
        raise MatfmError(f"{file} is not readable JSON ({error}); save the tokenizer again") from error
    return _KIND_OF.get(str(config.get("tokenizer_class")))


def backbone_kind(backbone: str, kind: str | None = None) -> str:
    """The kind of input of a fine-tuning: what the backbone reads, which `kind` must not contradict.

    A backbone of random weights reads what `kind` says, and compositions if it says nothing.

    Raises:
        MatfmError: the backbone reads another kind, or has no tokenizer for molecules.
    """
    if kind is not None and kind not in KINDS:
        raise MatfmError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    if backbone.startswith(SCRATCH):
        return kind or "composition"
    saved = saved_kind(backbone)
    if saved is None:
        if kind in (None, "composition"):
            return "composition"
        raise MatfmError(f"{backbone} holds no {kind} tokenizer; save the one of its pretraining into that folder")
    if kind not in (None, saved):
        raise MatfmError(f"{backbone} reads {saved} and --kind is {kind}; choose a backbone of {kind}, or drop --kind")
    return saved


def backbone_encoder(backbone: str, kind: str | None = None) -> RowEncoder:
    """How cells become tokens of a backbone or run: its own vocabulary, cut where its positions end.

    Raises:
        MatfmError: as `backbone_kind`.
    """
    kind = backbone_kind(backbone, kind)
    if backbone.startswith(SCRATCH):
        return row_encoder(kind)
    folder = resolve_weights(backbone)
    try:
        architecture = PreTrainedConfig.get_config_dict(folder)[0]
    except OSError as error:
        raise MatfmError(f"the weights {backbone!r} cannot be loaded: {' '.join(str(error).split())}") from error
    absolute = architecture.get("position_embedding") == "absolute"
    return row_encoder(kind, folder, int(architecture["max_position_embeddings"]) if absolute else None)


def _of_hub(path: Path, name: str) -> dict[str, Any]:
    return {} if path.is_dir() else get_tokenizer_config(name)
