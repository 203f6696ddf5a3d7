"""LoRA deltas in the files of Hugging Face's PEFT, written and read without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from matfm.core.adapters import AdaptedLinear, LowRank
from matfm.core.files import atomic_path, readable_os_errors, write_json
from matfm.errors import MatfmError
from matfm.models.deltas import DeltaSpec, add_delta, deltas_of, remove_delta

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PLAIN = {"use_dora": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "fan_in_fan_out": False}
"""Settings of PEFT's LoRA that ours has no counterpart for, at their plain values."""


def save_peft_lora(model: Any, folder: str | Path, name: str, base: str = "") -> None:
    """Write a lora delta so that `PeftModel.from_pretrained(model, folder)` puts it on the same class of model.

    Args:
        model: an encoder, or a model with one.
        folder: to write.
        name: of the delta.
        base: bundled name, folder or Hub id of the backbone, for people.

    Raises:
        MatfmError: it is no lora delta of this model.
    """
    spec = deltas_of(model).get(name)
    if spec is None or spec.method != "lora":
        raise MatfmError(f"{name!r} is no lora delta of this model, and only those have a PEFT format here")
    tensors, maps = {}, []
    for path, part in model.named_modules():
        if isinstance(part, AdaptedLinear) and name in part.added:
            maps.append(path)
            for letter, matrix in _matrices(part, name).items():
                tensors[f"{_PREFIX}{path}.lora_{letter}.weight"] = matrix.detach().cpu().contiguous()
    config = {
        **_PLAIN,
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "target_modules": maps,  # whole paths: a last name such as `out` would also be found in the head
    }
    folder = Path(folder)
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, config)


def load_peft_lora(model: Any, folder: str | Path, name: str) -> None:
    """Put a LoRA that PEFT saved on an encoder (or the encoder of a model), as the delta `name`, and let it act.

    Raises:
        MatfmError: nothing usable is there, it is another kind of PEFT, it does not fit this encoder, or the name is
            taken. PEFT keeps no digest: that the backbone is the same is for the caller to know.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    paths = {_encoder_path(key, model) for key in tensors}
    maps = tuple(sorted({path.rpartition(".")[2] for path in paths}))
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    # Rank-stabilised LoRA divides by the root of the rank.
    spec = DeltaSpec("lora", rank, alpha * rank**0.5 if config.get("use_rslora") else alpha, maps)
    add_delta(model, name, spec)
    own = {
        f"{path}.lora_{letter}.weight": matrix
        for path, part in model.base_model.named_modules()
        if isinstance(part, AdaptedLinear) and name in part.added
        for letter, matrix in _matrices(part, name).items()
    }
    given = {f"{_encoder_path(key, model)}.{key.split('.', -1)[-2]}.weight": value for key, value in tensors.items()}
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in given.items()}:
        remove_delta(model, name)
        strange = sorted(own.keys() ^ given.keys())
        detail = f"it differs at {strange[0]}" if strange else "its matrices have other shapes"
        raise MatfmError(f"the LoRA in {folder} is of another encoder: {detail}; load the backbone it was trained on")
    with torch.no_grad():
        for key, matrix in own.items():
            matrix.copy_(given[key])


def _matrices(part: AdaptedLinear, name: str) -> dict[str, Tensor]:
    update = part.added[name]
    assert isinstance(update, LowRank)
    return {"A": update.A, "B": update.B}


def _encoder_path(key: str, model: Any) -> str:
    """Path of a map in the encoder, whichever class of model PEFT wrapped."""
    path = key.removeprefix(_PREFIX).removeprefix(f"{model.base_model_prefix}.")
    return path.rpartition(".lora_")[0]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise MatfmError(f"{folder} holds no readable adapter of PEFT ({error})") from error
    if config.get("peft_type") != "LORA":
        raise MatfmError(f"{folder} holds a PEFT adapter of type {config.get('peft_type')}; only LORA is read")
    for key, plain in _PLAIN.items():
        if config.get(key, plain) not in (plain, None):
            raise MatfmError(f"{folder}: {key} is {config[key]!r}; only LoRA with {key} = {plain!r} is read")
    if other := [key for key in tensors if ".lora_A." not in key and ".lora_B." not in key]:
        raise MatfmError(f"{folder} holds more than LoRA's matrices ({other[0]}); save it without modules_to_save")
    return config, tensors
