"""Quantile bins of a property: chosen on training values, asked for by a value or a range, each with a token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from matfm.core.config import from_mapping
from matfm.errors import MatfmError

# R rows, n bins

OUTSIDE = -1
"""Number of the bin of a value that is missing or in no bin."""


@dataclass(frozen=True)
class PropertyBins:
    """Bins in ascending order. They meet but do not overlap: where two meet, the upper one begins.

    A bin whose bounds are equal holds that value alone. Bounds are numbers of float32, as values of tables are.
    """

    name: str
    """Of the column."""
    quantity: str
    """What the column holds, by the name of the table of properties; else the column's own."""
    unit: str
    """Of the bounds."""
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    rows: tuple[int, ...]
    """Training rows in each bin, at least 1."""

    @classmethod
    def fit(cls, name: str, unit: str, values_R: np.ndarray, bins: int, known_as: str = "") -> Self:
        """Bins of training values; NaN is a missing one.

        A value that at least one in `bins` of the rows has is a bin of its own; the other values are cut into `bins`
        parts of about as many rows, and where such a value lies. Equal values are never parted, so bins may be fewer;
        one whose rows all have the same value holds that value alone.

        Raises:
            MatfmError: no value is finite.
        """
        values_R = values_R[np.isfinite(values_R)].astype(np.float32)
        if not len(values_R):
            raise MatfmError(f"no training row has a finite number of {name!r}, so it has no bins; leave it out")
        found, counts = np.unique(values_R, return_counts=True)
        points = found[counts * bins >= len(values_R)]
        others = np.sort(values_R[~np.isin(values_R, points)])
        places = np.round(np.linspace(0, max(len(others) - 1, 0), bins + 1)).astype(int)
        edges = np.unique(np.concatenate([others[places] if len(others) else others, points])).tolist()
        bounds = sorted([*zip(points.tolist(), points.tolist(), strict=True), *pairwise(edges)])
        lower, upper = zip(*bounds, strict=True)
        made = cls(name, known_as or name, unit, lower, upper, (0,) * len(bounds))
        number_R = made.of(values_R)
        held = {number: values_R[number_R == number] for number in np.unique(number_R).tolist()}
        bounds = [
            bounds[number] if (its_R != its_R[0]).any() else (float(its_R[0]),) * 2 for number, its_R in held.items()
        ]
        lower, upper = zip(*bounds, strict=True)
        return cls(name, known_as or name, unit, lower, upper, tuple(map(len, held.values())))

    @classmethod
    def saved(cls, values: Mapping[str, Any], where: str) -> Self:
        """What `mapping` gave."""
        return from_mapping(cls, dict(values), where)

    def mapping(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def tokens(self) -> list[str]:
        """The token of each bin."""
        return [f"<{self.name}:{number}>" for number in range(len(self))]

    @property
    def texts(self) -> list[str]:
        """Each bin for people: `0`, `0.52..0.91`."""
        pairs = zip(self.lower, self.upper, strict=True)
        return [f"{low:.6g}" if low == high else f"{low:.6g}..{high:.6g}" for low, high in pairs]

    def of(self, values_R: np.ndarray) -> np.ndarray:
        """Number of the bin of each value, (R,) int64; `OUTSIDE` where there is none."""
        lower_n, upper_n = np.array(self.lower, np.float32), np.array(self.upper, np.float32)
        values_R1 = np.asarray(values_R, np.float32)[:, None]
        inside_Rn = (lower_n <= values_R1) & (values_R1 <= upper_n)
        # The single value comes before the bins beside it, and of two bins that meet the upper one.
        rank_n = np.arange(1, len(self) + 1) + len(self) * (lower_n == upper_n)
        best_R = (inside_Rn * rank_n).argmax(axis=1)
        return np.where(inside_Rn.any(axis=1), best_R, OUTSIDE)

    def rows_between(self, low: float, high: float) -> np.ndarray:
        """About how many training rows of each bin are in the range, (n,), as if values lay evenly in their bin."""
        lower_n, upper_n = np.array(self.lower), np.array(self.upper)
        overlap_n = np.minimum(upper_n, high) - np.maximum(lower_n, low)
        width_n = upper_n - lower_n
        # A single value lies in the range also where the range names it in more digits than float32 has.
        point_n = (lower_n >= np.float32(low)) & (upper_n <= np.float32(high))
        share_n = np.where(width_n > 0, overlap_n / np.where(width_n > 0, width_n, math.inf), point_n)
        return np.array(self.rows) * np.clip(share_n, 0.0, 1.0)
