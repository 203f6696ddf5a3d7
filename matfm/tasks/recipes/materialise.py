"""A recipe's table in memory: fetch, read, clean, merge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from matfm.chem.elements import ATOMIC_NUMBER
from matfm.chem.formula import read_formula
from matfm.chem.smiles import parse_smiles
from matfm.errors import MatfmError
from matfm.tasks.recipes.assemble import Reader, assemble
from matfm.tasks.recipes.merge import assemble_merge
from matfm.tasks.recipes.recipe import Recipe, load_recipe
from matfm.tasks.recipes.sources import default_cache, fetch
from matfm.tasks.rejects import Reject


@dataclass(frozen=True)
class Materialised:
    """A recipe's table in memory."""

    recipe: Recipe
    table: pa.Table
    rejects: list[Reject]
    counts: dict[str, int]
    """What a merge did with the rows it read."""


def materialise(
    name: str, cache: str | None = None, offline: bool = False, reader: Reader | None = None
) -> Materialised:
    """The table of a recipe (a name, or a path of a .toml).

    Args:
        name: of the recipe.
        cache: folder of fetched files; None for the user's.
        offline: use only the cache.
        reader: reads every input, instead of the parser of the recipe's kind.

    Raises:
        MatfmError: the recipe or the source is not as it should be.
        RunError: the source cannot be fetched, or rows or folds are not those that the recipe promises.
    """
    recipe = load_recipe(name)
    folder = Path(cache) if cache else default_cache()

    def file_of(wanted: Recipe) -> Path:
        assert wanted.source is not None
        beside = Path(name).parent if wanted is recipe and name.endswith(".toml") else None
        return fetch(wanted.source, folder, offline, beside)

    if recipe.merge is not None:
        return Materialised(recipe, *assemble_merge(recipe, file_of))
    checked = None if recipe.inputs != "unchecked" else reader or _READERS[recipe.kind]
    return Materialised(recipe, *assemble(recipe, file_of(recipe), checked), {})


def _read_element(symbol: str) -> None:
    if symbol not in ATOMIC_NUMBER:
        raise MatfmError(symbol, 0, "this is not the symbol of an element")


_READERS: dict[str, Reader] = {"composition": read_formula, "smiles": parse_smiles, "element": _read_element}
