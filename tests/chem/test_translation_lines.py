"""Sources that a translating model reads, and checks of what it writes."""

import pytest

from matfm import MatfmError, smiles_to_selfies
from matfm.chem.joint_tokenizer import ANSWER, TO_COMPOSITION, TO_SELFIES, TO_SMILES, TO_TEXT
from matfm.chem.translation import Translation, read_source, read_translation

ETHANOL = read_source("OCC", TO_SELFIES)


def test_molecules_are_written_canonically():
    assert (ETHANOL.line, ETHANOL.identity) == ("CCO", "CCO")
    assert read_source(smiles_to_selfies("OCC"), TO_SMILES).line == smiles_to_selfies("CCO")


def test_compositions_texts_and_questions():
    assert read_source("O3Fe2", TO_TEXT).line == " Fe2 O3"
    assert read_source("FeO", ANSWER, ("band_gap", "volume_per_atom")).line == " Fe1 O1; band gap? volume?"
    text = "semiconductor, volume 12.0 Å³/atom, band gap 2.0 eV"
    assert read_source(text, TO_COMPOSITION).line == " semiconductor, band gap 2.0 eV, volume 12.0 Å³/atom"


@pytest.mark.parametrize(
    ("cell", "task"), [("C(C", TO_SELFIES), ("[C", TO_SMILES), ("Xx", TO_TEXT), ("blue", TO_COMPOSITION), ("", ANSWER)]
)
def test_cells_that_cannot_be_read(cell, task):
    with pytest.raises(MatfmError):
        read_source(cell, task)


def test_a_translation_says_whether_it_is_the_same_molecule():
    assert read_translation("[O][C][C]", TO_SELFIES, ETHANOL) == Translation("[O][C][C]", "CCO", True)
    assert read_translation("C(O)C", TO_SMILES, ETHANOL) == Translation("C(O)C", "CCO", True)
    assert read_translation("CCC", TO_SMILES, ETHANOL) == Translation("CCC", "CCC", False)
    unreadable = read_translation("CC(", TO_SMILES, ETHANOL)
    assert (unreadable.text, unreadable.canonical, unreadable.same) == ("CC(", None, False)
    assert "CC(" in unreadable.problem
    assert read_translation("CCO", TO_SMILES, ETHANOL, ended=False).problem == "the model did not end it"


def test_texts_and_compositions_are_not_the_same_thing_written_anew():
    source = read_source("Fe2O3", TO_TEXT)
    text = "semiconductor, band gap 2.0 eV"
    assert read_translation(f" {text}", TO_TEXT, source) == Translation(text, text)
    assert read_translation(" Fe4 O6", TO_COMPOSITION, source) == Translation("Fe4O6", "Fe2O3")
    for line in (" Fe Fe2 2", " Fe2 Fe3", " Fe2O3", " Xx2", ""):
        assert read_translation(line, TO_COMPOSITION, source).canonical is None
    assert read_translation(" band gap eV", TO_TEXT, source).same is None
