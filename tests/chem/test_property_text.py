"""Texts on properties: rounded, read back as written, and errors that point at the statement."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matfm import MatfmError
from matfm.chem.property_text import (
    IS_METAL,
    KINDS,
    PHRASES,
    WORDS,
    answers,
    describe,
    property_of_column,
    questions,
    read_description,
)

VALUES = st.dictionaries(st.sampled_from(sorted(PHRASES)), st.floats(-900, 900, allow_nan=False), max_size=8)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"band_gap": 2.04, "formation_enthalpy": -1.234}, "semiconductor, band gap 2.0 eV, formation enthalpy -1.23 eV/atom"),
        ({"band_gap": 0.049, "volume_per_atom": 12.0}, "metal, volume 12.0 Å³/atom"),
        ({"band_gap": 9.1}, "insulator, band gap 9.1 eV"),
        ({"band_gap": math.nan, "formation_enthalpy": -0.001}, "formation enthalpy 0.00 eV/atom"),
        ({IS_METAL: 1.0}, "metal"),
        ({IS_METAL: 0.0, "bulk_modulus": 99.6}, "nonmetal, bulk modulus 100 GPa"),
        ({"band_gap_expt": 1.1, "band_gap_pbe": 0.6}, "semiconductor, measured band gap 1.1 eV, PBE band gap 0.6 eV"),
        ({}, ""),
    ],
)  # fmt: skip
def test_texts(values, text):
    assert describe(values) == text
    if text:
        assert str(read_description(text)) == text


@given(VALUES.filter(bool))
def test_what_is_written_is_read_back_rounded(values):
    text = describe(values)
    said = read_description(text)
    assert str(said) == text
    gap = next((name for name in ("band_gap", "band_gap_expt", "band_gap_pbe") if name in values), None)
    expected = {n: round(v, PHRASES[n].decimals) for n, v in values.items() if not (n == gap and said.kind == "metal")}
    assert said.values == pytest.approx(expected)
    assert (said.kind is None) == (gap is None)


@given(VALUES.filter(bool), st.randoms())
def test_answers_come_in_the_order_of_the_questions(values, random):
    asked = random.sample(sorted(values), len(values))
    said = read_description(answers(values, asked))
    assert list(said.values) == asked
    assert questions(asked).count("?") == len(asked)


def test_numbers_are_never_minus_zero():
    assert all("-0" not in phrase.number(-1e-9) for phrase in PHRASES.values())


def test_all_words_are_known():
    assert set(WORDS) >= {*KINDS, *(word for phrase in PHRASES.values() for word in phrase.words.split())}
    assert len({phrase.words for phrase in PHRASES.values()}) == len(PHRASES)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "this is no statement"),
        ("semiconductor, gap 2.0 eV", 15, "this is no statement"),
        ("band gap 2.0 GPa", 0, "'band gap' is written in eV"),
        ("band gap 2.0 eV, band gap 2.0 eV", 17, "said twice"),
        ("volume 1.0 Å³/atom, metal", 20, "this is no statement"),
    ],
)
def test_errors_point_at_the_statement(text, position, reason):
    with pytest.raises(MatfmError, match=reason) as caught:
        read_description(text)
    assert caught.value.position == position


def test_columns_and_units():
    assert property_of_column("gap pbe") == ("band_gap_pbe", 1.0)
    assert property_of_column("agl_thermal_expansion_300k", "1/K") == ("thermal_expansion", pytest.approx(1e6))
    assert property_of_column("mp_is_metal")[0] == IS_METAL
    with pytest.raises(MatfmError, match="no words for the property 'pki'"):
        property_of_column("pki")
    with pytest.raises(MatfmError, match="cannot be converted"):
        property_of_column("band_gap", "GPa")
