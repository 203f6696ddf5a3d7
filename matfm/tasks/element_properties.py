"""The element properties that Magpie features are made of: fetched like data, verified, and cached."""

from __future__ import annotations

import tomllib
from pathlib import Path

from matfm.chem.magpie import ElementTable, read_element_table
from matfm.core.config import from_mapping
from matfm.tasks.recipes import Source, recipe_folder
from matfm.tasks.sources import default_cache, fetch, read_member


def magpie_table(cache: Path | None = None, offline: bool = False) -> ElementTable:
    """Magpie's 22 properties of 97 elements, as `data_recipes/sources/magpie.toml` says.

    Raises:
        RunError: the file cannot be fetched, or is not the one expected.
        MatfmError: `offline` and the file is not in the cache.
    """
    path = recipe_folder() / "sources" / "magpie.toml"
    described = tomllib.loads(path.read_text("utf-8"))
    source = from_mapping(Source, described["source"], str(path))
    return read_element_table(read_member(fetch(source, cache or default_cache(), offline), described["member"]))
