"""Splits of a table into train, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from matfm.chem.formula import read_formula
from matfm.errors import MatfmError

PARTS = ("train", "valid", "test")
SPLITS = ("random", "group")
_COLUMN = "column:"
_ALIASES = {"val": "valid", "validation": "valid"}


def check_split_name(split: str) -> None:
    """Raise MatfmError unless `split` is random, group or column:NAME."""
    if split not in SPLITS and not (split.startswith(_COLUMN) and len(split) > len(_COLUMN)):
        raise MatfmError(f"split is {split!r}; choose one of {', '.join(SPLITS)} or column:NAME")


def split_column(split: str) -> str | None:
    """The column that `column:NAME` names."""
    return split.removeprefix(_COLUMN) if split.startswith(_COLUMN) else None


def split_from_labels(labels: Sequence[str], name: str) -> np.ndarray:
    """A provided split: each label is train, valid (or val) or test; other rows raise MatfmError."""
    parts = np.array([_ALIASES.get(label, label) for label in labels], dtype=object)
    unknown = [row for row, part in enumerate(parts) if part not in PARTS]
    if unknown:
        shown = parts[unknown[0]]
        raise MatfmError(f"column {name!r}, row {unknown[0]}: {shown!r} is not a part; use {', '.join(PARTS)}")
    return parts


def random_split(groups: Sequence[object], shares: tuple[float, float], seed: int) -> np.ndarray:
    """Assign whole groups at random. `shares` are those of the validation and the test rows."""
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    shuffled = np.random.default_rng(seed).permutation(len(order))
    valid, test = shares
    edges = np.round(np.array([test, test + valid]) * len(order)).astype(int)
    part_of_group = np.full(len(order), "train", dtype=object)
    part_of_group[shuffled[: edges[0]]] = "test"
    part_of_group[shuffled[edges[0] : edges[1]]] = "valid"
    return part_of_group[[order[group] for group in groups]]


def composition_group(formula: str) -> frozenset[tuple[str, float]]:
    """Equal for formulas of the same reduced composition, however they are written."""
    return frozenset((symbol, round(share, 6)) for symbol, share in read_formula(formula).fractions.items())
