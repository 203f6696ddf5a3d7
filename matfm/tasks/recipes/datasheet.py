"""`datasheet.md`: what a data set holds, where it is from, and what was done to it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.tasks.recipes.recipe import Merge, Recipe
from matfm.tasks.rejects import Reject


def described(recipe: Recipe) -> str:
    """What the recipe says, in Markdown: for `matfm data show` and the datasheet."""
    lines = [f"# {recipe.name}", "", recipe.title, ""]
    if recipe.notes:
        lines += [recipe.notes, ""]
    lines += [
        f"- Version {recipe.version}, {recipe.rows:,} rows, kind `{recipe.kind}`, input column `{recipe.input}`",
        f"- Task: {recipe.task()}",
        f"- Licence: {recipe.license}",
        *(f"- Cite: {cited}" for cited in recipe.citation),
    ]
    if recipe.origin:
        lines.append(f"- Origin of the labels: `{recipe.origin}`")
    lines += _made_from(recipe)
    for table in recipe.tables:
        if table.split:
            lines.append(f"- Split of {', '.join(c.name for c in table.columns) or 'the rows'}: column `{table.split}`")
    if columns := recipe.columns():
        lines += ["", "| target | property | unit | task | from | valid range |", "|---|---|---|---|---|---|"]
        for column in columns:
            bounds = "" if column.range is None else f"{column.range[0]:g} to {column.range[1]:g}"
            cells = (column.name, column.property, column.unit, column.task, column.source, bounds)
            lines.append(f"| {' | '.join(cells)} |")
    if recipe.published:
        lines += ["", "| published | error | source |", "|---|---|---|"]
        lines += [f"| {p.model} | {p.mae:.4f} ± {p.std:.4f} | {p.source} |" for p in recipe.published]
    return "\n".join(lines) + "\n"


def _made_from(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.source:
        named = recipe.source.url or f"{recipe.source.name} {recipe.source.version} {recipe.source.file}".strip()
        size = f", {megabytes(recipe.source.bytes)}" if recipe.source.bytes else ""
        lines.append(f"- Source: {named}{size}, sha256 `{recipe.source.sha256}`")
    if recipe.merge:
        lines += _merged(recipe.merge)
    if recipe.folds:
        kind = f"StratifiedKFold on `{recipe.folds.stratify}`" if recipe.folds.stratify else "KFold"
        lines.append(
            f"- Folds: scikit-learn's {kind}, {recipe.folds.count} shuffled folds, "
            f"random_state {recipe.folds.seed}, in the columns `fold_0` …; sha256 `{recipe.folds.sha256}`"
        )
    return lines


def datasheet(recipe: Recipe, table: pa.Table, rejects: list[Reject], summary: dict[str, Any]) -> str:
    """What the recipe says, and what the built table holds."""
    lines = ["", "## Columns", "| column | unit | filled | smallest | mean | largest |", "|---|---|---|---|---|---|"]
    for entry in table.schema:
        unit = (entry.metadata or {}).get(b"unit", b"").decode()
        numbers = table[entry.name].drop_null()
        cells = [entry.name, unit, f"{len(numbers):,}", "", "", ""]
        if pa.types.is_floating(entry.type) and len(numbers):
            values = numbers.to_numpy()
            cells[3:] = [f"{value:.6g}" for value in (values.min(), np.mean(values), values.max())]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Rows", f"- {table.num_rows:,} rows"]
    for key, said in (
        ("rows_read", "read from the sources"),
        ("rows_repeated", "of an earlier row's composition or molecule"),
        ("rows_left_out", "left out because an evaluation set tests on them"),
        ("rows_excluded", "excluded on request"),
    ):
        if key in summary:
            lines.append(f"- {summary[key]:,} {said}")
    lines += [f"  - {count:,} equal to rows of {name}" for name, count in summary.get("excluded", {}).items()]
    lines += ["", "## Rejected", f"- {len(rejects):,} values or rows (`rejects.csv`)"]
    reasons = Counter((reject.column, reject.reason.partition(":")[0]) for reject in rejects)
    lines += [f"  - {count:,} of `{column}`: {reason}" for (column, reason), count in reasons.most_common(20)]
    return described(recipe) + "\n".join(lines) + f"\n\nTable: sha256 `{summary['table_sha256']}`\n"


def _merged(merge: Merge) -> list[str]:
    def said(parts: Any) -> str:
        return ", ".join(f"`{p.recipe}`" + (f" ({', '.join(p.split)})" if p.split else "") for p in parts)

    lines = [f"- Made of: {said(merge.parts)}; column `sources` says which hold a row"]
    if merge.without:
        lines.append(f"- Without everything in: {said(merge.without)}")
    return lines


def megabytes(count: int) -> str:
    """A size for people."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"
