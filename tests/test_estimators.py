"""The scikit-learn estimators: the contract, scikit-learn's own checks, model selection, intervals, plain files."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from matfm import EmbeddingTransformer, MatfmError, PropertyClassifier, PropertyRegressor, estimators
from matfm.tasks import predict
from matfm.tasks.tables import read_table

TINY = {"backbone": "scratch:tiny", "epochs": 1}
INPUTS = [f"{metal}{amount}O{9 - amount}" for amount in range(1, 9) for metal in ("Fe", "Zn", "Ti", "Na")]
VALUES = [amount / 9 for amount in range(1, 9) for _ in range(4)]
LABELS = ["rich" if value < 0.5 else "poor" for value in VALUES]


@pytest.fixture(scope="module")
def regressor():
    return PropertyRegressor(**TINY, ensemble=2, loss="gaussian", calibration_share=0.4).fit(INPUTS, VALUES)


@pytest.fixture(scope="module")
def classifier():
    return PropertyClassifier(**TINY, calibration_share=0.4).fit(INPUTS, LABELS)


def test_intervals_and_standard_deviations_are_shaped_like_the_targets(regressor):
    mean, std = regressor.predict(INPUTS[:5], return_std=True)
    low, high = regressor.predict_interval(INPUTS[:5], 0.8, method="std")
    assert mean.shape == std.shape == low.shape == high.shape == (5,)
    assert (std > 0).all()
    assert ((low <= mean) & (mean <= high)).all()
    assert regressor.in_domain(["Fe4O5", "XeF6"])[1] == np.False_
    with pytest.raises(MatfmError, match="fit with calibration_share=0.2 or cross_conformal=5"):
        PropertyRegressor(**TINY).fit(INPUTS, VALUES).predict_interval(INPUTS)


def test_several_targets_with_missing_labels_and_cross_conformal_intervals():
    y = np.stack([VALUES, [np.nan if row % 3 else value * 10 for row, value in enumerate(VALUES)]], axis=1)
    model = PropertyRegressor(**TINY, cross_conformal=2).fit(INPUTS, y)
    low, high = model.predict_interval(INPUTS[:4], level=0.8)
    assert model.predict(INPUTS[:4]).shape == low.shape == high.shape == (4, 2)
    assert len(model.predictor_.members) == 2
    assert (low <= high).all()


def test_named_targets_keep_their_bounds_and_units(tmp_path):
    lowest = {"properties": ["band_gap"], "units": ["meV"]}
    model = PropertyRegressor(**TINY, **lowest).fit(INPUTS, np.array(VALUES) - 50)
    assert (model.predict(INPUTS) == 0).all()  # gaps are not negative
    assert (PropertyRegressor(**TINY).fit(INPUTS, np.array(VALUES) - 50).predict(INPUTS) < 0).all()
    model.save(tmp_path / "gaps")
    known = PropertyRegressor.load(tmp_path / "gaps").predictor_.targets.properties
    assert [(one.name, one.unit) for one in known] == [("band_gap", "meV")]
    for wrong, message in (
        ({"properties": "band_gap"}, "give a list with one text"),
        ({"properties": ["a", "b"]}, "for each of the 1 target"),
        ({"units": ["eV"]}, "units needs properties"),
    ):
        with pytest.raises(MatfmError, match=message):
            PropertyRegressor(**TINY, **wrong).fit(INPUTS, VALUES)


def test_censored_targets_are_bounds_and_need_a_loss_that_takes_them():
    y = [f"<{value:.3f}" if row % 2 else value for row, value in enumerate(VALUES)]
    model = PropertyRegressor(**TINY | {"epochs": 30}, loss="gaussian", random_state=0).fit(INPUTS, y)
    exact = PropertyRegressor(**TINY | {"epochs": 30}, loss="gaussian", random_state=0).fit(INPUTS, VALUES)
    assert model.predict(INPUTS).mean() < exact.predict(INPUTS).mean()
    with pytest.raises(MatfmError, match="bounds like '<5'"):
        PropertyRegressor(**TINY).fit(INPUTS, ["about 5", *VALUES[1:]])
    with pytest.raises(MatfmError, match="censored labels, which the loss quantile cannot use"):
        PropertyRegressor(**TINY, loss="quantile").fit(INPUTS, y)


def test_saved_estimators_come_back_without_pickle_and_are_runs(regressor, classifier, tmp_path):
    regressor.save(tmp_path / "r")
    classifier.save(tmp_path / "c")
    assert {path.suffix for path in (tmp_path / "r").iterdir() if path.is_file()} <= {".json", ".safetensors", ".txt"}
    again, classes = PropertyRegressor.load(tmp_path / "r"), PropertyClassifier.load(tmp_path / "c", device="cpu")
    assert again.get_params() == regressor.get_params()
    for wanted, found in zip(
        (*regressor.predict(INPUTS, True), *regressor.predict_interval(INPUTS, 0.8)),
        (*again.predict(INPUTS, True), *again.predict_interval(INPUTS, 0.8)),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert (classes.predict(INPUTS) == classifier.predict(INPUTS)).all()
    np.testing.assert_allclose(classes.predict_proba(INPUTS), classifier.predict_proba(INPUTS), rtol=1e-5)
    table = tmp_path / "t.csv"
    table.write_text("formula\nFe4O5\nbad\n")
    predict.run(predict.PredictConfig(str(tmp_path / "r"), str(table), "formula", str(tmp_path / "p.csv"), 0.8))
    columns = read_table(str(tmp_path / "p.csv")).columns
    assert float(columns["predicted_target_0"][0]) == pytest.approx(again.predict(["Fe4O5"])[0], rel=1e-5)
    assert columns["predicted_target_0_lower"][1] == ""
    with pytest.raises(MatfmError, match="holds a PropertyClassifier, not a PropertyRegressor"):
        PropertyRegressor.load(tmp_path / "c")
    with pytest.raises(MatfmError, match="already holds a model"):
        regressor.save(tmp_path / "c")
    with pytest.raises(MatfmError, match=r"holds no estimator\.json"):
        PropertyRegressor.load(tmp_path)
    (tmp_path / "c" / "estimator.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(MatfmError, match="is damaged"):
        PropertyClassifier.load(tmp_path / "c")


@pytest.mark.parametrize("labels", [[1, 5], [True, False], ["a", "b"], [0.5, 1.5]])
def test_classes_keep_their_type_when_saved(labels, tmp_path):
    model = PropertyClassifier(**TINY).fit(INPUTS[:8], labels * 4)
    model.save(tmp_path)
    again = PropertyClassifier.load(tmp_path)
    assert again.classes_.dtype.kind == model.classes_.dtype.kind
    assert again.predict(INPUTS[:8]).tolist() == model.predict(INPUTS[:8]).tolist()


def test_sets_of_classes_hold_the_likeliest(classifier):
    sets = classifier.predict_set(INPUTS, level=0.8)
    assert sets.shape == (32, 2)
    assert sets[np.arange(32), classifier.predict_proba(INPUTS).argmax(axis=1)].all()
    assert set(classifier.predict(INPUTS)) <= {"poor", "rich"}


def test_model_selection_sees_arguments_and_options():
    grid = {"loss": ["l1", "gaussian"], "fit_options": [{"optimizer.learning_rate": 1e-3, "dropout": 0.0}]}
    search = GridSearchCV(PropertyRegressor(**TINY), grid, cv=2, error_score="raise").fit(INPUTS, VALUES)
    head = search.best_estimator_.predictor_.members[0].config
    assert head.hidden_dropout_prob == 0.0
    assert search.best_params_["fit_options"] == grid["fit_options"][0]
    assert cross_val_score(PropertyClassifier(**TINY), INPUTS, LABELS, cv=2, error_score="raise").shape == (2,)
    made = clone(PropertyRegressor(**TINY, conditions=["T"], fit_options={"dropout": 0.2}))
    assert made.get_params()["fit_options"] == {"dropout": 0.2}


def test_conditions_are_columns_of_an_array_or_a_table():
    import pandas as pd

    temperature = [300.0 + row for row in range(32)]
    frame = pd.DataFrame({"T": temperature, "formula": INPUTS})
    array = np.array([INPUTS, temperature], dtype=object).T
    model = PropertyRegressor(**TINY, conditions=("T",)).fit(frame, VALUES)
    assert (model.predict(frame) == model.predict(array)).all()
    assert (model.predict(frame) != model.predict(frame.assign(T=900.0))).any()
    assert not model.in_domain(frame.assign(T=900.0)).any()
    for X, message in (
        (INPUTS, "every row needs an input and the conditions"),
        (frame[["formula"]], "it needs one of inputs, and the conditions"),
        (frame.assign(T=np.nan), "row 0 of X: the condition 'T' is missing"),
        (frame.assign(T="hot"), "must be numbers"),
    ):
        with pytest.raises(MatfmError, match=message):
            model.predict(X)


def test_written_forms_of_molecules():
    smiles = ["C" * n + "O" for n in range(1, 9)]
    model = PropertyRegressor(**TINY, kind="smiles", enumeration=3, fit_options={"predict_enumerations": 2})
    assert model.fit(smiles, range(8)).predict(smiles).shape == (8,)
    with pytest.raises(MatfmError, match=r"fit\.enumerate is 3 and the input is composition"):
        PropertyRegressor(**TINY, enumeration=3).fit(INPUTS, VALUES)


@pytest.mark.parametrize(
    ("options", "X", "y", "message"),
    [
        ({"fit_options": {"epochs": 3}}, INPUTS, VALUES, "fit_options holds 'epochs', which is an argument of"),
        ({"fit_options": {"learning": 3}}, INPUTS, VALUES, "unknown key learning"),
        ({"fit_options": {"dropout": object()}}, INPUTS, VALUES, "fit_options.dropout holds a object"),
        ({"ensemble": 0}, INPUTS, VALUES, "ensemble is 0"),
        ({"cross_conformal": 2, "ensemble": 2}, INPUTS, VALUES, "leave the other two out"),
        ({}, INPUTS[:3], VALUES, "there are 3 inputs but 32 targets"),
        ({}, [1.5, 2.5], [1, 2], "row 0 of X is 1.5; it must be text"),
        ({}, [], [], "X has 0 rows"),
        ({}, "Fe2O3", [1], "every row needs one text"),
        ({}, INPUTS, ["a"] * 32, "y must be numbers"),
        ({}, INPUTS, [np.inf] * 32, "y must be finite numbers"),
    ],
)
def test_what_cannot_be_fitted_is_named(options, X, y, message):
    with pytest.raises(MatfmError, match=message):
        PropertyRegressor(**{**TINY, **options}).fit(X, y)


def test_a_pooling_twice_as_wide_is_embedded_trained_and_saved(tmp_path):
    mean, both = (EmbeddingTransformer(pooling=name).fit_transform(INPUTS[:6]) for name in ("mean", "mean-max"))
    assert both.shape == (6, 2 * mean.shape[1])
    np.testing.assert_allclose(both[:, : mean.shape[1]], mean, rtol=1e-6)
    assert (both[:, mean.shape[1] :] >= mean - 1e-6).all()
    model = PropertyRegressor(**TINY, fit_options={"pooling": "mean-max"}).fit(INPUTS, np.arange(len(INPUTS)))
    model.save(tmp_path / "run")
    loaded = PropertyRegressor.load(tmp_path / "run")
    np.testing.assert_allclose(loaded.predict(INPUTS[:6]), model.predict(INPUTS[:6]), rtol=1e-5)


def test_embeddings_in_pipelines_and_tables():
    import pandas as pd

    frame = pd.DataFrame({"formula": INPUTS[:6]}, index=list("abcdef"))
    transformer = EmbeddingTransformer().set_output(transform="pandas").fit(frame)
    table = transformer.transform(frame)
    assert list(table.index) == list("abcdef")
    assert list(table.columns) == list(transformer.get_feature_names_out())
    assert list(EmbeddingTransformer().set_output(transform="pandas").fit_transform(INPUTS[:6]).index) == list(range(6))
    columns = ColumnTransformer([("vectors", EmbeddingTransformer(), "formula")])
    assert make_pipeline(columns, Ridge()).fit(frame, range(6)).predict(frame).shape == (6,)
    with pytest.raises(NotFittedError):
        EmbeddingTransformer().transform(INPUTS)


ZERO_WEIGHT = "weights of zero are refused with a reason; a row without weight is left out by the caller"
EXCEPTIONS = {
    PropertyRegressor: {"check_sample_weight_equivalence_on_dense_data": ZERO_WEIGHT},
    PropertyClassifier: {
        "check_sample_weight_equivalence_on_dense_data": ZERO_WEIGHT,
        "check_classifiers_one_label_sample_weights": ZERO_WEIGHT,
    },
    EmbeddingTransformer: {
        "check_transformer_general": "the inputs are texts: they have no number of features that could differ",
        "check_estimator_sparse_tag": "fit looks at no input, as nothing is trained; transform refuses sparse input",
    },
}
"""scikit-learn's checks that cannot hold, with the reason; array API support is skipped by scikit-learn itself.

Those of `n_features_in_`, NaN and infinity are not made: the tag `no_validation` says that inputs are no numbers.
"""


@pytest.fixture
def numbers_as_formulas(monkeypatch):
    """scikit-learn's checks give arrays of numbers: each row becomes a formula that depends on the numbers."""
    read = estimators.read_inputs

    def formula(row):
        return "".join(
            f"{element}{1 + int(abs(float(value)) * 7) % 9}"
            for element, value in zip(("Fe", "O", "Zn", "N"), np.atleast_1d(row), strict=False)
        )

    def read_numbers(encoder, X, conditions):
        cells = X if hasattr(X, "toarray") else np.asarray(X)
        numbers = isinstance(cells, np.ndarray) and cells.dtype.kind in "iuf"
        return read(encoder, [formula(row) for row in cells] if numbers else cells, conditions)

    monkeypatch.setattr(estimators, "read_inputs", read_numbers)


def as_of_numbers(cls):
    """The class, telling scikit-learn's checks that it takes arrays of numbers."""

    class OfNumbers(cls):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
            tags.no_validation = True  # numbers are turned into formulas before the estimator sees them
            for of_task in (tags.regressor_tags, tags.classifier_tags):
                if of_task is not None:
                    of_task.poor_score = True  # a tenth of an epoch
            return tags

    OfNumbers.__name__ = OfNumbers.__qualname__ = f"{cls.__name__}OfNumbers"
    globals()[OfNumbers.__name__] = OfNumbers  # so that it can be pickled
    return OfNumbers


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cls", [PropertyRegressor, PropertyClassifier, EmbeddingTransformer])
def test_the_checks_of_scikit_learn_hold(cls, numbers_as_formulas):
    options = {"backbone": "scratch:tiny", "epochs": 0.1} if cls is not EmbeddingTransformer else {}
    results = check_estimator(as_of_numbers(cls)(**options), expected_failed_checks=EXCEPTIONS[cls], on_fail=None)
    failed = {
        result["check_name"]: repr(result["exception"])[:300] for result in results if result["status"] == "failed"
    }
    assert failed == {}
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == EXCEPTIONS[cls].keys()
    assert sum(result["status"] == "passed" for result in results) > 20
