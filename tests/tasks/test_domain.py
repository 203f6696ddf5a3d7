"""The applicability domain: exact distances, a bounded file, and reasons that name what is new."""

import numpy as np
import pytest

from matfm import CompositionTokenizer, MatfmError
from matfm.tasks.encoding import encode_formulas
from matfm.tasks.examples import Examples
from matfm.tasks.uncertainty import domain as module
from matfm.tasks.uncertainty.domain import domain_of, load_domain

TOKENIZER = CompositionTokenizer()


def examples(formulas, conditions=None):
    beside = None if conditions is None else np.array(conditions, np.float32)
    return Examples(encode_formulas(formulas).tokens, conditions_SC=beside)


def cloud(rows, seed=0, centre=0.0):
    return (np.random.default_rng(seed).normal(size=(rows, 16)) + centre).astype(np.float32)


def small_domain(rows=60, held=40, **options):
    return domain_of(examples(["Fe2O3", "GaN"] * (rows // 2), **options), cloud(rows), cloud(held, 1), TOKENIZER, 0)


def slow_distances(domain, vectors):
    stored = domain.vectors_MD.astype(np.float64)
    return [np.sort(np.linalg.norm(stored - row, axis=1))[: module.NEIGHBOURS].mean() for row in vectors]


def test_distances_are_those_of_every_pair(monkeypatch):
    domain, rows = small_domain(), cloud(50, 2)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_allclose(domain.distances(rows), slow_distances(domain, rows), rtol=1e-6)
    assert domain.distances(rows[:0]).shape == (0,)


def test_a_row_that_is_stored_five_times_has_distance_zero():
    train = np.repeat(cloud(4), 5, axis=0).astype(np.float16).astype(np.float32)
    domain = domain_of(examples(["Fe2O3"] * 20), train, train, TOKENIZER, 0)
    assert (domain.distances(train) == 0).all()


def test_five_percent_of_rows_like_the_held_out_ones_are_outside_and_all_far_ones():
    domain = small_domain(200, 400)
    assert (domain.distances(cloud(2000, 3)) > domain.threshold).mean() == pytest.approx(0.05, abs=0.03)
    assert (domain.distances(cloud(100, 4, centre=5.0)) > domain.threshold).all()


def test_without_held_out_rows_the_training_rows_tell_among_each_other():
    domain = small_domain(200, 3)
    assert (domain.distances(cloud(2000, 3)) > domain.threshold).mean() == pytest.approx(0.05, abs=0.04)


def test_the_file_is_bounded_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 25)
    domain = small_domain(conditions=[[300.0]] * 60)
    assert domain.vectors_MD.shape == (25, 16)
    assert domain.vectors_MD.dtype == np.float16
    domain.save(tmp_path)
    again = load_domain(tmp_path)
    for name in ("vectors_MD", "seen_V", "lowest_C", "highest_C", "threshold"):
        np.testing.assert_array_equal(getattr(again, name), getattr(domain, name))
    (tmp_path / module.DOMAIN_FILE).write_bytes(b"damaged")
    with pytest.raises(MatfmError, match="is damaged"):
        load_domain(tmp_path)
    assert load_domain(tmp_path / "elsewhere") is None


def test_reasons_name_new_elements_conditions_and_distance():
    domain = small_domain(conditions=[[300.0], [500.0]] * 30)
    rows = examples(["FeN", "XeF6", "Fe", "GaO"], conditions=[[400.0], [400.0], [900.0], [300.0]])
    far = np.array([0.0, 0.0, 0.0, 1e9])
    assert domain.reasons(rows, far, TOKENIZER, ("T",)).tolist() == [
        "",
        "not in any training row: Xe, F",
        "T is outside the 300 to 500 of the training rows",
        "unlike the training rows",
    ]
