"""Laws of constraints: whatever is drawn within them keeps them and comes to an end."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from matfm import CompositionTokenizer, MatfmError, SelfiesTokenizer, SmilesTokenizer, parse_formula
from matfm.chem.composition_constraint import CompositionConstraint, CompositionRules
from matfm.chem.composition_validity import charge_neutral
from matfm.chem.formula_text import order_symbols
from matfm.chem.molecule_constraints import element_of_token, molecule_constraints
from matfm.core.constraints import Conjunction, Continued, Remembering

TOKENIZER = CompositionTokenizer(scheme="count", order="electronegativity")
ELEMENTS = "H Li Na K Mg Ca Al Ti Fe Cu Zn Ga Pb La C N O F S Cl He".split()


def walk(constraint, draw, end, longest):
    """Tokens of a random path through the allowed tokens, which must not be empty before the end."""
    state, tokens = constraint.start(), []
    for _ in range(longest):
        allowed = np.flatnonzero(constraint.allowed(state))
        assert len(allowed), tokens
        token = int(allowed[draw(st.integers(0, len(allowed) - 1))])
        if token == end:
            return tokens
        tokens.append(token)
        state = constraint.advance(state, token)
    raise AssertionError("no end")


@st.composite
def rules(draw):
    elements = draw(st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=8, unique=True))
    required = draw(st.lists(st.sampled_from(elements), max_size=2, unique=True))
    fewest = draw(st.integers(1, 3))
    most_elements, most_atoms = draw(st.integers(fewest, 4)), draw(st.integers(1, 30))
    neutral = draw(st.booleans())
    states = draw(st.sampled_from(["icsd24", "smact14", "pymatgen_sp"]))
    return CompositionRules(
        tuple(elements), tuple(required), fewest, most_elements, most_atoms, neutral, states, draw(st.booleans())
    )


@settings(max_examples=60)
@given(rules(), st.data())
def test_compositions_keep_every_rule_and_end(kept, data):
    try:
        constraint = CompositionConstraint(kept, TOKENIZER.get_vocab(), "electronegativity", TOKENIZER.sep_token_id)
    except MatfmError:
        assume(False)
    tokens = walk(Remembering(constraint), data.draw, TOKENIZER.sep_token_id, 2 * kept.most_elements + 1)
    formula = TOKENIZER.to_formula(tokens)
    amounts = parse_formula(formula).amounts
    assert set(kept.required) <= set(amounts) <= set(kept.elements)
    assert kept.fewest_elements <= len(amounts) <= kept.most_elements
    assert sum(amounts.values()) <= kept.most_atoms
    assert list(amounts) == order_symbols(amounts, "electronegativity")
    if kept.charge_neutral:
        assert charge_neutral(formula, kept.oxidation_states, alloys=kept.alloys)


WHOLE = CompositionRules(charge_neutral=True)
NEUTRAL = Remembering(CompositionConstraint(WHOLE, TOKENIZER.get_vocab(), "electronegativity", TOKENIZER.sep_token_id))


@settings(max_examples=30)
@given(st.data())
def test_neutral_compositions_of_all_elements(data):
    tokens = walk(NEUTRAL, data.draw, TOKENIZER.sep_token_id, 21)
    assert charge_neutral(TOKENIZER.to_formula(tokens))
    place = data.draw(st.integers(0, len(tokens)))
    state = NEUTRAL.start()
    for token in tokens[:place]:
        state = NEUTRAL.advance(state, token)
    rest = walk(Continued(NEUTRAL, state), data.draw, TOKENIZER.sep_token_id, 21)
    assert charge_neutral(TOKENIZER.to_formula(tokens[:place] + rest))


@settings(max_examples=40)
@given(st.sampled_from([SmilesTokenizer(), SelfiesTokenizer()]), st.integers(1, 5), st.data())
def test_molecules_have_only_the_elements_and_atoms_allowed(tokenizer, most, data):
    kind, vocabulary = tokenizer.notation.name, tokenizer.get_vocab()
    elements = data.draw(st.sets(st.sampled_from("C N O S F Cl Br H Fe".split()), min_size=1))
    constraint = Conjunction(molecule_constraints(kind, vocabulary, tokenizer.sep_token_id, elements, most))
    words = {index: token for token, index in vocabulary.items()}
    state, atoms = constraint.start(), []
    for _ in range(20):
        allowed = constraint.allowed(state)
        assert allowed[tokenizer.sep_token_id]
        token = int(np.flatnonzero(allowed)[data.draw(st.integers(0, int(allowed.sum()) - 1))])
        if token == tokenizer.sep_token_id:
            break
        atoms.append(element_of_token(words[token], kind))
        state = constraint.advance(state, token)
    assert {atom for atom in atoms if atom} <= elements
    assert sum(atom not in (None, "H") for atom in atoms) <= most
