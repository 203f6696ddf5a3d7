"""SELFIES: every tricky entry, round trips, constraints that stay local."""

import json
import threading
from pathlib import Path

import pytest
import selfies as reference

from matfm import MatfmError, parse_smiles, selfies_to_smiles, smiles_to_selfies
from matfm.chem.selfies import CONSTRAINTS, split_selfies

TRICKY = json.loads((Path(__file__).parents[1] / "data" / "tricky.json").read_text("utf-8"))
ACCEPTED = [entry for entry in TRICKY["selfies"] if entry["expected"] == "accept"]
REJECTED = [entry for entry in TRICKY["selfies"] if entry["expected"] != "accept"]
ROUND_TRIPS = [entry for entry in TRICKY["smiles"] if entry.get("selfies_roundtrip_same")]
NOT_EXPRESSIBLE = [
    "N->[Pt](Cl)(Cl)<-N",
    "*CC*",
    "[Co@OH12](Cl)(F)(Br)(I)(N)O",
    "[Mo]$[Mo]",
    "C~C",
    "C:C",
    "[Fe]:[P@H+]N",
]


@pytest.mark.parametrize("entry", ACCEPTED, ids=lambda entry: entry["category"])
def test_tricky_selfies_are_accepted(entry):
    assert selfies_to_smiles(entry["selfies"]) == entry["decoded"]
    assert parse_smiles(entry["decoded"]).canonical
    assert "".join(split_selfies(entry["selfies"])) == entry["selfies"]


@pytest.mark.parametrize("entry", REJECTED, ids=lambda entry: entry["category"])
def test_tricky_selfies_are_rejected_with_a_reason(entry):
    with pytest.raises(MatfmError) as caught:
        selfies_to_smiles(entry["selfies"])
    assert caught.value.reason
    assert caught.value.position is not None


@pytest.mark.parametrize("entry", ROUND_TRIPS, ids=lambda entry: entry["category"])
def test_tricky_smiles_make_the_round_trip(entry):
    selfies = smiles_to_selfies(entry["smiles"])
    assert entry["selfies"].startswith("<") or selfies == entry["selfies"]
    assert parse_smiles(selfies_to_smiles(selfies)).canonical == parse_smiles(entry["smiles"]).canonical


@pytest.mark.parametrize("smiles", NOT_EXPRESSIBLE)
def test_what_selfies_cannot_express_is_an_error(smiles):
    assert parse_smiles(smiles)
    with pytest.raises(MatfmError):
        smiles_to_selfies(smiles)


def test_aromatic_bonds_may_be_written():
    assert parse_smiles(selfies_to_smiles(smiles_to_selfies("c1:c:c:c:c:c:1"))).canonical == "c1ccccc1"


def test_what_rdkit_rejects_is_not_converted():
    with pytest.raises(MatfmError, match="valence"):
        smiles_to_selfies("NC(=O)NC1N=C(O[AlH3](O)O)NC1=O")


def test_atom_maps_are_lost():
    assert smiles_to_selfies("[CH3:1][OH:2]") == "[CH3][OH1]"


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        ("", 0, "empty"),
        ("CCO", 0, "not SELFIES"),
        ("[C][C", 3, "never closed"),
        ("[C] [C]", 3, "blank"),
        ("[C][]", 3, "no symbol"),
        ("[C]C[C]", 3, "outside"),
        ("[C][*][C]", 3, "wildcard"),
        ("[C][Branch1_2][C][=O][O]", 3, "version 1"),
        ("[C][Expl=Ring1]", 3, "version 1"),
        ("[F][F][unk]", 6, "special token"),
        ("[Fe++]", 0, "like +2"),
        ("[C][CH9]", 3, "hydrogen"),
        ("[Ring1]", 0, "no atom"),
        ("[nop]", 0, "no atom"),
    ],
)
def test_errors_point_at_the_symbol(text, position, part):
    with pytest.raises(MatfmError) as caught:
        selfies_to_smiles(text)
    assert caught.value.position == position
    assert part in caught.value.reason


def test_constraints_are_an_argument_and_leave_no_trace():
    before = reference.get_semantic_constraints()
    hypervalent = {**CONSTRAINTS, "Cl": 7}
    assert parse_smiles(selfies_to_smiles("[F][=Cl][=F]", CONSTRAINTS)).text == "FCl"
    assert selfies_to_smiles("[F][Cl][F]", hypervalent) == "FClF"
    with pytest.raises(MatfmError, match="bond"):
        smiles_to_selfies("CI(C)C")
    assert smiles_to_selfies("CI(C)C", {**CONSTRAINTS, "I": 5})
    with pytest.raises(MatfmError, match="missing"):
        selfies_to_smiles("[C]", {"C": 4})
    assert reference.get_semantic_constraints() == before


def test_threads_with_different_constraints_do_not_mix():
    results = {}

    def work(capacity):
        constraints = {**CONSTRAINTS, "Cl": capacity}
        results[capacity] = {selfies_to_smiles("[Cl][=C][=Cl][=C]", constraints) for _ in range(100)}

    threads = [threading.Thread(target=work, args=(capacity,)) for capacity in (1, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(results[capacity]) for capacity in (1, 3, 5)] == [1, 1, 1]
    assert results[1] == {"ClCCl"}
    assert results[3] != results[1]
