"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from matfm.errors import MatfmError, RunError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PLACE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
_CODE = re.compile(r"\(os error ([0-9]+)\)")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed into place.

    Where `path` is a symbolic link, the file that it leads to is replaced and the link stays.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with readable_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8; half characters, which names of files may have, as escapes)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8", "backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented. Names of files that are no UTF-8 come back as they were."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not text.isascii() and not _is_utf8(text):
        text = json.dumps(value, indent=2)
    write_text(path, text + "\n")


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def readable_os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence that names the path and the remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = error.errno if isinstance(error, OSError) else os_error_code(error)
        if code in _NO_SPACE:
            raise RunError(f"the disk is full: {path} could not be written; free space and run again") from error
        if code in _NO_PLACE:
            raise MatfmError(f"{path} cannot be written ({os.strerror(code)}); choose another place") from error
        raise


def os_error_code(error: Exception) -> int | None:
    """The code that a message of a library written in Rust ends with, such as `(os error 28)`."""
    found = _CODE.search(str(error))
    return int(found[1]) if found else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
