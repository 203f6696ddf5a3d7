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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from matfm.chem.units import Property
from matfm.core.run_directory import RunDirectory
from matfm.core.run_log import LOG_FILE, read_log
from matfm.errors import MatfmError
from matfm.tasks.cards import ENVIRONMENT
from matfm.tasks.targets import Targets

# R rows of the part that is shown, C classes

PREDICTIONS, REJECTS = "predictions.parquet", "rejects.csv"
_PLACE = re.compile(r"^(?:…|'.*?'|\".*?\")(?: at position [0-9]+)?: ", re.DOTALL)
_SHOWN_PARTS = ("test", "valid", "train")


@dataclass(frozen=True)
class Results:
    """Labels and predictions of one target on the rows that are shown: test rows, else validation or training rows."""

    name: str
    unit: str
    classes: tuple[str, ...]
    """Names of the classes; empty for a number."""
    part: str
    row_R: np.ndarray
    """Row in the table that the run was given, from 0."""
    inputs: list[str]
    true_R: np.ndarray
    """Labels, or indices of classes."""
    value_R: np.ndarray
    """Predictions, or probabilities (R, C)."""
    std_R: np.ndarray | None
    quantiles: dict[float, np.ndarray]
    train_R: np.ndarray
    """Exact labels of the training rows; another R."""

    @property
    def errors(self) -> np.ndarray:
        """(R,): distance from the label in its unit; of classes, 1 where the likeliest is wrong."""
        if self.classes:
            wrong: np.ndarray = (self.value_R.argmax(axis=1) != self.true_R).astype(np.float64)
            return wrong
        distance: np.ndarray = np.abs(self.true_R - self.value_R)
        return distance

    @property
    def label(self) -> str:
        """Name with unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def error_name(self) -> str:
        """What the mean of `errors` is."""
        if self.classes:
            return "share of wrong classes"
        return f"mean absolute error ({self.unit})" if self.unit else "mean absolute error"


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
            raise MatfmError(f"{path} holds no run (config.json is missing); {hint}")
        summary = RunDirectory(path).summary()
        try:
            said = json.loads((path / "config.json").read_text("utf-8"))
            return cls(path, {key: value for key, value in said.items() if key != "run"}, said.get("run", {}), summary)
        except (ValueError, AttributeError) as error:
            raise MatfmError(f"{path / 'config.json'} is not a readable configuration: {error}") from error

    @property
    def task(self) -> str:
        """finetune, pretrain, fewshot, …: the verb that made the run."""
        made_by = str(self.summary.get("task", "run"))
        return "finetune" if made_by in ("regression", "classification") else made_by

    @property
    def kind(self) -> str | None:
        """composition, smiles or selfies."""
        kind = self.summary.get("kind") or self.config.get("kind") or self.config.get("data", {}).get("kind")
        return None if kind is None else str(kind)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Command, device and versions; empty for runs that did not record them."""
        path = self.path / ENVIRONMENT
        try:
            return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
        except (ValueError, TypeError) as error:
            raise MatfmError(f"{path} is not readable JSON ({error}); remove it") from error

    @cached_property
    def logs(self) -> dict[str, list[dict[str, Any]]]:
        """Records of the training of each model, by its name; the first is that of the run itself."""
        members = sorted(self.path.glob(f"ensemble/*/{LOG_FILE}"), key=lambda path: (len(path.parent.name), path))
        logs = {"model 1": read_log(self.path / LOG_FILE)}
        logs |= {f"model {count}": read_log(path) for count, path in enumerate(members, start=2)}
        return {name: records for name, records in logs.items() if records}

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
        if not path.is_file() or not self.config.get("targets"):
            return []
        try:
            table = pq.read_table(path)
            return self._results(table)
        except (pa.ArrowInvalid, KeyError) as error:
            raise MatfmError(f"{path} is not what matfm finetune writes ({error}); fine-tune again") from error

    def inputs_of(self, part: str) -> list[str]:
        """Cells of the input column of train, valid or test."""
        table = pq.read_table(self.path / PREDICTIONS, columns=["part", self.config["input"]])
        parts, inputs = table["part"].to_pylist(), table[self.config["input"]].to_pylist()
        return [str(text) for text, of in zip(inputs, parts, strict=True) if of == part]

    def _results(self, table: pa.Table) -> list[Results]:
        names, units = self.config["targets"], self.summary.get("units", {})
        every_class = _classes(self.architecture.get("class_names"))
        if every_class:
            known = tuple(Property(name, "") for name in names)
            columns_of = Targets(known, every_class).class_columns("probability")
        parts = np.array(table["part"].to_pylist(), dtype=object)
        found = []
        for k, name in enumerate(names):
            true = _numbers(table, name)
            exact = np.isfinite(true)
            if f"{name}_censored" in table.column_names:
                exact &= np.array([not sign for sign in table[f"{name}_censored"].to_pylist()])
            part = next((part for part in _SHOWN_PARTS if (exact & (parts == part)).any()), None)
            if part is None:
                continue
            rows = np.flatnonzero(exact & (parts == part))
            shown = table.take(pa.array(rows))
            std, beginning = f"predicted_{name}_std", f"predicted_{name}_q"
            value = (
                np.stack([_numbers(shown, column) for column in columns_of[k]], axis=1)
                if every_class
                else _numbers(shown, f"predicted_{name}")
            )
            found.append(
                Results(
                    name,
                    str(units.get(name, "")),
                    every_class[k] if every_class else (),
                    part,
                    _numbers(shown, "row").astype(np.int64),
                    [str(text) for text in shown[self.config["input"]].to_pylist()],
                    true[rows],
                    value,
                    _numbers(shown, std) if std in table.column_names else None,
                    {
                        float(column.removeprefix(beginning)): _numbers(shown, column)
                        for column in table.column_names
                        if column.startswith(beginning) and _is_number(column.removeprefix(beginning))
                    },
                    true[exact & (parts == "train")],
                )
            )
        return found


def _kind_of(reason: str, value: str) -> str:
    """The reason without the value and its place, so that rows with the same mistake are counted together."""
    return _PLACE.sub("", reason.replace(repr(value), "…", 1))


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist(), dtype=np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(names: list[Any] | None) -> tuple[tuple[str, ...], ...]:
    """Names of the classes of every target; none for numbers."""
    if not names:
        return ()
    several = names if isinstance(names[0], list) else [names]
    return tuple(tuple(str(label) for label in labels) for labels in several)
