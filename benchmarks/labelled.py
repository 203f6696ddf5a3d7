"""A shipped data set as benchmarks use it: inputs, labels, and which rows a split tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matfm.tasks import data
from matfm.tasks.labels import read_labels
from matfm.tasks.recipes.recipe import load_recipe
from matfm.tasks.tables import Chunk, read_table

# R rows


@dataclass(frozen=True)
class LabelledTable:
    """One target of a built recipe."""

    recipe: str
    path: str
    table: Chunk
    input: str
    """Name of the input column."""
    target: str
    unit: str
    classes: tuple[str, ...] | None
    """Of a classification."""
    label_R: np.ndarray
    """Labels, or positions in `classes`; float64."""

    @property
    def inputs(self) -> list[str]:
        return self.table.columns[self.input]

    @property
    def task(self) -> str:
        """regression or classification."""
        return "regression" if self.classes is None else "classification"

    def test_rows(self, column: str) -> np.ndarray:
        """Which rows a split column calls test, bool of shape (R,)."""
        return np.array(self.table.column(column, self.path)) == "test"


def labelled(recipe: str, work: Path) -> LabelledTable:
    """The (first) target of a recipe; its table is built in `work` once."""
    known = load_recipe(recipe)
    column = known.columns()[0]
    path = built(recipe, work)
    table = read_table(path)
    labels = read_labels(table, path, (column.name,), column.task)
    assert not labels.reasons, f"{recipe}: rows {sorted(labels.reasons)[:3]} have no label"
    return LabelledTable(
        recipe,
        path,
        table,
        known.input,
        column.name,
        column.unit,
        labels.classes[0] if labels.classes else None,
        labels.targets_RK[:, 0],
    )


def built(recipe: str, work: Path) -> str:
    """Path of the recipe's table."""
    return str(data.run(data.BuildConfig(recipe, str(work / "data" / recipe)))["table"])
