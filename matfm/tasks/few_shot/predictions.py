"""`predictions.parquet` and the picture of a run over tasks: what each method said of the queries of first episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.tasks import plots
from matfm.tasks.few_shot.episodes import Episode
from matfm.tasks.few_shot.evaluation import Answers, Bench
from matfm.tasks.few_shot.methods import METHODS
from matfm.tasks.tables import table_writer

# Q queries, C classes, R rows of the task table

FILE = "predictions.parquet"


def write_predictions(
    out: Path, bench: Bench, sizes: Sequence[int], methods: Sequence[str], answers: Answers, rows_R: np.ndarray
) -> None:
    """Every query of the first episode of each task and size, by method; and `roc.png` or `parity.png` of one of them.

    `episodes.jsonl` has the scores of all episodes; their queries would be millions of rows.

    Args:
        out: folder of the run.
        bench: what episodes are made with.
        sizes: of support, ascending or not.
        methods: names; the first is drawn.
        answers: of first episodes, as far as they are known; the others are answered again, as a resumed run needs.
        rows_R: row of the user's table of each row of the task table.
    """
    drawn: tuple[str, Episode, np.ndarray] | None = None
    chunks = []
    most = max((size for size in sizes if bench.sampler.eligible(size)), default=0)
    for size in sizes:
        for task in bench.sampler.eligible(size):
            name, episode = bench.sampler.table.names[task], bench.sampler.of_task(task, size, 0)
            problem = None
            for method in methods:
                answer = answers.get((name, size, method))
                if answer is None:
                    problem = problem or bench.problem(episode, seed=0)
                    answer = METHODS[method](problem)
                chunks.append(_columns(bench, episode, name, size, method, answer, rows_R))
                if drawn is None and size == most:
                    drawn = (f"{name}, {method}, {size} examples", episode, answer)
    schema = pa.Table.from_pydict(chunks[0]).schema
    with table_writer(str(out / FILE), schema) as append:
        for columns in chunks:
            append(columns)
    assert drawn is not None
    _draw(out, *drawn)


def _columns(
    bench: Bench, episode: Episode, task: str, support: int, method: str, answer_QC: np.ndarray, rows_R: np.ndarray
) -> dict[str, Any]:
    queries, count = episode.query_Q, len(episode.query_Q)
    classes = 0 if bench.sampler.table.regression else bench.sampler.ways
    scores = np.full((count, max(classes, answer_QC.shape[1])), np.nan)
    scores[:, : answer_QC.shape[1]] = answer_QC
    predicted = answer_QC.argmax(axis=1).astype(np.float64) if classes else answer_QC[:, 0].astype(np.float64)
    return {
        "row": rows_R[queries].astype(np.int64),
        "input": [bench.inputs[row] for row in queries],
        "part": ["test"] * count,
        "task": [task] * count,
        "support": [support] * count,
        "method": [method] * count,
        "label": episode.query_labels_Q.astype(np.float64),
        "predicted": predicted,
        **({f"score_{c}": scores[:, c] for c in range(classes)} if classes else {}),
    }


def _draw(out: Path, title: str, episode: Episode, answer_QC: np.ndarray) -> None:
    true_Q = episode.query_labels_Q
    if not episode.classes:
        plots.draw_parity(out, "value", "", true_Q, answer_QC[:, 0], title)
    elif len(np.unique(true_Q)) > 1:
        plots.draw_classes(out, [str(c) for c in range(episode.classes)], true_Q, answer_QC, title)
