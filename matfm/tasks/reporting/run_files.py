"""What a run directory holds, read for its report. Every file but `config.json` and `summary.json` may be missing."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from matfm.core.run_directory import RunDirectory
from matfm.core.run_log import LOG_FILE, read_log
from matfm.errors import MatfmError
from matfm.tasks.cards import ENVIRONMENT
from matfm.tasks.reporting.results import Results, results_of

PREDICTIONS, REJECTS = "predictions.parquet", "rejects.csv"
_SUMMARY = "summary.json"
_PLACE = re.compile(r"^(?:…|'.*?'|\".*?\")(?: at position [0-9]+)?: ", re.DOTALL)
_ADAPTED = "adapted"
"""Model of an adaptation whose predictions are in `predictions.parquet`."""


@dataclass(frozen=True)
class RunFiles:
    """A finished run."""

    path: Path
    architecture: dict[str, Any]
    """`config.json` without the configuration of the run."""
    config: dict[str, Any]
    """The resolved configuration."""
    summary: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> RunFiles:
        """Raises MatfmError: there is no run, it has not finished, or its files are damaged."""
        if not (path / "config.json").is_file():
            inner = path / "run"
            hint = f"did you mean {inner}?" if (inner / "config.json").is_file() else "give the --out of a run"
            what = "holds no run (config.json is missing)" if path.is_dir() else "is no folder"
            raise MatfmError(f"{path} {what}; {hint}")
        if not (path / _SUMMARY).is_file():
            whole = next((above for above in path.parents[:2] if (above / _SUMMARY).is_file()), None)
            hint = f"it belongs to the run {whole}" if whole else "end it with --resume, or give the --out of a run"
            raise MatfmError(f"{path} holds no finished run (summary.json is missing); {hint}")
        summary = RunDirectory(path).summary()
        said = read_object(path / "config.json", "give the --out of a run that is whole")
        config = said.pop("run", {})
        if not isinstance(config, dict):
            raise MatfmError(f"{path / 'config.json'} is not a readable configuration: 'run' holds no names and values")
        return cls(path, said, config, summary)

    @property
    def task(self) -> str:
        """finetune, pretrain, adapt, fewshot, tune, compare-strategies, …: the verb that made the run."""
        made_by = str(self.summary.get("task", "run"))
        return "finetune" if made_by in ("regression", "classification") else made_by

    @property
    def kind(self) -> str | None:
        """composition, smiles or selfies."""
        kind = self.summary.get("kind") or self.config.get("kind") or as_mapping(self.config.get("data")).get("kind")
        return None if kind is None else str(kind)

    @property
    def training(self) -> dict[str, Any]:
        """Configuration of the fine-tuning; of a search or comparison, the one that its trials or strategies vary."""
        return as_mapping(self.config.get("finetune")) or self.config

    def mapping(self, name: str) -> dict[str, Any]:
        """An entry of the summary that has names and values; empty where there is none."""
        return as_mapping(self.summary.get(name))

    def entries(self, name: str) -> list[dict[str, Any]]:
        """An entry of the summary that is a list of records; empty where there is none."""
        found = self.summary.get(name)
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    @property
    def targets(self) -> list[str]:
        """Columns that are predicted; none for runs that predict no column of a table."""
        label = self.config.get("label")
        return list(self.training.get("targets") or ([label] if self.task == "adapt" and label else []))

    def scores_of(self, results: Results) -> dict[str, float]:
        """Scores of the rows that are shown; empty where the summary has none."""
        metrics = self.mapping("metrics")
        if self.task == "adapt":
            metrics = as_mapping(metrics.get(_ADAPTED))
        return as_mapping(as_mapping(metrics.get(results.part)).get(results.name))

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Command, device and versions; empty for runs that did not record them."""
        path = self.path / ENVIRONMENT
        return read_object(path, "remove it") if path.is_file() else {}

    @cached_property
    def logs(self) -> dict[str, list[dict[str, Any]]]:
        """Records of the training of each model, by its name; the first is that of the run itself."""
        if self.task == "adapt":
            named = {"adapted": self.path / LOG_FILE, "control": self.path / "control" / LOG_FILE}
        else:
            members = sorted(self.path.glob(f"ensemble/*/{LOG_FILE}"), key=lambda path: (len(path.parent.name), path))
            named = {f"model {count}": path for count, path in enumerate([self.path / LOG_FILE, *members], start=1)}
        return {name: records for name, path in named.items() if (records := read_log(path))}

    @cached_property
    def reject_reasons(self) -> list[tuple[str, str, int, str]]:
        """Column, reason, how often, and the first row; the most frequent first."""
        path = self.path / REJECTS
        if not path.is_file():
            return []
        counts: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, str], str] = {}
        csv.field_size_limit(2**31 - 1)
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            for line in csv.DictReader(lines):
                key = (line.get("column") or "", _kind_of(line.get("reason") or "", line.get("value") or ""))
                counts[key] += 1
                first.setdefault(key, line.get("row") or "")
        return [(column, reason, count, first[column, reason]) for (column, reason), count in counts.most_common()]

    @cached_property
    def results(self) -> list[Results]:
        """Of every target that has exact labels; none for runs without predictions."""
        path = self.path / PREDICTIONS
        if not path.is_file() or not self.targets:
            return []
        try:
            names = self.architecture.get("class_names")
            return results_of(pq.read_table(path), self.config["input"], self.targets, self.mapping("units"), names)
        except (pa.ArrowInvalid, KeyError) as error:
            raise MatfmError(f"{path} is not what matfm {self.task} writes ({error}); run it again") from error

    def inputs_of(self, part: str) -> list[str]:
        """Cells of the input column of train, valid or test."""
        table = pq.read_table(self.path / PREDICTIONS, columns=["part", self.config["input"]])
        parts, inputs = table["part"].to_pylist(), table[self.config["input"]].to_pylist()
        return [str(text) for text, of in zip(inputs, parts, strict=True) if of == part]


def as_mapping(value: Any) -> dict[str, Any]:
    """Names and values as they are, anything else as none."""
    return value if isinstance(value, dict) else {}


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The names and values of a JSON file. Raises MatfmError, with the remedy, for a damaged one."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MatfmError(f"{path} is not readable JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise MatfmError(f"{path} holds no JSON object; {remedy}")
    return value


def _kind_of(reason: str, value: str) -> str:
    """The reason without the value and its place, so that rows with the same mistake are counted together."""
    return _PLACE.sub("", reason.replace(repr(value), "…", 1))
