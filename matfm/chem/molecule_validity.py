"""Whether a SMILES or SELFIES is a molecule that RDKit accepts, and its canonical form."""

from __future__ import annotations

from matfm.chem.selfies import selfies_to_smiles
from matfm.chem.smiles import parse_smiles
from matfm.errors import MatfmError


def valid_molecule(text: str, *, selfies: bool = False) -> bool:
    """Whether the text is one molecule that RDKit reads and sanitises."""
    try:
        (canonical_selfies if selfies else canonical_smiles)(text)
    except MatfmError:
        return False
    return True


def canonical_smiles(text: str) -> str:
    """RDKit's canonical SMILES without atom map numbers, which are labels: equal for equal molecules.

    Raises:
        MatfmError: with position and RDKit's reason.
    """
    return parse_smiles(text, strip_atom_maps=True).canonical


def canonical_selfies(text: str) -> str:
    """Canonical SMILES of a SELFIES. Raises MatfmError if it is not SELFIES or RDKit rejects what it decodes to."""
    return canonical_smiles(selfies_to_smiles(text))
