"""One vocabulary for everything that is translated: lossless, the same on all paths, loadable by Auto classes."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from matfm import JointTokenizer, MatT5Config, parse_formula, smiles_to_selfies
from matfm.chem.composition_schemes import SCHEMES
from matfm.chem.joint_tokenizer import (
    TASKS,
    composition_line,
    joint_vocabulary,
    line_ids,
    question_line,
    read_composition_line,
    text_line,
)
from matfm.chem.property_text import PHRASES, describe
from matfm.chem.smiles import split_smiles

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()[:60]
VALUES = st.dictionaries(
    st.sampled_from(sorted(PHRASES)), st.floats(-900, 900, allow_nan=False), min_size=1, max_size=8
)


@pytest.fixture(scope="module")
def tokenizer():
    return JointTokenizer()


def assert_lossless(tokenizer, lines):
    ids = tokenizer(lines)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == lines
    assert all(tokenizer.unk_token_id not in row for row in ids)
    vocabulary = tokenizer.get_vocab()
    assert [line_ids(line, vocabulary, 1) for line in lines] == [row[1:-1] for row in ids]
    flat, offsets = tokenizer.encode_flat(lines)
    assert [flat[a:b].tolist() for a, b in pairwise(offsets)] == ids


def test_molecules_are_lossless_and_cut_at_atoms_and_symbols(tokenizer):
    assert_lossless(tokenizer, SMILES)
    assert_lossless(tokenizer, [smiles_to_selfies(text) for text in SMILES])
    assert all(tokenizer.split(text) == split_smiles(text) for text in SMILES)


def test_compositions_are_lossless_with_the_tokens_of_the_scheme_count(tokenizer, formulas):
    parsed = [parse_formula(text) for text in formulas]
    lines = [composition_line(formula) for formula in parsed]
    assert_lossless(tokenizer, lines)
    for formula, line in zip(parsed, lines, strict=True):
        expected, _ = SCHEMES["count"].tokens(formula, "electronegativity")
        assert [token.strip() for token in tokenizer.split(line)] == [token.replace("#", "") for token in expected]
        assert read_composition_line(line).amounts == pytest.approx(formula.amounts)


@given(VALUES)
def test_texts_are_lossless(values):
    tokenizer = JOINT
    assert_lossless(
        tokenizer, [text_line(describe(values)), question_line(parse_formula("Fe0.25Co12O3"), list(values))]
    )


JOINT = JointTokenizer()


def test_words_are_tokens_and_numbers_are_digits(tokenizer):
    assert tokenizer.split(" band gap 2.0 eV, formation enthalpy -1.23 eV/atom") == [
        " band", " gap", " ", "2", ".", "0", " eV", ",", " formation", " enthalpy", " -", "1", ".", "2", "3", " eV/atom",
    ]  # fmt: skip
    assert tokenizer.split(" Cl2 C12 O0.5") == [" Cl", "2", " C", "12", " O", "0", ".", "5"]


def test_tasks_are_special_tokens(tokenizer):
    assert set(TASKS) <= set(tokenizer.all_special_tokens)
    ids = tokenizer("<to_selfies>CCO")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "<to_selfies>", "C", "C", "O", "[SEP]"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "CCO"
    assert tokenizer.encode_flat(["<to_selfies>CCO"])[0].tolist() == ids


def test_it_loads_by_the_auto_class(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    MatT5Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, JointTokenizer)
    lines = [*SMILES[:5], " Fe2 O3; band gap? volume?", "<to_text> Fe2 O3"]
    assert loaded(lines)["input_ids"] == tokenizer(lines)["input_ids"]
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.all_special_tokens == tokenizer.all_special_tokens


def test_the_vocabulary_is_small_and_has_every_token_once():
    tokens = joint_vocabulary()
    assert len(set(tokens)) == len(tokens) < 1000
