"""scikit-learn estimators over the tasks: formulas or molecules in, properties or vectors out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from matfm.chem.units import Property
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.embed import load_embedder
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.predictions import Predicted, predict_members
from matfm.tasks.predictor import train_predictor
from matfm.tasks.targets import Targets, with_heads


class _Predictor(BaseEstimator):  # type: ignore[misc]
    """Fitting and predicting, shared by regression and classification."""

    _task = "regression"

    def __init__(
        self,
        backbone: str = "matbert-small",
        strategy: str = "full",
        epochs: float = 30.0,
        ensemble: int = 1,
        random_state: int = 0,
        device: str = "auto",
        kind: str | None = None,
    ) -> None:
        self.backbone = backbone
        self.strategy = strategy
        self.epochs = epochs
        self.ensemble = ensemble
        self.random_state = random_state
        self.device = device
        self.kind = kind

    def _fit(self, inputs: Sequence[str], targets_RK: np.ndarray, targets: Targets, sample_weight: Any) -> Self:
        self.encoder_ = backbone_encoder(self.backbone, self.kind)
        examples = _encode(self.encoder_, inputs)
        if len(examples) != len(targets_RK):
            raise MatfmError(f"there are {len(examples)} inputs but {len(targets_RK)} targets")
        examples.tokens.targets_RK = targets_RK.astype(np.float32)
        if sample_weight is not None:
            examples = replace(examples, weight_S=_weights(sample_weight, len(examples)))
        config = FitConfig(backbone=self.backbone, strategy=self.strategy, task=self._task, epochs=self.epochs)
        targets = with_heads(targets, config, examples)
        device = resolve_device(self.device)
        self.members_ = []
        for number in range(self.ensemble):
            with tempfile.TemporaryDirectory() as folder:
                seed = self.random_state + number
                model, _ = train_predictor(
                    config, targets, self.encoder_, examples, None, Path(folder), seed, device, self.get_params()
                )
                self.members_.append(model)
        return self

    def _predict(self, inputs: Sequence[str]) -> Predicted:
        check_is_fitted(self, "members_")
        return predict_members(self.members_, _encode(self.encoder_, inputs), resolve_device(self.device))


class PropertyRegressor(RegressorMixin, _Predictor):  # type: ignore[misc]
    """Predicts one or several properties of compositions or molecules.

    Args:
        backbone: bundled name, folder, Hub id or `scratch:SIZE`.
        strategy: full, feature, partial, bitfit, adapter, lora, prefix or prompt.
        epochs: passes over the training rows.
        ensemble: models with different seeds, averaged.
        random_state: seed.
        device: auto, cpu, cuda or mps.
        kind: composition, smiles or selfies; None is what the backbone reads.
    """

    def fit(self, X: Sequence[str], y: Any, sample_weight: Any = None) -> Self:
        """`X`: inputs, (R,); `y`: targets, (R,) or (R, K), NaN where missing; `sample_weight`: (R,), positive.

        Raises MatfmError at inputs that cannot be read.
        """
        targets = np.asarray(y, dtype=np.float64)
        self.flat_ = targets.ndim == 1
        table = targets.reshape(len(targets), -1)
        names = tuple(Property(f"target_{k}", "") for k in range(table.shape[1]))
        return self._fit(X, table, Targets(names), sample_weight)

    def predict(self, X: Sequence[str], return_std: bool = False) -> Any:
        """Predictions in the unit of `y`, shaped like it; with `return_std` also the spread over the ensemble."""
        predicted = self._predict(X)
        mean, std = predicted.value, predicted.std
        if self.flat_:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean


class PropertyClassifier(ClassifierMixin, _Predictor):  # type: ignore[misc]
    """Predicts the class of compositions or molecules; arguments as for `PropertyRegressor`."""

    _task = "classification"

    def fit(self, X: Sequence[str], y: Any, sample_weight: Any = None) -> Self:
        """`X`: inputs, (R,); `y`: class labels, (R,); `sample_weight`: (R,), positive.

        Raises MatfmError at inputs that cannot be read or a single class.
        """
        self.classes_, index = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise MatfmError(f"classification needs at least two classes; y has only {self.classes_[0]!r}")
        names = tuple(str(label) for label in self.classes_)
        return self._fit(X, index.reshape(-1, 1), Targets((Property("class", ""),), names), sample_weight)

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """Probabilities (R, C), columns in the order of `classes_`."""
        return self._predict(X).value

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """The likeliest class of every input."""
        likeliest: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return likeliest


class EmbeddingTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Vectors of compositions or molecules from a pretrained encoder, for pipelines; nothing is trained.

    Args:
        backbone: bundled name, folder, Hub id or run directory.
        kind: composition, smiles or selfies; None is what the backbone reads.
        layer: hidden states to pool, 0 (input of the first block) to the number of blocks; None is the last.
        pooling: mean or cls; None is as the model was trained.
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

    def fit(self, X: Sequence[str] | None = None, y: Any = None) -> Self:  # noqa: ARG002  (scikit-learn's signature)
        """Load the encoder. Raises MatfmError where there is none, or it reads another kind."""
        self.encoder_ = backbone_encoder(self.backbone, self.kind)
        self.embedder_ = load_embedder(self.backbone, self.layer, self.pooling, resolve_device(self.device))
        return self

    def transform(self, X: Sequence[str]) -> np.ndarray:
        """`X`: inputs, (R,), to vectors (R, D), float32. Raises MatfmError at inputs that cannot be read."""
        check_is_fitted(self, "embedder_")
        return self.embedder_(_encode(self.encoder_, X))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002
        """Names of the D columns."""
        check_is_fitted(self, "embedder_")
        return np.array([f"embedding_{number}" for number in range(self.embedder_.width)], dtype=object)


def _encode(encoder: RowEncoder, inputs: Sequence[str]) -> Examples:
    encoded = encoder(list(inputs))
    if encoded.errors:
        row, reason = next(iter(sorted(encoded.errors.items())))
        what = "formulas" if encoder.kind == "composition" else encoder.kind.upper()
        raise MatfmError(f"row {row}: {reason} ({len(encoded.errors)} of {len(inputs)} {what} cannot be read)")
    return Examples(encoded.tokens)


def _weights(sample_weight: Any, rows: int) -> np.ndarray:
    weight_R = np.asarray(sample_weight, dtype=np.float32)
    if weight_R.shape != (rows,) or not (np.isfinite(weight_R) & (weight_R > 0)).all():
        raise MatfmError(f"sample_weight must be {rows} positive numbers")
    return weight_R
