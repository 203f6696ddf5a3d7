"""`matfm predict`: a run and a table of any size in, one prediction per row out, streaming."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from matfm.chem.units import Property
from matfm.errors import MatfmError
from matfm.models.matbert import MatBERTForProperty
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import EncodedRows, encode_formulas
from matfm.tasks.finetune import CALIBRATION, ENSEMBLE, prediction_columns
from matfm.tasks.predictor import Targets, load_predictor, predict_members
from matfm.tasks.readings import readings_to_check
from matfm.tasks.tables import Chunk, check_output, iterate_table, table_writer

ERROR = "error"
SHOWN_REASONS = 5


@dataclass(frozen=True)
class PredictConfig:
    """`matfm predict`."""

    run: str
    """Run directory, or the name of bundled weights."""
    table: str
    """Table to read, or - for CSV on standard input."""
    input: str
    """Column with the formula."""
    out: str
    """Table to write."""
    interval: float | None = None
    """Coverage of conformal intervals, for example 0.9."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.interval is not None and not 0 < self.interval < 1:
            raise MatfmError(f"--interval is {self.interval}; it is a coverage between 0 and 1, for example 0.9")
        check_output(self.out, self.table)


def run(config: PredictConfig) -> dict[str, Any]:
    """Write one row per input row, in order; unreadable rows get empty values and a reason in `error`."""
    device = resolve_device(config.device)
    members = load_members(config.run)
    targets = targets_of(members[0])
    widths = _half_widths(config, targets) if config.interval is not None else {}
    chunks = iterate_table(config.table)
    first = next(chunks)
    first.column(config.input, config.table)
    schema = _schema(first, targets, len(members), widths)
    rows = failed = 0
    warnings: dict[int, str] = {}
    reasons: dict[str, int] = {}
    with table_writer(config.out, schema) as append, tqdm(desc="predict", unit="row", disable=None, leave=False) as bar:
        chunk: Chunk | None = first
        while chunk is not None:
            encoded = encode_formulas(chunk.columns[config.input])
            warnings.update({chunk.first_row + row: reading for row, reading in encoded.warnings.items()})
            columns, errors = _predict_chunk(chunk, encoded, members, targets, widths, device)
            append({**chunk.columns, **columns})
            for row, reason in sorted(errors.items()):
                failed += 1
                if len(reasons) < SHOWN_REASONS:
                    reasons[reason] = chunk.first_row + row
            rows += chunk.rows
            bar.update(chunk.rows)
            chunk = next(chunks, None)
    return {
        "task": "predict",
        "run": config.run,
        "out": config.out,
        "rows_in": rows,
        "rows_predicted": rows - failed,
        "rows_with_error": failed,
        **readings_to_check(warnings),
        "first_errors": [{"row": row, "reason": reason} for reason, row in reasons.items()],
    }


def load_members(run_path: str) -> list[MatBERTForProperty]:
    """The model of a run, and the further members of its ensemble."""
    first = load_predictor(run_path)
    if not first.config.property_names:
        raise MatfmError(f"{run_path} holds no property predictor; fine-tune one with matfm finetune")
    others = sorted((Path(run_path) / ENSEMBLE).glob("*/"), key=lambda folder: int(folder.name))
    return [first, *(load_predictor(folder) for folder in others)]


def targets_of(model: MatBERTForProperty) -> Targets:
    """Properties with their bounds, and classes, as the model knows them."""
    names, units = model.config.property_names or [], model.config.property_units or []
    head = model.property_head
    known = tuple(
        Property(name, unit, float(lower), float(upper))
        for name, unit, lower, upper in zip(names, units, head.lower, head.upper, strict=False)
    )
    return Targets(known, tuple(model.config.class_names) if model.config.class_names else None)


def _predict_chunk(
    chunk: Chunk,
    encoded: EncodedRows,
    members: list[MatBERTForProperty],
    targets: Targets,
    widths: dict[str, float],
    device: Any,
) -> tuple[dict[str, list[Any]], dict[int, str]]:
    errors = {**encoded.errors, **chunk.errors}
    readable = np.array([row not in chunk.errors for row in encoded.rows], dtype=bool)
    rows = encoded.rows[readable]
    values: dict[str, np.ndarray] = {}
    if len(rows):
        mean, std = predict_members(members, encoded.tokens.take(np.flatnonzero(readable)), device)
        values = prediction_columns(targets, len(members), mean, std)
        values.update(_bounds(values, targets, widths))
    names = list(values) or _output_names(targets, len(members), widths)
    columns: dict[str, list[Any]] = {name: [None] * chunk.rows for name in names}
    for name, cells in values.items():
        for row, value in zip(rows.tolist(), cells.tolist(), strict=True):
            columns[name][row] = value
    columns[ERROR] = [errors.get(row) for row in range(chunk.rows)]
    return columns, errors


def _bounds(values: dict[str, np.ndarray], targets: Targets, widths: dict[str, float]) -> dict[str, np.ndarray]:
    """Lower and upper ends of the intervals, within the property's physical bounds."""
    ends = {}
    for known in targets.properties:
        if known.name in widths:
            low, high = known.limits
            centre = values[f"predicted_{known.name}"]
            ends[f"predicted_{known.name}_lower"] = np.clip(centre - widths[known.name], low, high)
            ends[f"predicted_{known.name}_upper"] = np.clip(centre + widths[known.name], low, high)
    return ends


def _output_names(targets: Targets, ensemble: int, widths: dict[str, float]) -> list[str]:
    width = len(targets.classes or targets.properties)
    empty = np.zeros((0, width))
    values = prediction_columns(targets, ensemble, empty, empty)
    return [*values, *_bounds(values, targets, widths)]


def _schema(first: Chunk, targets: Targets, ensemble: int, widths: dict[str, float]) -> pa.Schema:
    """Input columns as text, then predictions, then the reason; a column of the same name is replaced."""
    text = {f"predicted_{targets.properties[0].name}"} if targets.classes else set()
    outputs = {name: pa.string() if name in text else pa.float64() for name in _output_names(targets, ensemble, widths)}
    types = {**dict.fromkeys(first.columns, pa.string()), **outputs, ERROR: pa.string()}
    return pa.schema(list(types.items()))


def _half_widths(config: PredictConfig, targets: Targets) -> dict[str, float]:
    """Split-conformal half widths (Vovk et al. 2005): a corrected quantile of the validation errors."""
    assert config.interval is not None
    path = Path(config.run) / CALIBRATION
    residuals = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    widths = {}
    for known in targets.properties:
        errors = residuals.get(known.name, [])
        rank = math.ceil((len(errors) + 1) * config.interval)
        if targets.classes or rank > len(errors):
            raise MatfmError(
                f"{config.run} has {len(errors)} validation rows for {known.name!r}, too few for --interval "
                f"{config.interval}; fine-tune a regression with a split that has validation rows"
            )
        widths[known.name] = errors[rank - 1]
    return widths
