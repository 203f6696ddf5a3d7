"""Distances, recovery and random formulas of compositions, on sets small enough to count by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from matfm import MatfmError, parse_formula
from matfm.chem.composition_metrics import (
    composition_profile,
    distribution_distances,
    jensen_shannon,
    random_compositions,
    recovery,
)

KNOWN = ["Fe2O3", "Fe4O6", "NaCl", "BaTiO3", "Fe", "Al0.5O0.75"]


def test_profiles_count_reduced_compositions():
    profile = composition_profile(KNOWN)
    assert profile.elements == {"Fe": 3, "O": 4, "Na": 1, "Cl": 1, "Ba": 1, "Ti": 1, "Al": 1}
    assert profile.sizes == {2: 4, 3: 1, 1: 1}
    assert profile.stoichiometries == {"2-3": 3, "1-1": 1, "1-1-3": 1, "1": 1}
    assert profile.atoms == {5: 4, 2: 1, 1: 1}


COUNTS = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


@given(COUNTS, COUNTS)
def test_distance_is_scipys_and_symmetric(left, right):
    one, other = (dict(enumerate(counts)) for counts in (left, right))
    assert jensen_shannon(one, other) == pytest.approx(jensenshannon(left, right, base=2), abs=1e-7)
    assert jensen_shannon(one, other) == pytest.approx(jensen_shannon(other, one))
    assert jensen_shannon(one, one) == 0


def test_distances_are_zero_for_the_same_set_and_one_for_nothing_in_common():
    same = distribution_distances(composition_profile(KNOWN), composition_profile(KNOWN * 2))
    assert same == dict.fromkeys(same, 0)
    apart = distribution_distances(composition_profile(["Fe2O3"]), composition_profile(["NaClBr4"]))
    assert list(apart) == ["distance_elements", "distance_sizes", "distance_stoichiometries", "distance_atoms"]
    assert set(apart.values()) == {1.0}
    with pytest.raises(MatfmError, match="at least one composition"):
        jensen_shannon({}, {"a": 1})


def test_recovery_is_a_share_of_what_was_held_out():
    assert recovery(["NaCl", "Fe2O3", "Fe2O3"], {"Fe2O3", "MgO"}) == 0.5
    with pytest.raises(MatfmError, match="held-out"):
        recovery(["NaCl"], [])


def test_random_formulas_have_sizes_and_amounts_of_the_set_and_any_of_its_elements():
    profile = composition_profile(KNOWN)
    made = random_compositions(profile, 3000, np.random.default_rng(0))
    assert made == random_compositions(profile, 3000, np.random.default_rng(0))
    random = composition_profile(made)
    shares = {size: count / 3000 for size, count in random.sizes.items()}
    assert shares == pytest.approx({1: 1 / 6, 2: 4 / 6, 3: 1 / 6}, abs=0.03)
    assert set(random.elements) == set(profile.elements)
    assert max(random.elements.values()) < 1.15 * min(random.elements.values())
    assert all(sorted(parse_formula(text).amounts.values()) in ([1], [1, 1], [2, 3], [1, 1, 3]) for text in made)
