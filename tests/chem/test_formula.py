"""The formula parser on hard cases, and its errors."""

import pytest

from matfm import MatfmError, parse_formula


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("Fe2O3", {"Fe": 2, "O": 3}),
        ("CO", {"C": 1, "O": 1}),
        ("Co", {"Co": 1}),
        ("NaN", {"Na": 1, "N": 1}),
        ("No", {"No": 1}),
        ("Ba(Zr0.1Ti0.9)O3", {"Ba": 1, "Zr": 0.1, "Ti": 0.9, "O": 3}),
        ("K4[Fe(CN)6]", {"K": 4, "Fe": 1, "C": 6, "N": 6}),
        ("{[Fe(CN)6]2}3", {"Fe": 6, "C": 36, "N": 36}),
        ("CuSO4·5H2O", {"Cu": 1, "S": 1, "O": 9, "H": 10}),
        ("CaSO4·0.5H2O", {"Ca": 1, "S": 1, "O": 4.5, "H": 1}),
        ("Na2CO3 * 10H2O", {"Na": 2, "C": 1, "O": 13, "H": 20}),
        ("Fe₂O₃", {"Fe": 2, "O": 3}),
        ("Al1e-3Fe0.999", {"Al": 1e-3, "Fe": 0.999}),
        ("T2O", {"H": 2, "O": 1}),
        (" Fe2 O3 ", {"Fe": 2, "O": 3}),
        ("Fe2O3Fe2O3", {"Fe": 4, "O": 6}),
        ("Na.5Cl.5", {"Na": 0.5, "Cl": 0.5}),
    ],
)
def test_accepts(text, amounts):
    assert parse_formula(text).amounts == pytest.approx(amounts)


@pytest.mark.parametrize(
    ("text", "charge", "phase", "amounts"),
    [
        ("Fe3+", 3, None, {"Fe": 1}),
        ("Na+", 1, None, {"Na": 1}),
        ("SO4(2-)", -2, None, {"S": 1, "O": 4}),
        ("SO₄²⁻", -2, None, {"S": 1, "O": 4}),
        ("Cl-(aq)", -1, "aq", {"Cl": 1}),
        ("TiO2(s)", 0, "s", {"Ti": 1, "O": 2}),
    ],
)
def test_charge_and_phase_are_attributes_not_amounts(text, charge, phase, amounts):
    formula = parse_formula(text)
    assert (formula.charge, formula.phase, formula.amounts) == (charge, phase, amounts)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("XxO2", 0, "'Xx' is not a chemical element"),
        ("FeDxO", 2, "'Dx' is not a chemical element"),
        ("fe2o3", 0, "symbols begin with a capital letter"),
        ("Fe(OH", 2, "never closed"),
        ("H2O)", 3, "was not opened"),
        ("Fe(OH]2", 5, "was not opened"),
        ("Ca()2", 3, "holds no element"),
        ("O2Fe0.0", 4, "not a positive finite number"),
        ("Fe1e999", 2, "not a positive finite number"),
        ("2", 0, "follows no element"),
        ("", 0, "empty"),
        ("nan", 0, "missing value"),
        ("Y1Ba2Cu3O7-x", 10, "has no meaning"),
        ("Fe-1O2", 2, "has no meaning"),
        ("SiO2:Eu", 4, "has no meaning"),
        ("SO42-", 2, "put the charge in brackets"),
        ("CuSO4·XxO", 6, "'Xx' is not a chemical element"),
    ],
)
def test_rejects_with_position_and_reason(text, position, reason):
    with pytest.raises(MatfmError) as caught:
        parse_formula(text)
    assert caught.value.text == text
    assert caught.value.position == position
    assert reason in caught.value.reason


def test_a_long_text_is_shown_around_the_position_only():
    text = "Fe2O3" * 2000 + "Xx"
    with pytest.raises(MatfmError) as caught:
        parse_formula(text)
    assert caught.value.position == 10_000
    assert "Xx" in str(caught.value)
    assert len(str(caught.value)) < 200
    assert caught.value.caret().endswith("^")


def test_fractions_sum_to_one():
    assert parse_formula("Ba(Zr0.1Ti0.9)O3").fractions == pytest.approx({"Ba": 0.2, "Zr": 0.02, "Ti": 0.18, "O": 0.6})


def test_numbers_that_are_not_text_are_refused():
    with pytest.raises(MatfmError, match="a formula is text"):
        parse_formula(3.5)
