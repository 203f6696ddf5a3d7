"""Complete, verified checkpoints: safetensors and JSON in one folder that appears atomically."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from matfm.core.files import readable_os_errors, sha256_of

FORMAT = 2
_STATE = "state.json"
_PREFIX = "step-"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after a step."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """Group (model, optimizer, …) to name to tensor, on the host; one file per group."""
    state: Any
    """Any JSON value."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-N` and keep the newest two."""
    final = folder / f"{_PREFIX}{checkpoint.step:09d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    try:
        with readable_os_errors(final):
            _write(temporary, checkpoint)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _newest_first(folder)[2:]:
        shutil.rmtree(old)
    return final


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """All files, which are on the disk when this returns."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for group, tensors in checkpoint.tensors.items():
        save_file({key: _storable(value) for key, value in tensors.items()}, folder / f"{group}.safetensors")
    content = {
        "format": FORMAT,
        "step": checkpoint.step,
        "state": checkpoint.state,
        "sha256": {group: sha256_of(folder / f"{group}.safetensors") for group in checkpoint.tensors},
    }
    (folder / _STATE).write_text(json.dumps({"content": content, "sha256": _digest(content)}), "utf-8")
    for written in folder.iterdir():
        with written.open("rb") as file:
            os.fsync(file.fileno())


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint, None if there is none.

    A truncated or altered checkpoint is recognised by its digests, reported, and the one before is used.
    """
    for path in _newest_first(folder):
        try:
            content = _verified_state(path / _STATE)
            tensors = {group: _verified(path / f"{group}.safetensors", sha) for group, sha in content["sha256"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            logger.warning("checkpoint %s is damaged (%s); trying the one before it", path, error)
            continue
        return Checkpoint(content["step"], tensors, content["state"])
    return None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _verified_state(path: Path) -> Any:
    record = json.loads(path.read_text("utf-8"))
    if _digest(record["content"]) != record["sha256"]:
        raise ValueError(f"{path.name} does not match its sha256")
    return record["content"]


def _verified(path: Path, digest: str) -> dict[str, Tensor]:
    if sha256_of(path) != digest:
        raise ValueError(f"{path.name} does not match its sha256")
    return load_file(path)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _storable(tensor: Tensor) -> Tensor:
    """Own storage (tied weights share theirs, which safetensors refuses)."""
    return tensor.detach().cpu().clone().contiguous()
