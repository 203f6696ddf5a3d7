"""Make the split that `--split` names for the usable rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matfm.chem import scaffold_splits
from matfm.chem.composition_groups import chemical_system, composition_group, loco_folds
from matfm.chem.fingerprints import BUTINA_CUTOFF, butina_clusters
from matfm.chem.magpie import magpie_features
from matfm.chem.scaffold_splits import murcko_scaffold, read_molecule
from matfm.chem.split_file import UNUSED, load_split
from matfm.chem.splits import (
    CALIBRATION_PART,
    COMPOSITION,
    SplitName,
    held_out_split,
    parse_split,
    quantile_strata,
    random_split,
    split_from_labels,
    stratified_split,
)
from matfm.errors import MatfmError
from matfm.tasks.recipes.element_properties import magpie_table
from matfm.tasks.tables import Chunk

# U usable rows, K targets

SPLIT_FILE = "split.json"
LOCO_CLUSTERS = 10
LOCO_SEED = 0
"""Of k-means: the same for all splits, so that the seeds 0, 1, … hold out one cluster after the other."""
Made = tuple[np.ndarray, dict[str, Any]]
"""Part of each usable row, and what the method adds to its description."""


@dataclass(frozen=True)
class UsableRows:
    """What a split may look at."""

    table: Chunk
    source: str
    """Path of the table, for messages."""
    input: str
    """Name of the input column."""
    kind: str
    """composition, smiles or selfies."""
    rows: np.ndarray
    """Row in the table, shape (U,)."""
    targets_UK: np.ndarray
    """Labels; class numbers for a classification, NaN where missing."""
    classes: tuple[tuple[str, ...], ...] | None
    """Names of the classes of each target of a classification."""

    def cells(self, column: str) -> list[str]:
        """Cells of a column."""
        whole = self.table.column(column, self.source)
        return [whole[row] for row in self.rows]

    @property
    def inputs(self) -> list[str]:
        """Cells of the input column."""
        return self.cells(self.input)

    def groups(self) -> list[Hashable]:
        """What makes two inputs the same: the reduced formula, or the canonical SMILES."""
        return identity_groups(self.inputs, self.kind)

    def molecules(self) -> list[Any]:
        """RDKit molecules."""
        return [read_molecule(text, self.kind).molecule for text in self.inputs]


def identity_groups(inputs: Sequence[str], kind: str) -> list[Hashable]:
    """Reduced formula of each composition, or canonical SMILES of each molecule."""
    if kind in COMPOSITION:
        return [composition_group(text) for text in inputs]
    return [read_molecule(text, kind).canonical for text in inputs]


def shared_rows(inputs: Sequence[str], parts: np.ndarray, kind: str) -> dict[str, float]:
    """Share of the test rows that are a training row written again: `same_reduced_formula` or `same_canonical`.

    Empty where there are no test rows.
    """
    groups = identity_groups(inputs, kind)
    trained = {group for group, part in zip(groups, parts, strict=True) if part == "train"}
    tested = [group in trained for group, part in zip(groups, parts, strict=True) if part == "test"]
    criterion = "same_reduced_formula" if kind in COMPOSITION else "same_canonical"
    return {criterion: sum(tested) / len(tested)} if tested else {}


def split_rows(
    split: str, usable: UsableRows, shares: tuple[float, float, float], seed: int, begun: Path | None = None
) -> Made:
    """`make_split` with the shares of validation, test and calibration rows, or the split of a run that began."""
    if begun:
        return resumed_split(begun, usable)
    valid, test, calibration = shares
    return _with_calibration_rows(make_split(split, usable, (valid, test), seed), usable, calibration, seed)


def make_split(split: str, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    """Part (train, valid, test or `-`) of each usable row, and a description of the method for the split file.

    `shares` are those of the validation and the test rows, where the split does not say.

    Raises:
        MatfmError: the split cannot be made of these rows, or leaves no training row.
    """
    name = parse_split(split, usable.kind)
    parts, details = _METHODS[name.method](name, usable, shares, seed)
    if not (parts == "train").any():
        raise MatfmError(f"split {split!r} leaves no training row among {len(usable.rows)}")
    drawn = {"valid_share": shares[0], "test_share": shares[1], "seed": seed}
    return parts, {"split": split, "kind": usable.kind, **({} if name.method in _PROVIDED else drawn), **details}


def _with_calibration_rows(made: Made, usable: UsableRows, share: float, seed: int) -> Made:
    """Of the training rows, `share` of all rows (whole identity groups, at random) set aside for calibration.

    Raises:
        MatfmError: the split provides such rows itself, or no training row would remain.
    """
    parts, method = made
    if share == 0:
        return made
    if (parts == CALIBRATION_PART).any():
        raise MatfmError(f"the split has calibration rows already and calibration_share is {share}; leave it out")
    train = np.flatnonzero(parts == "train")
    groups = usable.groups()
    of_train = share * len(parts) / len(train)
    drawn = random_split([groups[row] for row in train.tolist()], (min(of_train, 1.0), 0.0), seed) == "valid"
    if drawn.all():
        raise MatfmError(f"calibration_share is {share}, which leaves no training row; choose a smaller one")
    parts = parts.copy()
    parts[train[drawn]] = CALIBRATION_PART
    return parts, {**method, "calibration_share": share, "calibration_seed": seed}


def _random(_: SplitName, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    return random_split(range(len(usable.rows)), shares, seed), {}


def _stratified(_: SplitName, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    if usable.targets_UK.shape[1] != 1:
        raise MatfmError("a stratified split takes one target; choose split random, or name one --target")
    values = usable.targets_UK[:, 0]
    if usable.classes is None:
        return stratified_split(quantile_strata(values).tolist(), shares, seed), {}
    return stratified_split([usable.classes[0][int(value)] for value in values], shares, seed), {}


def _group(_: SplitName, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    return random_split(usable.groups(), shares, seed), {}


def _chemical_system(_: SplitName, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    return random_split([chemical_system(text) for text in usable.inputs], shares, seed), {}


def _loco(name: SplitName, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    clusters = name.number(LOCO_CLUSTERS)
    if clusters != int(clusters):
        raise MatfmError(f"split 'loco:{name.argument}' needs a whole number of clusters")
    features = magpie_features(usable.inputs, magpie_table(), usable.rows.tolist())
    folds = loco_folds(features, int(clusters), LOCO_SEED)
    held_out = seed % int(clusters)
    parts = held_out_split(folds == held_out, usable.groups(), shares[0], seed)
    return parts, {"test_share": None, "clusters": int(clusters), "kmeans_seed": LOCO_SEED, "held_out": held_out}


def _scaffold(name: SplitName, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    chirality = name.method == "scaffold-random"
    scaffolds = [murcko_scaffold(molecule, chirality) for molecule in usable.molecules()]
    if name.method == "scaffold":
        return scaffold_splits.largest_first_split(scaffolds, shares), {"seed": None}
    fill = scaffold_splits.random_order_split if chirality else scaffold_splits.balanced_split
    return fill(scaffolds, shares, seed), {}


def _butina(name: SplitName, usable: UsableRows, shares: tuple[float, float], _: int) -> Made:
    cutoff = name.number(BUTINA_CUTOFF)
    clusters = butina_clusters(usable.molecules(), cutoff)
    return scaffold_splits.largest_first_split(clusters.tolist(), shares), {"seed": None, "cutoff": cutoff}


def _column(name: SplitName, usable: UsableRows, _: tuple[float, float], __: int) -> Made:
    return split_from_labels(usable.cells(name.argument), name.argument, usable.rows.tolist()), {}


def _domain(name: SplitName, usable: UsableRows, shares: tuple[float, float], seed: int) -> Made:
    column, equals, value = name.argument.partition("=")
    cells = np.array([cell.strip() for cell in usable.cells(column)], dtype=object)
    if (cells == "").any():
        row = usable.rows[np.flatnonzero(cells == "")[0]]
        raise MatfmError(f"{usable.source}, row {row}, column {column!r}: the domain is empty; every row needs one")
    domains = sorted(set(cells))
    held_out = value.strip() if equals else domains[seed % len(domains)]
    if held_out not in domains:
        known = ", ".join(map(repr, domains[:10])) + (", …" if len(domains) > 10 else "")
        raise MatfmError(f"column {column!r} holds no domain {held_out!r}; it holds {known}")
    parts = held_out_split(cells == held_out, usable.groups(), shares[0], seed)
    return parts, {"test_share": None, "held_out": held_out}


def _file(name: SplitName, usable: UsableRows, _: tuple[float, float], __: int) -> Made:
    saved = load_split(Path(name.argument), usable.table.column(usable.input, usable.source))
    return saved.parts[usable.rows], {"sha256": saved.sha256, "made_by": saved.method}


def resumed_split(path: Path, usable: UsableRows) -> Made:
    """The split that an interrupted run began with.

    Raises:
        MatfmError: the table changed so that rows of the split can no longer be used.
    """
    saved = load_split(path, usable.table.column(usable.input, usable.source))
    lost = np.setdiff1d(np.flatnonzero(saved.parts != UNUSED), usable.rows)
    if len(lost):
        raise MatfmError(f"{usable.source} changed since the run began: row {lost[0]} can no longer be used")
    return saved.parts[usable.rows], saved.method


_PROVIDED = frozenset({"column", "file"})
_METHODS: dict[str, Callable[[SplitName, UsableRows, tuple[float, float], int], Made]] = {
    "random": _random,
    "stratified": _stratified,
    "group": _group,
    "chemical-system": _chemical_system,
    "loco": _loco,
    "scaffold": _scaffold,
    "scaffold-balanced": _scaffold,
    "scaffold-random": _scaffold,
    "butina": _butina,
    "column": _column,
    "domain": _domain,
    "file": _file,
}
