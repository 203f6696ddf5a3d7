"""Augmented rows are the same molecule, or nearly the same composition, and depend on nothing but the generator."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm import MatfmError, parse_smiles, selfies_to_smiles
from matfm.chem.augment import enumerate_smiles, jitter_amounts
from matfm.chem.compositions import RaggedCompositions

DRUG_LIKE = Path(__file__).parents[1].joinpath("data", "drug_like.smi").read_text().split()
STEREO = ["C[C@H](N)C(=O)O", "C/C=C/C(=O)O", "O[C@H]1CC[C@@H](C)CC1", "C[S@](=O)c1ccccc1", "[13CH4]", "[CH3:2][OH:1].[Na+].[Cl-]"]  # fmt: skip
ROBUST = [
    "[C]",
    "[=C]",
    "[N]",
    "[O]",
    "[C@H1]",
    "[C@@H1]",
    "[/C]",
    "[\\C]",
    "[=N]",
    "[Branch1]",
    "[Ring1]",
    "[S]",
    "[F]",
]


@pytest.mark.parametrize("smiles", [*STEREO, *DRUG_LIKE[::6]])
def test_enumerated_smiles_are_different_texts_of_one_molecule(smiles):
    found = enumerate_smiles(smiles, 12, np.random.default_rng(1))
    assert 1 <= len(found) == len(set(found)) <= 12
    assert {parse_smiles(text).canonical for text in found} == {parse_smiles(smiles).canonical}


@settings(max_examples=60)
@given(st.lists(st.sampled_from(ROBUST), min_size=1, max_size=25), st.integers(0, 9))
def test_random_molecules_too(symbols, seed):
    try:
        smiles = selfies_to_smiles("".join(symbols))
    except MatfmError:
        return
    canonical = parse_smiles(smiles).canonical
    for text in enumerate_smiles(smiles, 4, np.random.default_rng(seed)):
        assert parse_smiles(text).canonical == canonical or text == smiles


def test_enumeration_depends_on_the_generator_only():
    smiles = DRUG_LIKE[0]
    first = enumerate_smiles(smiles, 5, np.random.default_rng(3))
    assert first == enumerate_smiles(smiles, 5, np.random.default_rng(3))
    assert first != enumerate_smiles(smiles, 5, np.random.default_rng(4))
    generator = np.random.default_rng(3)
    assert enumerate_smiles(smiles, 5, generator) != enumerate_smiles(smiles, 5, generator)


def test_small_molecules_have_few_smiles():
    assert enumerate_smiles("C", 10, np.random.default_rng(0)) == ["C"]
    assert set(enumerate_smiles("CCO", 100, np.random.default_rng(0))) == {"CCO", "OCC", "C(C)O", "C(O)C"}
    assert len(enumerate_smiles(DRUG_LIKE[5], 30, np.random.default_rng(0))) == 30
    with pytest.raises(MatfmError, match="ask for at least 1"):
        enumerate_smiles("C", 0, np.random.default_rng(0))
    with pytest.raises(MatfmError, match="empty"):
        enumerate_smiles("", 1, np.random.default_rng(0))


def test_jitter_keeps_rows_summing_to_one_and_zero_scale_changes_nothing(formulas):
    rows = RaggedCompositions.from_formulas(formulas)
    noisy = jitter_amounts(rows.fractions_N, rows.offsets, 0.1, np.random.default_rng(0))
    assert np.add.reduceat(noisy, rows.offsets[:-1]) == pytest.approx(1, abs=1e-12)
    assert (noisy > 0).all()
    single = np.repeat(np.diff(rows.offsets) == 1, np.diff(rows.offsets))
    assert (noisy[single] == 1).all()
    assert (noisy[~single] != rows.fractions_N[~single]).all()
    same = jitter_amounts(rows.fractions_N, rows.offsets, 0.0, np.random.default_rng(0))
    assert (same == rows.fractions_N).all()
    assert same is not rows.fractions_N
    again = jitter_amounts(rows.fractions_N, rows.offsets, 0.1, np.random.default_rng(0))
    assert (noisy == again).all()
    assert (
        jitter_amounts(rows.fractions_N.astype(np.float32), rows.offsets, 0.1, np.random.default_rng(0)).dtype
        == np.float32
    )


def test_the_scale_is_the_relative_standard_deviation():
    # A trace beside a large rest: the renormalisation hardly matters, so its factor is seen.
    count, trace = 100_000, 1e-6
    fractions = np.tile([trace, 1 - trace], count)
    for scale in (0.05, 0.3):
        noisy = jitter_amounts(fractions, np.arange(0, 2 * count + 1, 2), scale, np.random.default_rng(0))
        other = np.random.default_rng(0).normal(size=2 * count)[1::2]
        deviation = np.sqrt(np.log1p(scale**2))
        factors = noisy[::2] / trace * np.exp(deviation * other - deviation**2 / 2)
        assert factors.mean() == pytest.approx(1, abs=0.005)
        assert factors.std() == pytest.approx(scale, rel=0.02)


def test_wrong_jitter():
    fractions, offsets = np.array([0.5, 0.5]), np.array([0, 2])
    for scale in (-0.1, np.inf, np.nan):
        with pytest.raises(MatfmError, match="relative standard deviation"):
            jitter_amounts(fractions, offsets, scale, np.random.default_rng(0))
    for wrong in ([0, 1], [0, 0, 2], [1, 2]):
        with pytest.raises(ValueError, match="offsets must rise"):
            jitter_amounts(fractions, np.array(wrong), 0.1, np.random.default_rng(0))
