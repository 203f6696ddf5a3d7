"""`matfm data build`: recipes into typed Parquet tables with units, folds, a list of rejects and a datasheet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from matfm.core.files import atomic_path, sha256_of, write_json, write_text
from matfm.errors import MatfmError
from matfm.tasks.labelled_sets import SetLoader, keys_of_tests
from matfm.tasks.recipes.datasheet import datasheet
from matfm.tasks.recipes.materialise import materialise
from matfm.tasks.recipes.recipe import Recipe, load_recipe, matching
from matfm.tasks.rejects import Reject, reject_writer, write_rejects

INPUT_COLUMN = "formula"


@dataclass(frozen=True)
class BuildConfig:
    """`matfm data build`."""

    recipe: str
    """Name of a shipped recipe or path of a .toml."""
    out: str
    """Folder for `<name>.parquet`, `rejects.csv`, `datasheet.md` and `summary.json`."""
    cache: str | None = None
    """Folder of fetched files; default `$MATFM_CACHE` or the user's cache."""
    offline: bool = False
    """Use only the cache."""
    exclude: tuple[str, ...] = ()
    """Evaluation sets whose compositions or molecules are left out: names, patterns (matbench_*), or tables."""


def run(config: BuildConfig) -> dict[str, Any]:
    """Build the table, or say that it is there already; returns the summary."""
    recipe = load_recipe(config.recipe)
    out = Path(config.out)
    path = out / f"{recipe.name}.parquet"
    asked = _digest(recipe, config)
    if (found := _built(out, path, asked)) is not None:
        return {**found, "built": False}
    made = materialise(config.recipe, config.cache, config.offline)
    table, dropped = held_out(made.table, recipe, config)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    write_rejects(out / "rejects.csv", made.rejects)
    summary = {
        "task": "data build",
        "recipe": recipe.name,
        "version": recipe.version,
        "table": str(path),
        "rows": table.num_rows,
        **made.counts,
        "rejected_values": len(made.rejects),
        **({"excluded": dropped, "rows_excluded": made.table.num_rows - table.num_rows} if config.exclude else {}),
        "columns": table.schema.names,
        "source_sha256": recipe.source.sha256 if recipe.source else None,
        "recipe_sha256": asked,
        "table_sha256": sha256_of(path),
    }
    write_text(out / "datasheet.md", datasheet(recipe, table, made.rejects, summary))
    write_json(out / "summary.json", summary)
    return {**summary, "built": True}


def run_all(names: Sequence[str], config: BuildConfig) -> dict[str, Any]:
    """Build several recipes, each in the folder of its name inside `config.out`; returns the summary of all."""
    summaries = []
    for name in matching(names):
        folder = Path(config.out) / load_recipe(name).name
        summaries.append(run(replace(config, recipe=name, out=str(folder))))
    return {
        "task": "data build",
        "out": config.out,
        "recipes": [summary["recipe"] for summary in summaries],
        "rows": sum(summary["rows"] for summary in summaries),
        "rejected_values": sum(summary["rejected_values"] for summary in summaries),
        "built": sum(summary["built"] for summary in summaries),
        "already_built": sum(not summary["built"] for summary in summaries),
    }


def held_out(table: pa.Table, recipe: Recipe, config: BuildConfig) -> tuple[pa.Table, dict[str, int]]:
    """The table without the test rows of `config.exclude`, and how many rows equal those of each evaluation set.

    Raises:
        MatfmError: an evaluation set of another kind than the recipe.
    """
    if not config.exclude:
        return table, {}
    loader = SetLoader(config.cache, config.offline)
    wanted: dict[str, set[str]] = {}
    for held in (one for name in config.exclude for one in loader.load(name)):
        if held.kind != recipe.kind:
            raise MatfmError(f"--exclude {held.name}: it holds {held.kind} inputs and {recipe.name} {recipe.kind}")
        if held.name != recipe.name:
            wanted[held.name] = {key for key in keys_of_tests(held, loader.of(held.kind)) if key}
    texts = table[recipe.input].to_pylist()
    found = list(loader.of(recipe.kind).among(texts, set().union(*wanted.values())))
    dropped = {name: sum(key in keys for key in found if key) for name, keys in wanted.items()}
    kept = table.filter(pa.array([key is None for key in found]))
    said = json.loads(table.schema.metadata[b"matfm"]) | {"excluded": list(wanted)}
    return kept.replace_schema_metadata({"matfm": json.dumps(said, ensure_ascii=False)}), dropped


def _digest(recipe: Recipe, config: BuildConfig) -> str:
    """Digest of everything that decides what is built."""
    excluded = [
        sha256_of(Path(name)) if Path(name).is_file() else {n: load_recipe(n).digest() for n in matching([name])}
        for name in config.exclude
    ]
    asked = json.dumps([recipe.digest(), excluded], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def _built(out: Path, path: Path, asked: str) -> dict[str, Any] | None:
    """The summary of an earlier, complete build of the same recipe whose table is unchanged."""
    try:
        summary = json.loads((out / "summary.json").read_text("utf-8"))
        whole = summary["recipe_sha256"] == asked and sha256_of(path) == summary["table_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {**summary, "table": str(path)} if whole else None


__all__ = ["INPUT_COLUMN", "BuildConfig", "Reject", "held_out", "reject_writer", "run", "run_all", "write_rejects"]
