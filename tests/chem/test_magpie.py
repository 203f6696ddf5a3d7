"""Magpie features against a slow twin, formula by formula."""

import numpy as np
import pytest

from matfm import MatfmError, parse_formula
from matfm.chem import magpie
from matfm.chem.compositions import RaggedCompositions
from matfm.chem.elements import SYMBOLS
from matfm.chem.magpie import NORMS, magpie_features, read_element_table


@pytest.fixture
def table():
    """Random properties of the first 90 elements."""
    values = np.random.default_rng(0).normal(size=(90, 4)).round(3)
    lines = [",".join([symbol, *map(str, row)]) for symbol, row in zip(SYMBOLS, values.tolist(), strict=False)]
    return read_element_table("\n".join(["element,a,b,c,d", *lines]) + "\n")


def slow_features(formula, table):
    fractions = parse_formula(formula).fractions
    shares = np.array(list(fractions.values()))
    values = np.stack([table.values[SYMBOLS.index(symbol) + 1] for symbol in fractions])
    mean = shares @ values
    commonest = shares >= shares.max() - 1e-9
    statistics = [values.min(axis=0), values.max(axis=0), values.max(axis=0) - values.min(axis=0), mean]
    statistics += [shares @ np.abs(values - mean), values[commonest].min(axis=0)]
    norms = [float(len(shares)), *(float((shares**p).sum() ** (1 / p)) for p in NORMS)]
    return np.concatenate([*statistics, norms])


def test_features_equal_the_slow_twin_whatever_the_blocks(formulas, table, monkeypatch):
    expected = np.stack([slow_features(formula, table) for formula in formulas])
    for rows in (50_000, 7):
        monkeypatch.setattr(magpie, "_BLOCK_ROWS", rows)
        assert magpie_features(formulas, table) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert magpie_features([], table).shape == (0, 30)


def test_features_by_hand():
    table = read_element_table("element,weight\nH,1\nO,16\n")
    (row,) = magpie_features(["H2O"], table)
    assert row[:7] == pytest.approx([1, 16, 15, 6, 20 / 3, 1, 2])
    assert row[7] == pytest.approx(5**0.5 / 3)


def test_a_missing_element_is_named_with_its_row(table):
    with pytest.raises(MatfmError, match=r"row 1: 'Fe2Pu' holds Pu, which the table of elements lacks"):
        magpie_features(["Fe", "Fe2Pu"], table)
    with pytest.raises(MatfmError, match=r"row 8: 'Fe2Pu' holds Pu"):
        magpie_features(["Fe", "Fe2Pu"], table, rows=[3, 8])
    with pytest.raises(MatfmError, match=r"row 3: 'Xx' at position 0"):
        magpie_features(["Xx"], table, rows=[3])


@pytest.mark.parametrize("line", ["Xx,1", "H,1,2,3", "H,one", ""])
def test_a_bad_line_of_the_table_is_named(line):
    with pytest.raises(MatfmError, match="element table, line 3"):
        read_element_table(f"element,a,b\nO,1,2\n{line}\n")


def test_ragged_compositions(formulas):
    compositions = RaggedCompositions.from_formulas(formulas)
    assert len(compositions) == len(formulas)
    dense = compositions.dense()
    assert dense.shape == (len(formulas), 118)
    assert dense.sum(axis=1) == pytest.approx(1)
    assert dense[formulas.index("Fe2O3")][[25, 7]] == pytest.approx([0.4, 0.6])
    assert (compositions.between(3, 9).dense() == dense[3:9]).all()
