"""Laws of formulas on random input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition
from rdkit import Chem

from matfm import MatfmError, parse_formula, read_formula
from matfm.chem.composition_schemes import CLS, FIRST_ELEMENT, encode_fractions
from matfm.chem.elements import SYMBOLS
from matfm.chem.formula import Formula
from matfm.chem.formula_grammar import read_general
from matfm.chem.formula_text import ORDERS, format_amount, formula_text, reduced_amounts

amounts = st.one_of(
    st.integers(1, 99).map(float), st.floats(0.001, 50).map(lambda x: round(x, 3)).filter(lambda x: x > 0)
)
compositions = st.dictionaries(st.sampled_from(SYMBOLS), amounts, min_size=1, max_size=8)
any_amounts = st.one_of(amounts, st.floats(1e-9, 1e9), st.floats(min_value=5e-324, allow_infinity=False))
any_compositions = st.dictionaries(st.sampled_from([*"HHOONS", *SYMBOLS]), any_amounts, min_size=1, max_size=8)
charges = st.integers(-9, 9)
phases = st.sampled_from([None, "aq", "s", "l", "g", "cr", "am"])

factors = st.one_of(st.just(""), st.integers(2, 9).map(str), st.sampled_from(["0.5", "1.25", "12"]))
groups = st.recursive(
    st.tuples(st.sampled_from(SYMBOLS), factors).map("".join),
    lambda inner: st.tuples(
        st.lists(inner, min_size=1, max_size=4).map("".join), st.sampled_from(["()", "[]", "{}"]), factors
    ).map(lambda parts: f"{parts[1][0]}{parts[0]}{parts[1][1]}{parts[2]}"),
    max_leaves=8,
)
nested = st.lists(groups, min_size=1, max_size=3).map("".join)

formula_like = st.text(alphabet="FeOHDTUubSrxδ2.5()[]{}+-·* ₂²⁺,;:/%wtabl\n", max_size=40)


def written(composition):
    return "".join(f"{symbol}{amount:g}" for symbol, amount in composition.items())


def outcome(text, **options):
    """The formula, or the MatfmError that stands for it; any other exception fails the test."""
    try:
        return read_formula(text, **options)
    except MatfmError as error:
        return error


@given(compositions)
def test_what_is_written_is_read_back(composition):
    parsed = parse_formula(written(composition)).amounts
    expected = {symbol: float(f"{amount:g}") for symbol, amount in composition.items()}
    assert parsed == expected


@given(any_compositions, charges, phases)
def test_str_is_read_back(composition, charge, phase):
    rounded = {symbol: float(f"{amount:.12g}") for symbol, amount in composition.items()}
    formula = Formula("", rounded, charge, phase)
    again = outcome(str(formula))
    if isinstance(again, MatfmError):
        assert "too far apart" in again.reason
        assert max(rounded.values()) > 1e300 * min(rounded.values()) or max(rounded.values()) > 1e307
    else:
        assert again.amounts == rounded
        assert list(again.amounts) == list(rounded)
        assert (again.charge, again.phase) == (charge, phase)
        assert str(again) == str(formula)


@given(any_amounts)
def test_amounts_are_written_short_and_without_exponent(amount):
    text = format_amount(amount)
    assert float(text) == float(f"{amount:.12g}")
    assert set(text) <= set("0123456789.")


@given(compositions, st.sampled_from(ORDERS))
def test_every_order_writes_the_same_composition(composition, order):
    assert read_formula(formula_text(composition, order)).amounts == composition


@given(compositions, st.floats(0.01, 100))
def test_reduced_amounts_keep_the_ratios_whatever_the_scale(composition, scale):
    reduced = reduced_amounts(composition)
    total, whole = sum(reduced.values()), sum(composition.values())
    for symbol, amount in composition.items():
        assert reduced[symbol] / total == pytest.approx(amount / whole, rel=3e-6)
    counts = {symbol: amount for symbol, amount in composition.items() if amount == round(amount)}
    if counts:
        scaled = reduced_amounts({symbol: amount * scale for symbol, amount in counts.items()})
        assert scaled == reduced_amounts(counts)
        assert all(amount == round(amount) for amount in scaled.values())


@given(compositions)
def test_agrees_with_pymatgen(composition):
    assert_same_fractions(written(composition))


@given(nested)
def test_brackets_agree_with_pymatgen(text):
    result = outcome(text)
    if isinstance(result, MatfmError):
        assert "an oxidation state" in result.reason
    else:
        assert_same_fractions(text)


def assert_same_fractions(text):
    ours = read_formula(text).fractions
    theirs = Composition(text).fractional_composition.get_el_amt_dict()
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[symbol] - theirs[symbol]) < 1e-9 for symbol in ours)


@given(nested)
def test_the_fast_reading_equals_the_careful_one(text):
    result = outcome(text)
    if isinstance(result, Formula):
        careful = read_general(text, "hydrogen", {})
        assert (result.amounts, result.warnings) == (careful.amounts, careful.warnings)
        assert list(result.amounts) == list(careful.amounts)


@given(compositions, st.randoms(use_true_random=False))
def test_order_does_not_matter(composition, random):
    items = list(composition.items())
    random.shuffle(items)
    ours, shuffled = parse_formula(written(composition)).fractions, parse_formula(written(dict(items))).fractions
    assert ours.keys() == shuffled.keys()
    assert all(abs(ours[symbol] - shuffled[symbol]) < 1e-12 for symbol in ours)


@given(compositions, st.integers(2, 9))
def test_a_bracket_multiplies(composition, factor):
    whole = parse_formula(f"({written(composition)}){factor}").amounts
    assert whole == {s: a * factor for s, a in parse_formula(written(composition)).amounts.items()}


@given(compositions, compositions, st.integers(2, 12))
def test_a_dot_adds(one, other, count):
    text = f"{written(one)}·{count}{written(other)}"
    assert read_formula(text).amounts == pytest.approx(read_formula(f"{written(one)}({written(other)}){count}").amounts)


@given(st.floats(0, 1).map(lambda x: round(x, 4)))
def test_a_variable_stands_for_its_number(x):
    text = "La{}Sr{}MnO{}"
    expected = text.format(*(format_amount(round(amount, 4)) for amount in (1 - x, x, 3 - x / 2)))
    if 0 < x < 1:
        assert parse_formula("La1-xSrxMnO3-x/2", variables={"x": x}).amounts == pytest.approx(
            parse_formula(expected).amounts, abs=1e-4
        )
    assert set(parse_formula("La1-xSrxMnO3", variables={"x": x}).amounts) >= {"Mn", "O"}


@given(st.dictionaries(st.sampled_from(SYMBOLS), st.floats(0.001, 1), min_size=1, max_size=8), st.booleans())
def test_weight_percent_come_back(weights, with_balance):
    total = sum(weights.values())
    percents = {symbol: 100 * weight / total for symbol, weight in weights.items()}
    items = [f"{symbol} {format_amount(percent)} wt%" for symbol, percent in percents.items()]
    if with_balance and len(items) > 1:
        items[-1] = f"{list(percents)[-1]} bal."
    amounts = parse_formula(", ".join(items)).amounts
    assert list(amounts) == list(percents)
    assert abs(sum(amounts.values()) - 100) < 1e-9
    table = Chem.GetPeriodicTable()
    masses = {symbol: amount * table.GetAtomicWeight(symbol) for symbol, amount in amounts.items()}
    for symbol, mass in masses.items():
        assert abs(mass / sum(masses.values()) - weights[symbol] / total) < 1e-9


@given(compositions)
def test_tokens_are_elements_with_fractions_that_sum_to_one(composition):
    ids, fractions = encode_fractions(written(composition))
    assert ids[0] == CLS
    assert len(ids) == len(fractions) == len(composition) + 1
    assert {SYMBOLS[i - FIRST_ELEMENT] for i in ids[1:]} == set(composition)
    assert fractions[0] == 0.0
    assert abs(sum(fractions) - 1) < 1e-9


@given(st.one_of(st.text(max_size=60), formula_like, nested), st.sampled_from([None, {}, {"x": 0.5, "b": 0}]))
def test_any_text_gives_a_formula_or_a_matfm_error(text, variables):
    formula = outcome(text, variables=variables)
    if isinstance(formula, MatfmError):
        assert formula.reason
        assert formula.text == text.strip()
        assert formula.position is None or 0 <= formula.position <= len(formula.text)
    else:
        assert formula.amounts
        assert all(amount > 0 for amount in formula.amounts.values())
        assert all(fraction > 0 for fraction in formula.fractions.values())
        assert read_formula(str(formula)).amounts == pytest.approx(formula.amounts, rel=1e-11)
        assert read_formula(formula.text, variables=variables).amounts == formula.amounts
