"""Noise in the amounts of training formulas: other amounts every epoch, the same after a resume, none in predictions."""

import numpy as np
import pytest

from matfm import MatfmError, PropertyRegressor
from matfm.core.batching import EpochBatches
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import backbone_encoder

FORMULAS = ["Fe2O3", "NaCl", "Ba(Zr0.1Ti0.9)O3", "Cu", "LiFePO4"]


@pytest.fixture
def examples():
    return Examples(backbone_encoder("matbert-small")(FORMULAS).tokens)


def sums(tokens):
    return np.add.reduceat(tokens.amounts_N, tokens.offsets[:-1])


def test_every_epoch_has_amounts_of_its_own_that_sum_to_one(examples):
    varied, plain = examples.in_epochs(3, jitter=0.05), examples.tokens
    first, again, second = varied.of_epoch(0), varied.of_epoch(0), varied.of_epoch(1)
    assert np.array_equal(first.amounts_N, again.amounts_N)
    assert np.array_equal(first.ids_N, plain.ids_N)
    assert sums(first) == pytest.approx(sums(plain))
    several = np.repeat(np.diff(plain.offsets) > 2, np.diff(plain.offsets)) & (plain.amounts_N > 0)
    assert (first.amounts_N[several] != plain.amounts_N[several]).all()
    assert (first.amounts_N[several] != second.amounts_N[several]).all()
    assert first.amounts_N == pytest.approx(plain.amounts_N, rel=0.3)
    assert examples.in_epochs(3) is plain


def test_batches_after_a_resume_are_the_same(examples):
    batches = [EpochBatches(examples.in_epochs(0, jitter=0.1), 8, 0) for _ in range(2)]
    for _ in range(batches[0].batches_per_epoch + 1):
        expected = batches[0].next()
        state = batches[0].state_dict()
    batches[1].load_state_dict({"epoch": state["epoch"], "index": state["index"] - 1})
    assert np.array_equal(batches[1].next().amounts_N, expected.amounts_N)


def test_it_is_for_training_formulas_alone():
    y = [2.0, 8.5, 3.0, 0.0, 3.7]
    options = {"backbone": "scratch:tiny", "epochs": 2, "random_state": 0}
    plain, noisy = (PropertyRegressor(**options, fit_options=more).fit(FORMULAS, y) for more in ({}, {"jitter": 0.2}))
    assert not np.array_equal(plain.predict(FORMULAS), noisy.predict(FORMULAS))
    assert np.array_equal(noisy.predict(FORMULAS), noisy.predict(FORMULAS))
    with pytest.raises(MatfmError, match=r"jitter is 0.1 and the input is smiles; it is for formulas"):
        FitConfig(jitter=0.1).for_kind("smiles")
    with pytest.raises(MatfmError, match="it is a relative deviation"):
        FitConfig(jitter=-0.1)
