"""A scikit-learn estimator for small tables: a Gaussian process on several views of a material or molecule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from matfm.tasks.arrays import read_targets
from matfm.tasks.devices import resolve_device
from matfm.tasks.estimator_file import new_estimator, of_texts, plain, save_estimator
from matfm.tasks.kernels.describer import make_describer
from matfm.tasks.kernels.regression import KernelRegression, fit_regression, read_bounds
from matfm.tasks.kernels.saved import load_regression, save_regression

# R rows, K targets


class KernelRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Exact Gaussian-process regression whose kernel is a weighted sum over views of the inputs (docs/kernels.md).

    Weights, lengths and noise are those of the smallest leave-one-out error on the training rows (Dubrule, Math. Geol.
    15, 687 (1983)); a view that does not lower it gets no weight. Time grows with the cube of the rows, memory with
    their square. After `fit`, `weights_` says the share of each view, as a mapping, or one for each column of `y`.

    Args:
        backbone: bundled name, folder or Hub id of the encoder of the view embedding, which is not trained.
        features: auto (all views of the kind) or names of views: magpie, embedding of compositions; morgan, pairs (atom
            pairs and torsions), descriptors, embedding of molecules.
        kind: composition, smiles or selfies; None is what the backbone reads.
        bounds: lowest and highest possible value, None for no bound, in the unit of `y`; or such a pair a column.
        device: auto, cpu, cuda or mps, for the encoder.
        random_state: seed of the rows by which weights and lengths are chosen, where there are more than 1,000.
    """

    def __init__(
        self,
        backbone: str = "matbert-small",
        features: str | Sequence[str] = "auto",
        kind: str | None = None,
        bounds: Sequence[Any] | None = None,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.features = features
        self.kind = kind
        self.bounds = bounds
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """`X`: inputs, (R,); `y`: targets, (R,) or (R, K), NaN where missing; each column has a kernel of its own.

        Raises MatfmError at inputs or targets that cannot be read, and at fewer than 3 or more than 20,000 labels.
        """
        targets = read_targets(y, type(self).__name__)
        table = targets[:, None] if targets.ndim == 1 else targets
        bounds = read_bounds(self.bounds, table.shape[1])
        device = resolve_device(self.device)
        describer = make_describer(self.backbone, self.features, self.kind, device)
        regression = fit_regression(describer, X, table, bounds, self.random_state, device)
        return self._fitted(regression, targets.ndim == 1)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predictions in the unit of `y`, shaped like it; with `return_std` also their standard deviations.

        These are of a new measurement, noise included, and scaled to the leave-one-out errors; the first ones cost as
        much time as a fit of one kernel. Raises MatfmError at inputs that cannot be read.
        """
        check_is_fitted(self, "regression_")
        mean_SK, std_SK = self.regression_.predict(X, resolve_device(self.device), return_std)
        return self._shaped(mean_SK) if std_SK is None else (self._shaped(mean_SK), self._shaped(std_SK))

    @property
    def left_out_(self) -> np.ndarray:
        """Every training row as predicted by the others, shaped like `y`; NaN where it has no label."""
        check_is_fitted(self, "regression_")
        return self._shaped(self.regression_.left_out())

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator as JSON and safetensors, encoder and features of the training rows included.

        Raises:
            MatfmError: the folder holds one already, or an argument is no plain value.
        """
        check_is_fitted(self, "regression_")
        name, path = type(self).__name__, Path(folder)
        parameters = plain(self.get_params(deep=False), name)
        fitted = save_regression(self.regression_, path, parameters)
        save_estimator(path, name, parameters, {"flat": self.flat_, "regression": fitted})

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Self:
        """What `save` wrote; `device` in place of the saved one, if given.

        Raises:
            MatfmError: the folder holds no such estimator, or is damaged.
        """
        estimator, fitted = new_estimator(cls, Path(folder), device)
        return estimator._fitted(load_regression(Path(folder), fitted.get("regression")), bool(fitted.get("flat")))

    def _fitted(self, regression: KernelRegression, flat: bool) -> Self:
        self.regression_ = regression
        self.flat_ = flat
        shares = regression.shares()
        self.weights_ = shares[0] if flat else shares
        return self

    def _shaped(self, values_RK: np.ndarray) -> np.ndarray:
        return values_RK[:, 0] if self.flat_ else values_RK

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return of_texts(tags)
