"""Features on the scale of the training rows."""

import numpy as np

from matfm.core.standardise import Standardiser


def test_features_are_scaled_by_training_rows_and_far_rows_are_cut():
    train = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0]])
    standardise = Standardiser.fit(train)
    assert standardise(train).tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    assert standardise(np.array([[1e30, 7.0, 2.0]])).tolist() == [[3.0, 0.0]]
    assert standardise(np.array([[-1e30, -1e30, -3.0]])).tolist() == [[-3.0, -3.0]]


def test_features_without_a_spread_that_digits_carry_are_left_out():
    train = 1e12 + np.array([[0.0, 0.0], [1e-4, 1e6]])
    assert Standardiser.fit(train)(train).shape == (2, 1)
    assert Standardiser.fit(np.ones((3, 2)))(np.zeros((2, 2))).shape == (2, 0)
