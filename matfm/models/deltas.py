"""Deltas: small trained additions to a frozen encoder, by name. Several may be on one encoder; at most one acts.

An encoder remembers its deltas in `config.deltas` and `config.active_delta`, so that a saved model is built with them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from matfm.core.adapters import AdaptedLinear, LowRank, checked_name
from matfm.core.config import from_mapping
from matfm.errors import MatfmError
from matfm.models.delta_parts import METHODS, DeltaSpec, adapted_parts, attach, detach

__all__ = [
    "METHODS",
    "DeltaSpec",
    "add_delta",
    "backbone_weights",
    "delta_parameters",
    "delta_specs",
    "deltas_of",
    "merge_delta",
    "remove_delta",
    "restore_deltas",
    "use_delta",
]


def deltas_of(model: Any) -> dict[str, DeltaSpec]:
    """Name to shape of the deltas on a model's encoder."""
    return delta_specs(getattr(model.config, "deltas", None))


def delta_specs(known: dict[str, dict[str, Any]] | None) -> dict[str, DeltaSpec]:
    """What `config.deltas` says. Raises MatfmError for a method or a key that there is not."""
    return {name: from_mapping(DeltaSpec, values, f"delta {name!r}") for name, values in (known or {}).items()}


def add_delta(model: Any, name: str, spec: DeltaSpec, start: str | Tensor = "random") -> None:
    """Put a delta on a model's encoder and let it act. Low-rank updates and adapters begin without effect.

    Args:
        model: an encoder, or a model with one.
        name: letters, digits, `_` and `-`.
        spec: the shape.
        start: what prompts, prefixes and control tokens begin as: `tokens` (random tokens of the vocabulary, as the
            frozen encoder sees them in each layer; Lester et al. 2021, Li & Liang 2021), `random` (normal numbers), or
            vectors (·, D) like embeddings of tokens, taken in turn.

    Raises:
        MatfmError: the name is taken or cannot be used, or the encoder has nothing of the kind that is adapted.
    """
    _add(_encoder_of(model), name, spec, start, check=True)


def _add(encoder: Any, name: str, spec: DeltaSpec, start: str | Tensor, check: bool) -> None:
    if name in (encoder.config.deltas or {}) and check:
        raise MatfmError(f"this model has a delta {name!r} already; choose another name")
    checked_name(name)
    before = encoder.config.active_delta
    _let_act(encoder, None)
    try:
        attach(encoder, name, spec, start, check)
    except MatfmError:
        detach(encoder, name)
        _let_act(encoder, before)
        raise
    encoder.config.deltas = {**(encoder.config.deltas or {}), name: asdict(spec)}
    _let_act(encoder, name)


def restore_deltas(encoder: Any) -> None:
    """The deltas that an encoder's configuration names, with numbers that are still to be loaded."""
    active = encoder.config.active_delta
    for name, spec in deltas_of(encoder).items():
        _add(encoder, name, spec, "random", check=False)
    _let_act(encoder, active)


def use_delta(model: Any, name: str | None) -> None:
    """Let the delta of that name act, or none. Raises MatfmError for a name that the model does not have."""
    encoder = _encoder_of(model)
    known = encoder.config.deltas or {}
    if name is not None and name not in known:
        raise MatfmError(f"this model has no delta {name!r}; it has {', '.join(known) or 'none'}")
    _let_act(encoder, name)


def remove_delta(model: Any, name: str) -> None:
    """Take a delta off; another one goes on acting. Raises MatfmError for a name that the model does not have."""
    encoder = _encoder_of(model)
    active = encoder.config.active_delta
    use_delta(encoder, name)
    detach(encoder, name)
    encoder.config.deltas = {other: spec for other, spec in encoder.config.deltas.items() if other != name} or None
    _let_act(encoder, active if active != name else None)


@torch.no_grad()
def merge_delta(model: Any, name: str) -> None:
    """Add a lora delta's updates to the encoder's own matrices: the same outputs from a plain encoder.

    Raises:
        MatfmError: it is no lora delta, or there are others, which would no longer fit.
    """
    encoder = _encoder_of(model)
    known = deltas_of(encoder)
    if name not in known or known[name].method != "lora":
        lora = [other for other, spec in known.items() if spec.method == "lora"]
        raise MatfmError(f"{name!r} is no lora delta of this model, and only those can be merged: {lora}")
    if len(known) > 1:
        others = ", ".join(other for other in known if other != name)
        raise MatfmError(f"merging {name!r} changes the encoder under its other deltas ({others}); remove them first")
    for part in adapted_parts(encoder):
        if isinstance(part, AdaptedLinear) and name in part.added:
            update = part.added[name]
            assert isinstance(update, LowRank)
            part.weight += update.update()
    remove_delta(encoder, name)


def delta_parameters(model: Any, name: str) -> dict[str, nn.Parameter]:
    """Parameters of a delta by their name in the encoder."""
    return {key: value for key, value in model.base_model.named_parameters() if f".added.{name}." in key}


def backbone_weights(model: Any) -> dict[str, Tensor]:
    """Weights of the encoder without any delta, by name."""
    return {key: value for key, value in model.base_model.state_dict().items() if ".added." not in key}


def _encoder_of(model: Any) -> Any:
    encoder = model.base_model
    if not hasattr(encoder.config, "deltas"):
        raise MatfmError(f"deltas need a MatBERT or another encoder; this is a {type(encoder).__name__}")
    return encoder


def _let_act(encoder: Any, name: str | None) -> None:
    for part in adapted_parts(encoder):
        part.active = name if name is not None and name in part.added else None
    encoder.config.active_delta = name
