"""Records of benchmarks: one JSON object a line, appended as they come."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from matfm.tasks.cards import versions

KEYS = ("benchmark", "task", "split", "model", "metric", "unit", "value", "n", "seconds")


def record(device: str, seed: int, **values: Any) -> dict[str, Any]:
    """A record with the command, seed, device and versions that made it; keys that do not apply are null."""
    return {
        **dict.fromkeys((*KEYS, "external_labels", "contaminated_share")),
        **values,
        "command": shlex.join(["python", *sys.argv]),
        "seed": seed,
        "device": device,
        "versions": versions(),
    }


def append(path: Path, *records: dict[str, Any]) -> None:
    """Add records to a .jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records)


def load(path: Path) -> list[dict[str, Any]]:
    """The records of a file; none if it does not exist."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
