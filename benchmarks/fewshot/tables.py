"""Tables of tasks for the few-shot benchmark: one row a molecule or composition, one column a task."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from matfm.chem.composition_groups import composition_group
from matfm.chem.smiles import parse_smiles
from matfm.core.files import atomic_path
from matfm.errors import MatfmError
from matfm.tasks import data
from matfm.tasks.recipes.recipe import INPUT_OF, load_recipe, recipe_names
from matfm.tasks.tables import read_table

PREFIX = "moleculeace_"
SETS = tuple(sorted(name for name in recipe_names() if name.startswith(PREFIX)))
MOLECULES_TEST = tuple(SETS[2::3])
"""Every third set by name, ten in all; the two sets of the target CHEMBL237 are both trained on."""
MOLECULES_TRAIN = tuple(name for name in SETS if name not in MOLECULES_TEST)

COMPOSITIONS_TRAIN = (
    "aflow:band_gap", "aflow:energy_per_atom", "materials_project:e_above_hull", "materials_project:magnetization",
    "matbench_expt_gap:band_gap", "matbench_mp_gap:band_gap", "matbench_mp_e_form:formation_energy",
    "matbench_dielectric:refractive_index", "matbench_jdft2d:exfoliation_energy",
    "matbench_perovskites:formation_energy", "matbench_glass:glass_forming", "matbench_expt_is_metal:is_metal",
)  # fmt: skip
"""Electronic, energetic, magnetic and optical properties, exfoliation and glass formation."""
COMPOSITIONS_TEST = (
    "aflow:bulk_modulus", "aflow:shear_modulus", "aflow:debye_temperature", "aflow:thermal_conductivity",
    "aflow:thermal_expansion", "materials_project:bulk_modulus", "materials_project:shear_modulus",
    "materials_project:elastic_anisotropy", "matbench_log_kvrh:log10_bulk_modulus",
    "matbench_log_gvrh:log10_shear_modulus", "matbench_phonons:phonon_peak", "matbench_steels:yield_strength",
)  # fmt: skip
"""Elastic, mechanical and thermal properties, none of which is trained on."""
LARGEST = 4000
"""Compositions of a task; of larger tables so many are drawn (seed 0)."""


def molecules_table(work: Path, limit: int = 0) -> tuple[Path, float]:
    """Potencies cut at the median of the shipped training rows; and the share of test molecules seen in training sets.

    `limit` takes so many molecules of each set, for trials.
    """
    columns: dict[str, dict[str, float]] = {}
    for name in SETS:
        inputs, values, parts = _column(name, None, work)
        middle = np.median([value for value, part in zip(values, parts, strict=True) if part == "train"])
        pairs = {
            parse_smiles(text).canonical: float(value > middle) for text, value in zip(inputs, values, strict=True)
        }
        columns[name] = dict(list(pairs.items())[: limit or None])
    path = work / f"molecules{limit or ''}.csv"
    _write(path, "smiles", columns)
    return path, _seen(columns, MOLECULES_TRAIN, MOLECULES_TEST)


def compositions_table(work: Path, limit: int = 0) -> tuple[Path, float]:
    """Values of one composition once in a task (their median); and the share of test compositions seen in training."""
    columns: dict[str, dict[str, float]] = {}
    for task in (*COMPOSITIONS_TRAIN, *COMPOSITIONS_TEST):
        recipe, target = task.split(":")
        inputs, values, _ = _column(recipe, target, work)
        columns[task] = _one_each(inputs, values, limit or LARGEST, composition_group)
    path = work / f"compositions{limit or ''}.csv"
    _write(path, "formula", columns)
    return path, _seen(columns, COMPOSITIONS_TRAIN, COMPOSITIONS_TEST)


_spelling: dict[object, str] = {}
"""The first formula seen of each composition, which is the same in all tasks."""


def _one_each(inputs: list[str], values: list[float], limit: int, key_of: Callable[[str], object]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in np.random.default_rng(0).permutation(len(inputs)):
        try:
            text = _spelling.setdefault(key_of(inputs[row]), inputs[row])
        except MatfmError:
            continue
        if text in found or len(found) < limit:
            found.setdefault(text, []).append(values[row])
    return {text: float(np.median(of_text)) for text, of_text in found.items()}


def _column(recipe: str, target: str | None, work: Path) -> tuple[list[str], list[float], list[str]]:
    """Inputs, values and parts of the rows that have a value, built once."""
    path = work / "data" / recipe / f"{recipe}.parquet"
    if not path.is_file():
        data.run(data.BuildConfig(recipe, str(path.parent)))
    table, loaded = read_table(str(path)), load_recipe(recipe)
    target = target or next(iter(loaded.column_units()))
    cells = table.column(target, str(path))
    inputs = table.column(INPUT_OF[loaded.kind], str(path))
    parts = table.columns.get("split", [""] * table.rows)
    rows = [row for row, cell in enumerate(cells) if cell]
    truth = {"true": 1.0, "false": 0.0}
    values = [truth[c] if (c := cells[row].lower()) in truth else float(c) for row in rows]
    return [inputs[row] for row in rows], values, [parts[row] for row in rows]


def _write(path: Path, name: str, columns: dict[str, dict[str, float]]) -> None:
    inputs = dict.fromkeys(text for of_task in columns.values() for text in of_task)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([name, *columns])
        for text in inputs:
            writer.writerow([text, *(repr(of[text]) if text in of else "" for of in columns.values())])


def _seen(columns: dict[str, dict[str, float]], train: tuple[str, ...], test: tuple[str, ...]) -> float:
    known = {text for name in train for text in columns[name]}
    tested = [text for name in test for text in columns[name]]
    return round(float(np.mean([text in known for text in tested])), 4)
