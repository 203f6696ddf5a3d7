"""Laws of SMILES and SELFIES on random input."""

import functools
import time

import pytest
import selfies as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm import MatfmError, SelfiesTokenizer, SmilesTokenizer, parse_smiles, selfies_to_smiles, smiles_to_selfies
from matfm.chem.selfies import split_selfies
from matfm.chem.smiles import split_smiles
from matfm.chem.vocabulary import load_vocabulary

selfies_texts = st.lists(st.sampled_from(load_vocabulary("selfies")), min_size=1, max_size=60).map("".join)
smiles_like = st.lists(st.sampled_from(load_vocabulary("smiles")), max_size=25).map("".join)
texts = st.one_of(st.text(max_size=60), st.text(alphabet="CNOc1%()[]=#+-@H/\\.*:<>2", max_size=60), smiles_like)


@functools.cache
def tokenizer(kind):
    return kind()


def outcome(function, text):
    """The value, or the MatfmError that stands for it; any other exception fails the test."""
    try:
        return function(text)
    except MatfmError as error:
        return error


@settings(max_examples=500)
@given(selfies_texts)
def test_random_selfies_decode_to_valid_molecules(text):
    assert not tokenizer(SelfiesTokenizer).count_unknown([text])
    smiles = outcome(selfies_to_smiles, text)
    if isinstance(smiles, MatfmError):
        assert smiles.reason == "the SELFIES decodes to no atom"
    else:
        assert parse_smiles(smiles).molecule.GetNumAtoms()


@settings(max_examples=200)
@given(selfies_texts)
def test_a_valid_molecule_goes_through_selfies_and_back(text):
    smiles = outcome(selfies_to_smiles, text)
    selfies = outcome(smiles_to_selfies, smiles) if isinstance(smiles, str) else smiles
    if isinstance(selfies, str):
        again = parse_smiles(selfies_to_smiles(selfies))
        assert again.molecule.GetNumAtoms() == parse_smiles(smiles).molecule.GetNumAtoms()


@given(texts)
def test_splitting_loses_nothing(text):
    assert "".join(split_smiles(text)) == text
    assert "".join(split_selfies(text)) == text


@settings(max_examples=300)
@given(texts, st.sampled_from([parse_smiles, smiles_to_selfies, selfies_to_smiles]))
def test_any_text_gives_a_value_or_a_matfm_error(text, function):
    before = reference.get_semantic_constraints()
    started = time.perf_counter()
    result = outcome(function, text)
    if isinstance(result, MatfmError):
        assert result.reason
        assert result.position is None or 0 <= result.position <= len(result.text)
    assert result is not None
    assert time.perf_counter() - started < 2
    assert reference.get_semantic_constraints() == before


@given(texts.filter(lambda text: text.isascii()), st.sampled_from([SmilesTokenizer, SelfiesTokenizer]))
def test_tokens_give_the_text_back_unless_one_is_unknown(text, kind):
    ids = tokenizer(kind)(text)["input_ids"]
    decoded = tokenizer(kind).decode(ids, skip_special_tokens=True)
    assert (decoded == text) or tokenizer(kind).unk_token_id in ids


@pytest.mark.parametrize("text", ["C(" * 1600 + "C" + ")" * 1600, "[C][Branch1]" * 3000, "(" * 4999, "C1CC" * 1200])
def test_deep_nesting_gives_a_value_or_a_matfm_error(text):
    for function in (parse_smiles, smiles_to_selfies, selfies_to_smiles):
        assert outcome(function, text) is not None
