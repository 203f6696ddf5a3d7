"""The fast path of formulas equals the definition on every text."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm import MatfmError
from matfm.chem.composition_encoder import encode_many_fractions
from matfm.chem.composition_schemes import encode_fractions
from matfm.chem.elements import SYMBOLS

PIECES = [
    *SYMBOLS[::5],
    *"HCNOF",
    "Fe",
    "2",
    "0.5",
    "12",
    "3.25",
    "100",
    "101",
    ".",
    "0",
    "(",
    ")",
    "·",
    " ",
    "\0",
    "é",
]
PIECES += ["H2O", "0.123456789", "Xx", "D", "e", "+", "\ud800", "Fe", "O"]
formulas = st.lists(st.lists(st.sampled_from(PIECES), max_size=7).map("".join), max_size=8)


def compare(texts):
    encoded = encode_many_fractions(texts)
    good, reasons = [], {}
    for row, text in enumerate(texts):
        try:
            good.append((row, *encode_fractions(text)))
        except MatfmError as error:
            reasons[row] = str(error)
    assert encoded.errors == reasons
    assert encoded.rows.tolist() == [row for row, _, _ in good]
    assert encoded.ids_N.tolist() == [i for _, ids, _ in good for i in ids]
    amounts_N = np.array([a for _, _, amounts in good for a in amounts], np.float32)  # which ends at 1e-45
    np.testing.assert_allclose(encoded.amounts_N, amounts_N, rtol=1e-6)
    assert encoded.offsets.tolist() == [0, *np.cumsum([len(ids) for _, ids, _ in good])]
    assert (encoded.ids_N.dtype, encoded.amounts_N.dtype) == (np.uint16, np.float32)


@settings(max_examples=1000)
@given(formulas)
def test_equals_the_definition(texts):
    compare(texts)


def test_what_is_not_plain_goes_to_the_definition():
    compare(["Fe2O3", "Fe2O3Fe", "SN4.5H2O", "CuSO4.5H2O", "H2O", "", " Fe", "Fe\0", "(Fe)2", "U235O2", "Na0Cl", "fe"])
    compare(["HC2e100", "HC2e30"])
    compare([])
    compare([""])
    compare(["Fe"])


def test_readings_to_check_are_kept_beside_the_row():
    assert list(encode_many_fractions(["Fe2O3", "U235O2"]).warnings) == [1]
