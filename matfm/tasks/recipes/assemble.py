"""From a recipe's verified file to a typed table: join, check, clean, add the official folds."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from matfm.errors import MatfmError, RunError
from matfm.tasks.recipes.recipe import Column, Folds, Recipe, SourceTable
from matfm.tasks.recipes.sources import read_member_table
from matfm.tasks.rejects import Reject

Reader = Callable[[str], object]
"""Reads an input, or raises MatfmError with the reason."""


@dataclass
class Gathered:
    """Everything a recipe reads, as text, in the order of the built table; None where a joined table lacks a row."""

    inputs: list[str] = field(default_factory=list)
    """Formula, SMILES or element of each row."""
    values: dict[str, list[str | None]] = field(default_factory=dict)
    """Target columns by their name in the built table."""
    texts: dict[str, list[str | None]] = field(default_factory=dict)
    """Columns that are kept as text: splits, flags."""
    descriptors: list[str] = field(default_factory=list)
    """Those of `values` that the recipe does not list (element properties)."""
    errors: dict[int, str] = field(default_factory=dict)
    """Row to what is wrong with it as a whole."""


def assemble(recipe: Recipe, file: Path, reader: Reader | None) -> tuple[pa.Table, list[Reject]]:
    """The typed table with folds, and what was rejected. `reader` None takes the inputs as they are.

    Raises:
        MatfmError: the file has not what the recipe names.
        RunError: rows or folds are not those that the recipe promises.
    """
    table, rejects = _typed(recipe, gather(recipe, file), reader)
    return with_folds(checked_rows(table, recipe), recipe.folds), rejects


def checked_rows(table: pa.Table, recipe: Recipe) -> pa.Table:
    """The table, if it has the rows that the recipe promises."""
    if table.num_rows != recipe.rows:
        raise RunError(
            f"{recipe.name} has {table.num_rows} rows but the recipe promises {recipe.rows}; nothing written"
        )
    return table


def gather(recipe: Recipe, file: Path) -> Gathered:
    """Read the members; several tables are joined on the input, in order of first appearance."""
    result = Gathered()
    row_of: dict[str, int] | None = {} if len(recipe.tables) > 1 else None
    for table in recipe.tables:
        rows: list[int] = []
        for label, member in table.members.items():
            chunk = read_member_table(file, member)
            inputs = chunk.column(table.input, member)
            rows_C = _rows(result.inputs, inputs, row_of)
            result.errors.update({rows_C[position]: reason for position, reason in chunk.errors.items()})
            for name, source, target in _wanted(table, list(chunk.columns), result):
                column = target.setdefault(name, [])
                _put(column, rows_C, chunk.column(source, member))
            if table.split:
                labels = chunk.column(table.split_from, member) if table.split_from else [label] * len(inputs)
                _put(result.texts.setdefault(table.split, []), rows_C, labels)
            rows += rows_C
        if row_of is not None and len(set(rows)) < len(rows):
            twice = Counter(rows).most_common(1)[0][0]
            raise MatfmError(
                f"{recipe.name}: {result.inputs[twice]!r} is twice in {', '.join(table.members.values())}; tables that "
                "are joined need every input once"
            )
    for column in (*result.values.values(), *result.texts.values()):
        column.extend([None] * (len(result.inputs) - len(column)))
    return result


def _rows(known: list[str], inputs: list[str], row_of: dict[str, int] | None) -> list[int]:
    """Row of each input; unknown ones are appended."""
    if row_of is None:
        known.extend(inputs)
        return list(range(len(known) - len(inputs), len(known)))
    rows = [row_of.setdefault(text, len(row_of)) for text in inputs]
    known.extend(list(row_of)[len(known) :])
    return rows


def _wanted(
    table: SourceTable, columns: list[str], result: Gathered
) -> list[tuple[str, str, dict[str, list[str | None]]]]:
    """Name in the built table, name in the source, and where it goes."""
    wanted = [(column.name, column.source, result.values) for column in table.columns]
    if table.descriptors:
        others = [name for name in columns if name != table.input]
        result.descriptors += [name for name in others if name not in result.descriptors]
        wanted += [(name, name, result.values) for name in others]
    return wanted + [(name, source, result.texts) for name, source in table.keep.items()]


def _put(column: list[str | None], rows: list[int], cells: list[str]) -> None:
    column.extend([None] * (max(rows, default=-1) + 1 - len(column)))
    for row, cell in zip(rows, cells, strict=True):
        column[row] = cell


def _typed(recipe: Recipe, gathered: Gathered, reader: Reader | None) -> tuple[pa.Table, list[Reject]]:
    """Parse inputs and values; what cannot be read or lies outside its range is rejected with a reason."""
    rejects: list[Reject] = []
    kept: list[int] = []
    for row, text in enumerate(tqdm(gathered.inputs, desc=recipe.name, unit="row", disable=None, leave=False)):
        reason = gathered.errors.get(row) or _unreadable(text, reader)
        if reason is None:
            kept.append(row)
        else:
            rejects.append(Reject(row, recipe.input, text, reason))
    fields = [pa.field(recipe.input, pa.string(), nullable=False)]
    arrays: list[list[Any]] = [[gathered.inputs[row] for row in kept]]
    origin = {"origin": recipe.origin} if recipe.origin else {}
    for column in recipe.columns():
        metadata = {"unit": column.unit, "property": column.property, **origin}
        fields.append(pa.field(column.name, pa.float64(), metadata=metadata))
        cells = gathered.values[column.name]
        arrays.append([_number(row, cells[row], column, rejects) for row in kept])
    for name in gathered.descriptors:
        column = Column(name, name, "")
        fields.append(pa.field(name, pa.float64()))
        arrays.append([_number(row, gathered.values[name][row], column, rejects) for row in kept])
    for name, cells in gathered.texts.items():
        fields.append(pa.field(name, pa.string()))
        arrays.append([cells[row] for row in kept])
    schema = pa.schema(fields, table_metadata(recipe))
    return pa.table([pa.array(a, f.type) for a, f in zip(arrays, fields, strict=True)], schema), rejects


def table_metadata(recipe: Recipe, **more: Any) -> dict[str, str]:
    """What a built table says of itself."""
    splits = {name: recipe.split_of(name) for name in ("", *(column.name for column in recipe.columns()))}
    said = {
        "recipe": recipe.name,
        "version": recipe.version,
        "license": recipe.license,
        "kind": recipe.kind,
        "input": recipe.input,
        "splits": {name: split for name, split in splits.items() if split},
        **more,
    }
    return {"matfm": json.dumps(said, ensure_ascii=False)}


def _unreadable(text: str, reader: Reader | None) -> str | None:
    if reader is None:
        return None
    try:
        reader(text)
    except MatfmError as error:
        return str(error)
    return None


def _number(row: int, text: str | None, column: Column, rejects: list[Reject]) -> float | None:
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        rejects.append(Reject(row, column.name, text, "not a number"))
        return None
    if value in column.placeholders:
        rejects.append(Reject(row, column.name, text, f"{value:g} stands for a missing value in the source"))
        return None
    value += column.offset
    low, high = column.range or (-math.inf, math.inf)
    if not low <= value <= high:
        reason = f"outside the physical range {low:g} to {high:g} {column.unit}: a failed calculation or a typing error"
        rejects.append(Reject(row, column.name, text, reason))
        return None
    return value


def fold_of_rows(table: pa.Table, folds: Folds) -> np.ndarray:
    """Number of the fold in which each row is a test row, uint8 of shape (rows,)."""
    from sklearn.model_selection import KFold, StratifiedKFold

    splitter = (StratifiedKFold if folds.stratify else KFold)(folds.count, shuffle=True, random_state=folds.seed)
    labels = table[folds.stratify].to_numpy() if folds.stratify else None
    fold_of_row = np.zeros(table.num_rows, np.uint8)
    for fold, (_, test) in enumerate(splitter.split(np.zeros(table.num_rows), labels)):
        fold_of_row[test] = fold
    return fold_of_row


def fold_digest(fold_of_row: np.ndarray) -> str:
    """What a recipe pins: SHA-256 of the bytes of `fold_of_rows`."""
    return hashlib.sha256(fold_of_row.astype(np.uint8).tobytes()).hexdigest()


def with_folds(table: pa.Table, folds: Folds | None) -> pa.Table:
    """Add fold_0 … columns with train and test, and check them against the recipe's digest."""
    if folds is None:
        return table
    fold_of_row = fold_of_rows(table, folds)
    digest = fold_digest(fold_of_row)
    if digest != folds.sha256:
        raise RunError(f"the folds have digest {digest} but the recipe says {folds.sha256 or 'none'}; nothing written")
    for fold in range(folds.count):
        column = pa.array(np.where(fold_of_row == fold, "test", "train"))
        table = table.append_column(pa.field(f"fold_{fold}", pa.string()), column)
    return table
