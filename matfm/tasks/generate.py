"""`matfm generate`: a model in, a table of new compositions or molecules out; what cannot be kept is counted."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from matfm.chem.validity import ValidityCounter
from matfm.core.config import to_mapping
from matfm.core.files import write_text
from matfm.core.run_directory import RunDirectory
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.generation.conditions import Conditions, ConditionScores
from matfm.tasks.generation.config import GenerateConfig
from matfm.tasks.generation.generator import Draw, Generator
from matfm.tasks.generation.judging import Judge, Judged
from matfm.tasks.generation.known import known_forms, known_table
from matfm.tasks.generation.properties import PropertyColumns
from matfm.tasks.streaming.journal import resumable, weights_digest
from matfm.tasks.tables import table_writer

__all__ = ["GenerateConfig", "run"]

_FAILED = {
    "valid": "not valid",
    "unique": "seen before",
    "novel": "known",
    "neutral": "not charge neutral",
    "balanced": "not electronegativity balanced",
    "substructure": "without the substructure",
}


def run(config: GenerateConfig, resume: bool = False) -> dict[str, Any]:
    """Write `config.n` rows (fewer if `only` leaves too few of the draws); returns the summary.

    Samples lie in the folder `OUT.parts` until the table is written, so that an interrupted run can go on.

    Raises:
        MatfmError: the model, the prompt or the constraints cannot be used; or an interrupted run of another
            configuration, or one that is not resumed, is in the way.
    """
    with resumable(config.out):
        return _run(config, resume)


def _run(config: GenerateConfig, resume: bool) -> dict[str, Any]:
    started = time.perf_counter()
    device = resolve_device(config.device)
    generator = Generator(config, device)
    judge = Judge(config, generator.kind)
    properties = PropertyColumns(config.predict, generator.kind, device) if config.predict else None
    conditions = generator.conditions
    scores = ConditionScores(conditions, properties.targets) if conditions and properties else None
    table, column = known_table(config, generator.model.config.run)
    known, unreadable = known_forms(table, column, generator.kind) if table else (None, 0)
    parts = Path(f"{config.out}.parts")
    RunDirectory.open(parts, {**to_mapping(config), "weights": weights_digest(config.model)}, resume)
    rows = _Rows(config, generator.kind, judge, known, conditions)
    with ExitStack() as stack:
        schema = pa.schema([*rows.fields().items(), *(properties.fields.items() if properties else ())])
        append = stack.enter_context(table_writer(config.out, schema))
        bar = stack.enter_context(tqdm(total=config.n, desc="generate", unit="row", disable=None, leave=False))
        for first, draws in _chunks(config, generator, parts):
            columns = rows.add(first, draws)
            kept = len(columns["sample"])
            predicted = properties.of(columns) if properties else {}
            append({**columns, **predicted})
            if scores:
                scores.add(predicted)
            bar.update(kept)
            if rows.kept >= config.n:
                break
    shutil.rmtree(parts)
    novelty = {"novel_to": table, "novel_to_rows_with_error": unreadable} if config.novel_to else {}
    return {
        "task": "generate",
        "model": config.model,
        "kind": generator.kind,
        "out": config.out,
        "rows_asked": config.n,
        "rows_written": rows.kept,
        **rows.summary(),
        **novelty,
        **({"predicted_by": config.predict} if config.predict else {}),
        **({"conditions": _with_scores(conditions, scores)} if conditions else {}),
        "seed": config.seed,
        "device": device.type,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _with_scores(conditions: Conditions, scores: ConditionScores | None) -> list[dict[str, Any]]:
    """What was asked for, and what the run predicts of it."""
    found = scores.summary() if scores else [{} for _ in conditions.asked]
    return [{**asked, **score} for asked, score in zip(conditions.summary(), found, strict=True)]


def _chunks(config: GenerateConfig, generator: Generator, parts: Path) -> Iterator[tuple[int, list[Draw]]]:
    """Samples chunk by chunk, each with the number of its first one; those of an earlier run are read."""
    for first in range(0, config.draws, config.chunk):
        path = parts / f"{first:012d}.json"
        if path.is_file():
            yield first, _read(path)
            continue
        draws = generator.draw(first, min(config.chunk, config.draws - first))
        write_text(path, json.dumps([list(asdict(draw).values()) for draw in draws], ensure_ascii=False))
        yield first, draws


def _read(path: Path) -> list[Draw]:
    try:
        draws = json.loads(path.read_text("utf-8"))
        return [Draw(text, log_probability, ended, tuple(bins)) for text, log_probability, ended, bins in draws]
    except (ValueError, TypeError) as error:
        raise MatfmError(f"{path} is damaged ({error}); delete it and resume") from error


class _Rows:
    """Judges draws in their order, keeps those that are asked for, and counts."""

    def __init__(
        self, config: GenerateConfig, kind: str, judge: Judge, known: set[str] | None, conditions: Conditions
    ) -> None:
        self._config, self._judge, self._known, self._conditions = config, judge, known, conditions
        self._text = "formula" if kind == "composition" else kind
        self._counter = ValidityCounter(kind, known, keep=0)
        self._charges = judge.charges
        self._seen: set[str] = set()
        self._reasons: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self.kept = 0

    def fields(self) -> dict[str, pa.DataType]:
        """Columns of the table."""
        optional = {
            "smiles": pa.string() if self._text == "selfies" else None,
            "novel": None if self._known is None else pa.bool_(),
            "charge_neutral": pa.bool_() if self._charges else None,
            "electronegativity_balanced": pa.bool_() if self._charges else None,
            "substructure": pa.bool_() if self._config.substructure else None,
        }
        fields = {"sample": pa.int64(), self._text: pa.string(), "canonical": pa.string(), "valid": pa.bool_()}
        asked = dict.fromkeys(self._conditions.columns(), pa.string())
        last = {"unique": pa.bool_(), "log_probability": pa.float64(), "error": pa.string()}
        return {**fields, **{name: kind for name, kind in optional.items() if kind is not None}, **asked, **last}

    def add(self, first: int, draws: list[Draw]) -> dict[str, list[Any]]:
        """Columns of the rows that are kept, at most as many as are asked for in all."""
        columns: dict[str, list[Any]] = {name: [] for name in self.fields()}
        for number, draw in enumerate(draws, start=first):
            if self.kept >= self._config.n:
                break
            judged = self._judge(draw)
            cells = self._cells(number, draw, judged)
            failed = next((name for name in _FAILED if name in self._config.only and not cells[name]), None)
            if failed:
                self._left_out[_FAILED[failed]] += 1
                continue
            self.kept += 1
            for name, column in columns.items():
                column.append(cells[name])
        return columns

    def _cells(self, number: int, draw: Draw, judged: Judged) -> dict[str, Any]:
        verdict = judged.verdict
        canonical = verdict.canonical
        self._counter.add(draw.text, verdict)
        if judged.reason:
            self._reasons[judged.reason] += 1
        unique = canonical is not None and canonical not in self._seen
        if canonical is not None:
            self._seen.add(canonical)
        return {
            "sample": number,
            "smiles": canonical,
            self._text: draw.text,
            "canonical": canonical,
            "valid": verdict.valid,
            "unique": unique,
            "novel": None if self._known is None or canonical is None else canonical not in self._known,
            "charge_neutral": verdict.charge_neutral,
            "neutral": verdict.charge_neutral,
            "electronegativity_balanced": verdict.electronegativity_balanced,
            "balanced": verdict.electronegativity_balanced,
            "substructure": judged.substructure,
            "log_probability": draw.log_probability,
            "error": judged.reason,
            **self._conditions.cells(draw.bins),
        }

    def summary(self) -> dict[str, Any]:
        """Counts over all draws that were looked at."""
        counts = self._counter.report().summary()
        if not self._charges:
            counts = {name: value for name, value in counts.items() if name not in _CHARGE_SHARES}
        return {
            "drawn": counts.pop("n"),
            **counts,
            "invalid_by_reason": dict(self._reasons.most_common()),
            "left_out_by_reason": dict(self._left_out.most_common()),
        }


_CHARGE_SHARES = ("charge_neutral", "electronegativity_balanced")
