"""Views and their kernels: what is described, ones on the diagonal, weights, and rows left out against refits."""

import numpy as np
import pytest

from matfm import MatfmError, smiles_to_selfies
from matfm.chem.magpie import ElementTable
from matfm.core.kernel_ridge import fit_kernel_ridge, median_length, weighted_sum
from matfm.tasks.kernels import summed, views
from matfm.tasks.kernels.part_kernels import BoundedDescriptors, ScaledRbf, fit_part, known_part
from matfm.tasks.kernels.regression import read_bounds
from matfm.tasks.kernels.summed import fit_summed
from matfm.tasks.kernels.views import MOLECULE_VIEWS, chosen_views, described_parts, parts_of

SMILES = [
    *("CCO", "CCCO", "CCCCO", "CCCCCO", "CC(C)O", "CC(C)(C)O", "OCCO", "C", "CC", "CCC", "CCCC", "C1CCCC1"),
    *("c1ccccc1", "Cc1ccccc1", "Oc1ccccc1", "CC(=O)O", "CCC(=O)O", "CCN", "CCCN", "c1ccncc1", "CS", "[Na+].[Cl-]"),
]
LABELS = np.array([smiles.count("O") + 0.1 * len(smiles) for smiles in SMILES])
NUMBERS = [part for part in parts_of(MOLECULE_VIEWS) if part != "embedding"]


@pytest.fixture(scope="module")
def described():
    """Every part of the molecules; numbers in place of an embedding."""
    vectors = np.random.default_rng(0).normal(size=(len(SMILES), 5)).astype(np.float32)
    return described_parts(NUMBERS, SMILES, "smiles") | {"embedding": vectors}


def taken(described, rows):
    return {part: values[rows] for part, values in described.items()}


def test_parts_are_those_of_the_molecule_whatever_the_notation(described):
    selfies = [f"{smiles_to_selfies(smiles)} a name" for smiles in SMILES]
    for part, values in described_parts(NUMBERS, selfies, "selfies").items():
        np.testing.assert_array_equal(values, described[part])
        assert len(values) == len(SMILES)


def test_magpie_describes_compositions_and_names_what_it_cannot(monkeypatch):
    values = np.random.default_rng(0).normal(size=(119, 3))
    values[94] = np.nan
    monkeypatch.setattr(views, "magpie_table", lambda: ElementTable(("a", "b", "c"), values))
    assert described_parts(("magpie", "embedding"), ["GaN", "Fe2O3"], "composition")["magpie"].shape == (2, 24)
    with pytest.raises(MatfmError, match="row 1: 'PuO2' holds Pu, which the table of elements lacks"):
        described_parts(("magpie",), ["GaN", "PuO2"], "composition")


def test_views_are_summed_in_one_order_and_others_are_refused():
    assert chosen_views("auto", "composition") == ("magpie", "embedding")
    assert chosen_views(["embedding", "pairs"], "smiles") == ("pairs", "embedding")
    assert chosen_views("morgan", "selfies") == ("morgan",)
    assert parts_of(("pairs", "embedding")) == ("atom_pairs", "torsions", "embedding")
    for features, kind, said in (
        ("morgan", "composition", "holds 'morgan' and the input is composition; choose auto, or of magpie, embedding"),
        (["magpie"], "smiles", "of morgan, pairs, descriptors, embedding"),
        ((), "smiles", "names no view"),
    ):
        with pytest.raises(MatfmError, match=said):
            chosen_views(features, kind)


@pytest.mark.parametrize("part", [*NUMBERS, "embedding"])
def test_kernels_have_ones_on_the_diagonal_and_are_made_again_from_their_length(part, described):
    values = described[part]
    kernel = fit_part(part, values[:15], LABELS[:15], 0)
    own = kernel.own()
    np.testing.assert_allclose(np.diagonal(own), 1)
    np.testing.assert_allclose(kernel(values[:15]), own, atol=1e-12)
    assert np.linalg.eigvalsh(own).min() > -1e-9
    again = known_part(part, values[:15], kernel.length)
    np.testing.assert_array_equal(again.own(), own)
    np.testing.assert_array_equal(again(values[15:]), kernel(values[15:]))


def test_the_length_is_the_one_with_the_smallest_left_out_error(described):
    values = described["embedding"]
    target = np.sin(values[:, 0].astype(float))
    kernel = ScaledRbf.fit(values, False, target, 0)
    lengths = [factor * median_length(kernel.train_RD) for factor in (0.25, 0.5, 1.0, 2.0)]
    errors = [fit_kernel_ridge(ScaledRbf.of(values, False, one).own(), target).left_out_error for one in lengths]
    assert kernel.length == pytest.approx(lengths[int(np.argmin(errors))])


def test_descriptors_are_finite_whatever_the_other_rows_hold():
    train = np.array([[1.0, 5.0, np.nan], [2.0, 5.0, np.nan], [np.nan, 5.0, np.nan], [4.0, 5.0, np.nan]], np.float32)
    bounded = BoundedDescriptors.fit(train)
    assert bounded(train)[:, 0].tolist() == [1, 2, 2, 4]
    assert bounded(np.array([[np.nan, 0.0, 1.0], [1e30, 0.0, 1.0]], np.float32)).tolist() == [[2], [4]]
    nothing = BoundedDescriptors.fit(train[:, 1:])
    assert nothing(train[:, 1:]).shape == (4, 0)


def test_rows_left_out_and_deviations_equal_refits_without_the_row(described):
    fitted = fit_summed(described, LABELS, 0)
    assert sum(fitted.weights.values()) == pytest.approx(1)
    kernels = {part: kernel.own() for part, kernel in fitted.kernels.items()}
    whole = weighted_sum(list(kernels.values()), [fitted.weights[part] for part in kernels])
    for row in range(0, len(LABELS), 5):
        others = np.arange(len(LABELS)) != row
        refit = fit_kernel_ridge(whole[np.ix_(others, others)], LABELS[others], [fitted.noise])
        assert fitted.left_out_R[row] == pytest.approx(refit.predict(whole[row : row + 1, others])[0], rel=1e-8)
    direct = fit_kernel_ridge(whole, LABELS, [fitted.noise])
    np.testing.assert_allclose(fitted.predict(described), direct.predict(whole), rtol=1e-9)
    np.testing.assert_allclose(fitted.std(described), direct.std(whole), rtol=1e-7)


def test_the_unit_of_the_target_is_the_unit_of_predictions(described):
    train, test = taken(described, slice(0, 16)), taken(described, slice(16, None))
    one, thousand = (fit_summed(train, LABELS[:16] * factor, 0) for factor in (1.0, 1000.0))
    assert one.weights == thousand.weights
    for name in ("predict", "std"):
        np.testing.assert_allclose(getattr(thousand, name)(test), 1000 * getattr(one, name)(test), rtol=1e-7)
    np.testing.assert_allclose(thousand.left_out_R, 1000 * one.left_out_R, rtol=1e-7)


def test_blocks_change_nothing(described, monkeypatch):
    fitted = fit_summed(described, LABELS, 0)
    whole = fitted.predict(described), fitted.std(described)
    monkeypatch.setattr(summed, "_BLOCK", 5)
    for wanted, found in zip(whole, (fitted.predict(described), fitted.std(described)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_bounds_are_one_pair_or_one_a_target():
    everywhere = (-np.inf, np.inf)
    assert read_bounds(None, 2) == (everywhere, everywhere)
    assert read_bounds((0, None), 2) == ((0.0, np.inf), (0.0, np.inf))
    assert read_bounds(np.array([0.0, 1.0]), 1) == ((0.0, 1.0),)
    assert read_bounds([None, [None, 1]], 2) == (everywhere, (-np.inf, 1.0))
    for bounds, said in (
        ((1, 0), "lowest value must be less"),
        ((0, "x"), "either of them None"),
        ([(0, 1, 2)], "either of them None"),
        (3, "one for each of 2 targets"),
        ([(0, 1)], "one for each of 2 targets"),
    ):
        with pytest.raises(MatfmError, match=said):
            read_bounds(bounds, 2)
