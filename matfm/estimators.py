"""scikit-learn estimators over the tasks: formulas or molecules in, properties or vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from matfm.chem.units import Property, property_named
from matfm.core.config import from_mapping
from matfm.core.temperature import at_temperature
from matfm.errors import MatfmError
from matfm.tasks.arrays import in_sections, read_inputs, read_sides, read_weights
from matfm.tasks.devices import resolve_device
from matfm.tasks.embed import load_embedder
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.estimator_file import new_estimator, of_texts, plain, save_estimator
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.fitted import Calibrating, FittedPredictor, fit_predictor, load_fitted
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.predictions import Predicted
from matfm.tasks.prompting.inputs import read_for
from matfm.tasks.targets import Targets
from matfm.tasks.uncertainty.intervals import IntervalConfig

# R rows, K targets, C classes or conditions, D width


class _Predictor(BaseEstimator):  # type: ignore[misc]
    """Fitting, predicting, saving and loading, shared by regression and classification."""

    _task = "regression"
    _own: tuple[str, ...] = ("backbone", "strategy", "epochs")
    """Arguments that are options of `FitConfig`."""
    _fitted: tuple[str, ...] = ()
    """Attributes beside the predictor that are saved."""

    def __init__(
        self,
        backbone: str = "matbert-small",
        strategy: str = "full",
        epochs: float = 30.0,
        ensemble: int = 1,
        random_state: int = 0,
        device: str = "auto",
        kind: str | None = None,
        conditions: Sequence[str] = (),
        enumeration: int = 0,
        calibration_share: float = 0.0,
        cross_conformal: int = 0,
        fit_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone
        self.strategy = strategy
        self.epochs = epochs
        self.ensemble = ensemble
        self.random_state = random_state
        self.device = device
        self.kind = kind
        self.conditions = conditions
        self.enumeration = enumeration
        self.calibration_share = calibration_share
        self.cross_conformal = cross_conformal
        self.fit_options = fit_options

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator as JSON and safetensors; `matfm predict` reads the folder too.

        Raises:
            MatfmError: the folder holds a model already, or an argument or class is no plain value.
        """
        check_is_fitted(self, "predictor_")
        path = Path(folder)
        fitted = {name: plain(getattr(self, name), name) for name in self._fitted}
        parameters = plain(self.get_params(deep=False), type(self).__name__)
        self.predictor_.save(path, parameters)
        save_estimator(path, type(self).__name__, parameters, fitted)

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Self:
        """What `save` wrote; `device` in place of the saved one, if given.

        Raises:
            MatfmError: the folder holds no such estimator, or is damaged.
        """
        estimator, fitted = new_estimator(cls, Path(folder), device)
        estimator.predictor_ = load_fitted(Path(folder))
        estimator._restore(fitted)
        return estimator

    def in_domain(self, X: Any) -> np.ndarray:
        """Whether each input is like those that the models were fitted on (docs/uncertainty.md), bool (R,)."""
        examples, _, predicted = self._predict(X, pooled=True)
        domain = self.predictor_.domain
        assert domain is not None
        assert predicted.pooled_RD is not None
        distance_R = domain.distances(predicted.pooled_RD)
        tokenizer = self.predictor_.encoder.tokenizer
        inside_R: np.ndarray = domain.reasons(examples, distance_R, tokenizer, tuple(self.conditions)) == ""
        return inside_R

    def __sklearn_tags__(self) -> Any:
        return of_texts(super().__sklearn_tags__())

    def _restore(self, fitted: dict[str, Any]) -> None:
        for name in self._fitted:
            setattr(self, name, fitted[name])

    def _fit(
        self,
        X: Any,
        targets_RK: np.ndarray,
        targets: Targets,
        sample_weight: Any,
        side_RK: np.ndarray | None = None,
    ) -> Self:
        calibrating = Calibrating(self.ensemble, self.calibration_share, self.cross_conformal)
        encoder = backbone_encoder(self.backbone, self.kind)
        config = self._fit_config(encoder)
        encoder = read_for(encoder, config.delta(), [known.name for known in targets.properties])
        examples, cells = read_inputs(encoder, X, tuple(self.conditions))
        if len(examples) != len(targets_RK):
            raise MatfmError(f"there are {len(examples)} inputs but {len(targets_RK)} targets")
        examples.tokens.targets_RK = targets_RK.astype(np.float32)
        if side_RK is not None and side_RK.any():
            examples = replace(examples, side_SK=side_RK)
        if sample_weight is not None:
            examples = replace(examples, weight_S=read_weights(sample_weight, len(examples)))
        self.predictor_ = fit_predictor(
            config,
            replace(targets, conditions=tuple(self.conditions)),
            encoder,
            cells,
            examples,
            calibrating,
            self.random_state,
            resolve_device(self.device),
            plain(self.get_params(deep=False), type(self).__name__),
        )
        return self

    def _fit_config(self, encoder: RowEncoder) -> FitConfig:
        options = in_sections(self.fit_options or {})
        own = {name: getattr(self, name) for name in self._own}
        own |= {"task": self._task, "enumerate": self.enumeration}
        if double := sorted(own.keys() & options.keys()):
            raise MatfmError(f"fit_options holds {double[0]!r}, which is an argument of {type(self).__name__} itself")
        values = plain({**own, **options}, "fit_options")
        return from_mapping(FitConfig, values, "fit_options").for_kind(encoder.kind)

    def _predict(self, X: Any, pooled: bool = False) -> tuple[Examples, FittedPredictor, Predicted]:
        check_is_fitted(self, "predictor_")
        fitted: FittedPredictor = self.predictor_
        examples, cells = read_inputs(fitted.encoder, X, tuple(self.conditions))
        return examples, fitted, fitted.predict(examples, cells, resolve_device(self.device), pooled)

    def _bounds(self, X: Any, config: IntervalConfig) -> dict[str, np.ndarray]:
        """Columns of intervals or sets."""
        check_is_fitted(self, "predictor_")
        trust = self.predictor_.trust(config)  # before the rows are predicted, as it may complain
        examples, _, predicted = self._predict(X, pooled=trust.needs_vectors)
        return trust.columns(predicted, examples)


class PropertyRegressor(RegressorMixin, _Predictor):  # type: ignore[misc]
    """Predicts one or several properties of compositions or molecules.

    Inputs are texts, (R,); with `conditions`, a table whose other columns are these, or (R, 1 + C): input, conditions.

    Args:
        backbone: bundled name, folder, Hub id or `scratch:SIZE`.
        strategy: as `--strategy` of `matfm finetune`.
        epochs: passes over the training rows.
        ensemble: models with different seeds, averaged.
        random_state: seed.
        device: auto, cpu, cuda or mps.
        kind: composition, smiles or selfies; None is what the backbone reads.
        conditions: names of numeric columns beside the input.
        enumeration: written forms of a training molecule, one an epoch in turn; 0 is off.
        calibration_share: share of the rows held out of training, for intervals.
        cross_conformal: models each trained without one of so many folds, for intervals; 0 for none.
        fit_options: further options of `--set fit.…`, nested or with dots: `{"optimizer.learning_rate": 1e-3}`.
        loss: l1, l2, huber, gaussian or quantile.
        head: plain, two-part or auto.
        properties: what the targets are, as `("band_gap",)`: predictions keep the physical bounds of properties that
            the units table knows, and the saved model names its columns so; () for anonymous targets without bounds.
        units: units of the targets, as `("meV",)`; () for those of the table.
    """

    _own = (*_Predictor._own, "loss", "head")
    _fitted = ("flat_",)

    def __init__(
        self,
        backbone: str = "matbert-small",
        strategy: str = "full",
        epochs: float = 30.0,
        ensemble: int = 1,
        random_state: int = 0,
        device: str = "auto",
        kind: str | None = None,
        conditions: Sequence[str] = (),
        enumeration: int = 0,
        calibration_share: float = 0.0,
        cross_conformal: int = 0,
        fit_options: Mapping[str, Any] | None = None,
        loss: str = "l1",
        head: str = "plain",
        properties: Sequence[str] = (),
        units: Sequence[str] = (),
    ) -> None:
        super().__init__(
            backbone,
            strategy,
            epochs,
            ensemble,
            random_state,
            device,
            kind,
            conditions,
            enumeration,
            calibration_share,
            cross_conformal,
            fit_options,
        )
        self.loss = loss
        self.head = head
        self.properties = properties
        self.units = units

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """`X`: inputs, (R,); `y`: targets, (R,) or (R, K), NaN where missing; `sample_weight`: (R,), positive.

        A censored target is a text, `"<5"` or `">10"`. Raises MatfmError at inputs or targets that cannot be read.
        """
        targets, sides = read_sides(y, type(self).__name__)
        table, side_RK = (values[:, None] if values.ndim == 1 else values for values in (targets, sides))
        self._fit(X, table, Targets(self._known(table.shape[1])), sample_weight, side_RK)
        self.flat_ = targets.ndim == 1
        return self

    def _known(self, count: int) -> tuple[Property, ...]:
        """What the targets are."""
        for name in ("properties", "units"):
            given = getattr(self, name)
            if isinstance(given, str) or len(given) not in (0, count):
                raise MatfmError(f"{name} is {given!r}; give a list with one text for each of the {count} target(s)")
        if not self.properties:
            if self.units:
                raise MatfmError("units needs properties, which the units are of")
            return tuple(Property(f"target_{k}", "") for k in range(count))
        if len(set(self.properties)) < count:
            raise MatfmError(f"properties is {list(self.properties)}; every target needs a name of its own")
        units = self.units or [""] * count
        known = zip(self.properties, units, strict=True)
        return tuple(replace(property_named(name, unit), name=name) for name, unit in known)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predictions in the unit of `y`, shaped like it; with `return_std` also their standard deviations.

        These are of the ensemble's mixture; 0 for a single model with another loss than gaussian.
        """
        predicted = self._predict(X)[2]
        mean, std = (self._shaped(values.astype(np.float64)) for values in (predicted.value, predicted.std))
        return (mean, std) if return_std else mean

    def predict_interval(
        self, X: Any, level: float = 0.9, method: str = "auto", groups: str = "none"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends, shaped like `y`, of conformal intervals that cover a share `level` of new targets.

        `method` and `groups` as in `matfm predict --interval-method --interval-groups`; NaN where a group is unknown.
        Raises MatfmError unless it was fitted with `calibration_share` or `cross_conformal`, of enough rows.
        """
        columns = self._bounds(X, IntervalConfig(level, method, groups))
        names = [known.name for known in self.predictor_.targets.properties]
        lower, upper = (
            np.stack([columns[f"predicted_{name}_{end}"].astype(np.float64) for name in names], axis=1)
            for end in ("lower", "upper")
        )
        return self._shaped(lower), self._shaped(upper)

    def _shaped(self, values_RK: np.ndarray) -> np.ndarray:
        return values_RK[:, 0] if self.flat_ else values_RK

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class PropertyClassifier(ClassifierMixin, _Predictor):  # type: ignore[misc]
    """Predicts the class of compositions or molecules.

    Arguments as for `PropertyRegressor`, without `loss` and `head`. With `calibration_share` or `cross_conformal` the
    probabilities are scaled by the temperature that the held-out rows give.
    """

    _task = "classification"
    _fitted = ("classes_",)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """`X`: inputs, (R,); `y`: class labels, (R,); `sample_weight`: (R,), positive.

        Raises MatfmError at inputs that cannot be read or a single class.
        """
        if y is None:
            raise MatfmError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        labels = np.asarray(y)
        if labels.ndim != 1:
            raise MatfmError(f"y has the shape {labels.shape}; it must be one class label for each input")
        classes, index = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise MatfmError(f"classification needs at least two classes; y has {len(classes)} class: {list(classes)}")
        names = tuple(str(label) for label in classes)
        self._fit(X, index.reshape(-1, 1), Targets((Property("class", ""),), (names,)), sample_weight)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (R, C), columns in the order of `classes_`."""
        probability_RC = self._predict(X)[2].value
        calibration = self.predictor_.calibration
        if calibration is None:
            return probability_RC.astype(np.float64)
        return at_temperature(probability_RC, calibration.targets["class"].temperature())

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of every input."""
        chosen_R = self.predict_proba(X).argmax(axis=1)
        likeliest: np.ndarray = self.classes_[chosen_R]
        return likeliest

    def predict_set(self, X: Any, level: float = 0.9, method: str = "auto", groups: str = "none") -> np.ndarray:
        """Classes (R, C), bool, of conformal sets that hold the true class of a share `level` of new inputs.

        `method` is lac (auto) or aps. Raises MatfmError as `PropertyRegressor.predict_interval`.
        """
        columns = self._bounds(X, IntervalConfig(level, method, groups))
        return np.stack([columns[f"in_set_{label}"] for label in map(str, self.classes_)], axis=1)

    def _restore(self, fitted: dict[str, Any]) -> None:
        self.classes_ = np.array(fitted["classes_"])


class EmbeddingTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Vectors of compositions or molecules from a pretrained encoder, for pipelines; nothing is trained.

    Args:
        backbone: bundled name, folder, Hub id or run directory.
        kind: composition, smiles or selfies; None is what the backbone reads.
        layer: hidden states to pool, 0 (input of the first block) to the number of blocks; None is the last.
        pooling: mean, mean-max or cls; None is as the model was trained.
        device: auto, cpu, cuda or mps.
    """

    def __init__(
        self,
        backbone: str = "matbert-small",
        kind: str | None = None,
        layer: int | None = None,
        pooling: str | None = None,
        device: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.kind = kind
        self.layer = layer
        self.pooling = pooling
        self.device = device

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: ARG002  (scikit-learn's signature)
        """Load the encoder. Raises MatfmError where there is none, or it reads another kind."""
        self.encoder_ = backbone_encoder(self.backbone, self.kind)
        self.embedder_ = load_embedder(self.backbone, self.layer, self.pooling, resolve_device(self.device))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """`X`: inputs, (R,) or a table of one column, to vectors (R, D), float32.

        Raises MatfmError at inputs that cannot be read.
        """
        check_is_fitted(self, "embedder_")
        return self.embedder_(read_inputs(self.encoder_, X, ())[0])

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002
        """Names of the D columns."""
        check_is_fitted(self, "embedder_")
        return np.array([f"embedding_{number}" for number in range(self.embedder_.width)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        tags.transformer_tags.preserves_dtype = []
        return of_texts(tags)
