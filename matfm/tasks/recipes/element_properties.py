"""The element properties that Magpie features are made of: fetched like data, verified, and cached."""

from __future__ import annotations

from pathlib import Path

from matfm.chem.magpie import ElementTable, read_element_table
from matfm.tasks.recipes.recipe import load_recipe
from matfm.tasks.recipes.sources import default_cache, fetch, read_member


def magpie_table(cache: Path | None = None, offline: bool = False) -> ElementTable:
    """Magpie's 22 properties of 97 elements, as the recipe `elements_magpie` says.

    Raises:
        RunError: the file cannot be fetched, or is not the one expected.
        MatfmError: `offline` and the file is not in the cache.
    """
    recipe = load_recipe("elements_magpie")
    assert recipe.source is not None
    (member,) = recipe.tables[0].members.values()
    return read_element_table(read_member(fetch(recipe.source, cache or default_cache(), offline), member))
