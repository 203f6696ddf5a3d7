"""KernelRegressor: the contract of scikit-learn, missing labels, bounds, plain files, and what it refuses."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator
from test_estimators import as_of_numbers, numbers_as_formulas  # noqa: F401 (a fixture)

from matfm import KernelRegressor, MatfmError, estimators
from matfm.chem.magpie import ElementTable
from matfm.core.kernel_ridge import KernelSum, fit_kernel_ridge
from matfm.tasks.kernels import describer, regression, summed, views

INPUTS = [f"{metal}{amount}O{9 - amount}" for amount in range(1, 9) for metal in ("Fe", "Zn", "Ti")]
VALUES = np.array([amount / 9 + 0.1 * number for amount in range(1, 9) for number in range(3)])
SMILES = ["C" * n + end for n in range(1, 7) for end in ("O", "N", "", "C(=O)O")]
LENGTHS = np.array([len(smiles) / 10 for smiles in SMILES])


@pytest.fixture(autouse=True)
def magpie(monkeypatch):
    """Some numbers of every element, as Magpie's are fetched."""
    values = np.random.default_rng(0).normal(size=(119, 3))
    monkeypatch.setattr(views, "magpie_table", lambda: ElementTable(("a", "b", "c"), values))


def same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)


def test_all_views_predict_compositions_and_molecules():
    for X, y, options, names in (
        (INPUTS, VALUES, {}, {"magpie", "embedding"}),
        (SMILES, LENGTHS, {"backbone": "molbert-small"}, {"morgan", "pairs", "descriptors", "embedding"}),
    ):
        train = [row for row in range(24) if row % 5]
        model = KernelRegressor(**options).fit([X[row] for row in train], y[train])
        mean, std = model.predict(X, return_std=True)
        assert mean.shape == std.shape == (24,)
        assert (std > 0).all()
        assert np.abs(mean - y).mean() < 0.5 * np.abs(y - y.mean()).mean()
        assert model.weights_.keys() == names
        assert sum(model.weights_.values()) == pytest.approx(1)
        assert np.abs(model.left_out_ - y[train]).mean() < y.std()


def test_every_column_is_fitted_to_its_labels_and_kept_within_its_bounds():
    y = np.stack([VALUES, 10 * VALUES], axis=1)
    y[::3, 1] = np.nan
    y[1, 0] = np.nan
    bounds = [(0.4, 0.6), (None, 8)]
    model = KernelRegressor(features="magpie", bounds=bounds).fit(INPUTS, y)
    mean, std = model.predict(INPUTS, return_std=True)
    assert mean.shape == std.shape == (24, 2)
    assert (mean[:, 0].min(), mean[:, 0].max(), mean[:, 1].max()) == (0.4, 0.6, 8)
    assert (np.isnan(model.left_out_) == np.isnan(y)).all()
    assert np.nanmax(model.left_out_[:, 0]) == 0.6
    assert model.weights_ == [{"magpie": 1.0}] * 2
    labelled = np.flatnonzero(~np.isnan(y[:, 1]))
    alone = KernelRegressor(features="magpie").fit([INPUTS[row] for row in labelled], y[labelled, 1])
    same(alone.predict(INPUTS).clip(max=8), mean[:, 1])
    same(alone.predict(INPUTS, True)[1], std[:, 1])
    assert KernelRegressor(features="magpie").fit(INPUTS, VALUES[:, None]).predict(INPUTS).shape == (24, 1)


def test_what_has_no_weight_is_neither_kept_nor_computed_again(monkeypatch, tmp_path):
    def embedding_alone(kernels, target, seed):
        return KernelSum((0.0, 1.0), fit_kernel_ridge(kernels[1], target))

    monkeypatch.setattr(summed, "fit_kernel_sum", embedding_alone)
    model = KernelRegressor().fit(INPUTS, VALUES)
    assert model.weights_ == {"magpie": 0.0, "embedding": 1.0}
    model.save(tmp_path)
    monkeypatch.setattr(views, "magpie_features", lambda *_: pytest.fail("described"))
    again = KernelRegressor.load(tmp_path)
    assert again.weights_ == model.weights_
    for wanted, found in zip(model.predict(INPUTS, True), again.predict(INPUTS, True), strict=True):
        same(found, wanted)


@pytest.mark.parametrize(
    ("X", "y", "options"),
    [
        (INPUTS, np.stack([VALUES, -VALUES], axis=1), {"bounds": ((0.2, None), None)}),
        (SMILES, LENGTHS, {"backbone": "molbert-small", "bounds": (0, 1.5)}),
        (SMILES, LENGTHS, {"kind": "smiles", "features": ("morgan", "descriptors")}),
    ],
)
def test_saved_estimators_come_back_without_pickle(X, y, options, tmp_path):
    model = KernelRegressor(**options).fit(X, y)
    model.save(tmp_path)
    files = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {".json", ".safetensors"}
    again = KernelRegressor.load(tmp_path, device="cpu")
    assert clone(again).get_params() == again.get_params()
    for wanted, found in zip(model.predict(X, True), again.predict(X, True), strict=True):
        same(found, wanted)
    np.testing.assert_array_equal(again.left_out_, model.left_out_)
    assert again.weights_ == model.weights_
    with pytest.raises(MatfmError, match="already holds a fitted kernel"):
        model.save(tmp_path)


def test_damaged_folders_are_one_sentence(tmp_path):
    model = KernelRegressor(features="magpie").fit(INPUTS, VALUES)
    with pytest.raises(MatfmError, match=r"holds no estimator\.json"):
        KernelRegressor.load(tmp_path)
    model.save(tmp_path)
    said = json.loads((tmp_path / "estimator.json").read_text())
    kernels = (tmp_path / "kernels.safetensors").read_bytes()
    for change in ({"regression": None}, {"regression": said["fitted"]["regression"] | {"targets": [{}]}}):
        (tmp_path / "estimator.json").write_text(json.dumps(said | {"fitted": said["fitted"] | change}))
        with pytest.raises(MatfmError, match="is damaged"):
            KernelRegressor.load(tmp_path)
    (tmp_path / "estimator.json").write_text(json.dumps(said))
    (tmp_path / "kernels.safetensors").write_bytes(kernels[: len(kernels) // 2])
    with pytest.raises(MatfmError, match="is damaged"):
        KernelRegressor.load(tmp_path)
    (tmp_path / "kernels.safetensors").unlink()
    with pytest.raises(MatfmError, match=r"holds no kernels\.safetensors"):
        KernelRegressor.load(tmp_path)


def test_model_selection_sees_arguments():
    search = GridSearchCV(
        KernelRegressor(kind="smiles"), {"features": ["morgan", ("pairs", "morgan")]}, cv=2, error_score="raise"
    ).fit(SMILES, LENGTHS)
    assert search.best_estimator_.predict(SMILES[:3]).shape == (3,)
    scores = cross_val_score(KernelRegressor(features="magpie"), INPUTS, VALUES, cv=2, error_score="raise")
    assert scores.shape == (2,)


@pytest.mark.parametrize(
    ("options", "X", "y", "message"),
    [
        ({}, ["GaN", "fe2o3", "ZnO"], [1, 2, 3], r"row 1: .*fe2o3.* \(1 of 3 formulas cannot be read\)"),
        ({"kind": "smiles", "features": "morgan"}, ["C", "CC", "C("], [1, 2, 3], r"row 2: .* \(1 of 3 SMILES cannot"),
        (
            {"kind": "smiles", "features": "auto"},
            SMILES,
            LENGTHS,
            "matbert-small reads composition and --kind is smiles",
        ),
        ({"kind": "polymer", "features": "morgan"}, SMILES, LENGTHS, "kind is 'polymer'"),
        ({"features": "morgan"}, SMILES, LENGTHS, "holds 'morgan' and the input is composition"),
        ({"backbone": "no-such"}, INPUTS, VALUES, "there are no weights 'no-such'"),
        ({"bounds": (2, 1)}, INPUTS, VALUES, "lowest value must be less"),
        ({}, INPUTS[:3], VALUES, "there are 3 inputs but 24 targets"),
        ({}, INPUTS[:2], [1, 2], "column 0 of y has 2 samples with a label; a kernel needs at least 3"),
        ({}, INPUTS, np.stack([VALUES, np.full(24, np.nan)], axis=1), "column 1 of y has 0 samples"),
        ({}, INPUTS, ["a"] * 24, "y must be numbers"),
        ({}, [1.5, 2.5, 3.5], [1, 2, 3], "row 0 of X is 1.5; it must be text"),
    ],
)
def test_what_cannot_be_fitted_is_named(options, X, y, message):
    with pytest.raises(MatfmError, match=message):
        KernelRegressor(**({"features": "magpie"} | options)).fit(X, y)


def test_too_many_rows_are_refused_with_the_cost_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(describer.Describer, "__call__", lambda *_: pytest.fail("described"))
    rows = regression.LARGEST + 1
    with pytest.raises(MatfmError, match=r"has 20001 labels, .* R² numbers, here 3\.2 GB, .* fine-tune with Property"):
        KernelRegressor(features="magpie").fit(["GaN"] * rows, np.zeros(rows))


def test_attributes_are_those_of_a_fitted_one():
    for name in ("left_out_", "weights_"):
        assert not hasattr(KernelRegressor(), name)
    with pytest.raises(NotFittedError):
        KernelRegressor().predict(INPUTS)


def test_a_constant_target_is_predicted():
    mean, std = KernelRegressor(features="magpie").fit(INPUTS, np.full(24, 3.5)).predict(["Zn2O", "CaO"], True)
    same(mean, [3.5, 3.5])
    assert (std < 1e-6).all()


@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn_hold(numbers_as_formulas, monkeypatch):  # noqa: F811 (the fixture)
    monkeypatch.setattr(describer, "read_inputs", estimators.read_inputs)
    results = check_estimator(as_of_numbers(KernelRegressor)(features="magpie"), on_fail=None)
    failed = {
        result["check_name"]: repr(result["exception"])[:300] for result in results if result["status"] == "failed"
    }
    assert failed == {}
    assert sum(result["status"] == "passed" for result in results) > 20
