"""How each line notation is cut into tokens: for the tokenizers, the vocabularies and the fast corpus path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from matfm.chem import selfies, smiles
from matfm.chem.line_encoder import LineEncoder


@dataclass(frozen=True)
class LineNotation:
    """A notation whose tokens one regular expression finds."""

    name: str
    """smiles or selfies."""
    pattern: str
    """One token, for Python's `re` and for Oniguruma alike; it matches any character."""
    pairs: tuple[str, ...] = ()
    """Tokens of two characters outside of brackets."""
    ring_numbers: bool = False
    """Whether `%12` and `%(123)` are one token."""

    def split(self, text: str) -> list[str]:
        """Tokens; joined they are the text, whatever it holds."""
        return re.findall(self.pattern, text)

    def encoder(self, ids: Mapping[str, int]) -> LineEncoder:
        """The fast encoder of a vocabulary (special tokens included)."""
        return LineEncoder(ids, self.pairs, self.ring_numbers)


SMILES = LineNotation("smiles", smiles.SPLIT_PATTERN, ("Br", "Cl", "->", "<-"), ring_numbers=True)
SELFIES = LineNotation("selfies", selfies.SPLIT_PATTERN)
NOTATIONS: dict[str, LineNotation] = {notation.name: notation for notation in (SMILES, SELFIES)}
