"""Intervals and sets on synthetic laws: every method covers, and adapts to what it should."""

import numpy as np
import pytest

from matfm import MatfmError
from matfm.tasks.uncertainty.calibration import Calibration, HeldOut, TargetRows, load_calibration, save_calibration
from matfm.tasks.uncertainty.intervals import IntervalConfig, fit_interval, fit_sets

ROWS = 6000


def law(seed):
    """Noise that grows with what the model says of its spread; half of the rows are zeros that are predicted so."""
    generator = np.random.default_rng(seed)
    spread = generator.uniform(0.1, 2, ROWS)
    zero = generator.random(ROWS) < 0.5
    value = np.where(zero, 0.0, generator.uniform(5, 9, ROWS))
    true = value + spread * generator.normal(size=ROWS) * np.where(zero, 0.2, 1)
    rows = TargetRows(
        value,
        spread,
        {0.1: value - 1, 0.5: value, 0.9: value + 1},
        3 * spread,
        np.where(zero, "metal", "not").astype(object),
    )
    return HeldOut(true, rows)


KNOWN, NEW = law(0), law(1)


def covered(config, rows=None):
    low, high = fit_interval(KNOWN, config, "y")(NEW.rows)
    inside = (low <= NEW.true_R) & (NEW.true_R <= high)
    return inside if rows is None else inside[rows].mean()


@pytest.mark.parametrize("method", ["auto", "absolute", "std", "distance", "quantile"])
@pytest.mark.parametrize("groups", ["none", "zero", "column:family"])
def test_every_method_covers_in_every_group(method, groups):
    config = IntervalConfig(0.9, method, groups)
    assert covered(config).mean() == pytest.approx(0.9, abs=0.015)
    if groups != "none":
        for zero in (True, False):
            assert covered(config, (NEW.rows.value_R == 0) == zero) == pytest.approx(0.9, abs=0.02)


def test_spreads_make_intervals_wide_where_errors_are_large():
    calm, wild = NEW.rows.std_R < 0.5, NEW.rows.std_R > 1.5
    same, scaled = IntervalConfig(0.9, "absolute", "zero"), IntervalConfig(0.9, "std", "zero")
    assert covered(same, calm) - covered(same, wild) > 0.2
    assert abs(covered(scaled, calm) - covered(scaled, wild)) < 0.1
    widths = [np.subtract(*fit_interval(KNOWN, config, "y")(NEW.rows)[::-1]) for config in (same, scaled)]
    assert widths[1].mean() < widths[0].mean()


def test_quantiles_that_are_too_wide_shrink_and_never_cross():
    rows = TargetRows(np.zeros(50), None, {0.1: np.full(50, -10.0), 0.9: np.full(50, 8.0)})
    known = HeldOut(np.linspace(-2, 2, 50), rows)
    low, high = fit_interval(known, IntervalConfig(0.8), "y")(rows)
    assert (low >= -3.5).all()
    assert (high <= 3).all()
    assert (low <= high).all()
    exact = HeldOut(np.full(50, -1.0), rows)
    low, high = fit_interval(exact, IntervalConfig(0.8), "y")(rows)
    assert (low == high).all()


def test_an_unknown_or_small_group_has_no_finite_interval():
    known = HeldOut(np.zeros(12), TargetRows(np.ones(12), group_R=np.array(["a"] * 11 + ["b"], dtype=object)))
    new = TargetRows(np.ones(3), group_R=np.array(["a", "b", "c"], dtype=object))
    _, high = fit_interval(known, IntervalConfig(0.9, groups="column:g"), "y")(new)
    assert high.tolist() == [2.0, np.inf, np.inf]


CLASSES = HeldOut(np.array([0, 1] * 20), TargetRows(np.tile([0.7, 0.3], (40, 1))))
BARE = HeldOut(np.zeros(40), TargetRows(np.zeros(40)))


@pytest.mark.parametrize(
    ("known", "config", "message"),
    [
        (BARE, IntervalConfig(0.99), "there are 40 held-out rows of 'y', too few for --interval 0.99"),
        (BARE, IntervalConfig(0.9, "std"), "has no std to scale intervals by; fine-tune an ensemble"),
        (BARE, IntervalConfig(0.9, "quantile"), "has no quantiles below and above 0.5; fine-tune with fit.loss=quantile"),
        (BARE, IntervalConfig(0.9, groups="column:g"), "kept no groups .* calibration_group=COLUMN"),
        (BARE, IntervalConfig(0.9, "lac"), "'y' is a number; lac, aps"),
        (CLASSES, IntervalConfig(0.9, "std"), "'y' is a class; choose"),
        (HeldOut(np.zeros(40), BARE.rows, np.zeros(40, int)), IntervalConfig(0.9, "std"), "the run is cross-conformal"),
        (
            HeldOut(np.zeros(4), TargetRows(np.zeros(4), group_R=np.array(list("abcd"), dtype=object))),
            IntervalConfig(0.6, groups="column:g"),
            "no group of 'y' has enough held-out rows",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_remedy(known, config, message):
    fit = fit_sets if known.rows.value_R.ndim == 2 else fit_interval
    with pytest.raises(MatfmError, match=message):
        fit(known, config, "y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "--interval is 1.0"),
        ({"level": 0.9, "method": "jackknife"}, "--interval-method is 'jackknife'; choose one of auto, absolute"),
        (
            {"level": 0.9, "groups": "column:"},
            "--interval-groups is 'column:'; choose one of none, zero, class, column:NAME",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(MatfmError, match=message):
        IntervalConfig(**options)


def test_held_out_rows_come_back_from_their_file(tmp_path):
    folds = np.arange(ROWS) % 3
    save_calibration(
        Calibration("valid", {"y": KNOWN, "z": HeldOut(KNOWN.true_R, KNOWN.rows, folds), "c": CLASSES}), tmp_path
    )
    again = load_calibration(tmp_path)
    assert again.source == "valid"
    for name in ("value_R", "std_R", "distance_R"):
        np.testing.assert_allclose(getattr(again.targets["y"].rows, name), getattr(KNOWN.rows, name), rtol=1e-8)
    assert (again.targets["y"].rows.group_R == KNOWN.rows.group_R).all()
    assert again.targets["y"].rows.quantiles.keys() == {0.1, 0.5, 0.9}
    assert (again.targets["z"].fold_R == folds).all()
    assert again.targets["c"].rows.value_R.shape == (40, 2)
    (tmp_path / "calibration.json").write_text('{"band_gap": [0.1, 0.2]}')
    with pytest.raises(MatfmError, match="has format None; this version reads 2: fine-tune again"):
        load_calibration(tmp_path)
