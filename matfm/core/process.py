"""What torchrun's environment says of this process, read without importing torch."""

from __future__ import annotations

import os

from matfm.errors import MatfmError


def started_processes() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process speaks for the run, before, while or after there is a process group."""
    return int(os.environ.get("RANK", "0")) == 0


def refuse_several(task: str) -> None:
    """Raise MatfmError where torchrun started several processes for a task that one process does."""
    if started_processes() > 1:
        raise MatfmError(f"{task} runs in one process and torchrun started {started_processes()}; call it without")
