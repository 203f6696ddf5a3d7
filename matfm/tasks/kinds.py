"""What a saved model reads, and the encoder of a column that fits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.core.bundled import resolve_weights
from matfm.errors import MatfmError
from matfm.models.backbones import is_foreign, saved_architecture
from matfm.models.deltas import delta_specs
from matfm.models.huggingface_config import HuggingFaceConfig
from matfm.tasks.encoding import KINDS, RowEncoder, row_encoder
from matfm.tasks.huggingface_encoding import huggingface_encoder
from matfm.tasks.prompting.inputs import read_for

SCRATCH = "scratch:"
"""`scratch:small` starts from random weights of that size."""
FRACTION = "fraction"
"""The scheme of formulas that encoders are fine-tuned in: elements with real amounts."""
_KIND_OF = {"CompositionTokenizer": "composition", "SmilesTokenizer": "smiles", "SelfiesTokenizer": "selfies"}
"""Class that `tokenizer_config.json` names, to kind."""


def saved_kind(name: str | Path) -> str | None:
    """What a model reads, by the tokenizer in its folder: composition, smiles or selfies; None if it has none of ours.

    A run of a foreign encoder says so itself.

    Args:
        name: bundled name, folder or Hub id.

    Raises:
        MatfmError: there is no such model, or `tokenizer_config.json` is damaged.
    """
    of_tokenizer = _KIND_OF.get(str(_tokenizer_config(str(name)).get("tokenizer_class")))
    if of_tokenizer is not None:
        return of_tokenizer
    architecture = saved_architecture(str(name))
    wrapped = architecture.get("model_type") == HuggingFaceConfig.model_type
    return architecture.get("input_kind") if wrapped else None


def backbone_kind(backbone: str, kind: str | None = None) -> str:
    """The kind of input of a fine-tuning: what the backbone reads, which `kind` must not contradict.

    A backbone of random weights reads what `kind` says, and compositions if it says nothing.

    Raises:
        MatfmError: the backbone reads another kind, has no tokenizer for molecules, or is a foreign one and there is
            no kind.
    """
    if kind is not None and kind not in KINDS:
        raise MatfmError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    if backbone.startswith(SCRATCH):
        return kind or "composition"
    saved = saved_kind(backbone)
    if saved is None:
        architecture = saved_architecture(backbone)
        if is_foreign(architecture) and kind is None:
            raise MatfmError(
                f"{backbone} is a {architecture['model_type']} model, which may read anything; say with --kind what "
                f"the column holds: {', '.join(KINDS)}"
            )
        if kind in (None, "composition") or is_foreign(architecture):
            return kind or "composition"
        raise MatfmError(f"{backbone} holds no {kind} tokenizer; save the one of its pretraining into that folder")
    if kind not in (None, saved):
        raise MatfmError(f"{backbone} reads {saved} and --kind is {kind}; choose a backbone of {kind}, or drop --kind")
    return saved


def backbone_encoder(backbone: str, kind: str | None = None) -> RowEncoder:
    """How cells become tokens of a backbone or run: its own vocabulary, cut where its positions end.

    Of a run with a delta, also with what that puts around the rows.

    Raises:
        MatfmError: as `backbone_kind`, or the backbone reads formulas in a scheme without amounts, or it has no
            tokenizer and another vocabulary than that of compositions.
    """
    kind = backbone_kind(backbone, kind)
    if backbone.startswith(SCRATCH):
        return row_encoder(kind)
    architecture = saved_architecture(backbone)
    spec = delta_specs(architecture.get("deltas")).get(str(architecture.get("active_delta")))
    return read_for(_plain_encoder(backbone, architecture, kind), spec, architecture.get("property_names") or ())


def _plain_encoder(backbone: str, architecture: dict[str, Any], kind: str) -> RowEncoder:
    scheme = _tokenizer_config(backbone).get("scheme", FRACTION)
    if scheme != FRACTION:
        raise MatfmError(
            f"{backbone} reads formulas in the scheme {scheme!r}, which is for generation; "
            f"choose a backbone that was pretrained in the scheme {FRACTION!r}"
        )
    folder = resolve_weights(backbone)
    if is_foreign(architecture):
        return huggingface_encoder(backbone, architecture, kind)
    if architecture.get("model_type") == HuggingFaceConfig.model_type:
        return huggingface_encoder(backbone, architecture["architecture"], kind)
    if saved_kind(backbone) is None and architecture.get("vocab_size") != len(CompositionTokenizer()):
        raise MatfmError(
            f"{backbone} holds no tokenizer and its model has {architecture.get('vocab_size')} tokens, which are not "
            "those of compositions; save the tokenizer of its pretraining into that folder"
        )
    absolute = architecture.get("position_embedding") == "absolute"
    return row_encoder(kind, folder, int(architecture["max_position_embeddings"]) if absolute else None)


def _tokenizer_config(name: str) -> dict[str, Any]:
    """What the folder of a model says of its tokenizer; nothing where there is none."""
    file = Path(resolve_weights(name)) / "tokenizer_config.json"
    try:
        saved: dict[str, Any] = dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise MatfmError(f"{file} is not readable JSON ({error}); save the tokenizer again") from error
    return saved
