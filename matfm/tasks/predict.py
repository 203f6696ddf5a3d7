"""`matfm predict`: a run and a table of any size in, one prediction per row out, streaming."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.chem.units import Property
from matfm.core.bundled import MODEL_FILE
from matfm.errors import MatfmError
from matfm.models.backbones import PropertyModel
from matfm.tasks.deltas import DeltaSet, is_delta_set
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.finetune import ENSEMBLE
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.predictions import DropoutSamples, no_rows, predict_members, prediction_columns
from matfm.tasks.predictor import in_prediction_forms, load_predictor
from matfm.tasks.splitting import SPLIT_FILE
from matfm.tasks.streaming.journal import weights_digest
from matfm.tasks.streaming.rows import RowStream
from matfm.tasks.tables import check_output
from matfm.tasks.targets import Targets
from matfm.tasks.uncertainty.intervals import IntervalConfig
from matfm.tasks.uncertainty.trust import load_trust


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
    """Coverage of conformal intervals, or of sets of classes; for example 0.9."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    interval_method: str = "auto"
    """As in `IntervalConfig.method`."""
    interval_groups: str = "none"
    """As in `IntervalConfig.groups`."""
    calibrated: bool = False
    """Probabilities after temperature scaling; standard deviations times their factor."""
    mc_dropout: int = 0
    """Networks that dropout draws from each member, for the standard deviation; 0 is off."""
    seed: int = 0
    """Of MC dropout."""
    domain: bool = True
    """Say of each row whether it is like the training rows, where the run knows them."""
    delta: str | None = None
    """Task of a set of deltas (`matfm deltas`), where the run is such a set."""
    backbone: str | None = None
    """Copy of the set's encoder, in place of the one that it names."""

    def __post_init__(self) -> None:
        self.intervals()
        if self.mc_dropout < 0:
            raise MatfmError(f"--mc-dropout is {self.mc_dropout}; it is a number of networks, 0 for none")
        if self.mc_dropout and (self.interval_method == "std" or self.calibrated):
            raise MatfmError(
                "--mc-dropout gives other standard deviations than those of the held-out rows; "
                "leave --calibrated and --interval-method std out, or --mc-dropout"
            )
        check_output(self.out, self.table)

    def intervals(self) -> IntervalConfig | None:
        """What intervals are wanted; None for none. Raises MatfmError for values that there are not."""
        if self.interval is None:
            if (self.interval_method, self.interval_groups) != ("auto", "none"):
                raise MatfmError("--interval-method and --interval-groups need --interval, for example 0.9")
            return None
        return IntervalConfig(self.interval, self.interval_method, self.interval_groups)

    def decides_output(self) -> dict[str, Any]:
        """The settings that the written numbers depend on, beside the run."""
        names = ("interval", "interval_method", "interval_groups", "calibrated", "mc_dropout", "seed", "domain")
        return {name: getattr(self, name) for name in names}


def run(config: PredictConfig, resume: bool = False) -> dict[str, Any]:
    """Write one row per input row, in order; unreadable rows get empty values and a reason in `error`.

    `resume` continues an interrupted one.
    """
    device = resolve_device(config.device)
    members, encoder, folder, digest = _loaded(config)
    targets = targets_of(members[0])
    samples = DropoutSamples(config.mc_dropout, config.seed) if config.mc_dropout else None
    trust = load_trust(folder, targets, encoder, config.intervals(), config.calibrated, config.domain)
    forms = members[0].config.predict_enumerations

    def compute(examples: Examples, cells: list[str]) -> dict[str, np.ndarray]:
        written = in_prediction_forms(examples, encoder, cells, forms)
        predicted = trust.calibrated(predict_members(members, written, device, samples, pooled=trust.needs_vectors))
        return {**prediction_columns(targets, predicted), **trust.columns(predicted, examples)}

    names = prediction_columns(targets, no_rows(members, samples))
    text = {f"predicted_{known.name}" for known in targets.properties} if targets.classes else set()
    fields = {name: pa.string() if name in text else pa.float64() for name in names}
    begun_with = {"run": digest, **config.decides_output()}
    stream = RowStream(
        config.table,
        config.input,
        config.out,
        encoder,
        {**fields, **trust.fields()},
        targets.conditions,
        "predict",
        begun_with,
        trust.group_column,
    )
    summary = stream.run(compute, resume)
    return {
        "task": "predict",
        "run": config.run,
        **({} if config.delta is None else {"delta": config.delta}),
        "kind": encoder.kind,
        "out": config.out,
        "rows_in": summary.pop("rows_in"),
        "rows_predicted": summary.pop("rows_done"),
        **summary,
        **trust.summary(),
    }


def _loaded(config: PredictConfig) -> tuple[list[PropertyModel], RowEncoder, Path, str]:
    """Models, how they read rows, the folder with what calibrates them, and what tells their weights from others."""
    if is_delta_set(config.run):
        known = DeltaSet.open(config.run)
        members = known.members(config.delta, config.backbone)
        encoder = known.encoder(config.delta, config.backbone)
        return members, encoder, known.of(config.delta), known.digest(config.delta)
    for name in ("delta", "backbone"):
        if getattr(config, name) is not None:
            raise MatfmError(f"--{name} is for a set of deltas (matfm deltas add), and {config.run} is none")
    return load_members(config.run), backbone_encoder(config.run), Path(config.run), weights_digest(config.run)


def load_members(run_path: str) -> list[PropertyModel]:
    """The model of a run, and the further members of its ensemble.

    Raises:
        MatfmError: it is no predictor, or was interrupted before all members were trained.
    """
    first = load_predictor(run_path)
    if not first.config.property_names:
        raise MatfmError(f"{run_path} holds no property predictor; fine-tune one with matfm finetune")
    folder = Path(run_path)
    members = [path.parent for path in (folder / ENSEMBLE).glob(f"*/{MODEL_FILE}") if path.parent.name.isdecimal()]
    others = sorted(members, key=lambda at: int(at.name))
    begun = (first.config.run or {}) if (folder / SPLIT_FILE).is_file() else {}
    wanted = begun.get("cross_conformal") or begun.get("ensemble") or 1
    if not isinstance(wanted, int):
        raise MatfmError(f"{run_path}: config.json says that its ensemble has {wanted!r} models; fine-tune again")
    if 1 + len(others) < wanted:
        raise MatfmError(
            f"{run_path} has {1 + len(others)} of the {wanted} models of its ensemble; "
            "finish it with the same matfm finetune call and --resume"
        )
    return [first, *(load_predictor(folder) for folder in others)]


def targets_of(model: PropertyModel) -> Targets:
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
        config.classes or None,
        tuple(config.condition_names or ()),
        tuple(config.property_two_part or ()),
        tuple(config.property_log or ()),
    )
