"""Units of molecules: tokens to atoms, rings, functional groups, scaffolds and branches, in SMILES and SELFIES.

The twin of the mapping marks one token in the text (an isotope, or a quadruple bond) and lets RDKit say which atom or
bond it was.
"""

import re
import time

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rdkit import Chem

from matfm import MatfmError, SmilesTokenizer, parse_smiles, selfies_to_smiles, smiles_to_selfies
from matfm.chem.functional_groups import functional_groups
from matfm.chem.mask_choice import PackedUnits
from matfm.chem.masking import MaskingConfig, mask_tokens
from matfm.chem.molecule_units import UNIT_KINDS, molecule_units, scaffold, selfies_units, token_atoms
from matfm.chem.selfies import split_selfies
from matfm.chem.smiles import split_smiles
from matfm.chem.token_classes import smiles_classes
from matfm.chem.vocabulary import load_vocabulary
from matfm.core.layout import PackedLayout

MOLECULES = {
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "naphthalene": "c1ccc2ccccc2c1",
    "spiro": "C1CCC2(CC1)OCCO2",
    "cubane": "C12C3C4C1C5C2C3C45",
    "cholesterol": "CC(C)CCC[C@@H](C)[C@H]1CC[C@@H]2[C@@]1(CC[C@H]3[C@H]2CC=C4[C@@]3(CC[C@@H](C4)O)C)C",
    "long ring numbers": "C%10CC%11CC%10CCC%11",
    "very long ring numbers": "C%(100)CC%(5)CC5C%(100)",
    "reused numbers": "C1CC1C1CCC1CC1=CC=CC=C1",
    "number zero": "C0CCC0",
    "number after a branch": "C(C)1CC1",
    "explicit hydrogen": "[H]c1c([H])c([H])n([H])c1[H]",
    "salt": "[Na+].[O-]C(=O)C1CC1.Cl",
    "ring across a dot": "C1CC2.C12",
    "stereo": "F/C=C\\[C@@H]1C/C=C\\CC1",
    "aromatic bracket": "O=[N+]([O-])c1c[nH]cc1",
    "ring bonds": "C=1CCCC=1C=%12CC%12",
    "dative": "N1CC[NH2]->[Pt]<-1(Cl)Cl",
    "bicycle": "C1CC2CCC1CC2",
    "indigo": "O=C1/C(=C2\\Nc3ccccc3C2=O)Nc2ccccc12",
    "isotopes and maps": "[2H]C([2H])([13CH3:7])[35Cl]",
    "wildcards": "*CC(*)c1ccccc1",
}


def read(text):
    parameters = Chem.SmilesParserParams()
    parameters.removeHs = False
    return Chem.MolFromSmiles(text, parameters)


def unsanitised(text):
    molecule = Chem.MolFromSmiles(text, sanitize=False)
    assert molecule is not None, text
    return molecule


def bonds(molecule):
    return {
        frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())): (bond.GetBondType(), bond.GetBondDir())
        for bond in molecule.GetBonds()
    }


def marked_atoms(tokens, position):
    """Which atoms RDKit gives to a token after it was marked in the text."""
    before, token, after = "".join(tokens[:position]), tokens[position], "".join(tokens[position + 1 :])
    if token in "().":
        return set()
    if re.fullmatch(r"\[.*\]|Br|Cl|[A-Za-z*]", token):
        molecule = unsanitised(before + re.sub(r"^\[?[0-9]*([^\]]*)\]?$", r"[99\1]", token) + after)
        return {atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetIsotope() == 99}
    is_ring = token[0] in "%0123456789"
    changed = unsanitised(before + ("$" + token if is_ring else "$") + after)
    plain = bonds(unsanitised("".join(tokens)))
    (found,) = (pair for pair, bond in bonds(changed).items() if plain[pair][0] != bond[0])
    return set(found)


@pytest.mark.parametrize("name", sorted(set(MOLECULES) - {"ring bonds", "dative"}))  # these two by hand, below
def test_every_token_is_given_the_atoms_that_rdkit_gives_it(name):
    tokens = split_smiles(MOLECULES[name])
    for position, atoms in enumerate(token_atoms(MOLECULES[name])):
        assert set(atoms) == marked_atoms(tokens, position), (position, tokens[position])


def test_bond_symbols_of_ring_numbers():
    assert token_atoms("C=1CCC=1") == [(0,), (0, 3), (0, 3), (1,), (2,), (3,), (0, 3), (0, 3)]
    assert token_atoms("C=1CCC1")[1:3] == [(0, 3), (0, 3)]
    assert token_atoms("C=%12CC%12") == [(0,), (0, 2), (0, 2), (1,), (2,), (0, 2)]
    assert token_atoms("N1C[NH2]->[Pt]<-1") == [(0,), (0, 3), (1,), (2,), (2, 3), (3,), (0, 3), (0, 3)]


@pytest.mark.parametrize("name", MOLECULES)
def test_ring_masks_cover_exactly_whole_rings(name):
    text = MOLECULES[name]
    graph, mapped, units = unsanitised(text), token_atoms(text), molecule_units(text, "ring")
    molecule = Chem.MolFromSmiles(text)  # kept: its ring information does not outlive it
    sizes = [len(ring) for ring in molecule.GetRingInfo().AtomRings()]
    assert sorted(sum(len(mapped[place]) == 1 for place in unit) for unit in units) == sorted(sizes)
    for unit in units:
        ring = {mapped[place][0] for place in unit if len(mapped[place]) == 1}
        assert unit == [place for place, joined in enumerate(mapped) if joined and ring.issuperset(joined)]
        # One closed cycle: every atom has two bonds inside, and following them reaches all.
        inside = [set(pair) for pair in bonds(graph) if pair <= ring]
        assert all(sum(atom in pair for pair in inside) == 2 for atom in ring)
        reached = {min(ring)}
        while new := {atom for pair in inside if pair & reached for atom in pair} - reached:
            reached |= new
        assert reached == ring


def words(text, kind, find=molecule_units, split=split_smiles):
    tokens = split(text)
    return ["".join(tokens[place] for place in unit) for unit in find(text, kind)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("caffeine", ["n1cccnc1", "c2cncn2"]),
        ("naphthalene", ["c1ccc2c2c1", "c2ccccc2"]),
        ("spiro", ["C1CCCCC1", "C2OCCO2"]),
        ("salt", ["C1CC1"]),
        ("aromatic bracket", ["c1c[nH]cc1"]),
        ("ring across a dot", ["C1CC2C12"]),
        ("stereo", ["[C@@H]1C/C=C\\CC1"]),
        ("isotopes and maps", []),
    ],
)
def test_rings_by_hand(name, expected):
    assert words(MOLECULES[name], "ring") == expected


def test_a_mask_of_rings_hides_whole_rings():
    tokenizer = SmilesTokenizer()
    classes = smiles_classes(tokenizer.get_vocab())
    for text in MOLECULES.values():
        row = tokenizer(text)["input_ids"]
        ids, layout = torch.tensor(row * 50), PackedLayout.from_lengths([len(row)] * 50)
        rings = molecule_units(text, "ring")
        units = PackedUnits.from_positions([rings] * 50, layout)
        config = MaskingConfig(rows=1.0, rate=0.2, scheme="ring")
        masked = mask_tokens(ids, layout, classes, config, torch.Generator().manual_seed(0), units)
        known = {place for place in range(len(row)) if classes.class_of_V[row[place]] >= 0}
        for copy in range(50) if rings else []:
            hidden = {p % len(row) for p in masked.positions_M.tolist() if p // len(row) == copy}
            whole = [{place + 1 for place in ring} & known for ring in rings]
            assert hidden == set().union(*(ring for ring in whole if ring <= hidden))
            assert hidden


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC(=O)Nc1ccc(O)cc1", ["C=ON", "O"]),  # paracetamol
        ("CC(=O)Oc1ccccc1C(=O)O", ["C=OO", "C=OO"]),  # aspirin
        ("CC1(C)SC2C(NC(=O)C)C(=O)N2C1C(=O)O", ["SC2C=ON2", "NC=O", "C=OO"]),  # penicillin core
        ("O=[N+]([O-])c1ccccc1", ["O=[N+][O-]"]),  # nitrobenzene
        ("C[N+](=O)[O-]", ["[N+]=O[O-]"]),
        ("CC#N", ["C#N"]),
        ("C=CC#C", ["C=CC#C"]),
        ("C1OC1C", ["C1OC1"]),  # an oxirane
        ("C1CC1", []),
        ("CC(OC)OC", ["COO"]),  # an acetal
        ("COC", ["O"]),
        ("CC(OC)OC=O", ["COOC=O"]),
        ("CC(O)[N+](=O)[O-]", ["O", "[N+]=O[O-]"]),  # a nitrogen with a double bond makes no aminal
        ("c1ccccc1", []),
        ("O=c1cc[nH]cc1", ["O", "[nH]"]),  # an aromatic carbon is no part of a group
        ("*CC(*)O", ["O"]),
        ("[H]OC([H])=O", ["[H]OC[H]=O"]),
        ("[Na+].[Cl-]", ["[Na+]", "[Cl-]"]),
        ("[H][H]", []),
        ("CS(=O)(=O)N", ["S=O=ON"]),
    ],
)
def test_functional_groups_of_known_molecules(text, expected):
    assert words(text, "functional_group") == expected


def test_functional_groups_equal_the_rdkit_contribution_on_figure_1():
    ifg = pytest.importorskip("rdkit.Contrib.IFG.ifg")
    figure = (
        "Cc1nc(NS(=O)(=O)c2ccc(N)cc2)nc(C)c1 NC(=N)c1ccc(C=Cc2ccc(cc2O)C(=N)N)cc1 CC(=O)Nc1nnc(s1)S(=O)(=O)N "
        "NS(=O)(=O)c1cc2c(NCNS2(=O)=O)cc1Cl Cc1onc(c1C(=O)NC2C3SC(C)(C)C(N3C2=O)C(=O)O)c4ccccc4 "
        "COc1cc(cc(C(=O)NCC2CCCN2CC=C)c1OC)S(=O)(=O)N Cc1ccc(Cl)c(Nc2ccccc2C(=O)O)c1Cl "
        "Clc1ccc2Oc3ccccc3N=C(N4CCNCC4)c2c1 FC(F)(F)CN1C(=O)CN=C(c2ccccc2)c3cc(Cl)ccc13 OCC1OC(CC1O)n2cnc3C(O)CNC=Nc32 "
        "CC1CN(CC(C)N1)c2c(F)c(N)c3c(=O)c(cn(C4CC4)c3c2F)C(=O)O CC(=CCC1C(=O)N(N(C1=O)c2ccccc2)c3ccccc3)C"
    ).split()
    for text in figure:
        molecule = Chem.MolFromSmiles(text)
        theirs = {frozenset(group.atomIds) for group in ifg.identify_functional_groups(molecule)}
        assert {frozenset(group) for group in functional_groups(molecule)} == theirs


def murcko(molecule):
    """RDKit's decomposition, each atom known by a label."""
    for atom in molecule.GetAtoms():
        atom.SetIntProp("label", atom.GetIdx())
    return {atom.GetIntProp("label") for atom in Chem.MurckoDecompose(molecule).GetAtoms()}


SCAFFOLDS = (
    "CC=C1CCCC1",
    "C1CC1C(=CC)C1CC1CC",
    "O=S1(=O)CCC1",
    "CN(C)CC1CC(C#N)C1",
    "CCC",
    "OC1CC1.CCC1CC1",
    "C",
    "C1CC1",
)


@pytest.mark.parametrize("text", [*MOLECULES.values(), *SCAFFOLDS])
def test_the_scaffold_is_that_of_murcko(text):
    atoms = murcko(read(text))
    mapped = token_atoms(text)
    unit = [place for place, joined in enumerate(mapped) if joined and atoms.issuperset(joined)]
    assert molecule_units(text, "scaffold") == ([unit] if atoms else [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CCO", []),
        ("CC(C)O", ["(C)"]),
        ("CC(C(=O)O)(N)c1ccc(Cl)cc1", ["(C(=O)O)", "(=O)", "(N)", "(Cl)"]),
        ("C(C(C(C)C)C)C", ["(C(C(C)C)C)", "(C(C)C)", "(C)"]),
    ],
)
def test_branches_nest(text, expected):
    assert words(text, "branch") == expected


@pytest.mark.parametrize("text", ["C" * 4999, "C(" * 1600 + "C" + ")" * 1600, "C1CC1" * 900])
def test_long_molecules_take_seconds(text):
    started = time.perf_counter()
    molecule_units(text, "scaffold")
    assert time.perf_counter() - started < 30  # RDKit's decomposition takes minutes


def test_errors():
    with pytest.raises(MatfmError, match="'chain' is not a kind of unit; choose one of functional_group, ring"):
        molecule_units("CCO", "chain")
    with pytest.raises(MatfmError, match="is not a kind of unit"):
        selfies_units("[C]", "rings")
    with pytest.raises(MatfmError) as caught:
        molecule_units("CC(C", "branch")
    assert caught.value.reason
    with pytest.raises(MatfmError, match="valence"):
        token_atoms("C(C)(C)(C)(C)C")
    for text in ("", "CCO", "[Ring1]", 7):
        with pytest.raises(MatfmError):
            selfies_units(text, "ring")


@pytest.mark.parametrize(
    ("smiles", "kind", "expected"),
    [
        ("[Na+].CC(=O)Oc1ccccc1", "functional_group", ["[Na+1]", "[C][=O][O]"]),
        ("[Na+].CC(=O)Oc1ccccc1", "ring", ["[C][=C][C][=C][C][=C]"]),
        ("C1CCC2(CC1)OCCO2", "ring", ["[C][C][C][C][C][C]", "[C][O][C][C][O]"]),
        ("Cc1ccccc1O", "scaffold", ["[C][=C][C][=C][C][=C]"]),
        ("CC(C(=O)O)N", "branch", ["[Branch1][=Branch1][C][=Branch1][C][=O][O]", "[=Branch1][C][=O]"]),
    ],
)
def test_units_of_selfies(smiles, kind, expected):
    assert words(smiles_to_selfies(smiles), kind, selfies_units, split_selfies) == expected


def test_selfies_fragments_with_symbols_that_decode_to_nothing():
    text = "[nop][C][C][Ring1].[nop][Branch1].[nop][O][nop][C][=O]..[F][F][F]"
    assert words(text, "functional_group", selfies_units, split_selfies) == ["[C][C]", "[O][C][=O]", "[F][F]"]
    assert selfies_units(text, "functional_group")[1] == [9, 11, 12]


selfies_texts = st.lists(st.sampled_from(load_vocabulary("selfies")), min_size=1, max_size=40).map("".join)


def decoded(text):
    try:
        return selfies_to_smiles(text)
    except MatfmError:
        assume(False)


def element(token):
    """Symbol of an atom token, as the periodic table writes it."""
    return (
        re.search(r"[A-Za-z][a-z]?", token)[0] if token[0] != "[" else re.match(r"\[[0-9]*([A-Za-z][a-z]?)", token)[1]
    )


@settings(max_examples=200)
@given(selfies_texts, st.booleans())
def test_token_and_atom_have_the_same_element(text, canonical):
    smiles = decoded(text)
    if canonical:
        smiles = parse_smiles(smiles).canonical
    molecule, tokens, atoms = read(smiles), split_smiles(smiles), token_atoms(smiles)
    numbered = [(token, joined[0]) for token, joined in zip(tokens, atoms, strict=True) if len(joined) == 1]
    assert [atom for _, atom in numbered] == list(range(molecule.GetNumAtoms()))
    for token, atom in numbered:
        assert element(token).capitalize() == molecule.GetAtomWithIdx(atom).GetSymbol()
        assert element(token)[0].islower() == molecule.GetAtomWithIdx(atom).GetIsAromatic() or not canonical
    for token, joined in zip(tokens, atoms, strict=True):
        assert (not joined) == (token in "().")
        assert len(joined) < 2 or molecule.GetBondBetweenAtoms(*joined) is not None
    for kind in UNIT_KINDS:
        units = molecule_units(smiles, kind)
        assert units == sorted(units)
        assert all(unit == sorted(set(unit)) and unit[-1] < len(tokens) for unit in units)
    if not any("DATIVE" in bond.GetBondType().name for bond in molecule.GetBonds()):
        assert scaffold(molecule) == [atoms for atoms in [murcko(molecule)] if atoms]


@settings(max_examples=200)
@given(selfies_texts, st.data())
def test_symbol_and_atom_are_the_same_in_selfies(text, data):
    """Twin: mark one symbol with an isotope, and find the atom that has it."""
    smiles = decoded(text)
    symbols = split_selfies(text)
    groups = selfies_units(text, "functional_group")
    assume(groups)
    place = data.draw(st.sampled_from(sorted({place for group in groups for place in group})))
    marked = re.sub(r"\[([=#/\\]?)[0-9]*(.*)\]", r"[\g<1>99\2]", symbols[place])
    molecule = read(selfies_to_smiles("".join([*symbols[:place], marked, *symbols[place + 1 :]])))
    (found,) = (atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetIsotope() == 99)
    groups_of_atoms = functional_groups(read(smiles))
    ours = [len(group) for group in groups if place in group]
    assert ours == [len(group) for group in groups_of_atoms if found in group]
    for unit in selfies_units(text, "branch"):
        assert unit == [p for p in range(unit[0], unit[-1] + 1) if symbols[p] != "[nop]"]
        assert "Branch" in symbols[unit[0]]
