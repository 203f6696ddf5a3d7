"""`matfm data list`: one entry for each shipped recipe."""

from __future__ import annotations

from typing import Any

from matfm.tasks.recipes.datasheet import megabytes
from matfm.tasks.recipes.recipe import load_recipe, matching, recipe_names


def entries() -> list[dict[str, Any]]:
    """Name, title, rows, kind, task, units by target, licence, bytes to fetch, and citation of every recipe."""
    found = []
    for name in recipe_names():
        recipe = load_recipe(name)
        merged = matching([part.recipe for part in recipe.merge.parts]) if recipe.merge else [name]
        sources = {source.sha256: source.bytes for part in merged if (source := load_recipe(part).source)}
        found.append(
            {
                "name": name,
                "title": recipe.title,
                "rows": recipe.rows,
                "kind": recipe.kind,
                "task": recipe.task(),
                "units": recipe.column_units(),
                "license": recipe.license,
                "bytes": sum(sources.values()),
                "citation": list(recipe.citation),
            }
        )
    return found


def readable(found: list[dict[str, Any]]) -> str:
    """The entries as a table for a terminal; recipes of one source file share its size, which is fetched once."""
    header = ("name", "rows", "task", "unit", "licence", "size", "citation")
    rows = [header]
    for entry in found:
        units = list(dict.fromkeys(unit or "1" for unit in entry["units"].values()))
        unit = ", ".join(units[:3]) + (", …" if len(units) > 3 else "")
        cited = entry["citation"][-1 if entry["name"].startswith("matbench") else 0].partition(",")[0]
        size = megabytes(entry["bytes"])
        rows.append((entry["name"], f"{entry['rows']:,}", entry["task"], unit, entry["license"], size, cited))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(r, widths, strict=True)).rstrip() for r in rows)
