"""Compositions and molecules that are known already: those of a table, such as that of the model's pretraining."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matfm.chem.reduced_composition import canonical_formula
from matfm.chem.validity import Verdict, validity_check
from matfm.errors import MatfmError
from matfm.tasks.generation.config import TRAINING, GenerateConfig
from matfm.tasks.tables import iterate_table

_COLUMNS = {
    "composition": ("formula", "composition"),
    "smiles": ("smiles", "SMILES", "selfies"),
    "selfies": ("selfies", "smiles", "SMILES"),
}


def known_table(config: GenerateConfig, run: dict[str, Any] | None) -> tuple[str, str]:
    """The table that samples are compared with and its column, empty if it is to be found; two empty texts for none.

    Args:
        config: whose `novel_to` names a table, or `training`.
        run: configuration of the run that made the model, as it is saved with it.

    Raises:
        MatfmError: the model does not say what it was trained on, or that table is not here.
    """
    if config.novel_to != TRAINING:
        return config.novel_to, config.novel_input
    data = (run or {}).get("data", {})
    recipe, tokens = data.get("recipe"), data.get("tokens")
    if not (recipe or data.get("table")):
        held = f"the token file {tokens}, whose table it does not name" if tokens else "nothing that it names"
        raise MatfmError(f"--novel-to training: {config.model} was trained on {held}; give a table")
    path = Path(config.model) / "data" / f"{recipe}.parquet" if recipe else Path(data["table"])
    if not path.is_file():
        remedy = f"; build it (matfm data build {recipe} --out data) and give data/{recipe}.parquet" if recipe else ""
        raise MatfmError(f"--novel-to training: {path}, which {config.model} was trained on, is not here{remedy}")
    return str(path), data.get("input") or ""


def known_forms(table: str, column: str, kind: str) -> tuple[set[str], int]:
    """Canonical forms of a table, and how many of its rows cannot be read.

    A column of molecules is read as SELFIES if that is its name, else as SMILES. Without a name, `formula`, or `smiles`
    or `selfies`, is taken.
    """
    known: set[str] = set()
    unreadable = 0
    check: Callable[[str], Verdict] | None = None
    for chunk in iterate_table(table):
        if check is None:
            column = column or next((name for name in _COLUMNS[kind] if name in chunk.columns), "")
            if not column:
                there = ", ".join(map(repr, chunk.columns))
                raise MatfmError(f"{table} has none of the columns {', '.join(_COLUMNS[kind])}; name one of {there}")
            chunk.column(column, table)
            check = (
                _canonical if kind == "composition" else validity_check("selfies" if column == "selfies" else "smiles")
            )
        for row, text in enumerate(chunk.columns[column]):
            canonical = None if row in chunk.errors else check(text).canonical
            if canonical is None:
                unreadable += 1
            else:
                known.add(canonical)
    return known, unreadable


def _canonical(text: str) -> Verdict:
    """Without charges, which novelty does not need."""
    try:
        return Verdict(canonical_formula(text))
    except MatfmError as error:
        return Verdict(error=str(error))
