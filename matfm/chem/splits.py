"""Splits of a table into train, validation and test rows: their names, and those that need no chemistry.

The shares of the parts are shares of rows. Groups are never divided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matfm.errors import MatfmError

# R rows, G groups

CALIBRATION_PART = "calibration"
"""Rows that neither train nor choose the epoch nor test: uncertainties are calibrated on them."""
PARTS = ("train", "valid", "test", CALIBRATION_PART)
COMPOSITION = ("composition",)
MOLECULE = ("smiles", "selfies")
KINDS_OF: dict[str, tuple[str, ...]] = {
    "random": COMPOSITION + MOLECULE,
    "stratified": COMPOSITION + MOLECULE,
    "group": COMPOSITION + MOLECULE,
    "chemical-system": COMPOSITION,
    "loco": COMPOSITION,
    "scaffold": MOLECULE,
    "scaffold-balanced": MOLECULE,
    "scaffold-random": MOLECULE,
    "butina": MOLECULE,
    "column": COMPOSITION + MOLECULE,
    "domain": COMPOSITION + MOLECULE,
    "file": COMPOSITION + MOLECULE,
}
"""Splits, and the kinds of input each is made for."""
STRATA = 10
"""Quantile bins of a regression target."""
_ARGUMENT = {"column": "NAME", "domain": "COLUMN[=VALUE]", "file": "PATH"}
_OPTIONAL = {"loco": "CLUSTERS", "butina": "CUTOFF"}
_ALIASES = {"val": "valid", "validation": "valid"}


@dataclass(frozen=True)
class SplitName:
    """What `--split` says: a method, and what follows the colon."""

    method: str
    argument: str = ""

    def number(self, default: float) -> float:
        """The argument as a number. Raises MatfmError for anything else."""
        if not self.argument:
            return default
        try:
            number = float(self.argument)
        except ValueError as error:
            raise MatfmError(f"split is '{self.method}:{self.argument}'; {self.argument!r} is not a number") from error
        if not math.isfinite(number):
            raise MatfmError(f"split is '{self.method}:{self.argument}'; {self.argument!r} is not a finite number")
        return number


def parse_split(split: str, kind: str | None = None) -> SplitName:
    """Read the name of a split, and check that it is made for `kind` (composition, smiles or selfies).

    Raises:
        MatfmError: naming the splits there are, or those for the kind.
    """
    method, colon, argument = split.partition(":")
    complete = bool(argument) if method in _ARGUMENT else not colon or (method in _OPTIONAL and bool(argument))
    if method not in KINDS_OF or not complete:
        raise MatfmError(f"split is {split!r}; choose one of {', '.join(_offered(tuple(KINDS_OF)))}")
    if kind is not None and kind not in KINDS_OF[method]:
        fitting = tuple(name for name, kinds in KINDS_OF.items() if kind in kinds)
        raise MatfmError(
            f"split {method!r} is made for {' and '.join(KINDS_OF[method])} and the input is {kind}; "
            f"choose one of {', '.join(_offered(fitting))}"
        )
    name = SplitName(method, argument)
    if method in _OPTIONAL:
        name.number(0.0)
    return name


def split_from_labels(labels: Sequence[str], name: str, rows: Sequence[int] | None = None) -> np.ndarray:
    """A provided split: each label is train, valid (or val), test or calibration; other rows raise MatfmError.

    `rows` are the numbers by which messages name the rows (default 0, 1, …).
    """
    parts = np.array([_ALIASES.get(label, label) for label in labels], dtype=object)
    unknown = next((row for row, part in enumerate(parts) if part not in PARTS), None)
    if unknown is not None:
        row = unknown if rows is None else rows[unknown]
        raise MatfmError(f"column {name!r}, row {row}: {parts[unknown]!r} is not a part; use {', '.join(PARTS)}")
    return parts


def random_split(groups: Sequence[object], shares: tuple[float, float], seed: int) -> np.ndarray:
    """Whole groups in random order: first the test rows, then the validation rows, the rest is for training.

    A group goes where its middle row lies, so parts are as near to their shares as whole groups allow.

    Args:
        groups: group of each row, shape (R,); a different one for every row makes the plain random split.
        shares: those of the validation and the test rows.
        seed: of the order.
    """
    number = _group_numbers(groups)
    sizes = np.bincount(number)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    middles = np.cumsum(sizes[shuffled]) - sizes[shuffled] / 2
    valid, test = shares
    edges = np.round(np.array([test, test + valid]) * len(number))
    part_of_group = np.full(len(sizes), "train", dtype=object)
    part_of_group[shuffled[middles < edges[1]]] = "valid"
    part_of_group[shuffled[middles < edges[0]]] = "test"
    return part_of_group[number]


def held_out_split(is_test: np.ndarray, groups: Sequence[object], valid_share: float, seed: int) -> np.ndarray:
    """Given test rows (bool, shape (R,)); of the others, `valid_share` in whole groups at random for validation."""
    parts = np.full(len(is_test), "test", dtype=object)
    rest = np.flatnonzero(~is_test)
    if len(rest):
        parts[rest] = random_split([groups[row] for row in rest.tolist()], (valid_share, 0.0), seed)
    return parts


def stratified_split(strata: Sequence[object], shares: tuple[float, float], seed: int) -> np.ndarray:
    """Every stratum spread over the parts in the same shares, to within one row (validation: two).

    Rows are laid out stratum by stratum, at random inside each, and every so many-th goes to the test rows; of the
    others, likewise, to the validation rows.

    Raises:
        MatfmError: a stratum has fewer rows than there are parts to fill, or there is only one stratum.
    """
    number = _group_numbers(strata)
    sizes = np.bincount(number)
    valid, test = shares
    needed = 1 + (valid > 0) + (test > 0)
    if len(sizes) < 2:
        raise MatfmError("a stratified split needs at least two classes or different values; choose split random")
    if sizes.min() < needed:
        rare = list(dict.fromkeys(strata))[int(sizes.argmin())]
        raise MatfmError(
            f"a stratified split needs at least {needed} rows of every class, as many as there are parts, "
            f"and {rare!r} has {sizes.min()}; merge rare classes or choose split random"
        )
    shuffled = np.random.default_rng(seed).permutation(len(number))
    order = shuffled[np.argsort(number[shuffled], kind="stable")]
    parts = np.full(len(number), "train", dtype=object)
    chosen = _every_so_many(len(order), test)
    parts[order[chosen]] = "test"
    rest = order[~chosen]
    parts[rest[_every_so_many(len(rest), valid / (1 - test))]] = "valid"
    return parts


def quantile_strata(values: np.ndarray, strata: int = STRATA) -> np.ndarray:
    """Number of the quantile bin of each value, shape (R,). Equal values share a bin, so there may be fewer bins.

    Raises:
        MatfmError: fewer than three values for each bin.
    """
    if len(values) < 3 * strata:
        raise MatfmError(
            f"a stratified split of {strata} quantile bins needs {3 * strata} labelled rows; "
            f"there are {len(values)}: choose split random"
        )
    inner_edges = np.unique(np.quantile(values, np.arange(1, strata) / strata))
    bins = np.searchsorted(inner_edges, values, side="left")
    return _merged(bins)


def _merged(bins: np.ndarray) -> np.ndarray:
    """Bins of fewer than three rows (ties can leave such) joined to the next one, the last to the one before."""
    sizes = np.bincount(bins)
    target, held = np.zeros(len(sizes), np.int64), 0
    current = 0
    for number, size in enumerate(sizes):
        target[number] = current
        held += int(size)
        if held >= 3:
            current, held = current + 1, 0
    return np.minimum(target, max(current - 1, 0))[bins]


def _every_so_many(count: int, share: float) -> np.ndarray:
    """`share` of `count` places, evenly spread, as a mask of shape (count,)."""
    # The tolerance keeps a share like 0.1 · 10 from falling a rounding error below a whole number.
    return np.diff(np.floor(share * np.arange(count + 1) + 0.5 + 1e-9)) > 0


def _group_numbers(groups: Sequence[object]) -> np.ndarray:
    """Number of each row's group, in order of first appearance, shape (R,)."""
    number = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], dtype=np.int64)


def _offered(methods: tuple[str, ...]) -> list[str]:
    """Names as a user types them."""
    endings = {**{m: f":{a}" for m, a in _ARGUMENT.items()}, **{m: f"[:{a}]" for m, a in _OPTIONAL.items()}}
    return [method + endings.get(method, "") for method in methods]
