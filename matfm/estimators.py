"""scikit-learn estimators over the tasks: formulas in, properties out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from matfm.chem.units import Property
from matfm.core.batching import RaggedTokens
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import encode_formulas
from matfm.tasks.predictor import FitConfig, Targets, predict_members, train_predictor


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
    ) -> None:
        self.backbone = backbone
        self.strategy = strategy
        self.epochs = epochs
        self.ensemble = ensemble
        self.random_state = random_state
        self.device = device

    def _fit(self, formulas: Sequence[str], targets_RK: np.ndarray, targets: Targets) -> Self:
        tokens = _encode(formulas)
        if len(tokens) != len(targets_RK):
            raise MatfmError(f"there are {len(tokens)} formulas but {len(targets_RK)} targets")
        tokens.targets_RK = targets_RK.astype(np.float32)
        config = replace(
            FitConfig(), backbone=self.backbone, strategy=self.strategy, task=self._task, epochs=self.epochs
        )
        device = resolve_device(self.device)
        self.members_ = []
        for number in range(self.ensemble):
            with tempfile.TemporaryDirectory() as folder:
                seed = self.random_state + number
                model, _ = train_predictor(config, targets, tokens, None, Path(folder), seed, device, self.get_params())
                self.members_.append(model)
        return self

    def _predict(self, formulas: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        check_is_fitted(self, "members_")
        return predict_members(self.members_, _encode(formulas), resolve_device(self.device))


class PropertyRegressor(RegressorMixin, _Predictor):  # type: ignore[misc]
    """Predicts one or several properties of compositions.

    Args:
        backbone: bundled name, folder, Hub id or `scratch:SIZE`.
        strategy: full, feature, partial or bitfit.
        epochs: passes over the training rows.
        ensemble: models with different seeds, averaged.
        random_state: seed.
        device: auto, cpu, cuda or mps.
    """

    def fit(self, X: Sequence[str], y: Any) -> Self:
        """`X`: formulas, (R,); `y`: targets, (R,) or (R, K), NaN where missing. Raises MatfmError at bad formulas."""
        targets = np.asarray(y, dtype=np.float64)
        self.flat_ = targets.ndim == 1
        table = targets.reshape(len(targets), -1)
        names = tuple(Property(f"target_{k}", "") for k in range(table.shape[1]))
        return self._fit(X, table, Targets(names))

    def predict(self, X: Sequence[str], return_std: bool = False) -> Any:
        """Predictions in the unit of `y`, shaped like it; with `return_std` also the spread over the ensemble."""
        mean, std = self._predict(X)
        if self.flat_:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean


class PropertyClassifier(ClassifierMixin, _Predictor):  # type: ignore[misc]
    """Predicts the class of compositions; arguments as for `PropertyRegressor`."""

    _task = "classification"

    def fit(self, X: Sequence[str], y: Any) -> Self:
        """`X`: formulas, (R,); `y`: class labels, (R,). Raises MatfmError at bad formulas or a single class."""
        self.classes_, index = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise MatfmError(f"classification needs at least two classes; y has only {self.classes_[0]!r}")
        names = tuple(str(label) for label in self.classes_)
        return self._fit(X, index.reshape(-1, 1), Targets((Property("class", ""),), names))

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """Probabilities (R, C), columns in the order of `classes_`."""
        return self._predict(X)[0]

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """The likeliest class of every formula."""
        likeliest: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return likeliest


def _encode(formulas: Sequence[str]) -> RaggedTokens:
    encoded = encode_formulas(list(formulas))
    if encoded.errors:
        row, reason = next(iter(encoded.errors.items()))
        raise MatfmError(f"row {row}: {reason} ({len(encoded.errors)} of {len(formulas)} formulas cannot be read)")
    return encoded.tokens
