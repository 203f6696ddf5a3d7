"""Functional groups by the algorithm of Ertl (2017), without a list of substructures."""

from __future__ import annotations

from typing import Any

_CARBON, _HYDROGEN, _WILDCARD = 6, 1, 0
_ACETAL_NEIGHBOURS = frozenset({7, 8, 16})
"""N, O, S."""


def functional_groups(molecule: Any) -> list[set[int]]:
    """Atom indices of every functional group of a sanitised RDKit molecule, in the order of their first atoms.

    Ertl, J. Cheminform. 9:36 (2017), steps 1 to 3: marked are heteroatoms; carbons with a double or triple bond that
    is not aromatic, to a heteroatom or a carbon; sp3 carbons with single bonds to two or more O, N or S that have only
    single bonds (acetals); and all atoms of oxirane, aziridine and thiirane rings. Connected marked atoms are one
    group. Carbons around a group (its environment, step 4) are not part of it.

    Choices the paper leaves open: aromaticity is RDKit's, and an aromatic carbon is never marked (of an aromatic
    `c=O` the oxygen is a group); `*` is no heteroatom; explicit hydrogens belong to the group of their neighbour.
    """
    marked = {atom.GetIdx() for atom in molecule.GetAtoms() if _is_hetero(atom) or _is_functional_carbon(atom)}
    for ring in molecule.GetRingInfo().AtomRings():
        if _is_oxirane_like([molecule.GetAtomWithIdx(index) for index in ring]):
            marked |= set(ring)
    for index in sorted(marked):
        neighbours = molecule.GetAtomWithIdx(index).GetNeighbors()
        marked |= {atom.GetIdx() for atom in neighbours if atom.GetAtomicNum() == _HYDROGEN}
    return _connected(molecule, marked)


def _is_hetero(atom: Any) -> bool:
    return atom.GetAtomicNum() not in (_WILDCARD, _HYDROGEN, _CARBON)


def _is_functional_carbon(atom: Any) -> bool:
    if atom.GetAtomicNum() != _CARBON or atom.GetIsAromatic():
        return False
    bonds = [(bond, bond.GetOtherAtom(atom)) for bond in atom.GetBonds()]
    if any(_order(bond) in (2, 3) and (_is_hetero(other) or _is_aliphatic_carbon(other)) for bond, other in bonds):
        return True
    only_single = all(_order(bond) == 1 for bond, _ in bonds)
    return only_single and sum(_is_saturated_acetal_neighbour(other) for _, other in bonds) >= 2


def _is_aliphatic_carbon(atom: Any) -> bool:
    return atom.GetAtomicNum() == _CARBON and not atom.GetIsAromatic()


def _is_saturated_acetal_neighbour(atom: Any) -> bool:
    return atom.GetAtomicNum() in _ACETAL_NEIGHBOURS and all(_order(bond) == 1 for bond in atom.GetBonds())


def _is_oxirane_like(atoms: list[Any]) -> bool:
    """A saturated ring of two carbons and one O, N or S."""
    numbers = sorted(atom.GetAtomicNum() for atom in atoms)
    if len(atoms) != 3 or numbers[:2] != [_CARBON, _CARBON] or numbers[2] not in _ACETAL_NEIGHBOURS:
        return False
    inside = {atom.GetIdx() for atom in atoms}
    bonds = [bond for atom in atoms for bond in atom.GetBonds() if bond.GetOtherAtomIdx(atom.GetIdx()) in inside]
    return all(_order(bond) == 1 for bond in bonds)


def _order(bond: Any) -> float:
    """1, 2, 3, …, or 1.5 for aromatic bonds."""
    return float(bond.GetBondTypeAsDouble())


def _connected(molecule: Any, marked: set[int]) -> list[set[int]]:
    """Marked atoms, those bonded to each other together."""
    groups: list[set[int]] = []
    left = set(marked)
    for start in sorted(marked):
        if start not in left:
            continue
        group, frontier = {start}, [start]
        left.discard(start)
        while frontier:
            atom = molecule.GetAtomWithIdx(frontier.pop())
            new = {neighbour.GetIdx() for neighbour in atom.GetNeighbors()} & left
            left -= new
            group |= new
            frontier.extend(new)
        groups.append(group)
    return groups
