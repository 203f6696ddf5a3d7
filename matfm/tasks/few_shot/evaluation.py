"""Scores of few-shot methods over many episodes, with intervals; every method answers the same episodes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from matfm.errors import MatfmError
from matfm.models.prototypes import PrototypeHead
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.few_shot.classical_features import Features
from matfm.tasks.few_shot.episodes import Episode, EpisodeSampler
from matfm.tasks.few_shot.methods import METHODS, FewShotProblem

# Q queries, C classes

Answers = dict[tuple[str, int, str], np.ndarray]
"""What a method said (Q, C) of the queries of a task's first episode, by task, size and method."""

_NORMAL = 1.959964
"""Half width of a 95 % interval, in standard errors."""


def episode_scores(true_Q: np.ndarray, scores_QC: np.ndarray, regression: bool = False) -> dict[str, float]:
    """Scores of one episode.

    Classes: accuracy; for two of them also roc_auc and delta_auprc, the average precision less the share of positives
    (Stanley et al., FS-Mol, 2021). Regression: mae, and r2 as 1 − squared errors / squared deviations of the queries.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if regression:
        errors = true_Q - scores_QC[:, 0]
        spread = np.square(true_Q - true_Q.mean()).sum()
        mae = {"mae": float(np.abs(errors).mean())}
        return {**mae, "r2": float(1 - np.square(errors).sum() / spread)} if spread > 0 else mae
    scores = {"accuracy": float((scores_QC.argmax(axis=1) == true_Q).mean())}
    if scores_QC.shape[1] == 2 and len(np.unique(true_Q)) == 2:
        high = scores_QC[:, 1] - scores_QC[:, 0]
        scores["roc_auc"] = float(roc_auc_score(true_Q, high))
        scores["delta_auprc"] = float(average_precision_score(true_Q, high) - (true_Q == 1).mean())
    return scores


@dataclass(frozen=True)
class Bench:
    """Everything that episodes are made into problems with; rows of inputs and features are those of the task table."""

    sampler: EpisodeSampler
    inputs: list[str]
    features: Features
    encoder: RowEncoder
    backbone: str
    device: torch.device
    head: PrototypeHead | None = None
    refinements: int | None = None

    def problem(self, episode: Episode, seed: int) -> FewShotProblem:
        """The episode with its features."""
        support, query = episode.support_S, episode.query_Q
        return FewShotProblem(
            self.features.take(support), episode.support_labels_S, self.features.take(query), episode.classes,
            [self.inputs[row] for row in support], [self.inputs[row] for row in query],
            seed, self.encoder, self.backbone, self.device, self.head, self.refinements,
        )  # fmt: skip


def evaluate(
    bench: Bench,
    sizes: Sequence[int],
    episodes: int,
    methods: Sequence[str],
    path: Path,
    label: str = "evaluate",
    answers: Answers | None = None,
) -> list[dict[str, Any]]:
    """Answer `episodes` episodes of every task and size with every method; one record each.

    Records are appended to `path` (JSON lines) as they come, and those that are there are not made again. Tasks with
    too few rows for a size are left out of it. Into `answers` goes what is said in first episodes.

    Raises:
        MatfmError: an unknown method, or no task has rows enough for a size.
    """
    check_methods(methods, bench.sampler.table.regression)
    records = _complete_lines(path)
    done = {(r["task"], r["support"], r["episode"], r["method"]) for r in records}
    names = bench.sampler.table.names
    places = []
    for size in sizes:
        eligible = bench.sampler.eligible(size)
        if not eligible:
            raise MatfmError(f"no task has rows enough for {size} support examples; choose smaller sizes")
        places += [(size, task, number) for task in eligible for number in range(episodes)]
    with path.open("a", encoding="utf-8") as lines:
        for size, task, number in tqdm(places, desc=label, unit="episode", disable=None, leave=False):
            missing = [name for name in methods if (names[task], size, number, name) not in done]
            if not missing:
                continue
            episode = bench.sampler.of_task(task, size, number)
            problem = bench.problem(episode, seed=number)
            for method in missing:
                started = time.perf_counter()
                answer = METHODS[method](problem)
                scores = episode_scores(episode.query_labels_Q, answer, problem.regression)
                if number == 0 and answers is not None:
                    answers[names[task], size, method] = answer
                entry = {"task": names[task], "support": size, "episode": number, "method": method, **scores}
                entry |= {"queries": len(episode.query_Q), "seconds": round(time.perf_counter() - started, 3)}
                records.append(entry)
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
    return records


def check_methods(methods: Sequence[str], regression: bool = False) -> None:
    """Raise MatfmError for a method that there is not, or not for numbers."""
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise MatfmError(f"methods is {list(methods)}; choose from {', '.join(METHODS)}")
    if regression and "prototypes" in methods:
        raise MatfmError("prototypes are for classes; for numbers choose kernel")


def summarise(records: Sequence[dict[str, Any]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Mean of every method, size and metric, with a 95 % interval and the mean difference to `rf`.

    Episodes are averaged within tasks, then tasks; the interval is that of drawing episodes, given the tasks. The
    difference is taken episode by episode, so its interval is narrower than those of both.
    """
    rows = []
    for size in sorted({r["support"] for r in records}):
        for method in dict.fromkeys(r["method"] for r in records):
            for metric in metrics:
                values = _by_task(records, size, method, metric)
                if not values:
                    continue
                mean, half = _mean_and_half(values)
                row = {"support": size, "method": method, "metric": metric, "value": mean}
                row |= {"interval": [mean - half, mean + half], "tasks": len(values)}
                row["episodes"] = sum(len(of_task) for of_task in values.values())
                forest = _by_task(records, size, "rf", metric)
                paired = {
                    task: {number: value - forest[task][number] for number, value in found.items() if number in of_task}
                    for task, found in values.items()
                    if (of_task := forest.get(task))
                }
                if method != "rf" and any(paired.values()):
                    difference, half = _mean_and_half({task: found for task, found in paired.items() if found})
                    row |= {"minus_rf": difference, "minus_rf_interval": [difference - half, difference + half]}
                    shared = {task: {n: forest[task][n] for n in found} for task, found in paired.items() if found}
                    base = _mean_and_half(shared)[0]
                    row["ratio_to_rf"] = 1 + difference / base if base > 0 else None  # on the same episodes
                rows.append(row)
    return rows


def _by_task(records: Sequence[dict[str, Any]], size: int, method: str, metric: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if record["support"] == size and record["method"] == method and metric in record:
            found.setdefault(record["task"], {})[record["episode"]] = record[metric]
    return found


def _mean_and_half(values: dict[str, dict[int, float]]) -> tuple[float, float]:
    """Mean over tasks of the means over episodes, and half of its interval."""
    arrays = [np.array(list(of_task.values())) for of_task in values.values()]
    variance = sum(array.var(ddof=1) / len(array) if len(array) > 1 else 0.0 for array in arrays) / len(arrays) ** 2
    return float(np.mean([array.mean() for array in arrays])), float(_NORMAL * variance**0.5)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file; a last line that was cut off is removed."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        return []
    text = path.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, "utf-8")
    return [json.loads(line) for line in whole.splitlines()]
