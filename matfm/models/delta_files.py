"""Deltas in files of their own: kilobytes that work with every copy of the backbone, and with no other encoder."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from matfm.core.config import from_mapping
from matfm.core.files import atomic_path, readable_os_errors, write_json
from matfm.errors import MatfmError
from matfm.models.deltas import (
    DeltaSpec,
    add_delta,
    backbone_weights,
    delta_parameters,
    deltas_of,
    remove_delta,
    use_delta,
)
from matfm.models.heads import PropertyHead
from matfm.models.huggingface_backbone import HuggingFaceForProperty, HuggingFaceModel
from matfm.models.matbert import MatBERTForProperty, MatBERTModel
from matfm.models.matbert_config import HEAD_FIELDS

FORMAT = 1
DELTA_FILE, DELTA_WEIGHTS = "delta.json", "delta.safetensors"
_HEAD = "property_head."


def save_delta(model: Any, folder: str | Path, name: str | None = None, backbone: str = "") -> None:
    """Write a delta, and the head of a property model, as `delta.safetensors` and `delta.json`.

    Args:
        model: an encoder or a property model with the delta.
        folder: to write.
        name: of the delta; the one that acts if None.
        backbone: where the encoder came from, for people; its digest is what counts.

    Raises:
        MatfmError: there is no such delta, or the folder cannot be written.
    """
    known, chosen = deltas_of(model), model.config.active_delta if name is None else name
    if chosen not in known:
        raise MatfmError(f"this model has no delta {chosen!r} to save; it has {', '.join(known) or 'none'}")
    tensors = {_without(key, chosen): value.detach() for key, value in delta_parameters(model, chosen).items()}
    head = getattr(model, "property_head", None)
    if head is not None:
        tensors |= {_HEAD + key: value for key, value in head.state_dict().items()}
    record = {
        "format": FORMAT,
        "name": chosen,
        "spec": asdict(known[chosen]),
        "backbone": {"name": backbone, "sha256": backbone_digest(model)},
        "head": None if head is None else {field: getattr(model.config, field) for field in HEAD_FIELDS},
    }
    folder = Path(folder)
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / DELTA_WEIGHTS) as temporary:
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, temporary)
    write_json(folder / DELTA_FILE, record)


def load_delta(model: Any, folder: str | Path, name: str | None = None) -> str:
    """Put a saved delta on its backbone and let it act; a property model also gets the task's head.

    Args:
        model: an encoder, or a property model; other deltas may be on it.
        folder: of `save_delta`.
        name: for the delta; the one it was saved with if None.

    Returns:
        The name.

    Raises:
        MatfmError: nothing usable is there, it belongs to another backbone, or the name is taken.
    """
    record, tensors = read_delta(Path(folder))
    if (digest := backbone_digest(model)) != record["backbone"]["sha256"]:
        origin = record["backbone"]["name"] or "another encoder"
        raise MatfmError(
            f"the delta in {folder} was trained on {origin} with weights {record['backbone']['sha256'][:12]}…, and "
            f"this encoder's are {digest[:12]}…; load the backbone it was trained on"
        )
    name = name or str(record["name"])
    add_delta(model, name, from_mapping(DeltaSpec, record["spec"], str(Path(folder) / DELTA_FILE)))
    own = {_without(key, name): parameter for key, parameter in delta_parameters(model, name).items()}
    given = {key: value for key, value in tensors.items() if not key.startswith(_HEAD)}
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in given.items()}:
        remove_delta(model, name)
        raise MatfmError(
            f"{Path(folder) / DELTA_WEIGHTS} does not hold what {DELTA_FILE} beside it says; save it again"
        )
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(given[key])
    if record["head"] is not None and hasattr(model, "property_head"):
        model.property_head = _head(model.config, record["head"], tensors).to(model.device).train(model.training)
    return name


class DeltaTasks:
    """Predictors of several properties that share one frozen encoder: each is a delta with its head, chosen by name.

    Args:
        encoder: the backbone.
    """

    def __init__(self, encoder: MatBERTModel | HuggingFaceModel) -> None:
        self.encoder = encoder
        self._predictors: dict[str, MatBERTForProperty | HuggingFaceForProperty] = {}

    def load(self, folder: str | Path, name: str | None = None) -> str:
        """Add a task saved by `save_delta`; returns its name. Raises MatfmError as `load_delta`, or without a head."""
        record, tensors = read_delta(Path(folder))
        if record["head"] is None:
            raise MatfmError(f"{folder} holds a delta without a head, which predicts nothing; use load_delta")
        name = load_delta(self.encoder, folder, name)
        config = copy.deepcopy(self.encoder.config)
        config.deltas = config.active_delta = None
        foreign = isinstance(self.encoder, HuggingFaceModel)
        with torch.device("meta"):
            predictor = HuggingFaceForProperty(config) if foreign else MatBERTForProperty(config)
        setattr(predictor, predictor.base_model_prefix, self.encoder)
        predictor.property_head = _head(config, record["head"], tensors).to(self.encoder.device)
        self._predictors[name] = predictor.eval()
        return name

    def names(self) -> list[str]:
        """Of the tasks."""
        return list(self._predictors)

    def use(self, name: str) -> MatBERTForProperty | HuggingFaceForProperty:
        """The predictor of a task, whose delta acts from now on; predictors given out before are not to be used."""
        if name not in self._predictors:
            raise MatfmError(f"there is no task {name!r}; there are {', '.join(self._predictors) or 'none'}")
        use_delta(self.encoder, name)
        self.encoder.config.pooling = self._predictors[name].config.pooling
        return self._predictors[name]


def backbone_digest(model: Any) -> str:
    """SHA-256 over names, types, shapes and values of an encoder's weights, deltas and heads left out."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone_weights(model).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _without(key: str, name: str) -> str:
    return key.replace(f".added.{name}.", ".added.")


def _head(config: Any, fields: dict[str, Any], tensors: dict[str, Tensor]) -> PropertyHead:
    """The saved head; what belongs to it in the configuration is put there."""
    for field, value in fields.items():
        setattr(config, field, value)
    head = PropertyHead.of(config)
    head.load_state_dict({key.removeprefix(_HEAD): value for key, value in tensors.items() if key.startswith(_HEAD)})
    return head


def read_delta(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `save_delta` wrote: `delta.json`, and the tensors. Raises MatfmError where nothing usable is there."""
    file = folder / DELTA_FILE
    if not file.is_file():
        raise MatfmError(f"{folder} holds no {DELTA_FILE}; give the folder of a saved delta, such as RUN/delta")
    try:
        record: dict[str, Any] = dict(json.loads(file.read_text("utf-8")))
        tensors = load_file(folder / DELTA_WEIGHTS)
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise MatfmError(f"the delta in {folder} cannot be read ({error}); save it again") from error
    if record.get("format") != FORMAT:
        raise MatfmError(f"{file} has the format {record.get('format')!r}; this version of matfm reads {FORMAT}")
    if not (
        {"name", "spec", "backbone", "head"} <= record.keys()
        and isinstance(record["backbone"], dict)
        and isinstance(record["backbone"].get("sha256"), str)
        and isinstance(record["head"], (dict, type(None)))
    ):
        raise MatfmError(f"{file} lacks the name, spec, backbone or head of a delta; save it again")
    return record, tensors
