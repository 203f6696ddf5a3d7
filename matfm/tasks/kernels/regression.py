"""Kernel regression on views of compositions or molecules: fitted on rows in memory, saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from matfm.errors import MatfmError
from matfm.tasks.kernels.describer import Describer
from matfm.tasks.kernels.summed import SummedKernel, fit_summed
from matfm.tasks.kernels.views import PARTS

# R training rows, S other rows, K targets

LARGEST = 20_000
"""Labelled rows: a kernel of so many is 3.2 GB, and several are held at once."""
_FEWEST = 3

Bounds = tuple[tuple[float, float], ...]
"""Lowest and highest value of each target, infinite where there is none."""


@dataclass(frozen=True)
class KernelRegression:
    """One sum of kernels for each target."""

    describer: Describer
    described: dict[str, np.ndarray]
    """Part to features of the training rows, (R, D), of the parts that have a weight for some target."""
    rows: tuple[np.ndarray, ...]
    """Positions of the training rows that have a label, of each target."""
    summed: tuple[SummedKernel, ...]
    """Of each target."""
    bounds: Bounds

    def predict(self, X: Any, device: torch.device, with_std: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Means (S, K) within the bounds and, if asked for, standard deviations (S, K)."""
        described = self.describer(X, device, self.described)
        mean_SK = self._within(np.stack([kernel.predict(described) for kernel in self.summed], axis=1))
        std_SK = np.stack([kernel.std(described) for kernel in self.summed], axis=1) if with_std else None
        return mean_SK, std_SK

    def left_out(self) -> np.ndarray:
        """Every training row as predicted by the others, within the bounds, (R, K); NaN where it has no label."""
        count = len(next(iter(self.described.values())))
        value_RK = np.full((count, len(self.summed)), np.nan)
        for k, (rows, kernel) in enumerate(zip(self.rows, self.summed, strict=True)):
            value_RK[rows, k] = kernel.left_out_R
        return self._within(value_RK)

    def shares(self) -> list[dict[str, float]]:
        """View to its share of the kernel, for each target."""
        return [
            {view: sum(kernel.weights[part] for part in PARTS.get(view, (view,))) for view in self.describer.views}
            for kernel in self.summed
        ]

    def _within(self, value_SK: np.ndarray) -> np.ndarray:
        lowest_K, highest_K = np.array(self.bounds).T
        return value_SK.clip(lowest_K, highest_K)


def fit_regression(
    describer: Describer, X: Any, target_RK: np.ndarray, bounds: Bounds, seed: int, device: torch.device
) -> KernelRegression:
    """Fit each target on the rows that have a label of it.

    Args:
        describer: reads the inputs.
        X: inputs, (R,).
        target_RK: NaN where missing.
        bounds: of each target.
        seed: of the rows by which lengths and weights are chosen, where there are more than 1,000.
        device: of the encoder.

    Raises:
        MatfmError: inputs that cannot be read, or a target with too few or too many labels.
    """
    rows = tuple(np.flatnonzero(~np.isnan(target_R)) for target_R in target_RK.T)
    for k, labelled in enumerate(rows):
        _check_rows(len(labelled), k)
    described = describer(X, device, describer.parts)
    count = len(next(iter(described.values())))
    if count != len(target_RK):
        raise MatfmError(f"there are {count} inputs but {len(target_RK)} targets")
    summed = tuple(
        fit_summed({part: values[labelled] for part, values in described.items()}, target_RK[labelled, k], seed)
        for k, labelled in enumerate(rows)
    )
    used = {part: values for part, values in described.items() if any(part in kernel.kernels for kernel in summed)}
    return KernelRegression(describer, used, rows, summed, bounds)


def _check_rows(count: int, k: int) -> None:
    if count < _FEWEST:
        what = "1 sample" if count == 1 else f"{count} samples"
        raise MatfmError(f"column {k} of y has {what} with a label; a kernel needs at least {_FEWEST}")
    if count > LARGEST:
        raise MatfmError(
            f"column {k} of y has {count} labels, and every kernel of R rows holds R² numbers, here "
            f"{count**2 * 8 / 1e9:.1f} GB, of which several are needed at once; fit at most {LARGEST} rows, or "
            "fine-tune with PropertyRegressor, whose memory does not grow with the rows"
        )


def read_bounds(bounds: Any, targets: int) -> Bounds:
    """Of each target, from a pair (lowest, highest) for all, or one pair a target; None is no bound.

    Raises:
        MatfmError: anything else, or a lowest value that is no less than the highest.
    """
    if bounds is None:
        return ((-np.inf, np.inf),) * targets
    pairs = list(bounds) if isinstance(bounds, Sequence | np.ndarray) else []
    if len(pairs) == 2 and not any(isinstance(end, Sequence | np.ndarray) for end in pairs):
        pairs = [pairs] * targets
    read = []
    for pair in pairs:
        try:
            low, high = (None, None) if pair is None else pair
            low, high = (-np.inf if low is None else float(low)), (np.inf if high is None else float(high))
        except (TypeError, ValueError) as error:
            raise MatfmError(
                f"bounds holds {pair!r}; give (lowest, highest), either of them None for no bound"
            ) from error
        if not low < high:
            raise MatfmError(f"bounds holds {pair!r}; the lowest value must be less than the highest")
        read.append((low, high))
    if len(read) != targets:
        raise MatfmError(f"bounds is {bounds!r}; give one pair (lowest, highest), or one for each of {targets} targets")
    return tuple(read)
