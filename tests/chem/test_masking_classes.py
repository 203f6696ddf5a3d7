"""Element groups partition the table; token classes cover the shipped vocabularies."""

import pytest
import torch

from matfm import MatfmError, SelfiesTokenizer, SmilesTokenizer
from matfm.chem.composition_schemes import VOCABULARY
from matfm.chem.element_groups import ELEMENT_GROUPS, groups_with
from matfm.chem.elements import SYMBOLS
from matfm.chem.token_classes import TokenClasses, element_classes, selfies_classes, smiles_classes
from matfm.chem.vocabulary import SPECIAL_TOKENS


def is_partition(groups):
    members = [symbol for symbols in groups.values() for symbol in symbols]
    return len(members) == len(set(members)) and set(members) == set(SYMBOLS)


def test_each_element_is_in_one_group():
    assert is_partition(ELEMENT_GROUPS)
    assert all(list(symbols) for symbols in ELEMENT_GROUPS.values())


def test_groups_agree_with_pymatgen():
    from pymatgen.core import Element

    home = {symbol: name for name, symbols in ELEMENT_GROUPS.items() for symbol in symbols}
    for element in (Element(symbol) for symbol in SYMBOLS if symbol not in {"Ts", "Og", "Lv", "Nh", "Fl", "Mc"}):
        name = home[element.symbol]
        assert (name == "alkali_metal") == element.is_alkali
        assert (name == "alkaline_earth_metal") == element.is_alkaline
        assert (name == "lanthanide") == element.is_lanthanoid
        assert (name == "actinide") == element.is_actinoid
        assert (name == "halogen") == element.is_halogen
        assert (name == "chalcogen") == element.is_chalcogen
        assert (name == "noble_gas") == element.is_noble_gas
        if name == "transition_metal":
            assert element.is_transition_metal
            assert element.group <= 11
        if element.is_post_transition_metal:
            assert name == "post_transition_metal"
        if name == "metalloid":
            assert element.is_metalloid
    assert {home[symbol] for symbol in ("Zn", "Cd", "Hg", "Cn")} == {"post_transition_metal"}


def test_user_groups_take_precedence():
    groups = groups_with(
        {"battery": ["Li", "Co", "Ni"], "transition_metal": ("Zn",), "stable": ELEMENT_GROUPS["nonmetal"]}
    )
    assert is_partition(groups)
    assert groups["battery"] == ("Li", "Co", "Ni")
    assert set(groups["transition_metal"]) == set(ELEMENT_GROUPS["transition_metal"]) - {"Co", "Ni"} | {"Zn"}
    assert "nonmetal" not in groups
    assert groups_with({}) == {name: tuple(s for s in SYMBOLS if s in x) for name, x in ELEMENT_GROUPS.items()}


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"a": ["Fe"], "b": ["O", "Fe"]}, r"^Fe is in element group 'a' and again in 'b'"),
        ({"a": ["Fe", "Fe"]}, r"^Fe is in element group 'a' and again in 'a'"),
        ({"a": ["Fe", "fe"]}, r"'a' names 'fe', which is not the symbol"),
        ({"a": []}, r"'a' is \[\]; give a list"),
        ({"a": "FeCo"}, r"'a' is 'FeCo'; give a list"),
    ],
)
def test_wrong_groups(user, message):
    with pytest.raises(MatfmError, match=message):
        groups_with(user)


def test_element_classes():
    classes = element_classes({"battery": ("Li", "Co")})
    assert classes.of(torch.arange(5)).tolist() == [-1] * 5
    assert len(classes.class_of_V) == len(VOCABULARY)
    named = {symbol: classes.names[classes.class_of_V[VOCABULARY[symbol]]] for symbol in SYMBOLS}
    assert named["Li"] == named["Co"] == "battery"
    assert named["Na"] == "alkali_metal"


SMILES_CLASSES = {
    "aliphatic_atom": "C N Cl Br B *",
    "aromatic_atom": "c n o s p b",
    "bracket_atom": "[C@@H] [Fe+2] [2H] [NH4+] [Cl-]",
    "aromatic_bracket_atom": "[nH] [se] [13c] [n+]",
    "bond": "- = # $ : ~ / \\ -> <-",
    "branch": "( )",
    "ring_number": "0 9 %10 %99",
    "dot": ".",
}
SELFIES_CLASSES = {
    "singly_bonded_atom": "[C] [/C] [\\NH1] [C@@H1] [Na+1] [13C] [Ru] [Rh]",
    "doubly_bonded_atom": "[=C] [=N+1] [=O]",
    "triply_bonded_atom": "[#C] [#N]",
    "branch": "[Branch1] [=Branch2] [#Branch3]",
    "ring": "[Ring1] [=Ring2] [-/Ring1] [\\\\Ring3]",
    "dot": ".",
}


@pytest.mark.parametrize(
    ("kind", "build", "expected"),
    [(SmilesTokenizer, smiles_classes, SMILES_CLASSES), (SelfiesTokenizer, selfies_classes, SELFIES_CLASSES)],
)
def test_classes_of_the_shipped_vocabularies(kind, build, expected):
    vocabulary = kind().get_vocab()
    classes = build(vocabulary)
    assert set(classes.names) == set(expected)
    for name, tokens in expected.items():
        for token in set(tokens.split()) & set(vocabulary):
            assert classes.names[classes.class_of_V[vocabulary[token]]] == name
    special = {token for token, index in vocabulary.items() if classes.class_of_V[index] < 0}
    assert special == set(SPECIAL_TOKENS)


def test_other_tokens_and_more_special_ones():
    classes = smiles_classes({"[PAD]": 0, "C": 1, "?": 3, "[TASK]": 4}, ["[PAD]", "[TASK]"])
    assert classes.class_of_V.tolist() == [-1, 0, -1, 1, -1]
    assert classes.names == ("aliphatic_atom", "other")
    assert selfies_classes({"[C]": 0, "[nop]": 1}, []).names == ("singly_bonded_atom", "other")


def test_drawing_reaches_every_member_of_a_class():
    classes = TokenClasses.from_names([None, "a", "b", "a", None, "b", "b"])
    ids = torch.tensor([1, 3, 2, 5, 6]).repeat(200)
    drawn = classes.draw_same_class(ids, torch.Generator().manual_seed(0))
    assert torch.equal(classes.of(drawn), classes.of(ids))
    assert drawn.unique().tolist() == [1, 2, 3, 5, 6]
    assert classes.draw_any(500, torch.Generator().manual_seed(0)).unique().tolist() == [1, 2, 3, 5, 6]
