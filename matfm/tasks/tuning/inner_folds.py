"""Folds for choosing settings, made of the rows that are not tested on."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from matfm.chem.composition_groups import chemical_system, loco_folds
from matfm.chem.fingerprints import BUTINA_CUTOFF, butina_clusters
from matfm.chem.magpie import magpie_features
from matfm.chem.scaffold_splits import murcko_scaffold
from matfm.chem.splits import SplitName, parse_split, random_split
from matfm.errors import MatfmError
from matfm.tasks.recipes.element_properties import magpie_table
from matfm.tasks.splitting import LOCO_CLUSTERS, LOCO_SEED, UsableRows
from matfm.tasks.uncertainty.folds import fold_numbers

# U usable rows

HELD_OUT = 0.2
"""Share of the training rows to validate on, for one fold where the split has no validation rows."""
Fold = tuple[np.ndarray, np.ndarray]
"""Positions among the usable rows: those to train on, those to validate on."""


def inner_folds(split: str, usable: UsableRows, parts: np.ndarray, folds: int, seed: int) -> list[Fold]:
    """Training and validation rows of every fold. Test and calibration rows are in none of them.

    One fold validates on the validation rows of the split or, without such rows, on a fifth of the training rows.
    Of several, each validates on another part of training and validation rows together. What the split keeps together
    (scaffolds, chemical systems, clusters, domains; else rows of the same material) stays together in the folds:
    validation is as far from training as the test is.

    Args:
        split: name of the split that made the parts.
        usable: the U rows.
        parts: part of each, (U,).
        folds: how many, at least 1.
        seed: of the order in which groups are dealt.

    Raises:
        MatfmError: fewer groups than folds.
    """
    train, valid = (np.flatnonzero(parts == name) for name in ("train", "valid"))
    if folds == 1 and len(valid):
        return [(train, valid)]
    rows = np.sort(np.concatenate([train, valid]))
    groups = _groups(parse_split(split, usable.kind), usable, rows)
    if folds == 1:
        held = random_split(groups, (HELD_OUT, 0.0), seed) == "valid"
        if held.all() or not held.any():
            raise MatfmError(
                f"{len(rows)} training rows cannot be validated on a part of them; give --split validation rows"
            )
        return [(rows[~held], rows[held])]
    fold_R = fold_numbers(groups, folds, seed)
    return [(rows[fold_R != number], rows[fold_R == number]) for number in range(folds)]


def _groups(name: SplitName, usable: UsableRows, rows: np.ndarray) -> list[Hashable]:
    """What stays together, of the given rows."""
    of_rows = UsableRows(
        usable.table,
        usable.source,
        usable.input,
        usable.kind,
        usable.rows[rows],
        usable.targets_UK[rows],
        usable.classes,
    )
    return _GROUPS.get(name.method, _same)(name, of_rows)


def _same(_: SplitName, usable: UsableRows) -> list[Hashable]:
    return usable.groups()


def _system(_: SplitName, usable: UsableRows) -> list[Hashable]:
    return [chemical_system(text) for text in usable.inputs]


def _cluster(name: SplitName, usable: UsableRows) -> list[Hashable]:
    features = magpie_features(usable.inputs, magpie_table(), usable.rows.tolist())
    return list(loco_folds(features, int(name.number(LOCO_CLUSTERS)), LOCO_SEED).tolist())


def _scaffold(name: SplitName, usable: UsableRows) -> list[Hashable]:
    return [murcko_scaffold(molecule, name.method == "scaffold-random") for molecule in usable.molecules()]


def _butina(name: SplitName, usable: UsableRows) -> list[Hashable]:
    return list(butina_clusters(usable.molecules(), name.number(BUTINA_CUTOFF)).tolist())


def _domain(name: SplitName, usable: UsableRows) -> list[Hashable]:
    return [cell.strip() for cell in usable.cells(name.argument.partition("=")[0])]


_GROUPS: dict[str, Callable[[SplitName, UsableRows], list[Hashable]]] = {
    "chemical-system": _system,
    "loco": _cluster,
    "scaffold": _scaffold,
    "scaffold-balanced": _scaffold,
    "scaffold-random": _scaffold,
    "butina": _butina,
    "domain": _domain,
}
