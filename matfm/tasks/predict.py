"""`matfm predict`: a run and a table of any size in, one prediction per row out, streaming."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.chem.units import Property
from matfm.errors import MatfmError
from matfm.models.matbert import MatBERTForProperty
from matfm.tasks.devices import resolve_device
from matfm.tasks.examples import Examples
from matfm.tasks.finetune import CALIBRATION, ENSEMBLE
from matfm.tasks.journal import weights_digest
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.predictions import Predicted, no_rows, predict_members, prediction_columns
from matfm.tasks.predictor import in_prediction_forms, load_predictor
from matfm.tasks.row_streams import RowStream
from matfm.tasks.tables import check_output
from matfm.tasks.targets import Targets


@dataclass(frozen=True)
class PredictConfig:
    """`matfm predict`."""

    run: str
    """Run directory, or the name of bundled weights."""
    table: str
    """Table to read, or - for CSV on standard input."""
    input: str
    """Column with the formulas, SMILES or SELFIES; conditions of the run are columns of their own names."""
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


def run(config: PredictConfig, resume: bool = False) -> dict[str, Any]:
    """Write one row per input row, in order; unreadable rows get empty values and a reason in `error`.

    `resume` continues an interrupted one.
    """
    device = resolve_device(config.device)
    members = load_members(config.run)
    encoder = backbone_encoder(config.run)
    targets = targets_of(members[0])
    widths = _half_widths(config, targets) if config.interval is not None else {}
    forms = members[0].config.predict_enumerations

    def columns_of(predicted: Predicted) -> dict[str, np.ndarray]:
        values = prediction_columns(targets, predicted)
        return {**values, **_bounds(values, targets, widths)}

    def compute(examples: Examples, cells: list[str]) -> dict[str, np.ndarray]:
        return columns_of(predict_members(members, in_prediction_forms(examples, encoder, cells, forms), device))

    names = columns_of(no_rows(members))
    text = {f"predicted_{targets.properties[0].name}"} if targets.classes else set()
    fields = {name: pa.string() if name in text else pa.float64() for name in names}
    begun_with = {"run": weights_digest(config.run), "interval": config.interval}
    stream = RowStream(
        config.table, config.input, config.out, encoder, fields, targets.conditions, "predict", begun_with
    )
    summary = stream.run(compute, resume)
    return {
        "task": "predict",
        "run": config.run,
        "kind": encoder.kind,
        "out": config.out,
        "rows_in": summary.pop("rows_in"),
        "rows_predicted": summary.pop("rows_done"),
        **summary,
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
    config = model.config
    return Targets(
        known,
        tuple(config.class_names) if config.class_names else None,
        tuple(config.condition_names or ()),
        tuple(config.property_two_part or ()),
        tuple(config.property_log or ()),
    )


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


def _half_widths(config: PredictConfig, targets: Targets) -> dict[str, float]:
    """Split-conformal half widths (Vovk et al. 2005): a corrected quantile of the validation errors."""
    assert config.interval is not None
    if targets.classes:
        raise MatfmError(f"{config.run} predicts classes; --interval is for regression, so leave it out")
    path = Path(config.run) / CALIBRATION
    residuals = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    widths = {}
    for known in targets.properties:
        errors = residuals.get(known.name, [])
        rank = math.ceil((len(errors) + 1) * config.interval)
        if rank > len(errors):
            raise MatfmError(
                f"{config.run} has {len(errors)} validation rows for {known.name!r}, too few for --interval "
                f"{config.interval}; fine-tune with a split that has more of them"
            )
        widths[known.name] = errors[rank - 1]
    return widths
