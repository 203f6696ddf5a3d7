"""The constraint of compositions against brute force: exactly the tokens that can still be completed."""

from itertools import combinations, product

import numpy as np
import pytest

from matfm import CompositionTokenizer, MatfmError
from matfm.chem.composition_constraint import CompositionConstraint, CompositionRules
from matfm.chem.composition_validity import charge_neutral
from matfm.chem.formula_text import formula_text, order_symbols

TOKENIZER = CompositionTokenizer(scheme="count", order="electronegativity")
VOCABULARY = TOKENIZER.get_vocab()
END = TOKENIZER.sep_token_id
WORDS = {index: token for token, index in VOCABULARY.items()}


def constraint(**rules):
    return CompositionConstraint(CompositionRules(**rules), VOCABULARY, "electronegativity", END)


def all_compositions(rules):
    """Every composition that keeps the rules, as tokens."""
    symbols = order_symbols(rules.elements, "electronegativity")
    found = set()
    for count in range(rules.fewest_elements, rules.most_elements + 1):
        for chosen in combinations(symbols, count):
            for amounts in product(range(1, rules.most_atoms + 1), repeat=count):
                formula = dict(zip(chosen, map(float, amounts), strict=True))
                if sum(amounts) > rules.most_atoms or not set(rules.required) <= set(chosen):
                    continue
                text = formula_text(formula)
                if rules.charge_neutral and not charge_neutral(text, rules.oxidation_states, alloys=rules.alloys):
                    continue
                found.add(tuple(token for pair in zip(chosen, map(str, amounts), strict=True) for token in pair))
    return found


RULES = [
    CompositionRules(("Li", "Fe", "O"), most_elements=3, most_atoms=7, charge_neutral=True),
    CompositionRules(("Li", "Fe", "O"), most_elements=3, most_atoms=6, charge_neutral=True, alloys=False),
    CompositionRules(("Na", "Cl", "S", "He"), ("Cl",), 2, 3, 6, charge_neutral=True),
    CompositionRules(("Ti", "O", "N", "H"), ("O", "N"), 2, 4, 5, charge_neutral=True, oxidation_states="smact14"),
    CompositionRules(("C", "Ne", "K"), (), 1, 2, 4),
    CompositionRules(("C", "Ne", "K"), ("Ne",), 2, 3, 4),
]


@pytest.mark.parametrize("rules", RULES)
def test_allows_exactly_the_beginnings_of_right_compositions(rules):
    every = all_compositions(rules)
    assert every
    automaton = CompositionConstraint(rules, VOCABULARY, "electronegativity", END)
    following = {}
    for tokens in every:
        for place in range(len(tokens) + 1):
            next_token = tokens[place] if place < len(tokens) else "[SEP]"
            following.setdefault(tokens[:place], set()).add(next_token)
    for beginning, expected in following.items():
        state = automaton.start()
        for token in beginning:
            state = automaton.advance(state, VOCABULARY[token])
        allowed = {WORDS[index] for index in np.flatnonzero(automaton.allowed(state))}
        assert allowed == expected, beginning


def test_rules_that_nothing_keeps_are_refused():
    with pytest.raises(MatfmError, match="no composition keeps all constraints"):
        constraint(
            elements=("Na", "K", "O"),
            required=("Na", "O"),
            charge_neutral=True,
            most_atoms=2,
            oxidation_states="pymatgen_sp",
        )
    with pytest.raises(MatfmError, match="no composition keeps all constraints"):
        constraint(elements=("He", "O"), required=("He",), fewest_elements=2, charge_neutral=True)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"elements": ("Xx",)}, "'Xx' is no element"),
        ({"elements": ("Li",), "required": ("O",)}, "required O is not among"),
        ({"fewest_elements": 3, "most_elements": 2}, "the number of elements is 3 to 2"),
        ({"most_atoms": 100}, "most_atoms is 100"),
    ],
)
def test_contradictions_are_named(rules, message):
    with pytest.raises(MatfmError, match=message):
        CompositionRules(**rules)


def test_orders_without_a_place_for_every_element_are_refused():
    with pytest.raises(MatfmError, match="in the order 'hill'"):
        CompositionConstraint(CompositionRules(), VOCABULARY, "hill", END)
