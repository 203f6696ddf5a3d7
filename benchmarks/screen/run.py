"""A million formulas through `matfm screen`, `predict` and `embed`: memory, speed beside others, kills, Ray.

Resumable: stages whose records are in the results file are not run again. A small run for a look:
`python benchmarks/screen/run.py --rows 20000 --few 5000 --peer-rows 2000 --results /tmp/screen.jsonl`
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.labelled import built
from benchmarks.results import append, load, matching, record
from benchmarks.screen.commands import Measured, kill_after, measure
from benchmarks.screen.libraries import first_rows, labelled_rows, write_library
from benchmarks.screen.peers import crabnet_seconds, forest_seconds, matminer_seconds
from benchmarks.weights import weights_of
from matfm.core.files import sha256_of
from matfm.tasks.tables import read_table

RESULTS = Path(__file__).parent / "results" / "screen.jsonl"
MODEL = "matbert-small"
SUPPORT_ROWS, TRAINING_ROWS = 30, 5_000
MEGABYTE = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=100_000, help="rows of the smaller library")
    parser.add_argument("--peer-rows", type=int, default=20_000, help="rows that the other methods are timed on")
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated")
    parser.add_argument("--corpus", help="table with formulas and band gaps [default: the recipe composition_corpus]")
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder with CrabNet's package file")
    parser.add_argument("--matminer-python", help="a Python that has matminer")
    parser.add_argument("--work", type=Path, default=Path("runs/screen"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments)
    for name in arguments.stages.split(","):
        if not bench.has(name):
            STAGES[name](bench)


class Bench:
    """The files of a run and its records."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.work: Path = arguments.work
        self.corpus = arguments.corpus or built("composition_corpus", self.work)
        self.library = self.work / f"library-{arguments.rows}.csv"
        self.few = self.work / f"library-{arguments.few}-of-{arguments.rows}.csv"
        self.support = self.work / "support.csv"
        if not self.few.is_file():
            write_library(self.corpus, arguments.rows, self.library)
            first_rows(self.library, arguments.few, self.few)
        self.label, labelled = labelled_rows(self.corpus, SUPPORT_ROWS)
        rows = "".join(f"{formula},{value}\n" for formula, value in labelled)
        self.support.write_text(f"formula,{self.label}\n{rows}", "utf-8")

    def decides(self, stage: str) -> dict[str, Any]:
        """What records of a stage are about."""
        arguments = self.arguments
        sizes = {"n": arguments.rows, "few": arguments.few, "peer_rows": arguments.peer_rows}
        cores = len(os.sched_getaffinity(0))
        return {
            "benchmark": "screen", "task": stage, "split": "run", **sizes, "cores": cores, "weights": weights_of(MODEL),
        }  # fmt: skip

    def has(self, stage: str) -> bool:
        """Whether a stage is done."""
        return bool(matching(load(self.arguments.results), **self.decides(stage)))

    def note(self, stage: str, *values: dict[str, Any]) -> None:
        """Append the records of a stage, all at once."""
        common = {**self.decides(stage), "model": MODEL}
        append(self.arguments.results, *(record("cpu", 0, **{**common, **value}) for value in values))
        for value in values:
            print(
                f"{stage:10} {value.get('model', MODEL):24} {value['metric']:28} {value['value']:14.4f} {value['unit']}"
            )

    def call(self, verb: str, library: Path, out: Path) -> list[object]:
        """Arguments of a verb."""
        if verb == "screen":
            further = ["--support", self.support, "--label", self.label]
            return [verb, library, *further, "--input", "formula", "--out", out, "--device", "cpu"]
        return [verb, MODEL, library, "--input", "formula", "--out", out, "--device", "cpu"]

    def out(self, verb: str, name: str) -> Path:
        """Where a command writes."""
        return self.work / f"{verb}-{name}.{'parquet' if verb == 'embed' else 'csv'}"


def streaming(verb: str) -> Callable[[Bench], None]:
    """Stage: memory on few and on all rows, speed, and an identical file after a kill in the middle."""

    def stage(bench: Bench) -> None:
        arguments = bench.arguments
        few = measure(*bench.call(verb, bench.few, bench.out(verb, "few")))
        whole = measure(*bench.call(verb, bench.library, bench.out(verb, "whole")))
        cut = bench.out(verb, "cut")
        killed_at = kill_after(arguments.rows // 3, cut, *bench.call(verb, bench.library, cut))
        measure(*bench.call(verb, bench.library, cut), "--resume")
        same = sha256_of(cut) == sha256_of(bench.out(verb, "whole"))
        bench.note(
            verb,
            *memory_and_speed(arguments, few, whole),
            {"metric": "identical_after_kill", "unit": "", "value": float(same), "killed_at_row": killed_at},
        )

    return stage


def memory_and_speed(arguments: argparse.Namespace, few: Measured, whole: Measured) -> list[dict[str, Any]]:
    """Records of two runs of a command."""
    seconds = round(whole.seconds, 1)
    few_name = f"peak_memory@{arguments.few}"
    return [
        {"metric": few_name, "unit": "MB", "value": few.peak_bytes / MEGABYTE, "seconds": round(few.seconds, 1)},
        {"metric": "peak_memory", "unit": "MB", "value": whole.peak_bytes / MEGABYTE, "seconds": seconds},
        {"metric": "ratio:peak_memory", "unit": "", "value": whole.peak_bytes / few.peak_bytes, "seconds": seconds},
        {"metric": "rows_per_second", "unit": "1/s", "value": arguments.rows / whole.seconds, "seconds": seconds},
    ]


def ray_stage(bench: Bench) -> None:
    """The engine ray gives the same file as the local one."""
    out = bench.out("screen", "ray")
    ray = measure(*bench.call("screen", bench.library, out), "--engine", "ray")
    local = bench.out("screen", "whole")
    if not local.is_file():
        measure(*bench.call("screen", bench.library, local))
    rows = len(read_table(str(out)).columns["row"])
    same = {"metric": "ray_equals_local", "unit": "", "value": float(sha256_of(out) == sha256_of(local))}
    speed = {"metric": "rows_per_second", "unit": "1/s", "value": bench.arguments.rows / ray.seconds}
    seconds = round(ray.seconds, 1)
    bench.note("ray", {**same, "rows_out": rows, "seconds": seconds}, {**speed, "seconds": seconds})


def peers_stage(bench: Bench) -> None:
    """Rows per second of others on a sample, and of us on all rows just before and after."""
    arguments, work = bench.arguments, bench.work
    sample = read_table(str(bench.library)).columns["formula"][: arguments.peer_rows]
    _, train = labelled_rows(bench.corpus, TRAINING_ROWS)
    methods: dict[str, Callable[[], float]] = {
        "crabnet": lambda: crabnet_seconds(next(arguments.wheels.glob("crabnet-*.whl")), work, train, sample),
        "rf-magpie (our features)": lambda: forest_seconds(train, sample),
    }
    if arguments.matminer_python:
        python = arguments.matminer_python
        methods["rf-magpie (matminer)"] = lambda: matminer_seconds(python, work, train, sample)
    ours = [measure(*bench.call("screen", bench.library, bench.out("screen", "timed"))).seconds]
    seconds = {name: method() for name, method in methods.items()}
    ours.append(measure(*bench.call("screen", bench.library, bench.out("screen", "timed"))).seconds)
    rate = arguments.rows * len(ours) / sum(ours)
    records: list[dict[str, Any]] = [
        {"metric": "rows_per_second", "unit": "1/s", "value": rate, "seconds": round(sum(ours), 1)}
    ]
    for name, time in seconds.items():
        beside = {"model": name, "seconds": round(time, 1), "rows_timed": len(sample)}
        records.append({**beside, "metric": "rows_per_second", "unit": "1/s", "value": len(sample) / time})
        records.append({**beside, "metric": "ratio:rows_per_second", "unit": "", "value": rate * time / len(sample)})
    bench.note("peers", *records)


STAGES: dict[str, Callable[[Bench], None]] = {
    "screen": streaming("screen"),
    "predict": streaming("predict"),
    "embed": streaming("embed"),
    "ray": ray_stage,
    "peers": peers_stage,
}

if __name__ == "__main__":
    main()
