"""`matfm screen`: a few labelled examples and a library of any size in, its best rows out, streaming."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.few_shot.classical_features import FeatureBlock, Features, classical_block
from matfm.tasks.few_shot.features import EMBEDDING
from matfm.tasks.few_shot.scorers import KernelScorer
from matfm.tasks.few_shot.support_scorer import SupportScorer, check_support, is_binary
from matfm.tasks.rejects import Reject, RejectLog
from matfm.tasks.screening.chunk_scorer import Backbone, ChunkScorer, Describer, ScoredChunk, one_thread
from matfm.tasks.screening.diversity import maxmin_pick
from matfm.tasks.screening.library import CHUNK_ROWS, Library
from matfm.tasks.screening.ray_engine import check_ray, map_with_ray
from matfm.tasks.screening.support_domain import SupportDomain
from matfm.tasks.screening.support_table import SupportTable, read_support
from matfm.tasks.screening.top_rows import TopRows
from matfm.tasks.streaming.journal import Journal, resumable, weights_digest
from matfm.tasks.streaming.parallel import available_cores, map_in_order
from matfm.tasks.streaming.tally import RowTally
from matfm.tasks.tables import Chunk, check_output, output_format, table_writer

# S support examples

NewScorer = Callable[[tuple[FeatureBlock, ...]], SupportScorer]
"""From the blocks of the vectors' columns to a scorer to be fitted."""
ENGINES = ("local", "ray")
REFERENCE_ROWS = 2_000
"""Rows at the beginning of the library that, with the support, say which distances are large (`applicable`)."""
SHOWN = 5
FIELDS = {
    "rank": pa.int64(),
    "row": pa.int64(),
    "score": pa.float64(),
    "uncertainty": pa.float64(),
    "applicable": pa.string(),
    "nearest_support": pa.string(),
    "nearest_label": pa.string(),
}
"""Columns of the output beside the library's; one of the library with such a name is replaced."""


@dataclass(frozen=True)
class ScreenConfig:
    """`matfm screen`."""

    library: str
    """Table to screen, a folder of tables with the same columns, or - for CSV on standard input."""
    support: str
    """Table of labelled examples."""
    input: str
    """Column with the formulas, SMILES or SELFIES, in the library and in the support."""
    label: str
    """Column of the support with numbers or two classes."""
    out: str
    """Table to write."""
    top: int = 1000
    """Rows to keep."""
    backbone: str = "matbert-small"
    """Bundled name, folder, Hub id or run directory."""
    classical: str = "auto"
    """Features beside the embedding: none, ecfp (of molecules), fractions or magpie (of compositions), or auto."""
    engine: str = "local"
    """local (processes of this machine) or ray."""
    kind: str | None = None
    """composition, smiles or selfies; None is what the backbone reads."""
    positive: str | None = None
    """Label of the wanted class; all others are the other class."""
    minimize: bool = False
    """Whether low scores are the best."""
    diversity: int | None = None
    """Pick that many of the kept rows, unlike each other."""
    keep_bad: str | None = None
    """Table of the rows that cannot be read; None is the name of `out` with .rejects.csv."""
    workers: int = 0
    """Processes of the engine local; 0 for one per core."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise MatfmError(f"--engine is {self.engine!r}; choose one of {', '.join(ENGINES)}")
        if self.top < 1:
            raise MatfmError(f"--top is {self.top}; keep at least one row")
        if self.diversity is not None and not 1 <= self.diversity <= self.top:
            raise MatfmError(f"--diversity is {self.diversity}; pick from 1 to --top ({self.top}) rows")
        if self.workers < 0:
            raise MatfmError(f"--workers is {self.workers}; give a number of processes, or 0 for one per core")
        output_format(self.out)
        for path in (self.out, self.bad_rows):
            check_output(path, self.support)
        if Path(self.out).resolve() == Path(self.bad_rows).resolve():
            raise MatfmError(f"--out and --keep-bad cannot both be {self.out}; choose another name")

    @property
    def bad_rows(self) -> str:
        """Where the rows that cannot be read are listed."""
        stem = Path(Path(self.out).name.removesuffix(".gz")).stem
        return self.keep_bad or str(Path(self.out).with_name(f"{stem}.rejects.csv"))


def run(config: ScreenConfig, resume: bool = False, new_scorer: NewScorer = KernelScorer) -> dict[str, Any]:
    """Write the best rows of the library, the best one first.

    Args:
        config: the call.
        resume: continue an interrupted screening.
        new_scorer: makes the scorer that is fitted to the support.

    Raises:
        MatfmError: the call or a table is wrong; a row of the library never is, it is listed.
        RunError: worker processes were ended.
    """
    with resumable(config.out):
        return _run(config, resume, new_scorer)


def _run(config: ScreenConfig, resume: bool, new_scorer: NewScorer) -> dict[str, Any]:
    if config.engine == "ray":
        check_ray()
    started = time.perf_counter()
    library = Library.open(config.library)
    for path in (config.out, config.bad_rows):
        library.check_output(path)
    backbone = Backbone(config.backbone, config.kind, resolve_device(config.device).type)
    describe = Describer(backbone, _classical(config, backbone))
    support, known = _readable(config, describe)
    chunks = library.chunks()
    first = next(chunks)
    reference = first.column(config.input, config.library)[:REFERENCE_ROWS]
    job = _fitted(support, known, describe, reference, new_scorer)
    journal = Journal.open(config.out, "screen", _begun_with(config, support, first, job), resume)
    rows_before = journal.rows
    top, tally = _screen(config, library, job, journal, chain([first], chunks))
    rows_out = _write(config, list(first.columns), top.ranked(), support, job)
    journal.close()
    seconds = time.perf_counter() - started
    counts = tally.summary()
    return {
        "task": "screen",
        "library": config.library,
        "shards": len(library.shards),
        "backbone": config.backbone,
        "kind": tally.kind,
        "features": [EMBEDDING, *([] if describe.classical is None else [describe.classical.name])],
        "engine": config.engine,
        "labels": "classes" if is_binary(support.labels_S) else "values",
        "support_rows": len(support.inputs),
        "support_rejected": len(support.rejects),
        "first_support_rejected": [{"row": reject.row, "reason": reject.reason} for reject in support.rejects[:SHOWN]],
        "out": config.out,
        "bad_rows": config.bad_rows,
        "rows_in": counts.pop("rows_in"),
        "rows_scored": counts.pop("rows_done"),
        **counts,
        "rows_out": rows_out,
        "seconds": round(seconds, 2),
        "rows_per_second": round((tally.rows - rows_before) / seconds, 1),
    }


def _begun_with(config: ScreenConfig, support: SupportTable, first: Chunk, job: ChunkScorer) -> dict[str, Any]:
    """All that decides the rows that are kept."""
    return {
        "backbone": weights_digest(config.backbone),
        "kind": config.kind,
        "classical": None if job.describe.classical is None else job.describe.classical.name,
        "support": support.digest(),
        "input": config.input,
        "top": config.top,
        "minimize": config.minimize,
        "scorer": type(job.scorer).__name__,
        "columns": list(first.columns),
        "rows of a chunk": CHUNK_ROWS,
    }


def _classical(config: ScreenConfig, backbone: Backbone) -> FeatureBlock | None:
    """Beside the embedding; of compositions nothing unless it is asked for."""
    if config.classical == "auto" and backbone.reads == "composition":
        return None
    return classical_block(config.classical, backbone.reads)


def _readable(config: ScreenConfig, describe: Describer) -> tuple[SupportTable, Features]:
    """The examples that can be used, and their features."""
    support = read_support(config.support, config.input, config.label, config.positive)
    described = describe(support.inputs)
    unreadable = [
        Reject(support.rows[s], config.input, support.inputs[s], reason)
        for s, reason in described.encoded.errors.items()
    ]
    usable = support.take(described.encoded.rows, unreadable)
    try:
        check_support(usable.labels_S)
    except MatfmError as error:
        why = f" (row {usable.rejects[0].row}: {usable.rejects[0].reason})" if usable.rejects else ""
        raise MatfmError(f"{config.support}: {error}{why}") from error
    return usable, describe.features(described)


def _fitted(
    support: SupportTable, known: Features, describe: Describer, cells: list[str], new_scorer: NewScorer
) -> ChunkScorer:
    """What is learned from the support, and how far it reaches on the scale of the beginning of the library."""
    support_SD = known.block(EMBEDDING).vectors_RW
    reference_RD = np.concatenate([support_SD, describe.backbone.embed(describe.backbone.encode(cells))])
    with one_thread():
        scorer = new_scorer(known.blocks).fit(known.vectors_RW, support.labels_S)
        return ChunkScorer(describe, scorer, SupportDomain.of(support_SD, reference_RD))


def _screen(
    config: ScreenConfig, library: Library, job: ChunkScorer, journal: Journal, chunks: Iterator[Chunk]
) -> tuple[TopRows, RowTally]:
    """Score what is pending; the journal has it after every chunk."""
    saved = journal.saved or {"top": [], "tally": RowTally(job.describe.backbone.reads).state(), "rejects_bytes": 0}
    top, tally = TopRows.of_state(config.top, saved["top"]), RowTally.of_state(saved["tally"])
    rejects = RejectLog(journal.folder / "rejects.csv", saved["rejects_bytes"])
    total = library.count_rows() if sys.stderr.isatty() else None
    bar = tqdm(desc="screen", unit="row", total=total, initial=journal.rows, disable=None, leave=False)
    try:
        for chunk, scored in _scored(config, job, journal.pending(chunks)):
            errors = _enter(config, chunk, scored, top)
            cells = chunk.columns[config.input]
            listed = [Reject(chunk.first_row + b, config.input, cells[b], errors[b]) for b in sorted(errors)]
            tally.add(chunk, scored.reading, errors)
            written = rejects.write(listed)
            journal.record(chunk, {"top": top.state(), "tally": tally.state(), "rejects_bytes": written})
            bar.update(chunk.rows)
        rejects.save(Path(config.bad_rows))
    finally:
        bar.close()
        rejects.close()
    return top, tally


def _scored(config: ScreenConfig, job: ChunkScorer, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, ScoredChunk]]:
    """Every chunk in order with its scores."""
    if config.engine == "ray":
        return map_with_ray(job, chunks, config.input, gpus=int(job.describe.backbone.device == "cuda"))
    workers = config.workers or available_cores()
    if job.describe.backbone.device == "cpu":
        return map_in_order(job, chunks, config.input, workers)
    # One process has the device; the others read rows for it.
    described = map_in_order(job.describe, chunks, config.input, workers)
    return ((chunk, job.score(rows)) for chunk, rows in described)


def _enter(config: ScreenConfig, chunk: Chunk, scored: ScoredChunk, top: TopRows) -> dict[int, str]:
    """Give the best rows of a chunk their places; returns what is wrong with its rows by position."""
    errors = {**scored.reading.errors, **chunk.errors}
    finite_B = np.isfinite(scored.score_B)
    errors |= {int(row): "the score is not a finite number" for row in scored.reading.rows[~finite_B]}
    used = np.flatnonzero([row not in errors for row in scored.reading.rows.tolist()])
    rows = scored.reading.rows[used]
    keys = -scored.score_B[used] if config.minimize else scored.score_B[used]
    for position in top.candidates(keys, rows):
        b, row = used[position], int(rows[position])
        number = chunk.first_row + row
        record = {
            "row": number,
            "score": float(scored.score_B[b]),
            "uncertainty": float(scored.uncertainty_B[b]),
            "applicable": "yes" if scored.applicable_B[b] else "no",
            "nearest": int(scored.nearest_B[b]),
            "cells": [cells[row] for cells in chunk.columns.values()],
        }
        top.keep(float(keys[position]), number, record)
    return errors


def _write(
    config: ScreenConfig, columns: list[str], best: list[dict[str, Any]], support: SupportTable, job: ChunkScorer
) -> int:
    """The output table; returns its number of rows."""
    ranked = list(enumerate(best, start=1))
    if config.diversity is not None:
        place = columns.index(config.input)
        backbone = job.describe.backbone
        vectors = backbone.embed(backbone.encode([record["cells"][place] for record in best]))
        picked = maxmin_pick(job.domain.standard(vectors).numpy(), config.diversity)
        ranked = [ranked[position] for position in picked]
    records = [
        {
            **dict(zip(columns, record["cells"], strict=True)),
            **{name: record[name] for name in ("row", "score", "uncertainty", "applicable")},
            "rank": rank,
            "nearest_support": support.inputs[record["nearest"]],
            "nearest_label": support.cells[record["nearest"]],
        }
        for rank, record in ranked
    ]
    types = {**FIELDS, **{name: pa.string() for name in columns if name not in FIELDS}}
    with table_writer(config.out, pa.schema(list(types.items()))) as append:
        append({name: [record[name] for record in records] for name in types})
    return len(records)
