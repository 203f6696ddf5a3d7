"""What a model that translates reads and writes: cells of a table to lines of the joint vocabulary, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matfm.chem.formula import read_formula
from matfm.chem.formula_text import formula_text
from matfm.chem.joint_tokenizer import (
    ANSWER,
    TO_COMPOSITION,
    TO_SELFIES,
    TO_SMILES,
    TO_TEXT,
    composition_line,
    question_line,
    read_composition_line,
    text_line,
)
from matfm.chem.line_corpus import first_field
from matfm.chem.property_text import read_description
from matfm.chem.reduced_composition import canonical_formula
from matfm.chem.selfies import selfies_to_smiles, smiles_to_selfies
from matfm.chem.smiles import parse_smiles
from matfm.errors import MatfmError

READS = {
    TO_SELFIES: "smiles",
    TO_SMILES: "selfies",
    TO_TEXT: "composition",
    TO_COMPOSITION: "text",
    ANSWER: "composition",
}
"""Task to what its sources are."""


@dataclass(frozen=True)
class Source:
    """What a cell says, as the model reads it."""

    line: str
    """In the joint vocabulary, without the task."""
    identity: str | None = None
    """Canonical SMILES of a molecule; None for the others, whose translations are not the same thing written anew."""


@dataclass(frozen=True)
class Translation:
    """What a model wrote, and what it stands for."""

    text: str
    """SELFIES, SMILES, formula or text; what cannot be read, as it was written."""
    canonical: str | None = None
    """Canonical SMILES, reduced formula in Hill order, or text in the usual order; None if it cannot be read."""
    same: bool | None = None
    """Of molecules: whether the translation is the same molecule."""
    problem: str | None = None
    """Why it cannot be read."""


def read_source(cell: str, task: str, asked: Sequence[str] = ()) -> Source:
    """A cell as the source of a task. Molecules are written canonically, however they are written in the cell.

    Args:
        cell: SMILES, SELFIES, formula or text, as `READS` says.
        task: one of `READS`.
        asked: properties that `<answer>` asks for.

    Raises:
        MatfmError: the cell cannot be read.
    """
    if task == TO_SELFIES:
        canonical = parse_smiles(cell).canonical
        return Source(canonical, canonical)
    if task == TO_SMILES:
        canonical = parse_smiles(selfies_to_smiles(first_field(cell))).canonical
        return Source(smiles_to_selfies(canonical), canonical)
    if task == TO_COMPOSITION:
        return Source(text_line(str(read_description(cell.strip()))))
    formula = read_formula(cell)
    return Source(question_line(formula, asked) if task == ANSWER else composition_line(formula))


def read_translation(line: str, task: str, source: Source, ended: bool = True) -> Translation:
    """A line that a model wrote, checked.

    Args:
        line: decoded, without special tokens.
        task: that it was written for.
        source: that it was written from.
        ended: whether the model ended it; one that was cut is no translation.
    """
    text = line.strip()
    if not ended:
        return Translation(text, None, _unlike(source), "the model did not end it")
    try:
        if task in (TO_SELFIES, TO_SMILES):
            canonical = parse_smiles(selfies_to_smiles(text) if task == TO_SELFIES else text).canonical
            return Translation(text, canonical, canonical == source.identity)
        if task == TO_COMPOSITION:
            formula = read_composition_line(line)
            return Translation(formula_text(formula.amounts), canonical_formula(formula))
        return Translation(text, str(read_description(text)))
    except MatfmError as error:
        return Translation(text, None, _unlike(source), str(error))


def _unlike(source: Source) -> bool | None:
    return None if source.identity is None else False
