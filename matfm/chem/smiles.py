"""SMILES: text to a checked molecule with errors that point at the character, and to atom-level tokens."""

from __future__ import annotations

import re
import threading
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from matfm.chem.missing import is_missing
from matfm.errors import MatfmError

SPLIT_PATTERN = r"\[[^\[\]]*\]|Br|Cl|->|<-|%\([0-9]+\)|%[0-9][0-9]|[\s\S]"
"""One token: a bracket atom, a two-letter atom, a dative bond, a long ring number, or any one character."""

MAX_LENGTH = 5_000
"""Characters of one SMILES; RDKit's ring search grows faster than the text (about 1 s for rings of this length)."""

_SPLIT = re.compile(SPLIT_PATTERN)
_ATOM = re.compile(r"\[.+\]|Br|Cl|[BCNOPSFIbcnops*]", re.DOTALL)
RING_NUMBER = re.compile(r"%?\(?([0-9]+)\)?")
"""A token that opens or closes a ring: `1`, `%12` or `%(123)`."""
_ATOM_MAP = re.compile(r":[0-9]+\]$")
_TIME = re.compile(r"^\[[0-9:]+\] (?:SMILES Parse Error: )?", re.MULTILINE)
_ECHO = re.compile(r" (?:while parsing|for input): .*$", re.DOTALL)
_MISTAKE = re.compile(r"check for mistakes around position ([0-9]+)")
_ATOM_NUMBER = re.compile(r"[Aa]toms?:? (?:# ?)?([0-9]+)")
_LOOK_ALIKES = dict(
    zip("−–—‐‑≡∕⁄∖СсОоΟοРрΡΝЅѕВΒІΙНΗ", "-----#//\\CcOoOoPpPNSsBBIIHH", strict=True), **{"→": "->", "←": "<-"}
)
"""Characters that look like those of SMILES and come with text copied from documents."""

RDKIT_LOG = threading.Lock()
"""RDKit's log belongs to the process: it is silenced, read and given back by one thread at a time."""


@dataclass(frozen=True)
class Smiles:
    """A molecule that RDKit accepts.

    `text` is the SMILES as written (blanks and name removed), `name` what followed it on the line,
    `molecule` the sanitised RDKit molecule.
    """

    text: str
    name: str | None = None
    molecule: Any = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    @cached_property
    def canonical(self) -> str:
        """RDKit's canonical SMILES, with stereo, isotopes and charges."""
        from rdkit import Chem

        return str(Chem.MolToSmiles(self.molecule))


def split_smiles(text: str) -> list[str]:
    """Atom-level tokens. Lossless for every text: `"".join(split_smiles(text)) == text`."""
    return _SPLIT.findall(text)


def parse_smiles(text: str, *, strip_atom_maps: bool = False) -> Smiles:
    """Read the SMILES of one molecule, or the first field of a line of a `.smi` file.

    Args:
        text: SMILES; blanks around it are removed, what follows the first blank is its name.
        strip_atom_maps: remove atom map numbers: `[CH3:1]` becomes `[CH3]`.

    Raises:
        MatfmError: with text, position (None where RDKit gives none) and RDKit's reason, for anything
            that is not one molecule: missing values, reactions, look-alike characters, wrong valences.
    """
    if not isinstance(text, str):
        raise MatfmError(repr(text), 0, "a SMILES is text, for example 'CCO'")
    body, *rest = text.split(maxsplit=1) or [""]
    _check_text(body)
    tokens = split_smiles(body)
    _check_is_molecule(body, tokens)
    if strip_atom_maps:
        tokens = [_ATOM_MAP.sub("]", token) if token[0] == "[" else token for token in tokens]
        body = "".join(tokens)
    molecule, log = _read_with_rdkit(body)
    if molecule is None:
        raise _error(body, tokens, log)
    if not molecule.GetNumAtoms():
        raise MatfmError(body, 0, "the SMILES holds no atom")
    return Smiles(body, rest[0].strip() if rest else None, molecule)


def _check_text(body: str) -> None:
    """Everything that can be said before the grammar is looked at."""
    if not body:
        raise MatfmError(body, 0, "the SMILES is empty")
    if is_missing(body):
        raise MatfmError(body, 0, "this is a missing value, not a SMILES")
    for position, character in enumerate(body[:MAX_LENGTH]):
        if not "!" <= character <= "~":
            raise MatfmError(body, position, _unreadable(character))
    if len(body) > MAX_LENGTH:
        raise MatfmError(body, MAX_LENGTH, f"the SMILES has {len(body)} characters, more than {MAX_LENGTH}")


def _unreadable(character: str) -> str:
    meant = _LOOK_ALIKES.get(character) or unicodedata.normalize("NFKC", character)
    hint = f"; did you mean '{meant}'?" if meant != character and meant.isascii() and meant.isprintable() else ""
    return f"{character!r} (U+{ord(character):04X}) has no meaning in a SMILES{hint}"


def _check_is_molecule(body: str, tokens: list[str]) -> None:
    if ">" in tokens:
        position = len("".join(tokens[: tokens.index(">")]))
        raise MatfmError(body, position, "this is a reaction, not one molecule")


def _read_with_rdkit(body: str) -> tuple[Any, str]:
    """The sanitised molecule or None, and what RDKit said; nothing reaches stderr."""
    from rdkit import Chem, rdBase

    with RDKIT_LOG, rdBase.BlockLogs(), rdBase.CaptureErrorLog() as log:
        try:
            molecule = Chem.MolFromSmiles(body)
        except (RuntimeError, ValueError, OverflowError) as error:
            return None, str(error)
    return molecule, log.messages


def _error(body: str, tokens: list[str], log: str) -> MatfmError:
    lines = _TIME.sub("", log).strip().splitlines() or ["RDKit cannot read this SMILES"]
    reason = _ECHO.sub("", lines[0]).strip()
    mistake, atom = _MISTAKE.search(log), _ATOM_NUMBER.findall(reason)
    position = None
    if mistake:
        position = min(int(mistake[1]), len(body)) - 1
    elif atom:
        position = _position(tokens, [i for i, token in enumerate(tokens) if _ATOM.fullmatch(token)], int(atom[-1]))
    elif reason.startswith("unclosed ring"):
        position = _position(tokens, _open_rings(tokens), 0)
    return MatfmError(body, position, reason)


def _open_rings(tokens: list[str]) -> list[int]:
    """Indices of the tokens that open a ring which is never closed."""
    opened: dict[int, int] = {}
    for index, token in enumerate(tokens):
        number = RING_NUMBER.fullmatch(token)
        if number and opened.pop(int(number[1]), None) is None:
            opened[int(number[1])] = index
    return sorted(opened.values())


def _position(tokens: list[str], indices: list[int], which: int) -> int | None:
    """Character position of the token `indices[which]`."""
    return len("".join(tokens[: indices[which]])) if which < len(indices) else None
