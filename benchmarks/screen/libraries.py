"""A library of any number of different formulas: a corpus, and its formulas with one element put for another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from matfm.chem.element_groups import ELEMENT_GROUPS
from matfm.core.files import atomic_path
from matfm.errors import MatfmError
from matfm.tasks.data import INPUT_COLUMN
from matfm.tasks.tables import read_table

CORPUS_SHARE = 0.4
"""Of the rows come from the corpus itself, if it has so many."""
SEED = 0

_PLAIN = re.compile(r"[A-Za-z0-9.]+")
_SYMBOL = re.compile(r"[A-Z][a-z]?")
_LEFT_OUT = frozenset("Tc Pm Po At Rn Fr Ra Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og".split())
"""Elements that no formula gets: short-lived ones, and those of which Magpie has no data."""
_PARTNERS = {
    symbol: tuple(other for other in group if other != symbol and other not in _LEFT_OUT)
    for group in ELEMENT_GROUPS.values()
    for symbol in group
}


def write_library(corpus: str, rows: int, path: Path) -> None:
    """A CSV of `rows` different formulas in a random order that depends on the corpus and the number only.

    Raises:
        MatfmError: the corpus is too small for so many.
    """
    formulas = list(dict.fromkeys(read_table(corpus).columns[INPUT_COLUMN]))
    generator = np.random.default_rng(SEED)
    formulas = [formulas[i] for i in generator.permutation(len(formulas))]
    chosen = dict.fromkeys(formulas[: int(CORPUS_SHARE * rows)])
    for formula in substitutions(formulas):
        if len(chosen) == rows:
            break
        chosen.setdefault(formula)
    if len(chosen) < rows:
        raise MatfmError(f"{corpus} gives {len(chosen):,} formulas, fewer than {rows:,}")
    mixed = list(chosen)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
        lines.write("formula,number\n")
        lines.writelines(f"{mixed[i]},{number}\n" for number, i in enumerate(generator.permutation(rows)))


def substitutions(formulas: list[str]) -> Iterator[str]:
    """Every formula with one of its elements put for another of the same chemical group, in order.

    Formulas with brackets, charges or water are left out, and what would name an element twice.
    """
    for formula in formulas:
        if not _PLAIN.fullmatch(formula):
            continue
        symbols = _SYMBOL.findall(formula)
        for symbol in symbols:
            for partner in _PARTNERS.get(symbol, ()):
                if partner not in symbols:
                    yield _SYMBOL.sub(lambda found: partner if found[0] == symbol else found[0], formula)  # noqa: B023


def labelled_rows(corpus: str, rows: int) -> tuple[str, list[tuple[str, float]]]:
    """The column of band gaps of a corpus, and formulas with their gaps, a random sample of `rows` of them."""
    columns = read_table(corpus).columns
    label = next(name for name in columns if "band_gap" in name)
    labelled = [row for row, cell in enumerate(columns[label]) if cell]
    chosen = np.random.default_rng(SEED).choice(labelled, min(rows, len(labelled)), replace=False)
    return label, [(columns[INPUT_COLUMN][row], float(columns[label][row])) for row in chosen]


def first_rows(library: Path, rows: int, path: Path) -> None:
    """A table of the first rows of a library."""
    with library.open(encoding="utf-8") as lines, atomic_path(path) as temporary:
        temporary.write_text("".join(next(lines) for _ in range(rows + 1)), "utf-8")
