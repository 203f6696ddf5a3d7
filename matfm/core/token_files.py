"""Token files: corpora of any size on disk, read through a memory map.

A token file is a folder with flat little-endian arrays: `ids.bin` (uint16, N), `offsets.bin` (int64, R + 1, where each
sequence starts), `rows.bin` (int64, R, its row in the table it came from), `amounts.bin` (float32, N, only for
tokens with a real-valued channel) and `meta.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from matfm.core.batching import RaggedTokens
from matfm.core.files import readable_os_errors, write_json
from matfm.errors import MatfmError

# N tokens, R sequences

FORMAT = 1
_TYPES = {"ids": "<u2", "offsets": "<i8", "rows": "<i8", "amounts": "<f4"}
_META = "meta.json"


class TokenWriter:
    """Appends sequences to the arrays of a token file that is not finished; memory does not grow with their number."""

    def __init__(self, folder: Path, amounts: bool, tokens: int = 0, sequences: int = 0) -> None:
        """Open the arrays in `folder`, cut back to so many tokens and sequences; 0 begins them.

        Raises:
            MatfmError: they hold fewer, or cannot be written.
        """
        self.folder, self.amounts = folder, amounts
        self.tokens, self.sequences = tokens, sequences
        sizes = {"ids": tokens, "offsets": sequences + 1, "rows": sequences, **({"amounts": tokens} if amounts else {})}
        begun = sequences > 0
        self._files: dict[str, IO[bytes]] = {}
        with readable_os_errors(folder), ExitStack() as stack:
            folder.mkdir(parents=True, exist_ok=True)
            for name, size in sizes.items():
                path, used = folder / f"{name}.bin", size * np.dtype(_TYPES[name]).itemsize
                if begun and (not path.is_file() or path.stat().st_size < used):
                    raise MatfmError(f"{path} has fewer bytes than were recorded; begin again without --resume")
                file = stack.enter_context(path.open("r+b" if begun else "w+b"))
                file.truncate(used if begun else 0)
                file.seek(0, os.SEEK_END)
                self._files[name] = file
            self._open = stack.pop_all()
        if not begun:
            self._append("offsets", np.zeros(1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with readable_os_errors(self.folder):
            self._open.close()

    def append(
        self, ids_N: np.ndarray, offsets: np.ndarray, rows_R: np.ndarray, amounts_N: np.ndarray | None = None
    ) -> None:
        """Add sequences: flat ids, where each starts (R + 1,), its row in the table, amounts if the file has them."""
        self._append("ids", ids_N)
        self._append("offsets", offsets[1:] + self.tokens)
        self._append("rows", rows_R)
        if amounts_N is not None:
            self._append("amounts", amounts_N)
        self.tokens += len(ids_N)
        self.sequences += len(rows_R)

    def save(self) -> None:
        """What was appended is on disk then."""
        with readable_os_errors(self.folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())

    def finish(self, out: Path, meta: Mapping[str, Any]) -> None:
        """Close the arrays, say in `meta.json` what they hold, and move the folder to `out`, with all that is in it."""
        self.save()
        self._open.close()
        counts = {"sequences": self.sequences, "tokens": self.tokens, "amounts": self.amounts}
        write_json(self.folder / _META, {"format": FORMAT, **counts, **meta})
        with readable_os_errors(out):
            self.folder.replace(out)

    def _append(self, name: str, values: np.ndarray) -> None:
        with readable_os_errors(self.folder):
            self._files[name].write(np.ascontiguousarray(values, _TYPES[name]).data)


def open_tokens(folder: Path) -> tuple[RaggedTokens, np.ndarray, dict[str, Any]]:
    """The sequences, their rows in the table, and what `meta.json` says. Nothing is read until it is used.

    Raises:
        MatfmError: there is no token file, it is of another format, or a part is truncated.
    """
    path = folder / _META
    if not path.is_file():
        raise MatfmError(f"{folder} is not a token file (it has no {_META}); write one with matfm data encode")
    try:
        meta = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise MatfmError(f"{path} cannot be read ({error}); encode the table again") from error
    if meta.get("format") != FORMAT:
        raise MatfmError(f"{path}: format {meta.get('format')!r} is not {FORMAT}; encode the table again")
    if not all(isinstance(meta.get(name), int) for name in ("tokens", "sequences", "amounts")):
        raise MatfmError(f"{path} does not say how many tokens there are; encode the table again")
    sizes = {"ids": meta["tokens"], "offsets": meta["sequences"] + 1, "rows": meta["sequences"]}
    ids_N, offsets, rows_R = (_mapped(folder, name, size) for name, size in sizes.items())
    amounts_N = _mapped(folder, "amounts", meta["tokens"]) if meta["amounts"] else no_amounts(meta["tokens"])
    return RaggedTokens(ids_N, amounts_N, offsets, np.zeros((len(rows_R), 0), np.float32)), rows_R, meta


def no_amounts(tokens: int) -> np.ndarray:
    """The channel of tokens without amounts: zeros (N,) that take no memory."""
    return np.broadcast_to(np.zeros((), np.float32), tokens)


def _mapped(folder: Path, name: str, size: int) -> np.ndarray:
    path, kind = folder / f"{name}.bin", np.dtype(_TYPES[name])
    found = path.stat().st_size if path.is_file() else 0
    if found != size * kind.itemsize:
        raise MatfmError(f"{path} has {found} bytes but {size * kind.itemsize} were written; encode the table again")
    return np.memmap(path, kind, "r") if size else np.zeros(0, kind)
