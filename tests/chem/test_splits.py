"""Splits: whole groups, shares, provided labels."""

import numpy as np
import pytest

from matfm import MatfmError
from matfm.chem.splits import check_split_name, composition_group, random_split, split_from_labels


def test_random_split_keeps_groups_whole_and_shares_right():
    groups = [number // 3 for number in range(3000)]
    parts = random_split(groups, (0.1, 0.2), seed=0)
    assert (parts == "test").sum() == 600
    assert (parts == "valid").sum() == 300
    assert all(len(set(parts[3 * g : 3 * g + 3])) == 1 for g in range(1000))
    assert (parts == random_split(groups, (0.1, 0.2), seed=0)).all()
    assert (parts != random_split(groups, (0.1, 0.2), seed=1)).any()


def test_composition_group_ignores_how_a_formula_is_written():
    assert composition_group("Fe2O3") == composition_group("O6Fe4") == composition_group("(Fe2O3)2")
    assert composition_group("Fe2O3") != composition_group("Fe3O4")


def test_provided_parts_and_names():
    assert split_from_labels(["train", "val", "test"], "s").tolist() == ["train", "valid", "test"]
    with pytest.raises(MatfmError, match=r"column 's', row 1: 'tests' is not a part"):
        split_from_labels(["train", "tests"], "s")
    check_split_name("column:fold_0")
    with pytest.raises(MatfmError, match="choose one of random, group or column:NAME"):
        check_split_name("column:")
    assert np.unique(random_split([1, 2], (0, 0), 0)).tolist() == ["train"]
