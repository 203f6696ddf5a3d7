"""Builds every recipe from an empty cache, and reads every input that a build takes as it is.

`python benchmarks/data/run.py` writes one record a recipe; `--read moses` reads all molecules of a recipe with RDKit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, record
from matfm.chem.identity import identity
from matfm.core.files import sha256_of
from matfm.errors import MatfmError
from matfm.tasks import data
from matfm.tasks.recipes.assemble import gather
from matfm.tasks.recipes.recipe import load_recipe, matching
from matfm.tasks.recipes.sources import fetch

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default="*", help="names or patterns, comma-separated")
    parser.add_argument("--read", help="instead, read every input of this recipe")
    parser.add_argument("--work", default="runs/data", help="cache and tables; emptied first")
    arguments = parser.parse_args()
    work = Path(arguments.work)
    if arguments.read:
        read(arguments.read, work / "cache")
        return
    if work.exists():
        shutil.rmtree(work)
    names = matching(arguments.recipes.split(","))
    # Merged corpora come last, after what they are made of.
    for name in sorted(names, key=lambda name: load_recipe(name).merge is not None):
        build(name, work)


def build(name: str, work: Path) -> None:
    recipe = load_recipe(name)
    cached = fetched(work)
    started = time.perf_counter()
    summary = data.run(data.BuildConfig(name, str(work / name), cache=str(work / "cache")))
    seconds = time.perf_counter() - started
    rows = summary["rows"]
    if rows != recipe.rows:
        raise MatfmError(f"{name} has {rows} rows and the recipe promises {recipe.rows}")
    values: dict[str, Any] = {
        "benchmark": "data",
        "task": name,
        "metric": "rows",
        "unit": "rows",
        "value": rows,
        "n": rows,
        "seconds": round(seconds, 1),
        "fetched": sorted(fetched(work) - cached),
        "columns": len(summary["columns"]),
        "rejected_values": summary["rejected_values"],
        "folds_sha256": recipe.folds.sha256 if recipe.folds else None,
        "table_sha256": sha256_of(Path(summary["table"])),
    }
    counts = {key: summary[key] for key in ("rows_read", "rows_repeated", "rows_left_out") if key in summary}
    append(RESULTS / "builds.jsonl", record("cpu", 0, **values, **counts))
    print(f"{name:30} {rows:>9,} rows  {seconds:6.1f} s", flush=True)


def fetched(work: Path) -> set[str]:
    return {path.name for path in (work / "cache").glob("*/*")}


def read(name: str, cache: Path) -> None:
    """How many inputs can be read, and how many are canonical as they stand; what is not is counted."""
    recipe = load_recipe(name)
    assert recipe.source is not None
    inputs = gather(recipe, fetch(recipe.source, cache)).inputs
    started = time.perf_counter()
    readable = canonical = 0
    seen: set[str] = set()
    for text in inputs:
        try:
            found = identity(text, recipe.kind)
        except MatfmError as error:
            print(error)
            continue
        readable += 1
        canonical += found == text
        seen.add(found)
    seconds = round(time.perf_counter() - started, 1)
    common = {"benchmark": "data", "task": name, "n": len(inputs), "unit": "rows", "seconds": seconds}
    counts = {"readable": readable, "canonical": canonical, "distinct": len(seen)}
    entries = [record("cpu", 0, **common, metric=metric, value=value) for metric, value in counts.items()]
    append(RESULTS / "inputs.jsonl", *entries)
    print(name, counts)


if __name__ == "__main__":
    main()
