"""`matfm screen`: a few labelled examples and a library of any size in, its best rows out, streaming."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from matfm.core.files import write_json
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.few_shot.classical_features import FeatureBlock, Features
from matfm.tasks.few_shot.features import EMBEDDING, classical_of, fewshot_digest, trained_head
from matfm.tasks.few_shot.scorers import KernelScorer, PrototypeScorer, check_scorer, named_scorer
from matfm.tasks.few_shot.support_report import SupportReport, SupportSet
from matfm.tasks.few_shot.support_scorer import SupportScorer, check_support, is_binary
from matfm.tasks.rejects import Reject, RejectLog
from matfm.tasks.screening.chunk_scorer import Backbone, ChunkScorer, Describer, ScoredChunk, one_thread
from matfm.tasks.screening.findings import Findings
from matfm.tasks.screening.library import CHUNK_ROWS, Library
from matfm.tasks.screening.next_rows import Selection
from matfm.tasks.screening.output import Output
from matfm.tasks.screening.ray_engine import check_ray, map_with_ray
from matfm.tasks.screening.support_domain import REFERENCE_ROWS, SupportDomain
from matfm.tasks.screening.support_table import SupportTable, read_support
from matfm.tasks.streaming.journal import Journal, resumable, weights_digest
from matfm.tasks.streaming.parallel import available_cores, map_in_order
from matfm.tasks.tables import Chunk, check_output, output_format

# S support examples

NewScorer = Callable[[tuple[FeatureBlock, ...]], SupportScorer]
"""From the blocks of the vectors' columns to a scorer to be fitted."""
ENGINES = ("local", "ray")
SHOWN = 5


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
    scorer: str = "kernel"
    """kernel (a Gaussian process) or prototypes (of two classes)."""
    distance: str | None = None
    """Of prototypes: euclidean, cosine or mahalanobis; None is what `matfm fewshot` learned, else mahalanobis."""
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
    label_next: int | None = None
    """Write that many rows to label next."""
    select: str = "most-uncertain"
    """How these are chosen: most-uncertain, medoids or stratified:COLUMN."""
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
        check_scorer(self.scorer, self.distance)
        Selection(1 if self.label_next is None else self.label_next, self.select)
        output_format(self.out)
        for path in self.outputs:
            check_output(path, self.support)
        if Path(self.bad_rows).resolve() in [Path(path).resolve() for path in self.outputs[:-1]]:
            raise MatfmError(f"--out and --keep-bad cannot both be {self.bad_rows}; choose another name")

    @property
    def bad_rows(self) -> str:
        """Where the rows that cannot be read are listed."""
        return self.keep_bad or self._beside("rejects.csv")

    @property
    def report(self) -> str:
        """Where it stands how good the support is."""
        return self._beside("support.json")

    @property
    def next_rows(self) -> str:
        """Where the rows to label next stand; of the format of `out`."""
        name = Path(self.out).name
        return self._beside(f"next{name.removeprefix(self._stem)}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """All files to write; that of the rows that cannot be read is the last."""
        return (self.out, self.report, *([] if self.label_next is None else [self.next_rows]), self.bad_rows)

    @property
    def selection(self) -> Selection | None:
        """Of the rows to label next."""
        return None if self.label_next is None else Selection(self.label_next, self.select)

    @property
    def _stem(self) -> str:
        return Path(Path(self.out).name.removesuffix(".gz")).stem

    def _beside(self, ending: str) -> str:
        return str(Path(self.out).with_name(f"{self._stem}.{ending}"))


def run(config: ScreenConfig, resume: bool = False, new_scorer: NewScorer | None = None) -> dict[str, Any]:
    """Write the best rows of the library, the best one first.

    Args:
        config: the call.
        resume: continue an interrupted screening.
        new_scorer: makes the scorer that is fitted to the support; None is what the call says.

    Raises:
        MatfmError: the call or a table is wrong; a row of the library never is, it is listed.
        RunError: worker processes were ended.
    """
    with resumable(config.out):
        return _run(config, resume, new_scorer)


def _run(config: ScreenConfig, resume: bool, new_scorer: NewScorer | None) -> dict[str, Any]:
    if config.engine == "ray":
        check_ray()
    started = time.perf_counter()
    library = Library.open(config.library)
    for path in config.outputs:
        library.check_output(path)
    backbone = Backbone(config.backbone, config.kind, resolve_device(config.device).type)
    describe = Describer(backbone, _classical(config, backbone))
    support, known = _readable(config, describe)
    chunks = library.chunks()
    first = next(chunks)
    for name in (config.input, *([config.selection.column] if config.selection and config.selection.column else [])):
        first.column(name, config.library)
    job = _fitted(config, support, known, describe, first.columns[config.input][:REFERENCE_ROWS], new_scorer)
    journal = Journal.open(config.out, "screen", _begun_with(config, support, first, job), resume)
    rows_before = journal.rows
    found = _screen(config, library, job, journal, chain([first], chunks))
    output = Output(list(first.columns), config.input, support, job)
    rows_out = output.write_best(config.out, found.top.ranked(), config.diversity)
    rows_next = output.write_next(config.next_rows, found.pool.ranked(), config.selection) if config.selection else 0
    report = job.support.report(support.labels_S, found.distances.result(), not is_binary(support.labels_S))
    write_json(Path(config.report), report.to_json())
    journal.close()
    seconds = time.perf_counter() - started
    counts = found.tally.summary()
    return {
        "task": "screen",
        "library": config.library,
        "shards": len(library.shards),
        "backbone": config.backbone,
        "kind": found.tally.kind,
        "features": [block.name for block in known.blocks],
        "trained_over_tasks": trained_head(backbone.model, config.backbone) is not None,
        "scorer": _scorer_name(config, job),
        "engine": config.engine,
        "labels": "classes" if is_binary(support.labels_S) else "values",
        "support_rows": len(support.inputs),
        "support_rejected": len(support.rejects),
        "first_support_rejected": [{"row": reject.row, "reason": reject.reason} for reject in support.rejects[:SHOWN]],
        "support": report.to_json(),
        "out": config.out,
        "support_report": config.report,
        "bad_rows": config.bad_rows,
        **({} if config.label_next is None else {"next_rows": config.next_rows, "rows_to_label": rows_next}),
        "rows_in": counts.pop("rows_in"),
        "rows_scored": counts.pop("rows_done"),
        **counts,
        "rows_out": rows_out,
        "seconds": round(seconds, 2),
        "rows_per_second": round((found.tally.rows - rows_before) / seconds, 1),
    }


def told(summary: dict[str, Any]) -> str:
    """How good the support is, in a few lines of text."""
    return SupportReport(**summary["support"]).told()


def _begun_with(config: ScreenConfig, support: SupportTable, first: Chunk, job: ChunkScorer) -> dict[str, Any]:
    """All that decides the rows that are kept."""
    model = job.describe.backbone.model
    trained = trained_head(model, config.backbone) is not None
    return {
        "backbone": weights_digest(config.backbone),
        "few-shot model": hashlib.sha256(fewshot_digest(model).encode()).hexdigest() if trained else None,
        "kind": config.kind,
        "classical": None if job.describe.classical is None else job.describe.classical.name,
        "support": support.digest(),
        "input": config.input,
        "top": config.top,
        "minimize": config.minimize,
        "scorer": _scorer_name(config, job),
        "distance": config.distance,
        "next": config.label_next,
        "select": None if config.label_next is None else config.select,
        "columns": list(first.columns),
        "rows of a chunk": CHUNK_ROWS,
    }


def _scorer_name(config: ScreenConfig, job: ChunkScorer) -> str:
    """As in the call, or the class of one's own."""
    known = isinstance(job.scorer, KernelScorer | PrototypeScorer)
    return config.scorer if known else type(job.scorer).__name__


def _classical(config: ScreenConfig, backbone: Backbone) -> FeatureBlock | None:
    """Beside the embedding; of compositions nothing unless it is asked for or was trained with."""
    settings, kind = backbone.model.settings, backbone.encoder.kind
    if config.classical == "auto" and kind == "composition" and settings.classical == "none":
        return None
    return classical_of(config.classical, kind, settings)


def _readable(config: ScreenConfig, describe: Describer) -> tuple[SupportTable, Features]:
    """The examples that can be used, and their features."""
    support = read_support(config.support, config.input, config.label, config.positive)
    read = describe(support.inputs)
    unreadable = [
        Reject(support.rows[s], config.input, support.inputs[s], reason) for s, reason in read.encoded.errors.items()
    ]
    usable = support.take(read.encoded.rows, unreadable)
    try:
        check_support(usable.labels_S)
    except MatfmError as error:
        why = f" (row {usable.rejects[0].row}: {usable.rejects[0].reason})" if usable.rejects else ""
        raise MatfmError(f"{config.support}: {error}{why}") from error
    return usable, describe.features(read)


def _fitted(
    config: ScreenConfig,
    support: SupportTable,
    known: Features,
    describe: Describer,
    cells: list[str],
    new_scorer: NewScorer | None,
) -> ChunkScorer:
    """What is learned from the support, and how far it reaches on the scale of the beginning of the library."""
    support_SD = known.block(EMBEDDING).vectors_RW
    reference_RD = np.concatenate([support_SD, describe.embeddings(cells)])
    if new_scorer is None:
        head = trained_head(describe.backbone.model, config.backbone)
        scorer: SupportScorer = named_scorer(config.scorer, config.distance, known.blocks, head, support.labels_S)
    else:
        scorer = new_scorer(known.blocks)
    with one_thread():
        scorer.fit(known.vectors_RW, support.labels_S)
        domain = SupportDomain.of(support_SD, reference_RD)
        return ChunkScorer(describe, scorer, domain, SupportSet.of(support_SD))


def _screen(
    config: ScreenConfig, library: Library, job: ChunkScorer, journal: Journal, chunks: Iterator[Chunk]
) -> Findings:
    """Score what is pending; the journal has it after every chunk."""
    saved = journal.saved
    kind = job.describe.backbone.encoder.kind
    found = Findings.begin(config.top, config.minimize, config.selection, job.support, kind, saved)
    rejects = RejectLog(journal.folder / "rejects.csv", saved.get("rejects_bytes", 0))
    total = library.count_rows() if sys.stderr.isatty() else None
    bar = tqdm(desc="screen", unit="row", total=total, initial=journal.rows, disable=None, leave=False)
    try:
        for chunk, scored in _scored(config, job, journal.pending(chunks)):
            errors = found.enter(chunk, scored)
            cells = chunk.columns[config.input]
            listed = [Reject(chunk.first_row + b, config.input, cells[b], errors[b]) for b in sorted(errors)]
            journal.record(chunk, {**found.state(), "rejects_bytes": rejects.write(listed)})
            bar.update(chunk.rows)
        rejects.save(Path(config.bad_rows))
    finally:
        bar.close()
        rejects.close()
    return found


def _scored(config: ScreenConfig, job: ChunkScorer, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, ScoredChunk]]:
    """Every chunk in order with its scores."""
    if config.engine == "ray":
        return map_with_ray(job, chunks, config.input, gpus=int(job.describe.backbone.device == "cuda"))
    workers = config.workers or available_cores()
    if job.describe.backbone.device == "cpu":
        return map_in_order(job, chunks, config.input, workers)
    # One process has the device; the others read rows for it.
    read = map_in_order(job.describe, chunks, config.input, workers)
    return ((chunk, job.score(rows)) for chunk, rows in read)
