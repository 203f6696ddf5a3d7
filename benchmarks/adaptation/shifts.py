"""The four shifts: a source with labels, a target whose labels are few or none, and target rows to score on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.labelled import built
from matfm.chem.composition_groups import composition_group
from matfm.chem.formula import read_formula
from matfm.chem.smiles import parse_smiles
from matfm.core.files import atomic_path
from matfm.tasks.recipes.recipe import load_recipe
from matfm.tasks.tables import read_table

# R rows

ORGANIC = frozenset("CHNO")
ORGANIC_SHARE = 0.8
"""Share of the atoms that are C, H, N and O in an organic-like composition, which has both C and H."""
HELD_OUT = 5
"""Every so many-th of the given target labels is held out to judge the transfer on."""
_CHALCOGENS, _HALOGENS = frozenset(("S", "Se", "Te")), frozenset(("F", "Cl", "Br", "I"))
Rule = Callable[[dict[str, float]], bool]
"""Of the atomic fractions of a composition."""


def is_oxide(fractions: dict[str, float]) -> bool:
    return "O" in fractions and not fractions.keys() & (_CHALCOGENS | _HALOGENS)


def is_halide_or_chalcogenide(fractions: dict[str, float]) -> bool:
    return "O" not in fractions and bool(fractions.keys() & (_CHALCOGENS | _HALOGENS))


def is_organic(fractions: dict[str, float]) -> bool:
    share = sum(fractions.get(element, 0.0) for element in ORGANIC)
    return {"C", "H"} <= fractions.keys() and share >= ORGANIC_SHARE


def is_inorganic(fractions: dict[str, float]) -> bool:
    return not {"C", "H"} <= fractions.keys()


@dataclass(frozen=True)
class Shift:
    """From where to where."""

    title: str
    source: str
    """Recipe of the source."""
    source_label: str
    target: str
    target_label: str
    unit: str
    labels: tuple[int, ...]
    """Target labels that are given, one run each; beside none and all of them."""
    metric: str = "mae"
    source_rule: Rule | None = None
    target_rule: Rule | None = None
    kind: str = "composition"
    folds: bool = False
    """Whether the target's official fold of the seed's number is the test, as in Matbench."""


SHIFTS = {
    "dft-experiment": Shift(
        "computed (Materials Project) to experimental band gap", "matbench_mp_gap", "band_gap", "matbench_expt_gap",
        "band_gap", "eV", (20, 100), folds=True,
    ),
    "oxides-halides": Shift(
        "energy above hull, from oxides to halides and chalcogenides", "materials_project", "e_above_hull",
        "materials_project", "e_above_hull", "eV/atom", (100,), source_rule=is_oxide,
        target_rule=is_halide_or_chalcogenide,
    ),
    "inorganic-organic": Shift(
        "formation energy, from compositions without C-H to those mostly of C, H, N and O", "matbench_mp_e_form",
        "formation_energy", "matbench_mp_e_form", "formation_energy", "eV/atom", (100,), source_rule=is_inorganic,
        target_rule=is_organic,
    ),
    "ec50-ki": Shift(
        "kappa opioid receptor, from EC50 to Ki", "moleculeace_CHEMBL237_EC50", "pec50", "moleculeace_CHEMBL237_Ki",
        "pki", "-log10(M)", (100,), "rmse", kind="smiles",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """Tables of one shift and seed."""

    source: Path
    train: int
    """Source rows."""
    tests: int
    target: Callable[[int | None], Path]
    """Number of labels that are given (None for all) to the target's table."""


def draw(name: str, seed: int, work: Path, most: int) -> Drawn:
    """Write the source's table, and a function that writes the target's.

    Of each identity (reduced composition, or canonical SMILES) there is one row. At most `most` source rows, as many
    target rows for training and half as many for the test are drawn by the seed. Test rows have the part `test`; the
    labels that are given are those of the first rows of one order, so fewer labels are some of more.
    """
    shift, rng = SHIFTS[name], np.random.default_rng(seed)
    folder = work / "tables" / name / f"seed{seed}-{most}"
    source = rng.permutation(_rows(shift, shift.source, shift.source_label, shift.source_rule, work))[:most].tolist()
    rows = rng.permutation(_rows(shift, shift.target, shift.target_label, shift.target_rule, work))
    is_test = _test_rows(shift, rows, seed, work)
    tests, train = rows[is_test][: most // 2].tolist(), rows[~is_test][:most].tolist()
    _write(folder / "source.csv", [(text, label, "train") for text, label in source])

    def target(labels: int | None) -> Path:
        given = len(train) if labels is None else labels
        path = folder / f"target-{'all' if labels is None else labels}.csv"
        told = [
            (text, label if n < given else "", "valid" if n < given and n % HELD_OUT == HELD_OUT - 1 else "train")
            for n, (text, label) in enumerate(train)
        ]
        _write(path, [*told, *((text, label, "test") for text, label in tests)])
        return path

    return Drawn(folder / "source.csv", len(source), len(tests), target)


_KEPT: dict[tuple[str, str, str], np.ndarray] = {}


def _rows(shift: Shift, recipe: str, label: str, rule: Rule | None, work: Path) -> np.ndarray:
    """Input and label (as text) of one row for each identity that the rule takes, (R, 2); kept for the next seed."""
    key = (recipe, label, rule.__name__ if rule else "")
    if key not in _KEPT:
        path = built(recipe, work)
        table = read_table(path)
        inputs, labels = table.column(load_recipe(recipe).input, path), table.column(label, path)
        of_identity: dict[str, list[tuple[str, float]]] = {}
        for text, cell in zip(inputs, labels, strict=True):
            if cell.strip() and (rule is None or rule(dict(read_formula(text).fractions))):
                identity = parse_smiles(text).canonical if shift.kind == "smiles" else composition_group(text)
                of_identity.setdefault(identity, []).append((text, float(cell)))
        middle = [sorted(rows, key=lambda row: row[1])[(len(rows) - 1) // 2] for rows in of_identity.values()]
        _KEPT[key] = np.array([(text, repr(value)) for text, value in middle], dtype=object)
    return _KEPT[key]


def _test_rows(shift: Shift, rows: np.ndarray, seed: int, work: Path) -> np.ndarray:
    """Which target rows are scored: the official fold of the seed, or a random third."""
    if not shift.folds:
        return np.arange(len(rows)) < len(rows) // 3
    path = built(shift.target, work)
    table = read_table(path)
    parts = dict(
        zip(table.column(load_recipe(shift.target).input, path), table.column(f"fold_{seed % 5}", path), strict=True)
    )
    return np.array([parts[text] == "test" for text in rows[:, 0]])


def _write(path: Path, rows: list[tuple[str, str, str]]) -> None:
    """The same rows give the same file, so a run that goes on finds its table unchanged."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("input", "label", "part"))
        writer.writerows(rows)
