"""Rows with labels as the contamination audit sees them: which substance, which labels from whom, which test rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from matfm.chem.identity import Identities
from matfm.chem.units import PROPERTIES, property_named
from matfm.errors import MatfmError
from matfm.tasks.recipes.materialise import materialise
from matfm.tasks.recipes.recipe import load_recipe, matching
from matfm.tasks.tables import read_table

# R rows


@dataclass(frozen=True)
class Label:
    """One target column."""

    column: str
    family: str
    """Labels of one family are the same quantity by other methods, or one tells the other (`matfm.chem.units`)."""
    origin: str
    """Who measured or computed it; empty if not known."""
    known_R: np.ndarray = field(repr=False)
    """Rows that have a value, bool of shape (R,)."""
    test_R: np.ndarray = field(repr=False)
    """Rows on which predictions of it are scored, bool of shape (R,)."""


@dataclass(frozen=True)
class LabelledSet:
    """R rows of one kind."""

    name: str
    kind: str
    """composition, smiles or selfies."""
    texts: list[str] = field(repr=False)
    labels: tuple[Label, ...]
    test_R: np.ndarray = field(repr=False)
    """Rows that are test rows of any label (all, where nothing says so)."""


@dataclass
class SetLoader:
    """Loads recipes and tables; what was read once is remembered.

    A table that matfm built says its input, kind, splits and origins. Another one has the `input` and the `kind` given
    here, and those of its columns are labels whose names the table of properties knows.
    """

    cache: str | None = None
    """Folder of fetched files; None for the user's."""
    offline: bool = False
    """Use only the cache."""
    input: str | None = None
    """Input column of tables that matfm did not build."""
    kind: str = "composition"
    """Kind of such tables."""
    identities: dict[str, Identities] = field(default_factory=dict)

    def of(self, kind: str) -> Identities:
        """The memory of identities of a kind."""
        return self.identities.setdefault(kind, Identities(kind))

    def load(self, said: str) -> list[LabelledSet]:
        """What one argument stands for: recipes by name, pattern or path, or a table; `NAME:a,b` has the labels a and b
        only, and `NAME:` none.

        Raises:
            MatfmError: nothing of that name, a label that it has not, or a recipe of elements.
        """
        name, colon, wanted = said.partition(":")
        if name.endswith(".toml") or not Path(name).is_file():
            found = [self._recipe(recipe) for recipe in matching([name])]
        else:
            found = [self._file(name)]
        return [_with_labels(one, wanted) for one in found] if colon else found

    def _recipe(self, name: str) -> LabelledSet:
        kind = load_recipe(name).kind
        if kind == "element":
            raise MatfmError(f"{name} holds elements; an audit compares compositions or molecules")
        made = materialise(name, self.cache, self.offline, self.of(kind).read)
        return _from_arrow(made.recipe.name, made.table)

    def _file(self, path: str) -> LabelledSet:
        if path.endswith(".parquet"):
            table = pq.read_table(path)
            if b"matfm" in (table.schema.metadata or {}):
                return _from_arrow(Path(path).stem, table)
        chunk = read_table(path)
        if self.input is None:
            raise MatfmError(f"{path} does not say which column is the input; name it with --input")
        texts = chunk.column(self.input, path)
        every_R = np.ones(len(texts), bool)
        labels = [
            Label(name, property_named(name).family, "", np.array([cell != "" for cell in cells], bool), every_R)
            for name, cells in chunk.columns.items()
            if property_named(name).name in PROPERTIES
        ]
        return LabelledSet(Path(path).name, self.kind, texts, tuple(labels), every_R)


def _from_arrow(name: str, table: pa.Table) -> LabelledSet:
    said = json.loads(table.schema.metadata[b"matfm"])
    texts = table[said["input"]].to_pylist()
    every_R = np.ones(len(texts), bool)
    folds = any(column.startswith("fold_") for column in table.schema.names)
    splits: Mapping[str, str] = {} if folds else said.get("splits", {})

    def test_rows(column: str) -> np.ndarray:
        if column not in splits:
            return every_R
        return np.array([str(part).startswith("test") for part in table[splits[column]].to_pylist()], bool)

    labels = []
    for entry in table.schema:
        metadata: dict[bytes, bytes] = entry.metadata or {}
        if b"property" in metadata:
            family = property_named(metadata[b"property"].decode()).family or entry.name
            known_R = np.array(table[entry.name].is_valid().to_pylist(), bool)
            origin = metadata.get(b"origin", b"").decode()
            labels.append(Label(entry.name, family, origin, known_R, test_rows(entry.name)))
    tests = [label.test_R for label in labels] if labels else [test_rows("")]
    return LabelledSet(name, said["kind"], texts, tuple(labels), np.logical_or.reduce(tests))


def _with_labels(one: LabelledSet, wanted: str) -> LabelledSet:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    known = {label.column: label for label in one.labels}
    for name in names:
        if name not in known:
            raise MatfmError(f"{one.name} has no label {name!r}; it has {', '.join(known) or 'none'}")
    return LabelledSet(one.name, one.kind, one.texts, tuple(known[name] for name in names), one.test_R)


def keys_of_tests(one: LabelledSet, identities: Identities) -> list[str | None]:
    """Identity of each test row of any label, None where it cannot be read and for other rows, in the order of rows."""
    found = iter(identities.of(text for text, test in zip(one.texts, one.test_R, strict=True) if test))
    return [next(found) if test else None for test in one.test_R]


def summary_of(one: LabelledSet) -> dict[str, Any]:
    """What an audit says of a set."""
    return {
        "name": one.name,
        "kind": one.kind,
        "rows": len(one.texts),
        "labels": {label.column: {"family": label.family, "origin": label.origin} for label in one.labels},
    }
