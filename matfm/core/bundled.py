"""Weights shipped in the package, and where a backbone's name leads: bundled, folder, then Hub id."""

from __future__ import annotations

import json
import re
from pathlib import Path

from matfm.errors import MatfmError

_SHARD = re.compile(r"[^/\\]+\.safetensors")
WEIGHTS = Path(__file__).resolve().parents[1] / "models" / "weights"
MODEL_FILE = "model.safetensors"
INDEX_FILE = f"{MODEL_FILE}.index.json"


def bundled_names() -> list[str]:
    """Names of the shipped weights."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{MODEL_FILE}"))


def bundled_or_same(name: str) -> str:
    """Folder of bundled weights of that name, else `name` unchanged (a folder or a Hub id)."""
    return str(WEIGHTS / name) if (WEIGHTS / name / MODEL_FILE).is_file() else name


def resolve_weights(name: str) -> str:
    """Folder of bundled weights, an existing folder as it is, or `name` unchanged if it may be a Hub id.

    Raises:
        MatfmError: a folder without weights, or a name that is none of the three.
    """
    if (found := bundled_or_same(name)) != name:
        return found
    folder = Path(name)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in (MODEL_FILE, INDEX_FILE)):
            if any(folder.glob("pytorch_model*.bin")):
                raise MatfmError(
                    f"{name} holds only pickled weights, which are never read; load them once with transformers and "
                    "save them with save_pretrained"
                )
            raise MatfmError(f"{name} holds no {MODEL_FILE}; give the folder of a finished run or of saved weights")
        if not (folder / MODEL_FILE).is_file():
            check_shards(folder / INDEX_FILE)
        return name
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name
    raise MatfmError(f"there are no weights {name!r}; bundled are {', '.join(bundled_names())}, or give a folder")


def check_shards(index: Path) -> None:
    """Raise MatfmError unless an index names safetensors files beside it; transformers would read pickles too."""
    try:
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        plain = all(isinstance(shard, str) and _SHARD.fullmatch(shard) for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MatfmError(f"{index} cannot be read ({error}); save the model again") from error
    if not plain:
        raise MatfmError(f"{index} names files other than .safetensors beside it, which are never read")
