"""Splits as laws: whole groups, shares, seeds; strata in equal shares; names; folds of clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matfm import MatfmError
from matfm.chem.composition_groups import chemical_system, composition_group, loco_folds
from matfm.chem.splits import (
    KINDS_OF,
    SplitName,
    held_out_split,
    parse_split,
    quantile_strata,
    random_split,
    split_from_labels,
    stratified_split,
)


def counts(parts):
    return tuple(int((parts == part).sum()) for part in ("train", "valid", "test"))


def assert_whole(groups, parts):
    part_of = {}
    for group, part in zip(groups, parts, strict=True):
        assert part_of.setdefault(group, part) == part


def test_random_split_keeps_groups_whole_and_shares_right():
    groups = [number // 3 for number in range(3000)]
    parts = random_split(groups, (0.1, 0.2), seed=0)
    assert counts(parts) == (2100, 300, 600)
    assert_whole(groups, parts)
    assert (parts == random_split(groups, (0.1, 0.2), seed=0)).all()
    assert (parts != random_split(groups, (0.1, 0.2), seed=1)).any()


def test_random_split_without_groups_has_exact_shares():
    assert counts(random_split(range(101), (0.1, 0.2), 3)) == (71, 10, 20)
    assert np.unique(random_split([1, 2], (0, 0), 0)).tolist() == ["train"]
    assert random_split([], (0.1, 0.1), 0).tolist() == []


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(0, 5))
def test_shares_of_uneven_groups_are_off_by_at_most_the_groups_at_the_edges(groups, seed):
    parts = random_split(groups, (0.2, 0.3), seed)
    assert_whole(groups, parts)
    largest = max(groups.count(group) for group in groups)
    _, valid, test = counts(parts)
    assert abs(test - 0.3 * len(groups)) <= largest / 2 + 0.5
    assert abs(valid + test - 0.5 * len(groups)) <= largest / 2 + 0.5


def test_groups_of_compositions():
    assert composition_group("Fe2O3") == composition_group("O6Fe4") == composition_group("(Fe2O3)2")
    assert composition_group("Fe2O3") != composition_group("Fe3O4")
    assert composition_group("HMg127") == composition_group("H0.1Mg12.7")  # shares of 1/128 lie on a rounding edge
    assert chemical_system("Fe2O3") == chemical_system("OFe") != chemical_system("FeS")


def test_held_out_rows_are_the_test_rows_and_groups_of_the_others_stay_whole():
    groups = [number // 2 for number in range(200)]
    is_test = np.arange(200) >= 150
    parts = held_out_split(is_test, groups, 0.2, seed=4)
    assert ((parts == "test") == is_test).all()
    assert counts(parts) == (120, 30, 50)
    assert_whole(groups, parts)
    assert held_out_split(np.ones(3, dtype=bool), [1, 2, 3], 0.2, 0).tolist() == ["test"] * 3


@given(
    st.lists(st.integers(3, 60), min_size=2, max_size=6),
    st.sampled_from([(0.1, 0.1), (0.2, 0.3), (0.0, 0.25), (0.15, 0.0), (0.45, 0.5)]),
    st.integers(0, 3),
)
def test_strata_are_spread_in_equal_shares(sizes, shares, seed):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(seed).shuffle(strata)
    parts = stratified_split(strata.tolist(), shares, seed)
    for stratum, size in enumerate(sizes):
        _, valid, test = counts(parts[strata == stratum])
        assert abs(test - shares[1] * size) <= 1
        assert abs(valid - shares[0] * size) <= 2
    assert abs(counts(parts)[2] - shares[1] * len(strata)) <= 0.5
    assert abs(counts(parts)[1] - shares[0] * len(strata)) <= 1


def test_stratified_split_depends_on_the_seed_and_rejects_what_cannot_be_stratified():
    strata = ["a", "b"] * 30
    first = stratified_split(strata, (0.1, 0.2), 0)
    assert (first == stratified_split(strata, (0.1, 0.2), 0)).all()
    assert (first != stratified_split(strata, (0.1, 0.2), 1)).any()
    with pytest.raises(MatfmError, match="at least 3 rows of every class, as many as there are parts, and 'c' has 2"):
        stratified_split([*strata, "c", "c"], (0.1, 0.2), 0)
    with pytest.raises(MatfmError, match="needs at least two classes"):
        stratified_split(["a"] * 9, (0.1, 0.2), 0)


def test_quantile_bins_hold_equal_numbers_and_never_divide_ties():
    values = np.random.default_rng(0).normal(size=1000)
    bins = quantile_strata(values)
    assert np.bincount(bins).tolist() == [100] * 10
    assert (np.diff(bins[np.argsort(values)]) >= 0).all()
    tied = np.where(np.arange(1000) < 530, 0.0, values**2)
    assert len(set(quantile_strata(tied)[:530].tolist())) == 1
    assert np.bincount(quantile_strata(np.array([0.0] * 60 + [1.0, 2.0]))).min() >= 3
    assert set(quantile_strata(np.zeros(40)).tolist()) == {0}
    with pytest.raises(MatfmError, match="10 quantile bins needs 30 labelled rows; there are 29"):
        quantile_strata(values[:29])


def test_provided_parts():
    assert split_from_labels(["train", "val", "test"], "s").tolist() == ["train", "valid", "test"]
    with pytest.raises(MatfmError, match=r"column 's', row 1: 'tests' is not a part"):
        split_from_labels(["train", "tests"], "s")
    with pytest.raises(MatfmError, match=r"column 's', row 7: 'tests' is not a part"):
        split_from_labels(["train", "tests"], "s", [4, 7])


@pytest.mark.parametrize("name", [name for name in KINDS_OF if name not in ("column", "domain", "file")])
def test_names_without_argument(name):
    assert parse_split(name) == SplitName(name)


def test_names_with_argument():
    assert parse_split("column:a:b") == SplitName("column", "a:b")
    assert parse_split("domain:source=ICSD", "smiles") == SplitName("domain", "source=ICSD")
    assert parse_split("loco:5").number(10) == 5
    assert parse_split("butina", "selfies").number(0.6) == 0.6
    for wrong in ("column:", "column", "kfold", "", "random:3", "loco:", "file"):
        with pytest.raises(
            MatfmError, match=r"choose one of random, .*column:NAME, domain:COLUMN\[=VALUE\], file:PATH"
        ):
            parse_split(wrong)
    with pytest.raises(MatfmError, match="'five' is not a number"):
        parse_split("loco:five")
    with pytest.raises(MatfmError, match="'scaffold' is made for smiles and selfies and the input is composition"):
        parse_split("scaffold", "composition")
    with pytest.raises(MatfmError, match="'loco' is made for composition and the input is smiles"):
        parse_split("loco", "smiles")


def blobs(seed=0):
    centres = np.array([[0.0, 0.0, 5.0], [10.0, 0.0, 5.0], [0.0, 300.0, 5.0]])
    labels = np.random.default_rng(seed).integers(0, 3, 90)
    return centres[labels] + np.random.default_rng(1).normal(size=(90, 3)) * [0.5, 15.0, 0.0], labels


def test_folds_of_clusters_are_the_clusters_numbered_by_their_first_row():
    features, labels = blobs()
    folds = loco_folds(features, 3, seed=0)
    assert len(set(zip(folds.tolist(), labels.tolist(), strict=True))) == 3
    assert [folds.tolist().index(fold) for fold in range(3)] == sorted(folds.tolist().index(fold) for fold in range(3))
    assert folds[0] == 0
    assert (folds == loco_folds(features, 3, seed=0)).all()
    assert (folds == loco_folds(features, 3, seed=9)).all()
    with pytest.raises(MatfmError, match="4 clusters cannot be made of 2 different compositions; choose from 2 to 2"):
        loco_folds(np.array([[0.0], [0.0], [1.0]]), 4, 0)
