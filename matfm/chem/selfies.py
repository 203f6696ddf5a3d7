"""SELFIES: conversion from and to SMILES under explicit constraints, with errors that point at the symbol."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from matfm.chem.smiles import parse_smiles
from matfm.errors import MatfmError

SPLIT_PATTERN = r"\[[^\[\]]*\]|[\s\S]"
"""One token: a symbol in brackets, the dot between fragments, or any one other character."""

_BY_BONDS = {
    0: "H+1 H-1 F-1 Cl-1 Br-1 O-2 S-2 Be+2 Al+3",
    1: "H F Cl Br I O-1 Cs",
    2: "O N-1 B+1 Be",
    3: "N B C+1 C-1 O+1 Al Ga In",
    4: "C N+1 B-1 P+1 Si Ge Sn Pb Al-1 As+1 I-1 Cl+3",
    5: "P S+1 S-1 As Sb Bi Se+1 Se-1 Si-1",
    6: "S P-1 Se Te Xe Si-2 I+1 Cs+1",
    8: "?",
}
CONSTRAINTS: Mapping[str, int] = MappingProxyType({atom: n for n, atoms in _BY_BONDS.items() for atom in atoms.split()})
"""Most bonds an atom takes part in, by element and charge: those of the selfies package, extended by atoms that
RDKit limits too. `?` stands for all others (metals), which RDKit leaves free."""

MAX_LENGTH = 50_000
"""Characters of one SELFIES, which is up to ten times as long as the SMILES of the molecule."""
_SPLIT = re.compile(SPLIT_PATTERN)
_SYMBOL = re.compile(r"\[[^\[\]\s]+\]|\.")
_VERSION_1 = re.compile(r"\[(?:Branch[0-9]_[0-9]|Expl.*|.*expl)\]")
_LONG_CHARGE = re.compile(r"\[.*(?:\+\+|--).*\]")
_SPECIAL = frozenset({"[unk]", "[pad]", "[cls]", "[sep]", "[mask]", "[bos]", "[eos]", "[start]", "[stop]"})
_LOCK = threading.RLock()
"""The constraints of the selfies package belong to the process: one thread at a time sets and restores them."""


def split_selfies(text: str) -> list[str]:
    """Symbols. Lossless for every text: `"".join(split_selfies(text)) == text`."""
    return _SPLIT.findall(text)


def smiles_to_selfies(smiles: str, constraints: Mapping[str, int] = CONSTRAINTS) -> str:
    """SELFIES of a SMILES, atoms in the order written. Atom map numbers are lost: SELFIES has none.

    Raises:
        MatfmError: RDKit rejects the SMILES; it breaks the constraints; or SELFIES cannot express it
            (wildcards, dative and quadruple bonds, stereo classes other than @ and @@).
    """
    import selfies
    from selfies.exceptions import SMILESParserError

    parsed = parse_smiles(smiles)
    text = parsed.text
    if "*" in text:
        raise MatfmError(text, text.index("*"), "SELFIES has no wildcard")
    if ":" in text and _has_lone_aromatic_bond(parsed.molecule):
        raise MatfmError(text, text.index(":"), "SELFIES has no aromatic bond between atoms that are not aromatic")
    with constrained(constraints):
        try:
            return str(selfies.encoder(text, strict=True))
        except selfies.EncoderError as error:
            cause = error.__cause__
            if isinstance(cause, SMILESParserError):
                position = cause.idx if 0 <= cause.idx < len(text) else None
                raise MatfmError(text, position, f"SELFIES cannot express this: {cause.reason}") from None
            raise MatfmError(text, None, _one_line(str(error))) from None
        except RecursionError:
            raise MatfmError(text, None, "the branches are nested too deeply for SELFIES") from None


def selfies_to_smiles(text: str, constraints: Mapping[str, int] = CONSTRAINTS) -> str:
    """SMILES (Kekulé form, not canonical) of a SELFIES.

    Symbols that the constraints leave no room for are dropped, as the notation defines; every symbol
    must be one of SELFIES version 2 all the same.

    Raises:
        MatfmError: the text is empty or not SELFIES, or decodes to no atom.
    """
    import selfies

    if not isinstance(text, str):
        raise MatfmError(repr(text), 0, "a SELFIES is text, for example '[C][C][O]'")
    text = text.strip()
    symbols = _check_symbols(text)
    with constrained(constraints):
        for symbol in dict.fromkeys(symbols):
            if not _is_symbol(symbol):
                raise MatfmError(text, text.index(symbol), _why_not(symbol))
        try:
            smiles = str(selfies.decoder(text))
        except RecursionError:
            raise MatfmError(text, None, "the branches are nested too deeply") from None
    if not smiles:
        raise MatfmError(text, 0, "the SELFIES decodes to no atom")
    return smiles


def _has_lone_aromatic_bond(molecule: Any) -> bool:
    """Whether an atom that is not aromatic has an aromatic bond; selfies fails on it or makes it a double bond."""
    from rdkit.Chem import BondType

    bonds = (bond for bond in molecule.GetBonds() if bond.GetBondType() == BondType.AROMATIC)
    return any(not (bond.GetBeginAtom().GetIsAromatic() and bond.GetEndAtom().GetIsAromatic()) for bond in bonds)


def _check_symbols(text: str) -> list[str]:
    """Symbols of a text that holds nothing else."""
    if not text:
        raise MatfmError(text, 0, "the SELFIES is empty")
    if len(text) > MAX_LENGTH:
        raise MatfmError(text, MAX_LENGTH, f"the SELFIES has {len(text):,} characters, more than {MAX_LENGTH:,}")
    position, symbols = 0, []
    while position < len(text):
        found = _SYMBOL.match(text, position)
        if found is None:
            raise MatfmError(text, position, _unreadable(text, position))
        symbols.append(found.group())
        position = found.end()
    return symbols


def _unreadable(text: str, position: int) -> str:
    character = text[position]
    if character.isspace():
        return "a blank between symbols"
    if character == "[":
        return "the bracket holds no symbol" if "]" in text[position:] else "'[' is never closed"
    if "[" not in text:
        return "this is not SELFIES, whose symbols stand in brackets like [C]"
    return f"{character!r} stands outside of brackets"


def _is_symbol(symbol: str) -> bool:
    import selfies

    try:
        selfies.decoder(symbol)
    except selfies.DecoderError:
        return False
    return True


def _why_not(symbol: str) -> str:
    if "*" in symbol:
        return "SELFIES has no wildcard"
    if _VERSION_1.fullmatch(symbol):
        return f"{symbol} is a symbol of SELFIES version 1; encode the molecule again with version 2"
    if symbol.lower() in _SPECIAL:
        return f"{symbol} is a model's special token, not a SELFIES symbol"
    if _LONG_CHARGE.fullmatch(symbol):
        return f"{symbol} is not a SELFIES symbol; write charges with a number, like +2"
    return f"{symbol} is not a SELFIES symbol, or it has more hydrogen than its atom takes"


def _one_line(message: str) -> str:
    """A message of the selfies package without the echo of the input."""
    message = message.replace("input violates the currently-set semantic", "the molecule breaks the")
    lines = (line.strip() for line in message.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(("SMILES:", "SELFIES:", "Errors:")))


@contextmanager
def constrained(constraints: Mapping[str, int]) -> Iterator[None]:
    """Work under `constraints`; what the process had before holds again afterwards."""
    import selfies

    wanted = dict(constraints)
    with _LOCK:
        before = selfies.get_semantic_constraints()
        if wanted == before:
            yield
            return
        try:
            selfies.set_semantic_constraints(wanted)
        except ValueError as error:
            raise MatfmError(str(error)) from None
        try:
            yield
        finally:
            selfies.set_semantic_constraints(before)
