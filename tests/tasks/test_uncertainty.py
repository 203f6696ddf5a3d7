"""Uncertainty from fine-tuning to prediction: calibration rows, CV+, columns, domain, MC dropout."""

import csv
import json

import numpy as np
import pytest
import torch

from matfm import MatfmError
from matfm.models.inference import predict_properties
from matfm.tasks import finetune, labelled_rows, predict
from matfm.tasks.encoding import encode_formulas
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.predictor import load_predictor
from matfm.tasks.tables import read_table
from matfm.tasks.uncertainty.calibration import load_calibration
from matfm.tasks.uncertainty.folds import fold_numbers
from matfm.tasks.uncertainty.held_out import rows_of_members

METALS = ("Fe", "Zn", "Ti", "Na")
TABLE = [
    (f"{metal}{amount}O{31 - amount}", 4 * (31 - amount) / 31 if metal != "Na" else 0.0, metal)
    for amount in range(1, 31)
    for metal in METALS
]
NEW = ["Fe7O11", "", "XeF6", "Zn2O"]


def written(path, rows, header):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tuned(folder, task="regression", target="band_gap", options=None, **config):
    table = written(folder / "table.csv", TABLE, ("formula", "band_gap", "metal"))
    fit = FitConfig(backbone="scratch:tiny", epochs=2, task=task, **(options or {}))
    tuning = finetune.FinetuneConfig(str(table), "formula", (target,), fit=fit, valid_share=0.2, **config)
    return finetune.run(tuning, folder / "run")


def predicted(folder, name="p.csv", rows=NEW, **options):
    table = written(folder / "new.csv", [(row, "Fe") for row in rows], ("formula", "metal"))
    wanted = predict.PredictConfig(str(folder / "run"), str(table), "formula", str(folder / name), **options)
    summary = predict.run(wanted)
    return read_table(str(folder / name)).columns, summary


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaussian")
    config = {"calibration_share": 0.25, "calibration_group": "metal", "ensemble": 2}
    return folder, tuned(folder, options={"loss": "gaussian"}, **config)


def numbers(columns, name, rows=(0, 2, 3)):
    return np.array([float(columns[name][row]) for row in rows])


def test_a_run_sets_calibration_rows_aside_and_scores_its_uncertainty(gaussian):
    folder, summary = gaussian
    run = folder / "run"
    assert summary["rows"] == {"train": 54, "valid": 24, "test": 12, "calibration": 30}
    assert {path.name for path in run.iterdir()} >= {"calibration.json", "domain.safetensors", "calibration.png"}
    calibration = load_calibration(run)
    assert calibration.source == "calibration"
    assert len(calibration.targets["band_gap"].true_R) == 30
    scores = json.loads((run / "metrics.json").read_text())["test"]["band_gap"]
    assert scores.keys() >= {"mae", "coverage_90", "width_90", "interval_score_90", "nll", "ence"}
    parts = read_table(str(run / "predictions.parquet")).columns["part"]
    assert parts.count("calibration") == 30


def test_standard_deviations_are_those_of_the_mixture_and_domains_have_reasons(gaussian):
    columns, summary = predicted(gaussian[0])
    total, parts = (
        numbers(columns, "predicted_band_gap_std"),
        [numbers(columns, f"predicted_band_gap_std_{part}") for part in ("aleatoric", "epistemic")],
    )
    np.testing.assert_allclose(total, np.hypot(*parts), rtol=1e-5)
    assert (parts[0] > 0).all()
    assert columns["in_domain"][1] == columns["domain_distance"][1] == ""
    assert columns["in_domain"][2] == "False"
    assert columns["domain_reason"][2] == "not in any training row: Xe, F"
    assert summary["rows_outside_domain"] >= 1
    assert (numbers(columns, "domain_distance") >= 0).all()
    without, _ = predicted(gaussian[0], domain=False)
    assert not any("domain" in name for name in without)


@pytest.mark.parametrize(
    "options",
    [
        {"interval_method": "absolute"},
        {"interval_method": "std"},
        {"interval_method": "distance", "domain": False},
        {"interval_method": "std", "calibrated": True},
        {"interval_groups": "column:metal", "interval": 0.8},
    ],
)
def test_intervals_hold_their_prediction_and_bounds(gaussian, options):
    columns, _ = predicted(gaussian[0], **{"interval": 0.7, **options})
    low, value, high = (
        numbers(columns, name)
        for name in ("predicted_band_gap_lower", "predicted_band_gap", "predicted_band_gap_upper")
    )
    assert (low <= value).all()
    assert (value <= high).all()
    assert (low >= 0).all()
    assert columns["predicted_band_gap_lower"][1] == ""


def test_calibration_scales_standard_deviations_but_not_their_intervals(gaussian):
    folder = gaussian[0]
    factor = load_calibration(folder / "run").targets["band_gap"].std_factor()
    options = {"interval": 0.8, "interval_method": "std"}
    raw, _ = predicted(folder, **options)
    scaled, _ = predicted(folder, calibrated=True, **options)
    np.testing.assert_allclose(
        numbers(scaled, "predicted_band_gap_std"), factor * numbers(raw, "predicted_band_gap_std"), rtol=1e-6
    )
    np.testing.assert_allclose(
        numbers(scaled, "predicted_band_gap_upper"), numbers(raw, "predicted_band_gap_upper"), rtol=1e-6
    )


def test_mc_dropout_repeats_itself_and_leaves_the_prediction(gaussian):
    folder = gaussian[0]
    plain, _ = predicted(folder)
    first, second, other = (predicted(folder, mc_dropout=3, seed=seed)[0] for seed in (1, 1, 2))
    assert first == second
    assert first["predicted_band_gap"] == other["predicted_band_gap"] == plain["predicted_band_gap"]
    assert first["predicted_band_gap_std_epistemic"] != other["predicted_band_gap_std_epistemic"]
    alone, _ = predicted(folder, rows=["Zn2O"], mc_dropout=3, seed=1)
    assert float(alone["predicted_band_gap_std"][0]) == pytest.approx(
        float(first["predicted_band_gap_std"][3]), rel=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval_method": "std"}, "need --interval"),
        ({"mc_dropout": -1}, "--mc-dropout is -1"),
        ({"mc_dropout": 2, "calibrated": True}, "other standard deviations than those of the held-out rows"),
        ({"interval": 0.9, "interval_method": "quantile"}, "has no quantiles"),
        ({"interval": 0.8, "interval_groups": "column:family"}, "has no column 'family'"),
    ],
)
def test_wrong_wishes_are_refused(gaussian, options, message):
    with pytest.raises(MatfmError, match=message):
        predicted(gaussian[0], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration_share": 1.0}, "calibration_share is 1.0"),
        ({"cross_conformal": 1}, "cross_conformal is 1; it is a number of folds"),
        ({"cross_conformal": 3, "ensemble": 2}, "leave one of them out"),
        ({"cross_conformal": 3, "calibration_share": 0.1}, "leave one of them out"),
        ({"calibration_share": 0.9}, "leaves no training row"),
    ],
)
def test_contradictions_of_a_fine_tuning_are_refused(tmp_path, options, message):
    with pytest.raises(MatfmError, match=message):
        tuned(tmp_path, **options)


def test_cross_conformal_members_leave_out_their_fold_and_are_calibrated_on_it(tmp_path):
    summary = tuned(tmp_path, cross_conformal=3)
    run = tmp_path / "run"
    assert summary["ensemble"] == 3
    assert sorted(path.name for path in (run / "ensemble").iterdir()) == ["1", "2"]
    calibration = load_calibration(run)
    assert calibration.source == "cross-validation"
    held = calibration.targets["band_gap"]
    rows = read_table(str(run / "predictions.parquet")).columns
    train = [row for row, part in enumerate(rows["part"]) if part == "train"]
    assert len(held.true_R) == len(train)
    for number, folder in enumerate([run, run / "ensemble" / "1", run / "ensemble" / "2"]):
        cells = [rows["formula"][train[row]] for row in np.flatnonzero(held.fold_R == number)]
        own = predict_properties(load_predictor(folder), encode_formulas(cells).tokens, torch.device("cpu"))[:, 0]
        np.testing.assert_allclose(held.rows.value_R[held.fold_R == number], own, atol=1e-5)
    columns, _ = predicted(tmp_path, interval=0.9)
    assert (numbers(columns, "predicted_band_gap_lower") <= numbers(columns, "predicted_band_gap_upper")).all()
    with pytest.raises(MatfmError, match="the run is cross-conformal"):
        predicted(tmp_path, interval=0.9, interval_groups="zero")


def test_folds_are_equal_whole_and_seeded(tmp_path):
    groups = np.repeat(np.arange(40), 2).tolist()
    folds = fold_numbers(groups, 4, 0)
    assert np.bincount(folds).tolist() == [20] * 4
    assert (folds[::2] == folds[1::2]).all()
    assert (folds == fold_numbers(groups, 4, 0)).all()
    assert (folds != fold_numbers(groups, 4, 1)).any()
    with pytest.raises(MatfmError, match="3 different training inputs cannot make 4 folds"):
        fold_numbers([1, 2, 2, 3], 4, 0)


def test_the_members_of_an_ensemble_see_all_training_rows(tmp_path):
    table = written(tmp_path / "t.csv", TABLE, ("formula", "band_gap", "metal"))
    base = {
        "table": str(table),
        "input": "formula",
        "targets": ("band_gap",),
        "fit": FitConfig(backbone="scratch:tiny"),
    }
    config = finetune.FinetuneConfig(**base, cross_conformal=4)
    labelled = labelled_rows.load_rows(config, read_table(str(table)))
    train = np.flatnonzero(labelled.parts == "train")
    left_out = [np.setdiff1d(train, rows) for rows in rows_of_members(labelled, config)]
    assert sorted(np.concatenate(left_out)) == train.tolist()
    whole = rows_of_members(labelled, finetune.FinetuneConfig(**base, ensemble=2))
    assert all((rows == train).all() for rows in whole)


def test_quantile_intervals_differ_from_row_to_row(tmp_path):
    summary = tuned(tmp_path, options={"loss": "quantile", "quantiles": (0.1, 0.5, 0.9)})
    assert "coverage_90" in summary["metrics"]["test"]["band_gap"]
    columns, _ = predicted(tmp_path, interval=0.8)
    width = numbers(columns, "predicted_band_gap_upper") - numbers(columns, "predicted_band_gap_lower")
    assert len(np.unique(width.round(9))) > 1


def test_classes_have_sets_temperatures_and_entropies(tmp_path):
    summary = tuned(tmp_path, "classification", "metal", ensemble=2)
    scores = summary["metrics"]["test"]["metal"]
    assert scores.keys() >= {"nll", "brier", "ece", "temperature", "ece_calibrated", "coverage_90", "set_size_90"}
    assert (tmp_path / "run" / "calibration.png").is_file()
    raw, _ = predicted(tmp_path, interval=0.8)
    sets = {label: [raw[f"in_set_{label}"][row] for row in (0, 2, 3)] for label in METALS}
    assert {cell for cells in sets.values() for cell in cells} <= {"True", "False"}
    chosen = [raw["predicted_metal"][row] for row in (0, 2, 3)]
    assert [sets[label][position] for position, label in enumerate(chosen)] == ["True"] * 3
    assert raw["in_set_Fe"][1] == ""
    entropy, shared = numbers(raw, "predicted_metal_entropy"), numbers(raw, "predicted_metal_mutual_information")
    assert ((shared >= 0) & (shared <= entropy)).all()
    scaled, _ = predicted(tmp_path, calibrated=True, interval=0.8, interval_method="aps", interval_groups="class")
    assert scaled["predicted_metal"] == raw["predicted_metal"]
    assert scaled["probability_Fe"] != raw["probability_Fe"]
    total = sum(numbers(scaled, f"probability_{label}") for label in METALS)
    np.testing.assert_allclose(total, 1, atol=1e-6)
