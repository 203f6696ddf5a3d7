"""The folder of a run: its configuration, metrics and summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matfm.core.files import readable_os_errors, write_json
from matfm.errors import MatfmError


@dataclass(frozen=True)
class RunDirectory:
    """`config.json`, `metrics.json` and `summary.json` of one run.

    `config.json` holds the resolved configuration under `run`; the architecture joins it when weights are saved.
    """

    path: Path

    @classmethod
    def open(cls, path: Path, config: dict[str, Any], resume: bool, free: frozenset[str] = frozenset()) -> RunDirectory:
        """Create the folder, or with `resume` continue in it.

        Args:
            path: the folder.
            config: the resolved configuration.
            resume: whether a run that is there continues.
            free: dotted names of what may differ from when it was begun, because it changes no result.

        Raises:
            MatfmError: the folder cannot be written, holds another run, or was begun with another configuration.
        """
        run = cls(path)
        with readable_os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        previous = run._read("config.json")
        if previous is not None:
            if not resume:
                raise MatfmError(f"{path} already holds a run; continue it with --resume, or choose another --out")
            begun = previous.get("run")
            begun = begun if isinstance(begun, dict) else {}
            changed = _first_difference(begun, json.loads(json.dumps(config)), free)
            if changed:
                raise MatfmError(f"{path} was begun with another {changed}; resume with the same configuration")
        else:
            write_json(path / "config.json", {"run": config})
        return run

    def finished_summary(self) -> dict[str, Any] | None:
        """The summary if this run already ended."""
        return self._read("summary.json")

    def summary(self) -> dict[str, Any]:
        """The summary of a finished run."""
        summary = self._read("summary.json")
        if summary is None:
            raise MatfmError(f"{self.path} holds no finished run (summary.json is missing)")
        return summary

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write `metrics.json`."""
        write_json(self.path / "metrics.json", metrics)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`, which marks the run as ended."""
        write_json(self.path / "summary.json", {**summary, "run": str(self.path)})

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.is_file():
            return None
        try:
            value = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise MatfmError(f"{path} is not readable JSON ({error}); delete the folder and run again") from error
        if not isinstance(value, dict):
            raise MatfmError(f"{path} holds no JSON object; delete the folder and run again")
        return value


def _first_difference(old: dict[str, Any], new: dict[str, Any], free: frozenset[str], prefix: str = "") -> str | None:
    """Dotted name of the first key that differs and is not free to."""
    for key in sorted(old.keys() | new.keys()):
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            inner = _first_difference(old[key], new[key], free, f"{prefix}{key}.")
            if inner:
                return inner
        elif old.get(key) != new.get(key) and prefix + key not in free:
            return f"{prefix}{key} ({old.get(key)!r}, now {new.get(key)!r})"
    return None
