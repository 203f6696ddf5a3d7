"""Molecules by scaffold: three published ways to fill the parts with whole scaffold sets.

Scaffolds are those of Bemis and Murcko (J. Med. Chem. 39, 2887 (1996), doi 10.1021/jm9602928) as RDKit makes them:
rings, the chains between them, and atoms doubly bonded to either. Molecules without a ring share the empty scaffold.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from matfm.chem.selfies import selfies_to_smiles
from matfm.chem.smiles import Smiles, parse_smiles
from matfm.errors import MatfmError

# R rows

_SLACK = 1e-9
"""Rounding errors of shares times rows."""


def read_molecule(text: str, kind: str) -> Smiles:
    """The molecule of a SMILES or a SELFIES. Raises MatfmError as `parse_smiles` and `selfies_to_smiles` do."""
    return parse_smiles(selfies_to_smiles(text) if kind == "selfies" else text)


def murcko_scaffold(molecule: Any, chirality: bool = False) -> str:
    """Canonical SMILES of the scaffold of an RDKit molecule, with or without stereo; empty where there is no ring."""
    from rdkit.Chem import MolToSmiles
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    try:
        return str(MurckoScaffoldSmiles(mol=molecule, includeChirality=chirality))
    except (RuntimeError, ValueError) as error:
        raise MatfmError(MolToSmiles(molecule), None, f"RDKit finds no scaffold: {error}") from error


def largest_first_split(groups: Sequence[Hashable], shares: tuple[float, float]) -> np.ndarray:
    """Whole groups, largest first, into train, then valid, then test (`ScaffoldSplitter` of DeepChem). Deterministic.

    Of groups of equal size the one whose first row comes later goes first. A group goes to train if train stays within
    its share, else to valid if train and valid stay within theirs together, else to test. `shares` are those of the
    validation and the test rows.
    """
    sets = _sets(groups)
    sets.sort(key=lambda rows: (len(rows), rows[0]), reverse=True)
    total, (valid, test) = len(groups), shares
    train_rows, train_and_valid_rows = (1 - valid - test) * total + _SLACK, (1 - test) * total + _SLACK
    parts, sizes = np.full(total, "test", dtype=object), {"train": 0, "valid": 0}
    for rows in sets:
        if sizes["train"] + len(rows) <= train_rows:
            part = "train"
        elif sizes["train"] + sizes["valid"] + len(rows) <= train_and_valid_rows:
            part = "valid"
        else:
            continue
        parts[rows] = part
        sizes[part] += len(rows)
    return parts


def balanced_split(groups: Sequence[Hashable], shares: tuple[float, float], seed: int) -> np.ndarray:
    """Large groups first, each half in random order (`scaffold_balanced` of Chemprop 1).

    A group is large if it has more rows than half of the validation or half of the test rows. Train is filled, then
    valid, each never beyond its own share; what fits into neither is test. `shares` are those of the validation and
    the test rows.
    """
    total, (valid, test) = len(groups), shares
    smallest = min(valid, test) * total / 2 + _SLACK
    sets = _sets(groups)
    generator = np.random.default_rng(seed)
    large = _shuffled([rows for rows in sets if len(rows) > smallest], generator)
    small = _shuffled([rows for rows in sets if len(rows) <= smallest], generator)
    limits = {"train": (1 - valid - test) * total + _SLACK, "valid": valid * total + _SLACK}
    return _filled([*large, *small], limits, "test", total)


def random_order_split(groups: Sequence[Hashable], shares: tuple[float, float], seed: int) -> np.ndarray:
    """Groups in random order into valid, then test; what fits into neither is train.

    This is `random_scaffold_split` in the code of Hu et al. (Strategies for pre-training graph neural networks, ICLR
    2020), which takes scaffolds with stereo. Valid and test never exceed their shares (rounded down to whole rows), so
    a large group is always trained on. `shares` are those of the validation and the test rows.
    """
    total, (valid, test) = len(groups), shares
    sets = _shuffled(_sets(groups), np.random.default_rng(seed))
    limits = {"valid": np.floor(valid * total + _SLACK), "test": np.floor(test * total + _SLACK)}
    return _filled(sets, limits, "train", total)


def _sets(groups: Sequence[Hashable]) -> list[list[int]]:
    """Rows of each group, in order of first appearance."""
    rows_of: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group, []).append(row)
    return list(rows_of.values())


def _shuffled(sets: list[list[int]], generator: np.random.Generator) -> list[list[int]]:
    return [sets[position] for position in generator.permutation(len(sets))]


def _filled(sets: Iterable[list[int]], limits: dict[str, float], otherwise: str, total: int) -> np.ndarray:
    """Each set into the first part that keeps within its limit of rows."""
    parts, sizes = np.full(total, otherwise, dtype=object), dict.fromkeys(limits, 0)
    for rows in sets:
        part = next((name for name, limit in limits.items() if sizes[name] + len(rows) <= limit), otherwise)
        parts[rows] = part
        if part in sizes:
            sizes[part] += len(rows)
    return parts
