"""How much of a test set is in a training (or pretraining) set, exactly or nearly."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from matfm.chem.composition_groups import composition_group
from matfm.chem.elements import ATOMIC_NUMBER, SYMBOLS
from matfm.chem.fingerprints import morgan_fingerprints, tanimoto
from matfm.chem.formula import read_formula
from matfm.chem.scaffold_splits import murcko_scaffold, read_molecule
from matfm.chem.splits import COMPOSITION, MOLECULE
from matfm.errors import MatfmError

# T test rows, S training rows of a block, W width of what rows are compared by

BINS = 10
LISTED = 1000
"""Unreadable rows of each side that are listed; all are counted."""
MEASURES = {
    "composition": "cosine of atomic fractions",
    **dict.fromkeys(MOLECULE, "Tanimoto of Morgan fingerprints (radius 2, 2048 bits)"),
}
_BLOCK = 1024
"""Rows of a block of a similarity matrix, and rows described at a time."""


@dataclass(frozen=True)
class Unreadable:
    """A row that cannot be compared."""

    row: int
    text: str
    reason: str


@dataclass(frozen=True)
class LeakageReport:
    """What a test set shares with a training set."""

    kind: str
    """composition, smiles or selfies."""
    train_rows: int
    """Training rows, readable or not."""
    test_rows: int
    """Test rows, readable or not."""
    counts: dict[str, int]
    """Criterion to number of readable test rows that meet it with any training row: `identical` (the same text),
    `same_canonical` (SMILES, with stereo), `same_reduced_formula`, `same_chemical_system` (the same elements),
    `same_scaffold` (Bemis–Murcko without stereo; molecules without a ring have none and never count)."""
    similarity: str
    """Name of the similarity, between 0 and 1."""
    histogram: tuple[int, ...]
    """Readable test rows by the similarity of their nearest training row: ten equal bins from 0 to 1, lower edges
    included, 1 in the last bin."""
    median: float | None
    """Median of these similarities; None where nothing could be compared."""
    train_rows_compared: int
    """Readable training rows among which the nearest was sought; fewer than all if they were sampled."""
    seed: int
    """Of the sample."""
    train_unreadable: int
    test_unreadable: int
    train_unreadable_rows: tuple[Unreadable, ...] = field(default=(), repr=False)
    """The first 1,000."""
    test_unreadable_rows: tuple[Unreadable, ...] = field(default=(), repr=False)
    """The first 1,000."""

    @property
    def shares(self) -> dict[str, float]:
        """The counts as shares of the readable test rows (0 where there are none)."""
        readable = max(self.test_rows - self.test_unreadable, 1)
        return {name: count / readable for name, count in self.counts.items()}


@dataclass
class _Described:
    """The readable ones among some rows."""

    keys: dict[str, list[Hashable]]
    """Criterion to what must be equal; None meets nothing."""
    vectors: np.ndarray
    """What nearness is computed from, shape (rows, W)."""
    positions: np.ndarray
    """Positions of the readable rows among all."""
    unreadable: list[Unreadable]


def leakage_report(
    train: Iterable[str], test: Sequence[str], kind: str = "composition", *, compare: float = 1.0, seed: int = 0
) -> LeakageReport:
    """Compare every test row with the training rows, which are read once, in blocks: memory does not grow with them.

    Args:
        train: texts of the training rows.
        test: texts of the test rows, kept in memory.
        kind: composition, smiles or selfies.
        compare: share of the training rows, drawn at random, among which nearest neighbours are sought. The
            counts always consider all.
        seed: of that draw.

    Raises:
        MatfmError: an unknown kind, or a share outside of 0 to 1. Unreadable rows are reported, not raised.
    """
    if kind not in MEASURES:
        raise MatfmError(f"kind is {kind!r}; choose one of {', '.join(COMPOSITION + MOLECULE)}")
    if not 0 <= compare <= 1:
        raise MatfmError(f"the share of training rows to compare is {compare}; it must be between 0 and 1")
    ours = _describe(test, kind, 0)
    wanted = {name: set(keys) - {None} for name, keys in ours.keys.items()}
    met: dict[str, set[Hashable]] = {name: set() for name in wanted}
    nearest_T = np.zeros(len(ours.vectors))
    generator = np.random.default_rng(seed)
    train_rows = compared = unreadable = 0
    listed: list[Unreadable] = []
    for block in _blocks(train):
        theirs = _describe(block, kind, train_rows)
        for name, keys in theirs.keys.items():
            met[name].update(wanted[name].intersection(keys))
        chosen = (generator.random(len(block)) < compare)[theirs.positions]
        _raise_nearest(nearest_T, ours.vectors, theirs.vectors[chosen], kind)
        train_rows += len(block)
        compared += int(chosen.sum())
        unreadable += len(theirs.unreadable)
        listed.extend(theirs.unreadable[: LISTED - len(listed)])
    comparable = compared > 0 and len(nearest_T) > 0
    return LeakageReport(
        kind=kind,
        train_rows=train_rows,
        test_rows=len(test),
        counts={name: sum(key in met[name] for key in keys) for name, keys in ours.keys.items()},
        similarity=MEASURES[kind],
        histogram=similarity_histogram(nearest_T if comparable else nearest_T[:0]),
        median=float(np.median(nearest_T)) if comparable else None,
        train_rows_compared=compared,
        seed=seed,
        train_unreadable=unreadable,
        test_unreadable=len(ours.unreadable),
        train_unreadable_rows=tuple(listed),
        test_unreadable_rows=tuple(ours.unreadable[:LISTED]),
    )


def similarity_histogram(similarities: np.ndarray) -> tuple[int, ...]:
    """Numbers in ten equal bins from 0 to 1; lower edges are included, and 1 is in the last bin."""
    # The tolerance puts 0.3, which no binary number is, into the bin that begins there.
    bins = np.clip(np.floor(similarities * BINS + 1e-6), 0, BINS - 1).astype(np.int64)
    return tuple(np.bincount(bins, minlength=BINS).tolist())


def nearest_similarities(train: np.ndarray, test: np.ndarray, kind: str) -> np.ndarray:
    """Largest similarity of each test row to any training row, shape (T,), in blocks of both.

    Args:
        train: shape (S, W): unit vectors of atomic fractions, or packed fingerprints.
        test: likewise, shape (T, W).
        kind: composition, smiles or selfies.
    """
    nearest_T = np.zeros(len(test))
    for start in range(0, len(train), _BLOCK):
        _raise_nearest(nearest_T, test, train[start : start + _BLOCK], kind)
    return nearest_T


def _raise_nearest(nearest_T: np.ndarray, test_TW: np.ndarray, train_SW: np.ndarray, kind: str) -> None:
    """Raise the similarities to those of the nearest of some more training rows, in place."""
    if not len(train_SW):
        return
    for start in range(0, len(test_TW), _BLOCK):
        block = test_TW[start : start + _BLOCK]
        similarity = np.clip(block @ train_SW.T, 0, 1) if kind in COMPOSITION else tanimoto(block, train_SW)
        part = nearest_T[start : start + _BLOCK]
        np.maximum(part, similarity.max(axis=1), out=part)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while block := list(islice(remaining, _BLOCK)):
        yield block


def _describe(texts: Sequence[str], kind: str, first_row: int) -> _Described:
    described, positions, unreadable = [], [], []
    describe_one = _describe_composition if kind in COMPOSITION else _describe_molecule
    for position, text in enumerate(texts):
        try:
            described.append(describe_one(text, kind))
            positions.append(position)
        except MatfmError as error:
            unreadable.append(Unreadable(first_row + position, text, str(error)))
    names = _CRITERIA["composition" if kind in COMPOSITION else "molecule"]
    keys = {name: [row_keys[number] for row_keys, _ in described] for number, name in enumerate(names)}
    payloads = [payload for _, payload in described]
    vectors = (
        np.array(payloads, np.float32).reshape(-1, len(SYMBOLS))
        if kind in COMPOSITION
        else (morgan_fingerprints(payloads))
    )
    return _Described(keys, vectors, np.array(positions, np.int64), unreadable)


_CRITERIA = {
    "composition": ("identical", "same_reduced_formula", "same_chemical_system"),
    "molecule": ("identical", "same_canonical", "same_reduced_formula", "same_chemical_system", "same_scaffold"),
}


def _describe_composition(text: str, _: str) -> tuple[tuple[Hashable, ...], Any]:
    fractions = read_formula(text).fractions
    vector = np.zeros(len(SYMBOLS), np.float32)
    vector[[ATOMIC_NUMBER[symbol] - 1 for symbol in fractions]] = list(fractions.values())
    return (text, composition_group(text), frozenset(fractions)), vector / np.linalg.norm(vector)


def _describe_molecule(text: str, kind: str) -> tuple[tuple[Hashable, ...], Any]:
    read = read_molecule(text, kind)
    amounts = element_counts(read.molecule)
    divisor = math.gcd(*amounts.values()) if amounts else 1
    reduced = frozenset((symbol, amount // divisor) for symbol, amount in amounts.items())
    scaffold = murcko_scaffold(read.molecule) or None
    return (text, read.canonical, reduced, frozenset(amounts), scaffold), read.molecule


def element_counts(molecule: Any) -> dict[str, int]:
    """Atoms of each element of an RDKit molecule, hydrogen (and D, T) included, wildcards not."""
    amounts: dict[str, int] = {}
    for atom in molecule.GetAtoms():
        if atom.GetAtomicNum():
            amounts[atom.GetSymbol()] = amounts.get(atom.GetSymbol(), 0) + 1
        if hydrogens := atom.GetTotalNumHs():
            amounts["H"] = amounts.get("H", 0) + hydrogens
    return amounts
