"""Complete, verified checkpoints: safetensors and JSON in one folder that appears atomically."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matfm.core.files import readable_os_errors, sha256_of

FORMAT = 1
_STATE = "state.json"
_TENSORS = ("model", "optimizer", "random")
_PREFIX = "step-"
logger = logging.getLogger(__name__)


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    random: dict[str, Tensor],
    state: Any,
) -> Path:
    """Write `folder/step-N` and keep the newest two. `state` is any JSON value."""
    final = folder / f"{_PREFIX}{step:09d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    with readable_os_errors(final):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        groups = {"model": model.state_dict(), "optimizer": _flatten_optimizers(optimizers), "random": random}
        for name, tensors in groups.items():
            save_file({key: _storable(value) for key, value in tensors.items()}, temporary / f"{name}.safetensors")
        record = {
            "format": FORMAT,
            "step": step,
            "state": state,
            "sha256": {name: sha256_of(temporary / f"{name}.safetensors") for name in _TENSORS},
        }
        (temporary / _STATE).write_text(json.dumps(record), "utf-8")
        for written in temporary.iterdir():
            with written.open("rb") as content:
                os.fsync(content.fileno())
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    for old in _newest_first(folder)[2:]:
        shutil.rmtree(old)
    return final


def load_newest_checkpoint(
    folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> tuple[int, dict[str, Tensor], Any] | None:
    """Restore the newest intact checkpoint; returns (step, random states, state), None if there is none.

    A truncated or altered checkpoint is recognised by its digests, reported, and the one before is used.
    """
    for path in _newest_first(folder):
        try:
            record = json.loads((path / _STATE).read_text("utf-8"))
            tensors = {name: _verified(path / f"{name}.safetensors", record["sha256"][name]) for name in _TENSORS}
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            logger.warning("checkpoint %s is damaged (%s); trying the one before it", path, error)
            continue
        model.load_state_dict(tensors["model"])
        _restore_optimizers(optimizers, tensors["optimizer"])
        return record["step"], tensors["random"], record["state"]
    return None


def _verified(path: Path, digest: str) -> dict[str, Tensor]:
    if sha256_of(path) != digest:
        raise ValueError(f"{path.name} does not match its sha256")
    return load_file(path)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _storable(tensor: Tensor) -> Tensor:
    """Own storage (tied weights share theirs, which safetensors refuses)."""
    return tensor.detach().cpu().clone().contiguous()


def _parameters(optimizers: list[torch.optim.Optimizer]) -> list[tuple[torch.optim.Optimizer, nn.Parameter]]:
    return [(optimizer, p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


def _flatten_optimizers(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value
        for index, (optimizer, parameter) in enumerate(_parameters(optimizers))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    parameters = _parameters(optimizers)
    for optimizer in optimizers:
        optimizer.state.clear()
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        optimizer, parameter = parameters[int(index)]
        # The step counter of a fused optimizer lives beside the parameter, like its averages.
        optimizer.state[parameter][name] = value.to(parameter.device)
