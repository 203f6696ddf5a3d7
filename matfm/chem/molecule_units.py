"""Tokens of a SMILES or SELFIES that belong together: functional groups, rings, scaffold, branches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

from matfm.chem.functional_groups import functional_groups
from matfm.chem.selfies import CONSTRAINTS, constrained, selfies_to_smiles, split_selfies
from matfm.chem.smiles import RDKIT_LOG, RING_NUMBER, parse_smiles, split_smiles
from matfm.errors import MatfmError

_BONDS = frozenset(("-", "=", "#", "$", ":", "~", "/", "\\", "->", "<-"))
_NOT_ATOM = re.compile(r"\[(?:.*(?:Branch|Ring)[1-3]|epsilon)\]")


def rings(molecule: Any) -> list[set[int]]:
    """Atoms of every ring of RDKit's symmetrised smallest set: all six faces of cubane, not five of them."""
    return [set(ring) for ring in molecule.GetRingInfo().AtomRings()]


def scaffold(molecule: Any) -> list[set[int]]:
    """Atoms of the Bemis–Murcko scaffold: rings, chains between them, and (as in RDKit) atoms double-bonded to these.

    One set for the whole molecule, none without a ring. Dative bonds are no bonds here, as in RDKit's ring search.
    (Bemis & Murcko, J. Med. Chem. 39:2887, 1996.) Found by cutting off ends until none is left, which takes
    time in proportion to the atoms; RDKit's own decomposition takes minutes for thousands of them.
    """
    from rdkit.Chem import BondType

    dative = {BondType.DATIVE, BondType.DATIVEL, BondType.DATIVER, BondType.DATIVEONE}
    bonds = [bond for bond in molecule.GetBonds() if bond.GetBondType() not in dative]
    neighbours: dict[int, set[int]] = {atom: set() for atom in range(molecule.GetNumAtoms())}
    for bond in bonds:
        neighbours[bond.GetBeginAtomIdx()].add(bond.GetEndAtomIdx())
        neighbours[bond.GetEndAtomIdx()].add(bond.GetBeginAtomIdx())
    ends = [atom for atom, others in neighbours.items() if len(others) < 2]
    while ends:
        for other in neighbours.pop(end := ends.pop(), ()):
            neighbours[other].discard(end)
            if len(neighbours[other]) == 1:
                ends.append(other)
    core = set(neighbours)
    double = [{bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()} for bond in bonds if bond.GetBondType() == BondType.DOUBLE]
    return [core.union(*(pair for pair in double if pair & core))] if core else []


_ATOM_SETS: dict[str, Callable[[Any], list[set[int]]]] = {
    "functional_group": functional_groups,
    "ring": rings,
    "scaffold": scaffold,
}
UNIT_KINDS: tuple[str, ...] = (*_ATOM_SETS, "branch")
"""What `molecule_units` and `selfies_units` find."""


def token_atoms(smiles: str) -> list[tuple[int, ...]]:
    """For each token of `split_smiles`, the atoms it stands for, numbered in the order written (RDKit's too).

    An atom has one, a bond symbol or ring number the two atoms it joins; brackets of branches and dots have none.

    Raises:
        MatfmError: RDKit does not accept the SMILES.
    """
    return _walk(split_smiles(parse_smiles(smiles).text))


def molecule_units(smiles: str, kind: str) -> list[list[int]]:
    """Positions, among the tokens of `split_smiles` (no special tokens), of every unit of one kind.

    A functional group, ring or scaffold has the tokens of its atoms and of the bonds between them (bond symbols and
    ring numbers); a branch goes from `(` to its `)`, both included. Units may overlap: fused rings share
    tokens, an inner branch lies in the outer one. Hydrogens written as atoms count as atoms.

    Args:
        smiles: one molecule, salts included.
        kind: functional_group (Ertl 2017), ring, scaffold (Bemis–Murcko) or branch.

    Raises:
        MatfmError: RDKit does not accept the SMILES, or the kind is unknown.
    """
    _check_kind(kind)
    text = parse_smiles(smiles).text
    tokens = split_smiles(text)
    if kind == "branch":
        return _branches(tokens)
    atoms = _walk(tokens)
    return sorted(
        [position for position, joined in enumerate(atoms) if joined and unit.issuperset(joined)]
        for unit in _ATOM_SETS[kind](_molecule(text))
    )


def selfies_units(text: str, kind: str, constraints: Mapping[str, int] = CONSTRAINTS) -> list[list[int]]:
    """Positions, among the symbols of `split_selfies` (no special tokens), of every unit of one kind.

    A functional group, ring or scaffold has the symbols of its atoms: ring symbols, branch symbols and the symbols that
    state their sizes belong to no such unit. A branch has its branch symbol, the symbols of its size and all
    symbols that the size spans. Symbols that decode to nothing are in no unit of atoms, and a branch without
    atoms is none.

    Raises:
        MatfmError: the text is not SELFIES or decodes to no atom, or the kind is unknown.
    """
    _check_kind(kind)
    smiles, atom_symbols, branches = _decoded(text, constraints)
    if kind == "branch":
        return branches
    return sorted(sorted(atom_symbols[atom] for atom in unit) for unit in _ATOM_SETS[kind](_molecule(smiles)))


def _check_kind(kind: str) -> None:
    if kind not in UNIT_KINDS:
        raise MatfmError(f"{kind!r} is not a kind of unit; choose one of {', '.join(UNIT_KINDS)}")


def _molecule(smiles: str) -> Any:
    """The molecule of a SMILES that `parse_smiles` took, with the hydrogens that are written as atoms."""
    from rdkit import Chem, rdBase

    parameters: Any = Chem.SmilesParserParams()
    parameters.removeHs = False
    with RDKIT_LOG, rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles, parameters)


def _walk(tokens: list[str]) -> list[tuple[int, ...]]:
    """Atoms of each token of a valid SMILES: open branches on a stack, open rings in a table."""
    atoms: list[tuple[int, ...]] = [()] * len(tokens)
    previous, count = -1, 0
    branches: list[int] = []
    opened: dict[int, tuple[int, list[int]]] = {}
    bond: list[int] = []
    for position, token in enumerate(tokens):
        if token == "(":  # noqa: S105  (a token of text)
            branches.append(previous)
        elif token == ")":  # noqa: S105
            previous = branches.pop()
        elif token in _BONDS:
            bond = [position]
        elif number := RING_NUMBER.fullmatch(token):
            here, bond = [*bond, position], []
            if (ring := int(number[1])) not in opened:
                opened[ring] = (previous, here)
                continue
            other, there = opened.pop(ring)
            for place in (*there, *here):
                atoms[place] = (other, previous)
        elif token != ".":  # noqa: S105
            for place in bond:
                atoms[place] = (previous, count)
            atoms[position] = (count,)
            previous, count, bond = count, count + 1, []
    return atoms


def _branches(tokens: list[str]) -> list[list[int]]:
    opened: list[int] = []
    found = []
    for position, token in enumerate(tokens):
        if token == "(":  # noqa: S105
            opened.append(position)
        elif token == ")":  # noqa: S105
            found.append(list(range(opened.pop(), position + 1)))
    return sorted(found)


def _decoded(text: str, constraints: Mapping[str, int]) -> tuple[str, list[int], list[list[int]]]:
    """The decoded SMILES, the symbol of each of its atoms, and the branches.

    The selfies package attributes atoms to symbols. Its numbers are right within a fragment up to a constant
    (dots and `[nop]` are not counted, a size cut off by the end is), so each fragment is placed by its first atom.
    """
    import selfies

    with constrained(constraints):
        smiles = selfies_to_smiles(text, constraints)
        _, entries = selfies.decoder(text.strip(), attribute=True)
    symbols = split_selfies(text.strip())
    # Atoms come in the order of the SMILES; the other entries are bond symbols.
    sources = iter([entry.attribution for entry in entries if entry.token[0] not in "=#/\\"])
    atom_symbols: list[int] = []
    branches: list[list[int]] = []
    for places, fragment in zip(_fragments(symbols), smiles.split("."), strict=True):
        count = sum(len(atoms) == 1 for atoms in _walk(split_smiles(fragment)))
        own = list(itertools.islice(sources, count))
        first = next(i for i, place in enumerate(places) if not _NOT_ATOM.fullmatch(symbols[place]))
        shift = first - own[0][-1].index
        atom_symbols += [places[source[-1].index + shift] for source in own]
        starts = {outer.index + shift: source[-1].index + shift for source in own for outer in source[:-1]}
        branches += _selfies_branches([symbols[place] for place in places], starts, places)
    return smiles, atom_symbols, branches


def _fragments(symbols: list[str]) -> list[list[int]]:
    """Positions of the symbols of every fragment that has an atom, without `[nop]`."""
    fragments: list[list[int]] = [[]]
    for position, symbol in enumerate(symbols):
        if symbol == ".":
            fragments.append([])
        elif symbol != "[nop]":
            fragments[-1].append(position)
    return [places for places in fragments if not all(_NOT_ATOM.fullmatch(symbols[place]) for place in places)]


def _selfies_branches(symbols: list[str], starts: dict[int, int], places: list[int]) -> list[list[int]]:
    """Branches of one fragment; `starts` gives each branch symbol and the last atom of its branch."""
    from selfies.grammar_rules import get_index_from_selfies

    ends: dict[int, int] = {}
    for start, last_atom in sorted(starts.items(), reverse=True):
        digits = int(symbols[start][-2])
        size = get_index_from_selfies(*symbols[start + 1 : start + 1 + digits]) + 1
        nominal = min(start + digits + size, len(symbols) - 1)
        # An inner branch may reach beyond the size of the outer one, which then ends with it.
        ends[start] = max([nominal, last_atom, *(end for inner, end in ends.items() if inner <= nominal)])
    return [[places[i] for i in range(start, end + 1)] for start, end in sorted(ends.items())]
