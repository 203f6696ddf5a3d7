"""Laws of formulas on random input."""

from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition

from matfm import MatfmError, parse_formula
from matfm.chem.composition_schemes import CLS, FIRST_ELEMENT, encode_fractions
from matfm.chem.elements import SYMBOLS

amounts = st.one_of(
    st.integers(1, 99).map(float), st.floats(0.001, 50).map(lambda x: round(x, 3)).filter(lambda x: x > 0)
)
compositions = st.dictionaries(st.sampled_from(SYMBOLS), amounts, min_size=1, max_size=8)


def written(composition):
    return "".join(f"{symbol}{amount:g}" for symbol, amount in composition.items())


@given(compositions)
def test_what_is_written_is_read_back(composition):
    parsed = parse_formula(written(composition)).amounts
    expected = {symbol: float(f"{amount:g}") for symbol, amount in composition.items()}
    assert parsed == expected


@given(compositions)
def test_agrees_with_pymatgen(composition):
    ours = parse_formula(written(composition)).fractions
    theirs = Composition(written(composition)).fractional_composition.get_el_amt_dict()
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[symbol] - theirs[symbol]) < 1e-9 for symbol in ours)


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


@given(compositions)
def test_tokens_are_elements_with_fractions_that_sum_to_one(composition):
    ids, fractions = encode_fractions(written(composition))
    assert ids[0] == CLS
    assert len(ids) == len(fractions) == len(composition) + 1
    assert {SYMBOLS[i - FIRST_ELEMENT] for i in ids[1:]} == set(composition)
    assert fractions[0] == 0.0
    assert abs(sum(fractions) - 1) < 1e-9


@given(st.text(max_size=60))
def test_any_text_gives_a_formula_or_a_matfm_error(text):
    try:
        formula = parse_formula(text)
    except MatfmError:
        pass
    else:
        assert formula.amounts
        assert all(amount > 0 for amount in formula.amounts.values())


@given(st.text(alphabet="FeOH2.5()[]{}+-·* ₂", max_size=40))
def test_text_made_of_formula_characters_gives_a_formula_or_a_matfm_error(text):
    try:
        parse_formula(text)
    except MatfmError:
        pass
