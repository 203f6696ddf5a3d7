"""`matfm data init`: a recipe for a user's table, with what can be guessed filled in and the rest marked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matfm.chem.formula import read_formula
from matfm.chem.missing import is_missing
from matfm.chem.smiles import parse_smiles
from matfm.chem.units import PROPERTIES, property_named
from matfm.core.files import sha256_of, write_text
from matfm.errors import MatfmError
from matfm.tasks.recipes.recipe import INPUT_OF
from matfm.tasks.tables import STANDARD_INPUT, Chunk, read_table

SAMPLE = 200
"""Rows that are read to tell a column of formulas or SMILES."""
_LIKELY = {
    "composition": ("formula", "composition", "chemical_formula", "pretty_formula", "compound", "material"),
    "smiles": ("smiles", "canonical_smiles", "molecule", "mol"),
}
_UNIT = re.compile(r"\s*[\[(]([^\])]*)[\])]\s*$")
_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})


@dataclass(frozen=True)
class InitConfig:
    """`matfm data init`."""

    table: str
    """CSV, TSV, JSONL or Parquet."""
    out: str | None = None
    """Recipe to write; by default beside the table, with its name."""
    input: str | None = None
    """Input column, if the guess is wrong."""


def run(config: InitConfig) -> dict[str, Any]:
    """Write the recipe; returns what was guessed and what is left to fill in.

    Raises:
        MatfmError: no rows, no column of formulas or SMILES, no numbers, or a recipe that is there already.
    """
    if config.table == STANDARD_INPUT:
        raise MatfmError("a recipe names a file; save standard input as a table first")
    table = Path(config.table)
    chunk = read_table(config.table)
    if not chunk.rows:
        raise MatfmError(f"{table} has no rows")
    out = Path(config.out) if config.out else table.with_name(f"{table.name.partition('.')[0]}.toml")
    if out.suffix != ".toml":
        raise MatfmError(f"--out {out} must be a .toml file")
    if out.exists():
        raise MatfmError(f"{out} is there already; remove it or choose another --out")
    name, kind = _input(chunk, config)
    targets = [column for column in chunk.columns if column != name and _is_number(chunk.columns[column])]
    if not targets:
        raise MatfmError(f"{table} has no column of numbers beside {name!r}; a recipe needs a target")
    split = next((column for column in chunk.columns if set(chunk.columns[column]) <= _SPLITS), "")
    rows = _readable_rows(chunk, name, kind)
    to_fill = ["title", "license", "citation"]
    columns = []
    for column in targets:
        entry, unit_is_open = _column(column, chunk.columns[column])
        columns.append(entry)
        to_fill += [f"unit of {column}"] if unit_is_open else []
    left_out = [column for column in chunk.columns if column not in (name, split, *targets)]
    write_text(out, _recipe(table, out, kind, rows, name, columns, split, left_out))
    return {
        "task": "data init",
        "recipe": str(out),
        "input": name,
        "kind": kind,
        "targets": targets,
        "split": split or None,
        "columns_left_out": left_out,
        "rows": rows,
        "rows_unreadable": chunk.rows - rows,
        "to_fill": to_fill,
    }


def _input(chunk: Chunk, config: InitConfig) -> tuple[str, str]:
    """Name and kind of the input column: of those that can be read the one with the likeliest name, else the first."""
    names = [config.input] if config.input else list(chunk.columns)
    if config.input:
        chunk.column(config.input, config.table)
    found = []
    for name in names:
        cells = [cell for cell in chunk.columns[name][:SAMPLE] if cell]
        shares = {kind: _readable_share(cells, kind) for kind in _LIKELY}
        kind = max(shares, key=lambda kind: (name.casefold() in _LIKELY[kind], shares[kind]))
        if shares[kind] > 0.5 and not _is_number(chunk.columns[name]):
            found.append((name.casefold() in _LIKELY[kind], name, kind))
    if not found:
        raise MatfmError(
            f"{config.table} has no column of formulas or SMILES; its columns are {', '.join(chunk.columns)}"
        )
    _, name, kind = max(found, key=lambda entry: entry[0])
    return name, kind


def _reads(text: str, kind: str) -> bool:
    try:
        (read_formula if kind == "composition" else parse_smiles)(text)
    except MatfmError:
        return False
    return True


def _readable_share(cells: list[str], kind: str) -> float:
    return sum(_reads(cell, kind) for cell in cells) / len(cells) if cells else 0.0


def _readable_rows(chunk: Chunk, name: str, kind: str) -> int:
    return sum(row not in chunk.errors and _reads(cell, kind) for row, cell in enumerate(chunk.columns[name]))


def _is_number(cells: list[str]) -> bool:
    """Whether most filled cells are numbers."""
    filled = [cell for cell in cells if cell and not is_missing(cell)]
    return bool(filled) and sum(map(_parses, filled)) > 0.5 * len(filled)


def _parses(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(name: str, cells: list[str]) -> tuple[str, bool]:
    """The entry of a target, and whether its unit is left to be filled in. `gap (eV)` says its unit."""
    written = _UNIT.search(name)
    bare = name[: written.start()] if written else name
    known = property_named(bare)
    in_table = known.name in PROPERTIES
    unit = written[1].strip() if written else known.unit if in_table else ""
    two = set(filter(None, cells)) <= {"0", "1", "0.0", "1.0"}
    entry = {
        "from": name,
        "name": re.sub(r"\W+", "_", bare.strip()).strip("_").lower() or "target",
        "property": known.name if in_table else bare.strip(),
        "unit": unit,
        "task": "classification" if two else "regression",
    }
    inline = ", ".join(f"{key} = {_text(value)}" for key, value in entry.items())
    bounds = known.in_unit(unit) if in_table and unit else known
    if in_table and bounds.lower is not None and bounds.upper is not None:
        inline += f", range = [{bounds.lower!r}, {bounds.upper!r}]"
    return f"{{ {inline} }}", not unit and not two and not (in_table and not known.unit)


def _recipe(
    table: Path, out: Path, kind: str, rows: int, name: str, columns: list[str], split: str, left_out: list[str]
) -> str:
    try:
        file = table.resolve().relative_to(out.resolve().parent).as_posix()
    except ValueError:
        file = str(table.resolve())
    said = [
        "# Fill in what is empty, then: matfm data check and matfm data build.",
        f"name = {_text(re.sub(r'[^A-Za-z0-9_.-]+', '_', out.stem).strip('_.-') or 'table')}",
        'title = ""  # one line that says what the data set is',
        'version = "1"  # raise it when the table changes',
        f'kind = "{kind}"',
        f"rows = {rows}  # that can be read",
        'license = ""  # of the data',
        "citation = []  # whom to cite",
        'origin = ""  # who measured or computed the labels, in a word; audits compare it',
        'notes = ""',
        "",
        "[source]",
        'kind = "file"',
        f"file = {_text(file)}  # relative to this recipe",
        f'sha256 = "{sha256_of(table)}"',
        f"bytes = {table.stat().st_size}",
        "",
        "[[tables]]",
        f"members = {{ all = {_text(table.name)} }}",
        f"input = {_text(name)}  # becomes the column {INPUT_OF[kind]}",
        "columns = [",
        *(f"    {column}," for column in columns),
        "]",
        *(["# Left out, for they hold no numbers: " + ", ".join(map(_text, left_out))] if left_out else []),
    ]
    if split:
        said += ['split = "split"', f"split_from = {_text(split)}"]
    return "\n".join(said) + "\n"


def _text(value: str) -> str:
    """A TOML string (JSON's escapes are TOML's)."""
    return json.dumps(value, ensure_ascii=False)
