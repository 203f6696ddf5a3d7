"""Records of several seeds, their mean, and a table beside the published numbers, for the scripts of generators."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import append, load, record
from matfm.tasks.devices import resolve_device


def done(results: Path, model: str, split: Any, n: int) -> bool:
    """Whether records of a model and seed (or the mean) over that many samples are there."""
    return any((e["model"], e["split"], e["n"]) == (model, split, n) for e in load(results))


def recorded(results: Path, model: str, split: Any, n: int, metric: str) -> float | None:
    """A metric that is there already."""
    wanted = (model, split, n, metric)
    return next((e["value"] for e in load(results) if (e["model"], e["split"], e["n"], e["metric"]) == wanted), None)


def generator_options(parser: argparse.ArgumentParser, n: int, work: str, results: Path) -> None:
    """How samples are drawn, and where they and the records are kept."""
    parser.add_argument("--n", type=int, default=n)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default=work, help="tables of samples, and what is built for them")
    parser.add_argument("--results", type=Path, default=results)


def over_seeds(
    arguments: argparse.Namespace, model: str, measure: Callable[[int], dict[str, float]], n: int, **common: Any
) -> None:
    """Records of what `measure` finds for every seed that has none yet, and of their mean."""
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    device = resolve_device(arguments.device).type
    for seed in seeds:
        if done(arguments.results, model, seed, n):
            continue
        started = time.perf_counter()
        metrics = measure(seed)
        seconds = round(time.perf_counter() - started, 1)
        add(arguments.results, metrics, device, seed, **common, split=seed, model=model, n=n, seconds=seconds)
    add_mean(arguments.results, model, seeds, n, device, **common)


def add(results: Path, metrics: dict[str, float], device: str, seed: int, **common: Any) -> None:
    """One record a metric."""
    units = {"wasserstein_weight": "Da"}
    append(
        results,
        *(
            record(device, seed, **common, metric=name, unit=units.get(name, "1"), value=value)
            for name, value in metrics.items()
        ),
    )


def add_mean(results: Path, model: str, seeds: list[int], n: int, device: str, **common: Any) -> None:
    """Mean and standard deviation (ddof = 0) over the seeds, once all are there."""
    if len(seeds) < 2 or done(results, model, "mean", n) or not all(done(results, model, s, n) for s in seeds):
        return
    entries = [e for e in load(results) if e["model"] == model and e["split"] in seeds and e["n"] == n]
    for metric in dict.fromkeys(entry["metric"] for entry in entries):
        chosen = [entry for entry in entries if entry["metric"] == metric]
        values = np.array([entry["value"] for entry in chosen])
        append(
            results,
            record(
                device, seeds[0], **common, split="mean", model=model, metric=metric, unit=chosen[0]["unit"],
                value=float(values.mean()), std=float(values.std()), n=n,
                seconds=round(sum(entry["seconds"] for entry in chosen), 1),
            ),
        )  # fmt: skip


def table(results: Path, published: Path | None, metrics: list[str], models: list[str], n: int) -> str:
    """Markdown: published rows if there are any, then ours (the mean where there is one, else the first seed)."""
    lines = [f"| model | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    rows = [] if published is None else list(csv.DictReader(published.read_text("utf-8").splitlines()))
    for model in dict.fromkeys(row["model"] for row in rows):
        known = {row["metric"]: row["mean"] for row in rows if row["model"] == model}
        lines.append(f"| {model} | {' | '.join(known.get(metric, '') for metric in metrics)} |")
    for model in models:
        entries = [e for e in load(results) if e["model"] == model and e["n"] == n]
        of = {e["metric"]: e for e in sorted(entries, key=lambda e: (e["split"] == "mean", -e["seed"]))}
        cells = [_cell(of[metric]) if metric in of else "" for metric in metrics]
        lines.append(f"| **{model}** (n = {n:,}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(entry: dict[str, Any]) -> str:
    value = f"{entry['value']:.4f}"
    return f"{value} ± {entry['std']:.4f}" if "std" in entry else value
