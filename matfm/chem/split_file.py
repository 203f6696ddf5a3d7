"""A split as a file: which part each row of a table belongs to, tied to the inputs by their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matfm.chem.splits import CALIBRATION_PART, PARTS
from matfm.core.files import write_json
from matfm.errors import MatfmError

FORMAT = 1
UNUSED = "-"
"""A row that belongs to no part."""
_CODES = {"train": "0", "valid": "1", "test": "2", CALIBRATION_PART: "3", UNUSED: UNUSED}
_PART_OF = {code: part for part, code in _CODES.items()}
_KEYS = {"format", "method", "rows", "inputs_sha256", "parts", "sha256"}


@dataclass(frozen=True)
class SplitFile:
    """A split of R rows."""

    parts: np.ndarray
    """train, valid, test, calibration or `-` (not used) for each row, shape (R,)."""
    method: dict[str, Any]
    """How it was made: name, shares, seed and other parameters."""
    inputs_sha256: str
    """Digest of the input column."""
    sha256: str
    """Digest of everything else in the file."""


def inputs_digest(inputs: Iterable[str]) -> str:
    """SHA-256 of texts in their order: of each, its length in bytes (8 bytes, little-endian), then itself in UTF-8."""
    digest = hashlib.sha256()
    for text in inputs:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def save_split(path: Path, inputs: Sequence[str], parts: np.ndarray, method: dict[str, Any]) -> SplitFile:
    """Write a split of the rows `inputs` (all of the table) atomically.

    Raises:
        MatfmError: not one part for each row, or one that is none of `PARTS` and `-`.
    """
    if len(parts) != len(inputs):
        raise MatfmError(f"a split of {len(inputs)} rows cannot be made of {len(parts)} parts")
    unknown = set(parts.tolist()) - _CODES.keys()
    if unknown:
        raise MatfmError(f"{min(unknown)!r} is not a part; use {', '.join(PARTS)} or {UNUSED!r} for rows not used")
    inputs_sha256 = inputs_digest(inputs)
    content = {
        "format": FORMAT,
        "method": method,
        "rows": len(inputs),
        "inputs_sha256": inputs_sha256,
        "parts": "".join(_CODES[part] for part in parts),
    }
    digest = _content_digest(content)
    write_json(path, {**content, "sha256": digest})
    return SplitFile(parts, method, inputs_sha256, digest)


def load_split(path: Path, inputs: Sequence[str]) -> SplitFile:
    """Read a split and check that nothing in it was changed and that it was made for these inputs.

    Raises:
        MatfmError: no such file, not a split file, changed after it was written, or made for other rows.
    """
    content = _read(path)
    if _content_digest({key: value for key, value in content.items() if key != "sha256"}) != content["sha256"]:
        raise MatfmError(f"{path} was changed after it was written: its digest does not fit; make the split again")
    if content["rows"] != len(inputs) or len(content["parts"]) != len(inputs):
        raise MatfmError(
            f"{path} splits {content['rows']} rows and the table has {len(inputs)}; use the table it is of"
        )
    if content["inputs_sha256"] != inputs_digest(inputs):
        raise MatfmError(
            f"{path} splits other inputs than those of the table (or another order); use the table it is of"
        )
    codes = np.array(list(content["parts"]), dtype=object)
    parts = np.array([_PART_OF.get(code, "") for code in codes], dtype=object)
    if (parts == "").any():
        raise MatfmError(f"{path}: {codes[parts == ''][0]!r} stands for no part")
    return SplitFile(parts, content["method"], content["inputs_sha256"], content["sha256"])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MatfmError(f"{path} is not a file; check the path of the split")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MatfmError(f"{path} is not a split file: it is not readable JSON ({error})") from error
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        lacking = ", ".join(sorted(_KEYS - content.keys())) if isinstance(content, dict) else "an object"
        raise MatfmError(f"{path} is not a split file: it lacks {lacking}")
    if content["format"] != FORMAT:
        raise MatfmError(f"{path} has format {content['format']!r}; this version reads format {FORMAT}")
    if not isinstance(content["parts"], str) or not isinstance(content["method"], dict):
        raise MatfmError(f"{path} is not a split file: `parts` must be text and `method` an object")
    return content


def _content_digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
