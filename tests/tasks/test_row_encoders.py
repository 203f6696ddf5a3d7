"""Columns of each kind to tokens."""

import numpy as np
import pytest

from matfm import SelfiesTokenizer, SmilesTokenizer
from matfm.errors import MatfmError
from matfm.tasks.encoding import row_encoder


def test_one_molecule_has_one_reading_however_it_is_written():
    encoded = row_encoder("smiles")(["OCC", "C(O)C ethanol", "", "C1CC", "CCO", "nan"])
    assert encoded.rows.tolist() == [0, 1, 4]
    assert sorted(encoded.errors) == [2, 3, 5]
    assert "ring" in encoded.errors[3]
    rows = np.split(encoded.tokens.ids_N, encoded.tokens.offsets[1:-1])
    assert rows[0].tolist() == rows[1].tolist() == rows[2].tolist() == SmilesTokenizer()("CCO")["input_ids"]
    assert encoded.tokens.amounts_N.sum() == 0


def test_selfies_are_read_as_molecules():
    encoded = row_encoder("selfies")(["[C][O]", "CCO", "[C][C]"])
    assert encoded.rows.tolist() == [0, 2]
    assert list(encoded.errors) == [1]
    assert encoded.tokens.batch(np.array([0])).ids_N.tolist() == SelfiesTokenizer()("[C][O]")["input_ids"]


def test_unknown_tokens_and_cut_rows_are_counted():
    encoded = row_encoder("smiles", max_length=5)(["[235U]C", "CCCCCCCC"])
    assert encoded.unknown == {"[235U]": 1}
    assert encoded.truncated == 1
    assert encoded.tokens.lengths_R.tolist() == [4, 5]


def test_a_saved_tokenizer_gives_the_same_tokens(tmp_path):
    SmilesTokenizer(["C", "O"]).save_pretrained(str(tmp_path))
    encoded = row_encoder("smiles", tmp_path)(["CCO", "CN"])
    assert encoded.unknown == {"N": 1}


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(MatfmError, match="composition, smiles, selfies"):
        row_encoder("inchi")
