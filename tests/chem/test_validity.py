"""Validity: SMACT's answers on real formulas, brute force on small ones, and the definitions of the shares."""

import builtins
import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smact.screening import pauling_test, smact_validity

from matfm import MatfmError, read_formula
from matfm.chem.composition_groups import composition_group
from matfm.chem.composition_validity import (
    CHARGE_TOLERANCE,
    OXIDATION_STATES,
    charge_balance,
    charge_neutral,
    electronegativity_balanced,
    element_table,
)
from matfm.chem.molecule_validity import canonical_selfies, canonical_smiles, valid_molecule
from matfm.chem.reduced_composition import canonical_formula, whole_amounts
from matfm.chem.validity import ValidityCounter, Verdict, validity_check, validity_report

SAMPLE = (
    """
    Eu2ReO5 Rb3Tm RbIn5S6 AsPPt Ce2S3 CsTb9(Cd2Se9)2 TaF3 Tm2O3 Y4C7 YbTlS2 Cd(In15Te23)2 NdRh Na2Ti2Sb2O
    K2Ge3(BO5)2 YbSb VCu3(PO4)4 Cr10Sb3Te7 Ca(PrS2)2 Ga2S3 TlCuSe2 YbCuGe Ta2N Ba3(AlGe)2 CaEu2O3 U2Al3C4 TiAl
    RbCu2SbS3 Er6MnBi2 VFeRu2 EuPd USi3 In3Bi7(Pb2S9)2 NdInCu SrGe2 CeAlSi2 Ta7Cu3O19 KSc(SeO3)2 LiGeRh2 KCuSnS3
    EuSb4S7 Ba7(SnS3)5 LiMn9Se10 LiInS2 CsEr9(Cd2Se9)2 P2O5 Sm2Mn3(SbS3)4 La2PC K2Au(IO3)5 Na4Eu(GeS3)2 ScCd
    Bi2(MoO4)3 Ba2YGaTe5 BeSiOs2 CsBi3Se5 Pd(IO3)2 K3(FeS2)2 LiInSnS4 Na2VCuF7 EuB(SbO4)2 InSb2Se4Br
    Ba3La3(Cu3O7)2 YbSnTe2 CsZn4In5Te12 TbBRh3 Ce(MnSi)2 Ba2SmCu3O7 Zr5Sb3 Li5Mn6(BO3)6 K2MnSnSe4 ScNiSb
    V2Pb4(Se2O7)3 GaFeNi2 Li6Fe9CoO20 AlNi2 NaCdAsS3 Ca3Ti2(SiO4)3 Cs2Hg3S4 NbRu2Cl PrSm3 Ho(NiB)2 YCd4B3O10
    Ba2GdInSe5 HfAs2 Tm(NiGe)2 Ba3ThSe7 ZrO2 AgBiPbS3 NbCu3Se4 AgBiS2 U2Ti TmU2S3O2 In3Au10 SbTeI CeAl2Pt3 YbNd3
    Li4Cr3NiO8 LiCa2Mg CsMn4Ga5Te12 Ti4ZnO8 PrErMg2 Bi8Te7S5 CsIrO3 Cu11Sb4S13 Gd2(Zn2Ge)3 Dy2C LiInSn
    Al2(CuSe2)3 Li3Mn3WO8 ScCuO2 PdS2 TmMgCd2 DyZrRu2 Sr3Li4La5O12 MgSbPt Sn(PO3)3 Cs3NaZn2Ge21 CrSb2 CuSbPbS3
    Li7Ti7O16 Ba3Ta2ZnO9 K2Ta15O32 Fe4H15(IO8)3 Ti5Zn4(TeO6)3 TlS2 NaTa3 Ca3BiSb NiAgO2 Hf3P3Pd4 TlCr5Se7S
    Gd3(AlNi3)2 Ce2SiSeO4 ZrSe2 EuSn3 YCo2 CoSb3 La2VCoO6 CsGaS3 CsIr Tb3FeB7 SrIn2 CrCoPt2 LaTaN2O InAgTe2
    Mg(FeS2)2 Sc2CuRu HoAlAu2 Yb23Mg4Cu7 TlNi La2CuO4 Tb2O3 YSbPd CsMnSb KIn(TeO3)2 Cs2Mo15S19 TmCoSi2
    VBi(SeO4)2 La(SiOs)2 Li23(MnAs)20 Sb5IO7 Ga4Cu2Te7 Na8PO3 Nd4(GeS4)3 Li17Ti20O40 Tl2Cu2SnS4 EuSnAu2 Mn2GaW
    ScGe2 ErHg2 Ta2Tl4S11 SbTeOs Na2Cl Na2Si2Hg3S8 K2Sn(AuS2)2 Cr2HgSe4 Ba2GdGaTe5 Li2ZnGe K2Ge2PbS6 Cs5Mo21Se23
    SmS CdPd AgBr Sr3Sb2 Cr2HO4 Nd2CdIn Tm(CoSi)2 LiCuPO4 YCdPt2 Ge3Sb Hg3Bi2(SCl4)2 Cu9O13 Bi2(BO3)3 RbNa2NiO2
    Te2Pd3 Ag2GeS3 CsInTe2 Sm(CuTe)3 VPO4 YbZnAu2 Ho(SiPd)2 Sm3OsO7
"""
).split()
"""200 formulas with whole amounts, drawn from Matbench expt_gap (Zhuo et al. 2018)."""

DECIMAL = (
    "Zn0.6Ga0.4As0.4Se0.6 Gd1.05Sc0.95Se3 Ge0.01Te1Pb0.99 Cd0.03In0.97Te0.03As0.97 Ga1.05Sb0.95Te0.15 La3Si1Sb0.33S7 "
    "Li4.5Mn0.5Te1O6 Cs2La1.19Bi8.81S16 Sn0.28Te0.28Pb0.72Se0.72 Si0.4Ge0.6 In1Ga1Cu1S3.5 Al0.2In0.8P1 YBa2Cu3O6.93 "
    "Ag0.5Ge1Pb1.75S4 Ba(Zr0.1Ti0.9)O3 Bi0.667O1 La0.7Sr0.3MnO3"
).split()


@pytest.mark.parametrize("states", OXIDATION_STATES)
@pytest.mark.parametrize("alloys", [True, False])
def test_smact_says_the_same_of_real_formulas(states, alloys):
    for formula in SAMPLE:
        found = charge_balance(formula, states, alloys=alloys)
        smact = [
            smact_validity(formula, use_pauling_test=test, include_alloys=alloys, oxidation_states_set=states)
            for test in (False, True)
        ]
        assert [found.charge_neutral, found.electronegativity_balanced] == smact, formula


def test_mixed_valence_adds_only_what_smact_adds():
    short = [formula for formula in SAMPLE if sum(read_formula(formula).amounts.values()) < 9]
    added = [f for f in short if charge_balance(f, mixed_valence=True).charge_neutral and not charge_neutral(f)]
    for formula in [*added, "Fe3O4", "Mn3O4", "Co3O4"]:
        assert electronegativity_balanced(formula, mixed_valence=True)
        assert smact_validity(formula, mixed_valence=True, oxidation_states_set="icsd24"), formula


def brute_force(formula):
    """All products of known states: neutral ones, and those among them that pass SMACT's Pauling test."""
    elements, counts = element_table("icsd24"), whole_amounts(formula)
    whole = all(amount.is_integer() for amount in formula.amounts.values())
    tolerance = 0 if whole else int(CHARGE_TOLERANCE * sum(counts.values()))
    values = [elements.electronegativity.get(symbol) for symbol in counts]
    neutral = [
        states
        for states in product(*(elements.states.get(symbol, ()) for symbol in counts))
        if abs(sum(n * state for n, state in zip(counts.values(), states, strict=True))) <= tolerance
    ]
    return bool(neutral), any(pauling_test(states, values) for states in neutral)


SYMBOLS = "H He B C N O F Na Al Si P S Cl K Ti Fe Cu Ga Kr Pd Sn Te I La Pm W Pb U Rf".split()
amounts = st.one_of(st.integers(1, 12).map(float), st.floats(0.01, 3).map(lambda x: max(0.01, round(x, 2))))
compositions = st.dictionaries(st.sampled_from(SYMBOLS), amounts, min_size=2, max_size=4)


def written(composition):
    return "".join(f"{symbol}{amount:g}" for symbol, amount in composition.items())


@given(compositions)
def test_the_search_finds_what_brute_force_finds(composition):
    formula = read_formula(written(composition))
    found = charge_balance(formula, alloys=False)
    assert (found.charge_neutral, found.electronegativity_balanced) == brute_force(formula)


@given(compositions, st.booleans())
def test_the_assignment_proves_the_answer(composition, mixed):
    elements, formula = element_table("icsd24"), read_formula(written(composition))
    found = charge_balance(formula, alloys=False, mixed_valence=mixed)
    assert (found.states is not None) == found.charge_neutral >= found.electronegativity_balanced
    assert (found.reason is None) == found.electronegativity_balanced
    if found.states is None:
        return
    assert found.states.keys() == formula.amounts.keys()
    total = sum(amount * found.states[symbol] for symbol, amount in formula.fractions.items())
    whole = all(amount.is_integer() for amount in formula.amounts.values())
    assert abs(total) <= (1e-9 if whole else CHARGE_TOLERANCE + 1e-9)
    shared = [symbol for symbol, state in found.states.items() if state not in elements.states[symbol]]
    assert len(shared) <= mixed
    assert set(shared) <= elements.mixed
    if found.electronegativity_balanced:
        cations = [elements.electronegativity[symbol] for symbol, state in found.states.items() if state > 0]
        anions = [elements.electronegativity[symbol] for symbol, state in found.states.items() if state < 0]
        assert max(cations, default=0) < min(anions, default=9)


@given(compositions, st.integers(2, 9), st.randoms(use_true_random=False))
def test_multiples_and_order_change_nothing(composition, factor, random):
    whole = {symbol: round(amount) or 1 for symbol, amount in composition.items()}
    items = [(symbol, factor * amount) for symbol, amount in whole.items()]
    random.shuffle(items)
    one, other = charge_balance(written(whole)), charge_balance(written(dict(items)))
    assert (one.charge_neutral, one.electronegativity_balanced, one.states) == (
        other.charge_neutral, other.electronegativity_balanced, other.states,
    )  # fmt: skip
    assert canonical_formula(written(whole)) == canonical_formula(written(dict(items)))


@pytest.mark.parametrize(
    ("formula", "states"),
    [
        ("Fe2O3", {"Fe": 3, "O": -2}), ("NaCl", {"Na": 1, "Cl": -1}), ("BaTiO3", {"Ba": 2, "Ti": 4, "O": -2}),
        ("Fe", {"Fe": 0}), ("He", {"He": 0}), ("FeNi3", {"Fe": 0, "Ni": 0}), ("Ba(Zr0.1Ti0.9)O3", {"Ba": 2, "Zr": 4, "Ti": 4, "O": -2}),
        ("Bi0.667O1", {"Bi": 3, "O": -2}), ("LiCoO2", {"Li": 1, "Co": 3, "O": -2}),
    ],
)  # fmt: skip
def test_known_assignments(formula, states):
    assert charge_balance(formula).states == states


@pytest.mark.parametrize(
    ("formula", "neutral", "reason"),
    [
        ("NaCl2", False, "no combination"), ("Fe3O4", False, "no combination"), ("YBa2Cu3O6.93", False, "no combination"),
        ("HeO", False, "no oxidation state of He is known"), ("RfO2", False, "no oxidation state of Rf is known"),
        ("SO4(2-)", False, "an ion of charge -2"), ("Fe3+", False, "an ion of charge +3"), ("As2Ir", True, "every neutral combination"),
        ("Bi0.67O1", False, "no combination"),
    ],
)  # fmt: skip
def test_reasons(formula, neutral, reason):
    found = charge_balance(formula)
    assert (found.charge_neutral, found.electronegativity_balanced) == (neutral, False)
    assert found.reason.startswith(reason)


def test_an_unknown_electronegativity_leaves_neutrality():
    found = charge_balance("Pm2O3", "smact14")
    assert (found.charge_neutral, found.electronegativity_balanced) == (True, False)
    assert found.reason == "the electronegativity of Pm is not known"
    assert smact_validity("Pm2O3", use_pauling_test=False, oxidation_states_set="smact14")
    assert not smact_validity("Pm2O3", oxidation_states_set="smact14")


def test_mixed_valence_is_shared_between_neighbouring_states():
    states = charge_balance("Fe3O4", mixed_valence=True).states
    assert states["Fe"] == pytest.approx(8 / 3)
    assert electronegativity_balanced("YBa2Cu3O6.93", mixed_valence=True)
    assert charge_balance("Pb3O4", mixed_valence=True).states is None  # lead is not in SMACT's list


def test_alloys_are_a_choice():
    assert electronegativity_balanced("CuZn")
    assert not charge_neutral("CuZn", alloys=False)
    assert electronegativity_balanced("Cu", alloys=False)


def test_decimal_amounts_are_not_cut_to_whole_ones():
    """SMACT turns amounts into integers by cutting (O6.93 is O6, P0.1 is none), so it has no answer here."""
    assert electronegativity_balanced("Al0.2In0.8P1")
    assert not smact_validity("Al0.2In0.8P1", oxidation_states_set="icsd24")
    with pytest.raises(ZeroDivisionError):
        smact_validity("Zn0.9Ga0.1P0.1Se0.9", oxidation_states_set="icsd24")
    for formula in DECIMAL:
        found = charge_balance(formula, alloys=False)
        assert (found.charge_neutral, found.electronegativity_balanced) == brute_force(read_formula(formula))


def test_many_elements_and_large_numbers_are_fast():
    elements = "Li Na K Rb Cs Mg Ca Sr Ba La Ti Fe Cu O".split()
    slow = {
        "whole": {symbol: number + 1 for number, symbol in enumerate(elements)},
        "decimal": {symbol: round(0.0317 * (number + 1.37), 4) for number, symbol in enumerate(elements)},
        "large": {symbol: 10**8 + 7919 * number for number, symbol in enumerate(elements)},
    }
    for composition in slow.values():
        text = "".join(f"{symbol}{amount}" for symbol, amount in composition.items())
        charge_balance(text)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            charge_balance(text)
            times.append(time.perf_counter() - started)
        assert min(times) < 0.05


def test_unknown_sets_and_missing_smact_are_sentences(monkeypatch):
    with pytest.raises(MatfmError, match="oxidation_states is 'wiki'; choose one of icsd24, icsd16"):
        charge_neutral("Fe", "wiki")
    real = builtins.__import__

    def without_smact(name, *arguments, **options):
        if name.startswith("smact"):
            raise ModuleNotFoundError("No module named 'smact'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_smact)
    element_table.cache_clear()
    with pytest.raises(MatfmError, match=r"needs smact.*pip install matfm\[validity\]"):
        validity_check("composition")
    assert validity_report(["CCO"], "smiles").valid == 1


@given(compositions)
def test_canonical_formulas_are_canonical(composition):
    text = canonical_formula(written(composition))
    assert canonical_formula(text) == text
    assert read_formula(text).amounts == whole_amounts(read_formula(text))
    assert composition_group(text) == composition_group(written(composition))


def test_formulas_of_one_composition_have_one_canonical_text():
    same = ("Fe0.4O0.6", "O3Fe2", "(FeO1.5)2", "Fe4O6", "Fe0.66666667O", "Fe200000000O300000000", "Fe2O3 (s)")
    assert {canonical_formula(text) for text in same} == {"Fe2O3"}
    assert canonical_formula("CH3CH2OH") == "C2H6O"
    assert canonical_formula("D2O") == canonical_formula("H2O") == "H2O"
    assert canonical_formula("Fe1e-9O") == "FeO1000000"
    assert canonical_formula("YBa2Cu3O6.93") == "Ba200Cu300O693Y100"


def test_molecules():
    assert valid_molecule("CCO")
    assert not valid_molecule("c1ccnc1")
    assert not valid_molecule("C(C)(C)(C)(C)C")
    assert valid_molecule("[C][C][O]", selfies=True)
    assert not valid_molecule("CCO", selfies=True)
    assert canonical_smiles("OCC") == canonical_smiles("[CH3:1]CO") == canonical_selfies("[C][C][O]") == "CCO"


TEXTS = ["Fe2O3", "Fe4O6", "Xx", "NaCl", "", "NaCl2", "NaCl", "MgO"]


def test_the_shares_are_those_of_moses():
    report = validity_report(iter(TEXTS), "composition", reference=["ClNa"])
    assert (report.n, report.n_valid, report.n_unique, report.n_novel) == (8, 6, 4, 3)
    assert (report.valid, report.unique, report.novelty) == (6 / 8, 4 / 6, 3 / 4)
    assert (report.charge_neutral, report.electronegativity_balanced) == (5 / 8, 5 / 8)
    assert [(found.row, found.text) for found in report.invalid] == [(2, "Xx"), (4, "")]
    assert "is not a chemical element" in report.invalid[0].reason
    assert report.summary() == {
        "n": 8, "n_valid": 6, "n_unique": 4, "n_novel": 3, "valid": 6 / 8, "unique@10k": 4 / 6, "novelty": 3 / 4,
        "charge_neutral": 5 / 8, "electronegativity_balanced": 5 / 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("k", "unique", "name"),
    [(1, 1, "unique@1"), (2, 1 / 2, "unique@2"), (3, 2 / 3, "unique@3"), (2000, 4 / 6, "unique@2k")],
)
def test_unique_at_k_looks_at_the_first_valid_ones(k, unique, name):
    report = validity_report(TEXTS, "composition", k=k)
    assert report.unique == unique == report.summary()[name]
    assert report.n_unique == 4


def moses(texts, reference, k):
    """The definitions as MOSES computes them, from a list."""
    canonical = [canonical_smiles(text) for text in texts if valid_molecule(text)]
    first = canonical[:k]
    return (
        len(canonical) / len(texts),
        len(set(first)) / len(first),
        len(set(canonical) - reference) / len(set(canonical)),
    )


@given(
    st.lists(st.sampled_from(["C", "CC", "OC", "CO", "c1ccccc1", "C1=CC=CC=C1", "C(", "", "[CH4]"]), min_size=1),
    st.integers(1, 6),
)
def test_one_pass_counts_what_lists_count(texts, k):
    texts = ["C", *texts]
    report = validity_report(texts, "smiles", reference={"CC", "c1ccccc1"}, k=k)
    assert (report.valid, report.unique, report.novelty) == moses(texts, {"CC", "c1ccccc1"}, k)
    assert report.charge_neutral is None
    assert "charge_neutral" not in report.summary()


def test_nothing_to_share_is_none():
    empty = validity_report([], "composition", reference=[])
    assert empty.summary() == {
        "n": 0, "n_valid": 0, "n_unique": 0, "n_novel": 0, "valid": None, "unique@10k": None, "novelty": None,
        "charge_neutral": None, "electronegativity_balanced": None,
    }  # fmt: skip
    bad = validity_report(["Xx"], "composition")
    assert (bad.valid, bad.unique, bad.novelty, bad.charge_neutral) == (0, None, None, 0)


def test_invalid_ones_are_kept_up_to_a_limit_and_counted():
    counter = ValidityCounter("smiles", keep=3)
    for row in range(10):
        counter.add(f"bad {row}", Verdict(error="why"))
    report = counter.report()
    assert report.n - report.n_valid == 10
    assert [found.row for found in report.invalid] == [0, 1, 2]


def test_wrong_arguments():
    with pytest.raises(MatfmError, match="kind is 'formula'; choose one of composition, smiles, selfies"):
        validity_report([], "formula")
    with pytest.raises(MatfmError, match="k is 0"):
        validity_report([], "smiles", k=0)
