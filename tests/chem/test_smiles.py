"""SMILES: every tricky entry, positions of errors, lossless splitting."""

import json
from pathlib import Path

import pytest

from matfm import MatfmError, parse_smiles
from matfm.chem.smiles import MAX_LENGTH, split_smiles

TRICKY = json.loads((Path(__file__).parents[1] / "data" / "tricky.json").read_text("utf-8"))["smiles"]
ACCEPTED = [entry for entry in TRICKY if entry["rdkit_parses"] and entry["smiles"]]
REJECTED = [entry for entry in TRICKY if entry not in ACCEPTED]


@pytest.mark.parametrize("entry", ACCEPTED, ids=lambda entry: entry["category"])
def test_tricky_smiles_are_accepted(entry):
    smiles = parse_smiles(entry["smiles"])
    assert smiles.text == entry["smiles"].split()[0]
    assert smiles.canonical == parse_smiles(entry["rdkit_canonical"]).canonical
    assert "".join(split_smiles(entry["smiles"])) == entry["smiles"]


@pytest.mark.parametrize("entry", REJECTED, ids=lambda entry: entry["category"])
def test_tricky_smiles_are_rejected_with_a_reason(entry, capfd):
    with pytest.raises(MatfmError) as caught:
        parse_smiles(entry["smiles"])
    assert caught.value.reason
    assert caught.value.text == entry["smiles"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        ("", 0, "empty"),
        ("nan", 0, "missing"),
        ("C1CC", 1, "unclosed ring"),
        ("C2CCCCC2C1CC", 9, "unclosed ring"),
        ("CC(C)(C)(C)C", 1, "valence"),
        ("[Na+].CC(C)(C)(C)(C)Cl", 7, "valence"),
        ("c1ccnc1", 0, "kekulize"),
        ("Cc", 1, "aromatic"),
        ("CC==C", 3, "syntax"),
        ("CC>>CO", 2, "reaction"),
        ("C−C", 1, "did you mean '-'"),
        ("C→C", 1, "did you mean '->'"),
        ("СCO", 0, "did you mean 'C'"),
        ("C\x00C", 1, "no meaning"),
        ("C" * (MAX_LENGTH + 1), MAX_LENGTH, "characters"),
    ],
)
def test_errors_point_at_the_character(text, position, part):
    with pytest.raises(MatfmError) as caught:
        parse_smiles(text)
    assert caught.value.position == position
    assert part in caught.value.reason


def test_what_is_not_text_is_an_error():
    with pytest.raises(MatfmError, match="a SMILES is text"):
        parse_smiles(float("nan"))


def test_the_name_of_a_smi_line_is_kept_apart():
    smiles = parse_smiles("\tCCO   ethyl alcohol \n")
    assert (smiles.text, smiles.name, str(smiles)) == ("CCO", "ethyl alcohol", "CCO")
    assert parse_smiles("CCO").name is None


def test_atom_maps_are_kept_or_stripped():
    assert parse_smiles("[CH3:1][OH:2]").canonical == "[CH3:1][OH:2]"
    stripped = parse_smiles("[CH3:1][OH:2]", strip_atom_maps=True)
    assert stripped.text == "[CH3][OH]"
    assert stripped.canonical == "CO"


def test_e_and_z_differ():
    assert parse_smiles("C/C=C/C").canonical != parse_smiles("C/C=C\\C").canonical


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ClCCBr", ["Cl", "C", "C", "Br"]),
        ("OB(O)C", ["O", "B", "(", "O", ")", "C"]),
        ("N[C@@H](C)O", ["N", "[C@@H]", "(", "C", ")", "O"]),
        ("C%10CC%10", ["C", "%10", "C", "C", "%10"]),
        ("C%(100)CC%(100)", ["C", "%(100)", "C", "C", "%(100)"]),
        ("N->[Pt]<-N", ["N", "->", "[Pt]", "<-", "N"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("[C", ["[", "C"]),
        ("c1c*s1", ["c", "1", "c", "*", "s", "1"]),
        ("", []),
    ],
)
def test_split(text, tokens):
    assert split_smiles(text) == tokens
