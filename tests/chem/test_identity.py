"""Identity of substances, and the filter that spares reading most molecules, against its slow twin."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from matfm import MatfmError
from matfm.chem.identity import Identities, identity
from matfm.chem.skeletons import SkeletonFilter

SMILES = [line.split()[0] for line in (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().splitlines()]


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("Fe2O3", "O6Fe4", "composition"), ("Ba(Zr0.1Ti0.9)O3", "BaZr0.1Ti0.9O3", "composition"),
        ("Fe0.5O0.5", "FeO", "composition"), ("OCC", "C(O)C", "smiles"), ("C1=CC=CC=C1", "c1ccccc1", "smiles"),
        ("[C][C][O]", "[O][C][C]", "selfies"),
    ],
)  # fmt: skip
def test_the_same_substance_has_one_identity(one, other, kind):
    assert identity(one, kind) == identity(other, kind)


def test_other_substances_and_stereo_have_others():
    assert identity("FeO", "composition") != identity("Fe2O3", "composition")
    assert len({identity(text, "smiles") for text in ("F/C=C/F", "F/C=C\\F", "FC=CF", "[2H]C", "C")}) == 5
    with pytest.raises(MatfmError, match="kind is 'polymer'"):
        identity("C", "polymer")


def test_unreadable_texts_have_none():
    known = Identities("composition")
    assert known.of(["Fe2O3", "Xx", "", "Fe2O3"]) == ["Fe2O3", None, None, "Fe2O3"]
    assert list(Identities("smiles").among(["C(", "C", "", "CC"], {"C"})) == [None, "C", None, None]


@pytest.mark.parametrize("smiles", SMILES[:60])
def test_every_writing_of_a_molecule_passes_the_filter(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    skeletons = SkeletonFilter([smiles])
    for seed in range(5):
        shuffled = Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=seed + 1)[0]
        assert skeletons.may_hold(shuffled), shuffled
    assert skeletons.may_hold(Chem.MolToSmiles(molecule, kekuleSmiles=True))
    assert skeletons.may_hold(Chem.MolToSmiles(Chem.AddHs(molecule)))
    assert skeletons.may_hold(Chem.MolToSmiles(molecule, allHsExplicit=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C1.C1", "CC"), ("[#6][#6]O", "CCO"), ("[H]OC([H])C", "OCC"), ("C%12CC%12", "C1CC1"), ("C%(101)CC%(101)", "C1CC1"),
        ("[nH]1cccc1", "C1=CNC=C1"), ("[2H]O[2H]", "O"), ("CC name", "CC"), ("[Na+].[Cl-]", "[Cl-].[Na+]"), ("[se]1cccc1", "C1=C[Se]C=C1"),
        ("C1CC1.C1CC1", "C1CC1.C2CC2"), ("*C", "[*]C"),
    ],
)  # fmt: skip
def test_writings_that_are_read_alike(one, other):
    assert SkeletonFilter([one]).may_hold(other)
    assert SkeletonFilter([other]).may_hold(one)


def test_the_filter_keeps_little_else_and_changes_no_answer():
    wanted = {Chem.MolToSmiles(Chem.MolFromSmiles(text)) for text in SMILES[:40]}
    slow = [key if (key := identity(text, "smiles")) in wanted else None for text in SMILES[:120]]
    assert list(Identities("smiles").among(SMILES[:120], wanted)) == slow
    skeletons = SkeletonFilter(SMILES[:40])
    assert sum(map(skeletons.may_hold, SMILES[40:])) <= sum(identity(t, "smiles") in wanted for t in SMILES[40:]) + 3


@given(st.text("CNOc1()[]=%#.*@+-H2 ", max_size=30))
def test_any_text_gives_an_answer(text):
    assert SkeletonFilter([text]).may_hold(text)
