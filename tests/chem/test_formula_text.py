"""Amounts and formulas as text; the periodic data they use."""

import math
import warnings

import pytest
from pymatgen.core import Element

from matfm import MatfmError, parse_formula
from matfm.chem.elements import PAULING, SYMBOLS, TEMPORARY_SYMBOLS
from matfm.chem.formula_text import ORDERS, format_amount, formula_text, order_symbols, reduced_amounts


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (9e-05, "0.00009"),
        (2.0, "2"),
        (10.0, "10"),
        (0.30000000000000004, "0.3"),
        (6.93, "6.93"),
        (1 / 3, "0.333333333333"),
        (1e22, "10000000000000000000000"),
        (1e-7, "0.0000001"),
        (123456789012345.0, "123456789012000"),
        (0.0, "0"),
        (-0.5, "-0.5"),
        (3, "3"),
    ],
)
def test_amounts_have_no_exponent(amount, text):
    assert format_amount(amount) == text


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
def test_amounts_are_finite(amount):
    with pytest.raises(MatfmError, match="must be finite"):
        format_amount(amount)


@pytest.mark.parametrize(
    ("symbols", "order", "expected"),
    [
        ("O H C Br", "written", "O H C Br"),
        ("O H C Br", "hill", "C H Br O"),
        ("O H Br", "hill", "Br H O"),
        ("S O Cu H", "alphabetical", "Cu H O S"),
        ("O Fe", "electronegativity", "Fe O"),
        ("O Ne He Pd B", "electronegativity", "B Pd O He Ne"),
        ("Rh Pt", "electronegativity", "Pt Rh"),
    ],
)
def test_orders(symbols, order, expected):
    assert order_symbols(symbols.split(), order) == expected.split()


def test_an_unknown_order_is_an_error():
    with pytest.raises(MatfmError, match=f"choose one of {', '.join(ORDERS)}"):
        order_symbols(["Fe"], "random")


def test_formula_text():
    amounts = {"O": 3.0, "Fe": 2.0, "C": 1.0}
    assert [formula_text(amounts, order) for order in ORDERS] == ["O3Fe2C", "CFe2O3", "Fe2CO3", "CFe2O3"]


@pytest.mark.parametrize("charge", ["", "(2-)"])
def test_a_text_is_never_mistaken_for_a_hydrate(charge):
    formula = parse_formula(f"SN4.5H2O1{charge}")
    assert str(formula) == f"SN4.5H2O1{charge}"
    assert parse_formula(str(formula)) == formula


@pytest.mark.parametrize(
    ("amounts", "reduced"),
    [
        ({"Fe": 4, "O": 6}, {"Fe": 2, "O": 3}),
        ({"Fe": 0.4, "O": 0.6}, {"Fe": 2, "O": 3}),
        ({"Fe": 1 / 3, "O": 2 / 3}, {"Fe": 1, "O": 2}),
        ({"Y": 1, "Ba": 2, "Cu": 3, "O": 6.93}, {"Y": 100, "Ba": 200, "Cu": 300, "O": 693}),
        ({"Fe": 0.37}, {"Fe": 1}),
        ({"Fe": 1e-300, "O": 2e-300}, {"Fe": 1, "O": 2}),
        ({"Fe": 1e-5, "Ni": 1 - 1e-5}, {"Fe": 1e-5, "Ni": 1 - 1e-5}),
        ({"Fe": 1, "Ni": 20_001}, {"Fe": 1 / 20_002, "Ni": 20_001 / 20_002}),
    ],
)
def test_reduced_amounts(amounts, reduced):
    assert reduced_amounts(amounts) == pytest.approx(reduced, rel=1e-12)


def test_the_limit_bounds_the_counts():
    assert reduced_amounts({"Fe": 7, "O": 13}, limit=13) == {"Fe": 7, "O": 13}
    assert reduced_amounts({"Fe": 7, "O": 13}, limit=12) == {"Fe": 0.35, "O": 0.65}


@pytest.mark.parametrize(
    ("text", "written", "reduced"),
    [
        ("Ag(AuS)2", "AgAu2S2", "AgAu2S2"),
        ("O6Fe4", "O6Fe4", "Fe2O3"),
        ("Fe0.00009Ni0.99991", "Fe0.00009Ni0.99991", "Fe0.00009Ni0.99991"),
        ("SO₄²⁻ (aq)", "SO4(2-)(aq)", "SO4"),
        ("Na+", "Na(1+)", "Na"),
        ("TiO2(s)", "TiO2(s)", "TiO2"),
    ],
)
def test_str_and_reduced(text, written, reduced):
    assert str(parse_formula(text)) == written
    assert parse_formula(text).reduced == reduced


def test_electronegativities_are_those_of_pymatgen():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {symbol: Element(symbol).X for symbol in SYMBOLS}
    assert {symbol: value for symbol, value in theirs.items() if not math.isnan(value)} == PAULING


def test_temporary_symbols_have_names():
    assert set(TEMPORARY_SYMBOLS.values()) <= set(SYMBOLS)
    assert (TEMPORARY_SYMBOLS["Uub"], TEMPORARY_SYMBOLS["Uuo"]) == ("Cn", "Og")
