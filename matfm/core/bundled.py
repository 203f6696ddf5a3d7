"""Weights shipped in the package, and where a backbone's name leads: bundled, folder, then Hub id."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

from matfm.errors import MatfmError

_FILES_OF_THE_HUB = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Configurations, weights and files of tokenizers."""
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
    """Folder of bundled weights, an existing folder as it is, or the folder that a Hub id was fetched into.

    What is loaded later is what was checked here: files of a Hub id come from its snapshot alone, without pickles and
    without code, and where there is no network from the cache of the Hub.

    Raises:
        MatfmError: a folder without weights, or a name that is none of the three.
    """
    if (found := bundled_or_same(name)) != name:
        return found
    if Path(name).is_dir():
        _check_folder(Path(name), name)
        return name
    if name.count("/") == 1 and not name.startswith((".", "/")):
        snapshot = _fetched(name)
        _check_folder(snapshot, name)
        return str(snapshot)
    raise MatfmError(f"there are no weights {name!r}; bundled are {', '.join(bundled_names())}, or give a folder")


def _check_folder(folder: Path, name: str) -> None:
    if (folder / MODEL_FILE).is_file():
        return
    if (folder / INDEX_FILE).is_file():
        _check_shards(folder / INDEX_FILE)
        return
    if any(folder.glob("pytorch_model*.bin")):
        raise MatfmError(
            f"{name} holds only pickled weights, which are never read; load them once with transformers and "
            "save them with save_pretrained"
        )
    raise MatfmError(f"{name} holds no {MODEL_FILE}; give the folder of a finished run or of saved weights")


@functools.cache
def _fetched(hub_id: str) -> Path:
    """The snapshot of a Hub id; all of a process reads the same one, and asks the Hub once."""
    from huggingface_hub import snapshot_download

    try:
        # a * of these patterns goes into folders too
        return Path(snapshot_download(hub_id, allow_patterns=list(_FILES_OF_THE_HUB), ignore_patterns="*/*"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise MatfmError(
            f"there is no folder {hub_id}, and no weights of that name could be had from the Hub: {reason}"
        ) from error


def _check_shards(index: Path) -> None:
    """Raise MatfmError unless an index names safetensors files beside it; transformers would read pickles too."""
    try:
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        plain = all(isinstance(shard, str) and _SHARD.fullmatch(shard) for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MatfmError(f"{index} cannot be read ({error}); save the model again") from error
    if not plain:
        raise MatfmError(f"{index} names files other than .safetensors beside it, which are never read")
