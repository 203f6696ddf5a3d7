"""`matfm data`: build a recipe into a typed Parquet table with units, folds and a list of rejects."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from matfm.chem.formula import read_formula
from matfm.core.files import atomic_path, write_json
from matfm.errors import MatfmError, RunError
from matfm.tasks.recipes import Column, Folds, Recipe, SourceTable, load_recipe
from matfm.tasks.sources import default_cache, fetch, read_member

INPUT_COLUMN = "formula"


@dataclass(frozen=True)
class BuildConfig:
    """`matfm data build`."""

    recipe: str
    """Name of a shipped recipe or path of a .toml."""
    out: str
    """Folder for `<name>.parquet`, `rejects.csv` and `summary.json`."""
    cache: str | None = None
    """Folder of fetched files; default `$MATFM_CACHE` or the user's cache."""
    offline: bool = False
    """Use only the cache."""


@dataclass(frozen=True)
class Reject:
    """A value or a row that was not used."""

    row: int
    column: str
    value: str
    reason: str


@contextmanager
def reject_writer(path: Path) -> Iterator[Callable[[Reject], object]]:
    """Yield a function that adds a line to `rejects.csv`: row (from 0), column, value, reason."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "column", "value", "reason"])
        yield lambda reject: writer.writerow((reject.row, reject.column, reject.value, reject.reason))


def write_rejects(path: Path, rejects: list[Reject]) -> None:
    """`rejects.csv` of a list."""
    with reject_writer(path) as write:
        for reject in rejects:
            write(reject)


def run(config: BuildConfig) -> dict[str, Any]:
    """Build the table; returns the summary."""
    recipe = load_recipe(config.recipe)
    beside = Path(config.recipe).parent if config.recipe.endswith(".toml") else None
    archive = fetch(recipe.source, Path(config.cache) if config.cache else default_cache(), config.offline, beside)
    out = Path(config.out)
    table, rejects = _assemble(recipe, archive)
    if table.num_rows != recipe.rows:
        raise RunError(
            f"{recipe.name} has {table.num_rows} rows but the recipe promises {recipe.rows}; nothing written"
        )
    if recipe.folds:
        table = _with_folds(table, recipe.folds)
    path = out / f"{recipe.name}.parquet"
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    write_rejects(out / "rejects.csv", rejects)
    summary = {
        "recipe": recipe.name,
        "version": recipe.version,
        "table": str(path),
        "rows": table.num_rows,
        "rejected_values": len(rejects),
        "columns": table.schema.names,
        "source_sha256": recipe.source.sha256,
    }
    write_json(out / "summary.json", summary)
    return summary


def _assemble(recipe: Recipe, archive: Path) -> tuple[pa.Table, list[Reject]]:
    """Join the recipe's tables on the formula, in order of first appearance."""
    rows: dict[str, int] = {}
    repeated = len(recipe.tables) == 1
    formulas: list[str] = []
    cells: list[tuple[str, Column | None, dict[int, str]]] = []
    for table in recipe.tables:
        values: dict[str, dict[int, str]] = {column.name: {} for column in table.columns}
        labels: dict[int, str] = {}
        for label, record in _records(table, archive):
            formula = record[table.input]
            row = len(formulas) if repeated else rows.setdefault(formula, len(formulas))
            if row == len(formulas):
                formulas.append(formula)
            labels[row] = label
            for column in table.columns:
                values[column.name][row] = record[column.source]
        cells.extend((column.name, column, values[column.name]) for column in table.columns)
        if table.split:
            cells.append((table.split, None, labels))
    return _typed(recipe, formulas, cells)


def _records(table: SourceTable, archive: Path) -> list[tuple[str, dict[str, str]]]:
    records: list[tuple[str, dict[str, str]]] = []
    for label, member in table.members.items():
        reader = csv.DictReader(io.StringIO(read_member(archive, member)))
        for name in (table.input, *(column.source for column in table.columns)):
            if name not in (reader.fieldnames or ()):
                raise MatfmError(f"{member} has no column {name!r}; it has {', '.join(reader.fieldnames or ())}")
        records.extend((label, record) for record in reader)
    return records


def _typed(
    recipe: Recipe, formulas: list[str], cells: list[tuple[str, Column | None, dict[int, str]]]
) -> tuple[pa.Table, list[Reject]]:
    """Parse formulas and values; what cannot be read or lies outside its range is rejected with a reason."""
    rejects: list[Reject] = []
    kept: list[int] = []
    for row, formula in enumerate(tqdm(formulas, desc=f"{recipe.name}: formulas", disable=None, leave=False)):
        try:
            read_formula(formula)
            kept.append(row)
        except MatfmError as error:
            rejects.append(Reject(row, INPUT_COLUMN, formula, str(error)))
    fields = [pa.field(INPUT_COLUMN, pa.string(), nullable=False)]
    arrays: list[list[Any]] = [[formulas[row] for row in kept]]
    for name, column, values in cells:
        if column is None:
            fields.append(pa.field(name, pa.string()))
            arrays.append([values.get(row) for row in kept])
        else:
            metadata = {"unit": column.unit, "property": column.property}
            fields.append(pa.field(name, pa.float64(), metadata=metadata))
            arrays.append([_number(row, values.get(row), column, rejects) for row in kept])
    metadata = {"matfm": json.dumps({"recipe": recipe.name, "version": recipe.version, "license": recipe.license})}
    return pa.table(
        [pa.array(a, f.type) for a, f in zip(arrays, fields, strict=True)], pa.schema(fields, metadata)
    ), rejects


def _number(row: int, text: str | None, column: Column, rejects: list[Reject]) -> float | None:
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        rejects.append(Reject(row, column.name, text, "not a number"))
        return None
    low, high = column.range or (-math.inf, math.inf)
    if not low <= value <= high:
        reason = f"outside the physical range {low:g} to {high:g} {column.unit}: a failed calculation or a typing error"
        rejects.append(Reject(row, column.name, text, reason))
        return None
    return value


def _with_folds(table: pa.Table, folds: Folds) -> pa.Table:
    """Add fold_0 … columns with train and test, and check them against the recipe's digest."""
    from sklearn.model_selection import KFold, StratifiedKFold

    splitter = (StratifiedKFold if folds.stratify else KFold)(folds.count, shuffle=True, random_state=folds.seed)
    labels = table[folds.stratify].to_numpy() if folds.stratify else None
    fold_of_row = np.zeros(table.num_rows, np.uint8)
    for fold, (_, test) in enumerate(splitter.split(np.zeros(table.num_rows), labels)):
        fold_of_row[test] = fold
    digest = hashlib.sha256(fold_of_row.tobytes()).hexdigest()
    if digest != folds.sha256:
        raise RunError(f"the folds have digest {digest} but the recipe says {folds.sha256 or 'none'}; nothing written")
    for fold in range(folds.count):
        column = pa.array(np.where(fold_of_row == fold, "test", "train"))
        table = table.append_column(pa.field(f"fold_{fold}", pa.string()), column)
    return table
