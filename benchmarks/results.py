"""Records of benchmarks: one JSON object a line, each line written whole, so that a killed run goes on."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matfm.core.files import write_text
from matfm.tasks.cards import versions

KEYS = ("benchmark", "task", "split", "model", "metric", "unit", "value", "n", "seconds")
MEAN = "mean"
"""Split of the records that are a mean over folds, sets or seeds."""
Record = dict[str, Any]


def record(device: str, seed: int, **values: Any) -> Record:
    """A record with the command, seed, device and versions that made it; keys that do not apply are null.

    `weights` are those of the model that was measured, or that it began with (`benchmarks.weights.weights_of`).
    """
    return {
        **dict.fromkeys((*KEYS, "weights", "external_labels", "contaminated_share")),
        **values,
        "command": shlex.join(["python", *sys.argv]),
        "seed": seed,
        "device": device,
        "versions": versions(),
    }


def append(path: Path, *records: Record) -> None:
    """Add records to a .jsonl file; they are on the disk when this returns. A line that a killed run left is cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records)
    with path.open("a+b") as lines:
        lines.seek(0)
        before = lines.read()
        if before and not before.endswith(b"\n"):
            lines.truncate(before.rfind(b"\n") + 1)
        lines.write(text.encode())
        lines.flush()
        os.fsync(lines.fileno())


def load(path: Path) -> list[Record]:
    """The records of a file, without a line that a killed run left unfinished; none if it does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


def rewrite(path: Path, records: Iterable[Record]) -> None:
    """A file of records that are computed from others."""
    write_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records))


def matching(entries: Iterable[Record], **wanted: Any) -> list[Record]:
    """The records with these values."""
    return [entry for entry in entries if all(entry.get(key) == value for key, value in wanted.items())]


def mean_record(entries: Sequence[Record], device: str, **values: Any) -> Record:
    """Mean over records with standard deviation (ddof = 0, as on leaderboards) and 95 % interval (Student's t).

    Args:
        entries: of one task, model and metric, one a fold, set or seed.
        device: for the record.
        values: further keys, or others than those of the first record.
    """
    from scipy import stats

    scores = np.array([entry["value"] for entry in entries], float)
    count, interval = len(scores), None
    if count > 1:
        half = float(stats.t.ppf(0.975, count - 1) * scores.std(ddof=1) / count**0.5)
        interval = [float(scores.mean()) - half, float(scores.mean()) + half]
    shares = [entry["contaminated_share"] for entry in entries if entry["contaminated_share"] is not None]
    kept = {key: entries[0][key] for key in (*KEYS, "weights", "external_labels") if key in entries[0]}
    return {
        **record(device, entries[0]["seed"]),
        **kept,
        "split": MEAN,
        "value": float(scores.mean()),
        "std": float(scores.std()),
        "interval": interval,
        "n": sum(entry["n"] or 0 for entry in entries),
        "seconds": round(sum(entry["seconds"] or 0 for entry in entries), 1),
        "contaminated_share": round(float(np.mean(shares)), 4) if shares else None,
        **values,
    }
