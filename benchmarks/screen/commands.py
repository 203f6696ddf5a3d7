"""Command lines of matfm as processes: their time and memory, killed in the middle or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_EVERY = 0.25
"""Seconds between two looks at the memory."""


@dataclass
class Measured:
    """A finished command."""

    summary: dict[str, Any]
    seconds: float
    """From the start of the process to its end."""
    peak_bytes: int
    """Largest sum over the command and its worker processes; shared pages count once (Linux), else resident bytes."""


@dataclass
class _Memory:
    """The memory of a process and all it started."""

    process: psutil.Process
    peak: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.ended.wait(_EVERY):
            with suppress(psutil.NoSuchProcess):
                every = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(map(_bytes, every)))


def _bytes(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        used = process.memory_full_info()
        return int(getattr(used, "pss", 0) or used.rss)
    return 0


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "matfm", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measure(*arguments: object) -> Measured:
    """Run a command to its end. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    process = _start([str(argument) for argument in arguments])
    memory = _Memory(psutil.Process(process.pid))
    watcher = threading.Thread(target=memory.watch)
    watcher.start()
    out, _ = process.communicate()
    seconds = time.perf_counter() - started
    memory.ended.set()
    watcher.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Measured(json.loads(out.splitlines()[-1]), seconds, memory.peak)


def kill_after(rows: int, out: Path, *arguments: object) -> int:
    """SIGKILL a command once its journal beside `out` says so many rows; returns the rows it had recorded.

    Raises:
        RuntimeError: it ended before.
    """
    journal = out.with_name(f".{out.name}.unfinished") / "state.json"
    process = _start([str(argument) for argument in arguments])
    while process.poll() is None and _recorded(journal) < rows:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError(f"{arguments[0]} ended before it could be killed; use more rows")
    return _recorded(journal)


def _recorded(journal: Path) -> int:
    return int(json.loads(journal.read_text("utf-8"))["rows"]) if journal.is_file() else 0
