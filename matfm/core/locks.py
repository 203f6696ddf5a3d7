"""Locks between processes on one folder, which the system releases when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from matfm.core.files import readable_os_errors
from matfm.core.process import is_first_process
from matfm.errors import MatfmError

_LOCK = ".lock"
Given = ParamSpec("Given")
Result = TypeVar("Result")


def alone_in_folder(run: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorator of a task's `run(config, out, …)`: a second process that is to work in the folder `out` is refused.

    The folder is made for it, and goes again if nothing was put into it.
    """

    @functools.wraps(run)
    def locked(*arguments: Given.args, **named: Given.kwargs) -> Result:
        out = Path(str(named["out"] if "out" in named else arguments[1]))
        if not is_first_process():  # of several that train together, the first one speaks for all
            return run(*arguments, **named)
        begun = out.exists()
        try:
            with alone(out / _LOCK, out):
                return run(*arguments, **named)
        finally:
            if not begun:
                with suppress(OSError):  # it holds a run
                    out.rmdir()

    return locked


@contextmanager
def alone(path: Path, work: Path) -> Iterator[None]:
    """No other process works on `work` meanwhile; `path` is the file that says so, gone afterwards.

    Raises:
        MatfmError: another process does, or the file cannot be written.
    """
    try:
        str(work).encode()
    except UnicodeEncodeError as error:  # Arrow and safetensors open no such file
        raise MatfmError(f"{str(work)!r} is no name in UTF-8; choose another --out") from error
    with readable_os_errors(work):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    if file is None:
        raise MatfmError(f"another process works on {work}; wait until it has ended, or choose another --out")
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def _locked(path: Path) -> IO[str] | None:
    """The open file with a lock; None where another process has it."""
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a file system without locks
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its holder has just removed it: try the next one


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
