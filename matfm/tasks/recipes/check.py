"""`matfm data check`: whether a user's recipe says everything a data set needs, each missing thing in a sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from matfm.chem.units import PROPERTIES, conversion_factor, property_named
from matfm.errors import MatfmError
from matfm.tasks.recipes.assemble import gather
from matfm.tasks.recipes.materialise import materialise
from matfm.tasks.recipes.recipe import Column, Recipe, load_recipe, read_recipe
from matfm.tasks.recipes.sources import default_cache, fetch

_WANTED = {
    "name": "a short name, as on the command line",
    "title": "one line that says what the data set is",
    "version": "a version, raised when the table changes",
    "kind": "composition, smiles or element",
    "rows": "the number of rows of the built table",
    "license": "the licence of the data",
    "citation": "whom to cite, a list",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def run(path: str, cache: str | None = None, offline: bool = False) -> dict[str, Any]:
    """What the recipe lacks, in sentences; `complete` if that is nothing.

    Raises:
        MatfmError: there is no such file, or it is not TOML.
    """
    if not Path(path).is_file():
        raise MatfmError(f"{path} is not a file; matfm data init TABLE writes a recipe")
    lacking = _lacking_keys(read_recipe(Path(path)))
    recipe: Recipe | None = None
    try:
        recipe = load_recipe(path)
    except MatfmError as error:
        if not any(sentence.startswith(f"{_key(str(error))} is missing") for sentence in lacking):
            lacking.append(str(error))
    if recipe is not None:
        lacking += [sentence for column in recipe.columns() for sentence in _lacking_of(column)]
        lacking += _lacking_in_source(path, recipe, cache, offline)
    return {"task": "data check", "recipe": path, "complete": not lacking, "lacking": lacking}


def _key(message: str) -> str:
    found = re.search(r"the key (\S+) is missing", message)
    return found[1] if found else message


def _lacking_keys(raw: dict[str, Any]) -> list[str]:
    lacking = [f"{key} is missing: write {what}" for key, what in _WANTED.items() if key not in raw]
    lacking += [
        f"{key} is empty: write {what}" for key, what in _WANTED.items() if key in raw and raw[key] in ("", [], [""])
    ]
    name = raw.get("name")
    if isinstance(name, str) and name and not _NAME.fullmatch(name):
        lacking.append(f"name is {name!r}: it becomes a file name, so use letters, digits, - . and _")
    if "source" not in raw and "merge" not in raw:
        lacking.append(
            "[source] is missing: write where the file comes from (kind = file, url or package) and its sha256"
        )
    if "tables" not in raw and "merge" not in raw:
        lacking.append("[[tables]] is missing: write the members, the input column and the target columns")
    return lacking


def _lacking_of(column: Column) -> list[str]:
    known = property_named(column.property)
    lacking = []
    if not column.property:
        lacking.append(f"the property of column {column.name!r} is empty: write what it is, for example band_gap")
    elif known.name not in PROPERTIES and not column.unit and column.task == "regression":
        lacking.append(f"the unit of column {column.name!r} is empty: write it, or 1 for a plain number")
    elif known.name in PROPERTIES and known.unit and not column.unit:
        lacking.append(
            f"the unit of column {column.name!r} is empty: write it; {known.name} is usually in {known.unit}"
        )
    elif known.name in PROPERTIES and conversion_factor(column.unit, known.unit) is None and not column.range:
        lacking.append(
            f"the unit {column.unit!r} of column {column.name!r} has no known relation to {known.unit!r}, the unit of "
            f"{known.name}: correct it, or write a range of valid values"
        )
    if column.range and column.range[0] >= column.range[1]:
        lacking.append(f"the range of column {column.name!r} is empty: write [smallest, largest]")
    return lacking


def _lacking_in_source(path: str, recipe: Recipe, cache: str | None, offline: bool) -> list[str]:
    """What only the file itself tells: digest, members, columns, rows, folds."""
    try:
        if recipe.source is not None:
            file = fetch(recipe.source, Path(cache) if cache else default_cache(), offline, Path(path).parent)
            gathered = gather(recipe, file)
            lacking = [
                f"column {name!r} has no value in any row: correct `from`"
                for name, cells in gathered.values.items()
                if not any(cells)
            ]
            if lacking:
                return lacking
        materialise(path, cache, offline)
    except MatfmError as error:
        return [str(error)]
    return []
