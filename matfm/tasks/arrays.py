"""Inputs, conditions, targets and options as Python callers hold them: lists, arrays, tables and mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from matfm.errors import MatfmError
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.labels import parse_label

# R rows, C conditions


def read_inputs(encoder: RowEncoder, X: Any, conditions: tuple[str, ...]) -> tuple[Examples, list[str]]:
    """Rows with their conditions, and their inputs. Raises MatfmError at the first that cannot be read."""
    inputs, conditions_RC = _columns(X, conditions)
    encoded = encoder(inputs)
    if encoded.errors:
        row, reason = next(iter(sorted(encoded.errors.items())))
        what = "formulas" if encoder.kind == "composition" else encoder.kind.upper()
        raise MatfmError(f"row {row}: {reason} ({len(encoded.errors)} of {len(inputs)} {what} cannot be read)")
    return Examples(encoded.tokens, conditions_SC=conditions_RC), inputs


def _columns(X: Any, conditions: tuple[str, ...]) -> tuple[list[str], np.ndarray | None]:
    """The texts, and the conditions (R, C) float32, of a list, an array or a table."""
    if hasattr(X, "toarray"):
        raise MatfmError("X is a sparse matrix, and sparse input is not supported; give texts")
    if conditions and hasattr(X, "columns"):
        names = list(X.columns)
        inputs = [name for name in names if name not in conditions]
        if len(inputs) != 1 or len(names) != 1 + len(conditions):
            raise MatfmError(f"X has the columns {names}; it needs one of inputs, and the conditions {conditions}")
        X = X[[inputs[0], *conditions]]
    table = np.asarray(X, dtype=object)
    if table.ndim == 1 and not conditions:
        table = table.reshape(-1, 1)
    if table.ndim != 2 or table.shape[1] != 1 + len(conditions):
        wanted = f"an input and the conditions {conditions}" if conditions else "one text"
        raise MatfmError(f"X has the shape {table.shape}; every row needs {wanted}")
    if len(table) == 0:
        raise MatfmError("X has 0 rows; at least one is needed")
    inputs = table[:, 0].tolist()
    for row, cell in enumerate(inputs):
        if not isinstance(cell, str):
            raise MatfmError(f"row {row} of X is {cell!r}; it must be text")
    return inputs, _finite(table[:, 1:], conditions) if conditions else None


def _finite(cells: np.ndarray, conditions: tuple[str, ...]) -> np.ndarray:
    try:
        values_RC = cells.astype(np.float32)
    except ValueError as error:
        raise MatfmError(f"the conditions {conditions} must be numbers: {error}") from error
    if not np.isfinite(values_RC).all():
        row, c = np.argwhere(~np.isfinite(values_RC))[0]
        raise MatfmError(f"row {row} of X: the condition {conditions[c]!r} is missing or not finite")
    return values_RC


def read_targets(y: Any, name: str) -> np.ndarray:
    """Targets (R,) or (R, K), NaN where missing. Raises MatfmError for what is no number, or infinite."""
    if y is None:
        raise MatfmError(f"{name} requires y to be passed, but the target y is None")
    try:
        targets = np.asarray(y, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise MatfmError(f"y must be numbers: {error}") from error
    if targets.ndim not in (1, 2) or np.isinf(targets).any():
        raise MatfmError("y must be finite numbers (NaN where missing), one or several for each input")
    return targets


def read_sides(y: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets as `read_targets`, and of censored ones, texts like `<5` and `>10`, the side: -1, +1, else 0.

    Raises MatfmError for what is neither.
    """
    cells = np.asarray(y, dtype=object)
    if y is None or cells.ndim not in (1, 2) or not any(isinstance(cell, str) for cell in cells.flat):
        targets = read_targets(y, name)
        return targets, np.zeros(targets.shape, np.int8)
    try:
        pairs = [parse_label(cell) if isinstance(cell, str) else (cell, 0) for cell in cells.flat]
    except MatfmError as error:
        raise MatfmError(f"y must be numbers, or bounds like '<5': {error}") from error
    values, sides = zip(*pairs, strict=True)
    targets = read_targets(np.array(values, dtype=object).reshape(cells.shape), name)
    return targets, np.array(sides, np.int8).reshape(cells.shape)


def read_weights(sample_weight: Any, rows: int) -> np.ndarray:
    """Weights (R,) float32. Raises MatfmError unless there is a positive number for each row."""
    weight_R = np.asarray(sample_weight, dtype=np.float32)
    if weight_R.shape != (rows,) or not (np.isfinite(weight_R) & (weight_R > 0)).all():
        raise MatfmError(f"sample_weight must be {rows} positive numbers, none of them zero")
    return weight_R


def in_sections(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with dots as sections within sections."""
    nested: dict[str, Any] = {}
    for key, value in options.items():
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = {**place.get(last, {}), **in_sections(value)} if isinstance(value, Mapping) else value
    return nested
