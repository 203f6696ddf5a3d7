"""The fast corpus path equals the tokenizers on every kind of text."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm import MatfmError, SelfiesTokenizer, SmilesTokenizer
from matfm.chem.line_encoder import LineEncoder
from matfm.chem.notations import NOTATIONS, SELFIES, SMILES

TOKENIZERS = {"smiles": SmilesTokenizer(), "selfies": SelfiesTokenizer()}
PIECES = [*"CNOlrBc[]()%12(<->@H é\n\x00𝒞\ud800", "[nH]", "[C@@H]", "%12", "%(123)", "Cl", "->", "<-", "<->"]
PIECES += ["[MASK]", "[PAD]", "[13CH4]", "[=Branch1]", "[C@@H1]", "[" + "x" * 40 + "]", "[C][", "%(", "%1", "[]"]
texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), max_size=6)


def slow_twin(kind, strings):
    """Ids by splitting and looking up, the definition of a line notation's tokens."""
    ids = TOKENIZERS[kind].get_vocab()
    return [[ids["[CLS]"], *(ids.get(token, 1) for token in NOTATIONS[kind].split(s)), ids["[SEP]"]] for s in strings]


def fast(kind, strings):
    ids, offsets = TOKENIZERS[kind].encode_flat(strings)
    assert ids.dtype == np.uint16
    assert len(offsets) == len(strings) + 1
    return [ids[start:stop].tolist() for start, stop in pairwise(offsets)]


@pytest.mark.parametrize("kind", ["smiles", "selfies"])
@settings(max_examples=400)
@given(texts)
def test_equals_splitting_and_looking_up(kind, strings):
    assert fast(kind, strings) == slow_twin(kind, strings)


@pytest.mark.parametrize("kind", ["smiles", "selfies"])
def test_equals_the_hugging_face_pipeline(kind):
    generator = random.Random(0)
    readable = [piece for piece in PIECES if piece != "\ud800"]  # no UTF-8: the pipeline cannot take it
    strings = ["".join(generator.choices(readable, k=generator.randrange(20))) for _ in range(3000)]
    assert fast(kind, strings) == TOKENIZERS[kind](strings)["input_ids"]


def test_strings_do_not_touch_each_other():
    assert fast("smiles", ["C", "l", "[", "]", "%1", "2", "<", "->"]) == slow_twin(
        "smiles", ["C", "l", "[", "]", "%1", "2", "<", "->"]
    )


def test_no_strings_and_empty_strings():
    assert fast("smiles", []) == []
    assert fast("smiles", ["", ""]) == [[2, 3], [2, 3]]


def test_tokens_of_any_length_are_found_and_near_misses_are_not():
    long = "[" + "C" * 60 + "]"
    ids = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, long: 5, "[C]": 6, "[CC]": 7}
    encoder = SMILES.encoder(ids)
    assert encoder.encode([long + "[CC][C][CCC]" + long[:-2] + "]"])[0].tolist() == [2, 5, 7, 6, 1, 1, 3]


def test_vocabularies_that_do_not_fit_are_refused():
    special = {"[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    with pytest.raises(MatfmError, match="at most 65536"):
        LineEncoder({**special, "[C]": 70_000})
    with pytest.raises(MatfmError, match="a token of 402 bytes"):
        LineEncoder({**special, "[" + "C" * 400 + "]": 9})
    tokenizer = SmilesTokenizer()
    tokenizer.add_tokens(["CCO"])
    with pytest.raises(MatfmError, match="tokens were added"):
        tokenizer.encode_flat(["CCO"])


def test_many_tokens_hash_without_collision():
    tokens = [f"[{number}C]" for number in range(20_000)]
    ids = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **{token: 5 + i for i, token in enumerate(tokens)}}
    found, _ = SELFIES.encoder(ids).encode(tokens)
    assert found.reshape(-1, 3)[:, 1].tolist() == list(range(5, 20_005))
