"""Decode-time constraints of SMILES and SELFIES: which elements, and how many atoms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from matfm.chem.elements import SYMBOLS
from matfm.chem.vocabulary import SPECIAL_TOKENS
from matfm.core.constraints import AllowedTokens, TokenConstraint, TokenLimit
from matfm.errors import MatfmError

# V vocabulary

_BARE = re.compile(r"Cl|Br|[BCNOPSFIbcnops]")
_SMILES_ATOM = re.compile(r"\[[0-9]*([A-Z][a-z]?|[a-z][a-z]?|\*)[^\[\]]*\]")
_SELFIES_ATOM = re.compile(r"\[[=#/\\$-]?[0-9]*([A-Z][a-z]?)(?:@{0,2})(?:H[0-9])?(?:[+-][0-9]+)?\]")
_AROMATIC = {"b": "B", "c": "C", "n": "N", "o": "O", "p": "P", "s": "S", "se": "Se", "te": "Te", "as": "As", "si": "Si"}


def element_of_token(word: str, kind: str) -> str | None:
    """The element of an atom token, None for bonds, rings, branches and other tokens; `*` for a wildcard.

    Args:
        word: token of the vocabulary.
        kind: smiles or selfies.
    """
    if word in SPECIAL_TOKENS:
        return None
    if kind == "selfies":
        found = _SELFIES_ATOM.fullmatch(word)
        return found[1] if found and found[1] in SYMBOLS else None
    if word == "*" or _BARE.fullmatch(word):
        return _AROMATIC.get(word, word)
    found = _SMILES_ATOM.fullmatch(word)
    if not found:
        return None
    symbol = found[1]
    if symbol in _AROMATIC or symbol in SYMBOLS or symbol == "*":
        return _AROMATIC.get(symbol, symbol)
    return _AROMATIC.get(symbol[0], symbol[0])


def molecule_constraints(
    kind: str,
    vocabulary: Mapping[str, int],
    end: int,
    elements: Iterable[str] | None = None,
    most_atoms: int | None = None,
) -> list[TokenConstraint]:
    """What a molecule may be made of. The end is always allowed, so nothing dead-ends.

    Args:
        kind: smiles or selfies. A SELFIES symbol that states the size of a ring or branch is read as an atom too, so
            of SELFIES these are bounds from above.
        vocabulary: token to id.
        end: id of the end token.
        elements: of the atoms; hydrogen that is not written as an atom is always allowed. None for all.
        most_atoms: atoms other than hydrogen; None for any number.

    Raises:
        MatfmError: an element that there is not or that the vocabulary does not write, or a limit below 1.
    """
    size = max(vocabulary.values()) + 1
    of_token = {index: element_of_token(token, kind) for token, index in vocabulary.items()}
    parts: list[TokenConstraint] = []
    if elements is not None:
        wanted = tuple(elements)
        for symbol in wanted:
            if symbol not in SYMBOLS:
                raise MatfmError(f"elements: {symbol!r} is no element; give symbols such as C,N,O")
            if symbol != "H" and symbol not in of_token.values():
                raise MatfmError(f"elements: the model's vocabulary has no {symbol}; leave it out")
        allowed_V = np.zeros(size, bool)
        allowed_V[[index for index, symbol in of_token.items() if symbol is None or symbol in wanted]] = True
        parts.append(AllowedTokens(allowed_V, end))
    if most_atoms is not None:
        if most_atoms < 1:
            raise MatfmError(f"most_atoms is {most_atoms}; a molecule has at least 1")
        counted_V = np.zeros(size, bool)
        counted_V[[index for index, symbol in of_token.items() if symbol not in (None, "H")]] = True
        parts.append(TokenLimit(counted_V, most_atoms))
    return parts
