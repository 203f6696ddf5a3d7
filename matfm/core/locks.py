"""Locks between processes on one folder, which the system releases when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matfm.core.files import readable_os_errors


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One process at a time; the others wait. The file stays, empty."""
    with readable_os_errors(path):
        file = path.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def sign_of_life(path: Path) -> Iterator[None]:
    """A file that is locked as long as this process is inside, and gone when it left in order."""
    with readable_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def lives(path: Path) -> bool:
    """Whether a process is inside `sign_of_life` of this file, on this machine or another that shares the folder."""
    try:
        file = path.open("r")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
