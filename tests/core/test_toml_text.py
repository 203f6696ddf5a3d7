"""What is written as TOML is read again as it was."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matfm.core.toml_text import toml_text, toml_value

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(st.dictionaries(keys, values, max_size=5))
def test_a_mapping_comes_back_with_its_types(mapping):
    read = tomllib.loads(toml_text(mapping))
    assert read == mapping
    assert repr(read) == repr({key: read[key] for key in read})
    for key, value in mapping.items():
        assert type(read[key]) is type(value)


def test_sections_are_readable_and_none_is_left_out():
    text = toml_text({"a": 1, "b": None, "c": {"d": [1.0, 2.5], "e": {"f": "x"}}, "g": {}})
    assert text == 'a = 1\n\n[c]\nd = [1.0, 2.5]\n\n[c.e]\nf = "x"\n\n[g]\n'


def test_what_toml_has_no_word_for_is_refused():
    with pytest.raises(TypeError, match="no word for None"):
        toml_value([None])
