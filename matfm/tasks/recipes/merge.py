"""Merged corpora: rows of several recipes, each composition or molecule once, with the sources of every row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from matfm.chem.composition_validity import electronegativity_balanced
from matfm.chem.formula import read_formula
from matfm.chem.formula_text import formula_text
from matfm.chem.identity import Identities
from matfm.chem.reduced_composition import whole_amounts
from matfm.chem.skeletons import SkeletonFilter
from matfm.errors import MatfmError
from matfm.tasks.recipes.assemble import assemble, checked_rows, gather, table_metadata
from matfm.tasks.recipes.recipe import Part, Recipe, load_recipe, matching
from matfm.tasks.rejects import Reject

_IN_FRACTIONS = " in fractions"
SOURCES = "sources"
"""Column with the recipes that hold the row, separated by commas."""
_REDUCE: dict[str, Callable[[list[float]], float]] = {
    "first": lambda values: values[0],
    "mean": lambda values: sum(values) / len(values),
    "min": min,
}

Fetch = Callable[[Recipe], Path]
"""Path of a recipe's verified file."""


@dataclass
class _Rows:
    """Rows of the merged table by what makes them one."""

    number: dict[str, int] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    sources: list[list[str]] = field(default_factory=list)

    def add(self, key: str, shown: str, source: str) -> int:
        row = self.number.setdefault(key, len(self.shown))
        if row == len(self.shown):
            self.shown.append(shown)
            self.sources.append([])
        if not self.sources[row] or self.sources[row][-1] != source:
            self.sources[row].append(source)
        return row


@dataclass
class _Label:
    """One carried-over column: values of each row, and the field of its recipe."""

    field: pa.Field
    reduce: str
    values: dict[int, list[float]] = field(default_factory=dict)


def assemble_merge(recipe: Recipe, fetch: Fetch) -> tuple[pa.Table, list[Reject], dict[str, int]]:
    """The table, the rejects, and counts: rows read, left out, and already there.

    Compositions: formulas of whole amounts are in lowest terms, in Hill order; a formula with fractional amounts stays
    as written, also where another row says the same in whole amounts. SMILES: canonical, or as in a source of which
    the recipe says that it is.

    An input that cannot be read is a reject, in a part that is left out too.

    Raises:
        RunError: the rows are not as many as the recipe promises.
    """
    assert recipe.merge is not None
    keys = _MoleculeKeys() if recipe.kind == "smiles" else _CompositionKeys()
    parts, apart = _expanded(recipe.merge.parts), _expanded(recipe.merge.without)
    for part, source in (*apart, *parts):
        if source.inputs != "canonical":
            keys.learn(_inputs(part, source, fetch))
    rows, labels, rejects = _Rows(), {}, list[Reject]()
    without = set(_substances(apart, keys, fetch, rejects))
    counts = {"rows_read": 0, "rows_left_out": 0, "rows_repeated": 0}
    for part, source in parts:
        row_of: dict[str, int] = {}
        for position, text in _inputs(part, source, fetch):
            counts["rows_read"] += 1
            try:
                key, shown = keys.of(text, source)
                substance = keys.substance(text, source)
            except MatfmError as error:
                rejects.append(Reject(position, f"{source.name}.{recipe.input}", text, str(error)))
                continue
            if substance in without:
                counts["rows_left_out"] += 1
                continue
            counts["rows_repeated"] += key in rows.number
            row_of[text] = rows.add(key, shown, source.name)
        labels.update(_labels(part, source, fetch, row_of))
    return checked_rows(_table(recipe, rows, labels), recipe), rejects, counts


def _substances(
    parts: list[tuple[Part, Recipe]], keys: _CompositionKeys | _MoleculeKeys, fetch: Fetch, rejects: list[Reject]
) -> Iterator[str]:
    """What the parts hold; what cannot be read joins the rejects."""
    for part, source in parts:
        for position, text in _inputs(part, source, fetch):
            try:
                yield keys.substance(text, source)
            except MatfmError as error:
                rejects.append(Reject(position, f"{source.name}.{source.input}", text, f"in a part left out: {error}"))


def _expanded(parts: tuple[Part, ...]) -> list[tuple[Part, Recipe]]:
    return [(part, load_recipe(name)) for part in parts for name in matching([part.recipe])]


def _table(recipe: Recipe, rows: _Rows, labels: dict[str, _Label]) -> pa.Table:
    fields = [
        pa.field(recipe.input, pa.string(), nullable=False),
        pa.field(SOURCES, pa.string(), nullable=False),
        *(label.field for label in labels.values()),
    ]
    arrays: list[list[Any]] = [rows.shown, list(map(",".join, rows.sources))]
    for label in labels.values():
        reduce, values = _REDUCE[label.reduce], label.values
        arrays.append([reduce(values[row]) if row in values else None for row in range(len(rows.shown))])
    columns = [pa.array(a, f.type) for a, f in zip(arrays, fields, strict=True)]
    return pa.table(columns, pa.schema(fields, table_metadata(recipe)))


def _inputs(part: Part, recipe: Recipe, fetch: Fetch) -> Iterator[tuple[int, str]]:
    """Row in the part's recipe and input, of the rows that belong to the part."""
    gathered = gather(recipe, fetch(recipe))
    wanted = _in_split(part, recipe, gathered.texts)
    for row, text in enumerate(gathered.inputs):
        if (
            (wanted is None or wanted[row])
            and (part.share == 1 or _share_of(text) < part.share)
            and (not part.balanced or _may_exist(text))
        ):
            yield row, text


def _may_exist(text: str) -> bool:
    """Whether a composition is balanced; what cannot be read is left for the rejects."""
    try:
        formula = read_formula(text)
    except MatfmError:
        return True
    return electronegativity_balanced(formula)


def _share_of(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _split_columns(recipe: Recipe) -> list[str]:
    return [table.split for table in recipe.tables if table.split]


def _in_split(part: Part, recipe: Recipe, texts: Mapping[str, list[str | None]]) -> list[bool] | None:
    """Which rows belong to the part; None for all. `texts` has the split column."""
    if not part.split:
        return None
    columns = _split_columns(recipe)
    if len(columns) != 1:
        raise MatfmError(f"{recipe.name} has {len(columns)} split columns; `split` of a part needs exactly one")
    labels = texts[columns[0]]
    unknown = set(part.split) - set(labels)
    if unknown:
        raise MatfmError(f"{recipe.name} has no rows with {columns[0]} {', '.join(sorted(unknown))}")
    return [label in part.split for label in labels]


def _labels(part: Part, recipe: Recipe, fetch: Fetch, row_of: dict[str, int]) -> dict[str, _Label]:
    """The part's target columns by row of the merged table."""
    if not part.labels:
        return {}
    table, _ = assemble(recipe, fetch(recipe), None)
    inputs = table[recipe.input].to_pylist()
    wanted_R = _in_split(part, recipe, {name: table[name].to_pylist() for name in _split_columns(recipe)})
    found = {}
    for wanted in part.labels:
        if wanted not in recipe.column_units():
            raise MatfmError(f"{recipe.name} has no target {wanted!r}; it has {', '.join(recipe.column_units())}")
        label = _Label(table.schema.field(wanted).with_name(f"{recipe.name}_{wanted}"), part.reduce)
        for row, (text, value) in enumerate(zip(inputs, table[wanted].to_pylist(), strict=True)):
            if value is not None and text in row_of and (wanted_R is None or wanted_R[row]):
                label.values.setdefault(row_of[text], []).append(value)
        found[label.field.name] = label
    return found


class _CompositionKeys:
    """Key and text of a row for every formula; each is read once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def learn(self, _: Iterator[tuple[int, str]]) -> None:
        """Nothing to prepare."""

    def of(self, text: str, _: Recipe) -> tuple[str, str]:
        if text not in self._known:
            formula = read_formula(text)
            reduced = formula_text(whole_amounts(formula), "hill")
            whole = all(float(amount).is_integer() for amount in formula.amounts.values())
            self._known[text] = (reduced, reduced) if whole else (f"{reduced}{_IN_FRACTIONS}", text)
        return self._known[text]

    def substance(self, text: str, source: Recipe) -> str:
        """Equal for equal compositions, in whole amounts or in fractions."""
        return self.of(text, source)[0].removesuffix(_IN_FRACTIONS)


class _MoleculeKeys:
    """Key and text of a row for every SMILES; those of canonical sources are read only where they may meet another."""

    def __init__(self) -> None:
        self._identities = Identities("smiles")
        self._others = SkeletonFilter()

    def learn(self, inputs: Iterator[tuple[int, str]]) -> None:
        """Note what a source that is not canonical holds."""
        self._others.add(text for _, text in inputs)

    def of(self, text: str, source: Recipe) -> tuple[str, str]:
        if source.inputs == "canonical" and not self._others.may_hold(text):
            return text, text
        canonical = self._identities.read(text)
        return canonical, canonical

    def substance(self, text: str, source: Recipe) -> str:
        """The canonical SMILES."""
        return self.of(text, source)[0]
