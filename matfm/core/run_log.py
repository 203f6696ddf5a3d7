"""The log of a run: one JSON record a line, and the same for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matfm.core.files import atomic_path, readable_os_errors
from matfm.errors import MatfmError

LOG_FILE = "log.jsonl"


class RunLog:
    """Appends records to `log.jsonl`; with `tensorboard`, their numbers to the folder `tensorboard` too.

    Raises:
        MatfmError: `tensorboard` is asked for and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.path = folder / LOG_FILE
        self.writer = _summary_writer(folder / "tensorboard") if tensorboard else None

    def cut_after(self, step: int) -> None:
        """Keep the records up to a step; those after it will be written again."""
        records = [record for record in read_log(self.path) if record["step"] <= step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")

    def append(self, record: dict[str, Any]) -> None:
        """`record` has `step`."""
        with readable_os_errors(self.path), self.path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")
        if self.writer is not None:
            for name, value in _numbers(record, ""):
                if name != "step":
                    self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write what TensorBoard's writer still holds."""
        if self.writer is not None:
            self.writer.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log up to the first line that is none, such as a last one cut off by a kill."""
    records = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not (isinstance(record, dict) and isinstance(record.get("step"), int)):
            break
        records.append(record)
    return records


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MatfmError(
            "tensorboard is true and TensorBoard is not installed; pip install 'matfm[tensorboard]', or set it false"
        ) from error
    return SummaryWriter(str(folder))


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Every number of nested mappings, with the path to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, (int, float)):
        yield name, float(value)
