"""What is found about generated texts: valid, seen before, known, neutral; and why not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from matfm.chem.composition_validity import charge_balance, element_table
from matfm.chem.formula import read_formula
from matfm.chem.reduced_composition import canonical_formula
from matfm.chem.selfies import selfies_to_smiles
from matfm.chem.smiles import parse_smiles
from matfm.chem.validity import Verdict
from matfm.errors import MatfmError
from matfm.tasks.generation.config import GenerateConfig
from matfm.tasks.generation.generator import Draw

_NUMBERS = re.compile(r"[0-9]+(?:[ ,]+[0-9]+)*")


@dataclass(frozen=True)
class Judged:
    """What is found about one sample."""

    verdict: Verdict
    reason: str | None = None
    """Why it is not valid, the same for all texts that are wrong in the same way."""
    substructure: bool | None = None
    """Whether the substructure is there; None if none is asked for or the text is not valid."""


class Judge:
    """Checks draws of one kind.

    Raises:
        MatfmError: the SMARTS of the substructure cannot be read; or charges are asked for and smact is missing.
    """

    def __init__(self, config: GenerateConfig, kind: str) -> None:
        self._config, self._kind = config, kind
        self._pattern = _smarts(config.substructure) if config.substructure else None
        self.charges = kind == "composition" and find_spec("smact") is not None
        if self.charges or config.charge_neutral or {"neutral", "balanced"} & set(config.only):
            element_table(config.oxidation_states)

    def __call__(self, draw: Draw) -> Judged:
        """Never raises for a bad text."""
        if not draw.ended:
            return _invalid("longer than the limit of tokens")
        if not draw.text:
            return _invalid("empty")
        try:
            return self._composition(draw.text) if self._kind == "composition" else self._molecule(draw.text)
        except MatfmError as error:
            return _invalid(_NUMBERS.sub("N", error.reason))

    def _composition(self, text: str) -> Judged:
        formula = read_formula(text)
        canonical = canonical_formula(formula)
        if not self.charges:
            return Judged(Verdict(canonical))
        found = charge_balance(formula, self._config.oxidation_states, alloys=self._config.alloys)
        return Judged(Verdict(canonical, found.charge_neutral, found.electronegativity_balanced))

    def _molecule(self, text: str) -> Judged:
        smiles = selfies_to_smiles(text) if self._kind == "selfies" else text
        parsed = parse_smiles(smiles, strip_atom_maps=True)
        pattern = self._pattern
        found = None if pattern is None else bool(parsed.molecule.HasSubstructMatch(pattern))
        return Judged(Verdict(parsed.canonical), substructure=found)


def _invalid(reason: str) -> Judged:
    return Judged(Verdict(error=reason), reason)


def _smarts(text: str) -> Any:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        pattern = Chem.MolFromSmarts(text)
    if pattern is None or not pattern.GetNumAtoms():
        raise MatfmError(f"--substructure {text!r} is not a SMARTS pattern; an example is c1ccccc1")
    return pattern
