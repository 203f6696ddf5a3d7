"""Records of several seeds, their mean, and a table beside the published numbers, for the scripts of generators."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import MEAN, Record, append, load, matching, record
from benchmarks.scored import slug
from benchmarks.weights import weights_of
from matfm.tasks import generate
from matfm.tasks.devices import resolve_device
from matfm.tasks.tables import read_table


@dataclass(frozen=True)
class Measured:
    """What records are about: a model by name and weights (None without any), and the number of its samples."""

    model: str
    n: int
    weights: str | None = None

    def records(self, results: Path, **wanted: Any) -> list[Record]:
        """Its records that are there, with these values."""
        return matching(load(results), model=self.model, n=self.n, weights=self.weights, **wanted)


def recorded(results: Path, measured: Measured, seed: int, metric: str) -> float | None:
    """A metric that is there already."""
    return next((entry["value"] for entry in measured.records(results, split=seed, metric=metric)), None)


def named(arguments: argparse.Namespace, more: str = "") -> Measured:
    """The generator of a call, by its name, what is asked of it, and a temperature other than 1."""
    temperature = "" if arguments.temperature == 1 else f", T = {arguments.temperature:g}"
    name = f"{Path(arguments.model).name}{more}{temperature}"
    return Measured(name, arguments.n, weights_of(arguments.model))


def generated(arguments: argparse.Namespace, seed: int, kind: str = "free", **options: Any) -> dict[str, list[str]]:
    """Columns of the samples of a seed, drawn with `options` of `GenerateConfig`; a killed run goes on."""
    told = [named(arguments).model, weights_of(arguments.model), kind, arguments.n, seed]
    out = Path(arguments.work) / f"{slug('-'.join(map(str, told)))}.parquet"
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        config = generate.GenerateConfig(
            arguments.model, arguments.n, str(out), seed=seed, temperature=arguments.temperature,
            batch_size=arguments.batch_size, device=arguments.device, **options,
        )  # fmt: skip
        generate.run(config, resume=Path(f"{out}.parts").exists())
    return read_table(str(out)).columns


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
    arguments: argparse.Namespace, measured: Measured, measure: Callable[[int], dict[str, float]], **common: Any
) -> None:
    """Records of what `measure` finds for every seed that has none yet, and of their mean."""
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    device = resolve_device(arguments.device).type
    common |= {"model": measured.model, "n": measured.n, "weights": measured.weights}
    for seed in seeds:
        if measured.records(arguments.results, split=seed):
            continue
        started = time.perf_counter()
        metrics = measure(seed)
        seconds = round(time.perf_counter() - started, 1)
        add(arguments.results, metrics, device, seed, **common, split=seed, seconds=seconds)
    add_mean(arguments.results, measured, seeds, device, **common)


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


def add_mean(results: Path, measured: Measured, seeds: list[int], device: str, **common: Any) -> None:
    """Mean and standard deviation (ddof = 0) over the seeds, once all are there."""
    of_seed = [measured.records(results, split=seed) for seed in seeds]
    if len(seeds) < 2 or measured.records(results, split=MEAN) or not all(of_seed):
        return
    entries = [entry for own in of_seed for entry in own]
    for metric in dict.fromkeys(entry["metric"] for entry in entries):
        chosen = matching(entries, metric=metric)
        values = np.array([entry["value"] for entry in chosen])
        append(
            results,
            record(
                device, seeds[0], **common, split=MEAN, metric=metric, unit=chosen[0]["unit"],
                value=float(values.mean()), std=float(values.std()),
                seconds=round(sum(entry["seconds"] for entry in chosen), 1),
            ),
        )  # fmt: skip


def table(results: Path, published: Path | None, metrics: list[str], models: list[Measured]) -> str:
    """Markdown: published rows if there are any, then ours (the mean where there is one, else the first seed)."""
    lines = [f"| model | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    rows = [] if published is None else list(csv.DictReader(published.read_text("utf-8").splitlines()))
    for model in dict.fromkeys(row["model"] for row in rows):
        known = {row["metric"]: row["mean"] for row in rows if row["model"] == model}
        lines.append(f"| {model} | {' | '.join(known.get(metric, '') for metric in metrics)} |")
    for measured in models:
        entries = measured.records(results)
        of = {e["metric"]: e for e in sorted(entries, key=lambda e: (e["split"] == MEAN, -e["seed"]))}
        cells = [_cell(of[metric]) if metric in of else "" for metric in metrics]
        lines.append(f"| **{measured.model}** (n = {measured.n:,}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(entry: dict[str, Any]) -> str:
    value = f"{entry['value']:.4f}"
    return f"{value} ± {entry['std']:.4f}" if "std" in entry else value
