"""Prompts and prefixes in the files of Hugging Face's PEFT (PROMPT_TUNING, PREFIX_TUNING), without needing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from matfm.core.files import atomic_path, readable_os_errors, write_json
from matfm.errors import MatfmError
from matfm.models.deltas import DeltaSpec, add_delta, delta_parameters, deltas_of, remove_delta
from matfm.models.peft_format import CONFIG_FILE, WEIGHTS_FILE

# P vectors, L layers, D width

_TYPES = {"prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING"}
_TENSOR = "prompt_embeddings"


def save_peft_prompt(model: Any, folder: str | Path, name: str, base: str = "") -> None:
    """Write a prompt or prefix so that `PeftModel.from_pretrained(encoder, folder)` puts it on the bare encoder.

    Args:
        model: an encoder, or a model with one.
        folder: to write.
        name: of the delta.
        base: bundled name, folder or Hub id of the backbone, for people.

    Raises:
        MatfmError: it is no prompt or prefix of this model.
    """
    spec = deltas_of(model).get(name)
    if spec is None or spec.method not in _TYPES:
        raise MatfmError(f"{name!r} is no prompt or prefix of this model, and only those have a PEFT format here")
    encoder = model.base_model
    own = {key.rpartition(".")[2]: value.detach().cpu() for key, value in delta_parameters(model, name).items()}
    config = {
        "peft_type": _TYPES[spec.method],
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "num_virtual_tokens": spec.length,
        "token_dim": encoder.config.hidden_size,
        "num_transformer_submodules": 1,
        "num_attention_heads": _heads(encoder),
        "num_layers": encoder.config.num_hidden_layers,
        **({"prefix_projection": False} if spec.method == "prefix" else {"prompt_tuning_init": "RANDOM"}),
    }
    folder = Path(folder)
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file({_TENSOR: _to_peft(own).contiguous()}, temporary, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, config)


def load_peft_prompt(model: Any, folder: str | Path, name: str) -> None:
    """Put a prompt or prefix that PEFT saved on an encoder, as the delta `name`, and let it act.

    Raises:
        MatfmError: nothing usable is there, it is another kind of PEFT, it does not fit this encoder, or the name is
            taken. PEFT keeps no digest: that the backbone is the same is for the caller to know.
    """
    folder, config = Path(folder), model.base_model.config
    peft_type, tensor = _read(folder)
    method = {kind: ours for ours, kind in _TYPES.items()}[peft_type]
    width = config.hidden_size * (2 * config.num_hidden_layers if method == "prefix" else 1)
    if tensor.ndim != 2 or tensor.shape[1] != width:
        raise MatfmError(
            f"the {method} in {folder} has {tensor.shape[-1]} numbers a token and this encoder takes {width}; load the "
            "backbone it was trained on"
        )
    add_delta(model, name, DeltaSpec(method, length=len(tensor)))
    given = _from_peft(tensor, config.num_hidden_layers) if method == "prefix" else {"tokens": tensor}
    try:
        with torch.no_grad():
            for key, parameter in delta_parameters(model, name).items():
                parameter.copy_(given[key.rpartition(".")[2]])
    except RuntimeError as error:
        remove_delta(model, name)
        raise MatfmError(f"the {method} in {folder} does not fit this encoder ({error})") from error


def _heads(encoder: Any) -> int:
    inner = encoder.encoder.config if hasattr(encoder, "prompted") else encoder.config
    return int(inner.num_attention_heads)


def _to_peft(own: dict[str, Tensor]) -> Tensor:
    """(P, D) of a prompt; of a prefix (P, 2 L D): for every layer the keys, then the values."""
    if "tokens" in own:
        return own["tokens"]
    both_L2PD = torch.stack([own["keys"], own["values"]], dim=1)
    return both_L2PD.flatten(0, 1).transpose(0, 1).flatten(1)


def _from_peft(tensor: Tensor, layers: int) -> dict[str, Tensor]:
    both_L2PD = tensor.view(len(tensor), 2 * layers, -1).transpose(0, 1).unflatten(0, (layers, 2))
    return {"keys": both_L2PD[:, 0], "values": both_L2PD[:, 1]}


def _read(folder: Path) -> tuple[str, Tensor]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise MatfmError(f"{folder} holds no readable adapter of PEFT ({error})") from error
    found = str(config.get("peft_type"))
    if found not in _TYPES.values():
        raise MatfmError(f"{folder} holds a PEFT adapter of type {found}; only {', '.join(_TYPES.values())} are read")
    if set(tensors) != {_TENSOR}:
        other = sorted(set(tensors) ^ {_TENSOR})[0]
        raise MatfmError(f"{folder} must hold {_TENSOR} alone and differs at {other}; save it without modules_to_save")
    return found, tensors[_TENSOR]
