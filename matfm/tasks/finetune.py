"""`matfm finetune`: a table of formulas or molecules with labels in, a property predictor out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.chem.split_file import save_split
from matfm.chem.splits import CALIBRATION_PART, PARTS, parse_split
from matfm.core.config import to_mapping
from matfm.core.locks import alone_in_folder
from matfm.core.metrics import classification_scores, regression_scores
from matfm.core.process import refuse_several
from matfm.core.run_directory import RunDirectory
from matfm.errors import MatfmError
from matfm.models.backbones import PropertyModel
from matfm.models.saving import save_tokenizer
from matfm.tasks import cards, plots
from matfm.tasks.data import write_rejects
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import KINDS
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import backbone_kind
from matfm.tasks.labelled_rows import LabelledRows, load_rows
from matfm.tasks.predictions import Predicted, predict_members, prediction_columns
from matfm.tasks.predictor import check_backbone, in_prediction_forms, in_training_forms, train_predictor
from matfm.tasks.rejects import ON_BAD
from matfm.tasks.splitting import SPLIT_FILE, shared_rows
from matfm.tasks.tables import read_table, table_writer
from matfm.tasks.targets import censored_counts, with_heads
from matfm.tasks.uncertainty.held_out import assess, check_calibration, rows_of_members

# U usable rows, K targets

ENSEMBLE = "ensemble"
"""Folder of the members beyond the first, inside a run directory."""
_OWN_COLUMNS = frozenset({"row", "part"})
"""Columns that `predictions.parquet` has beside those of the table."""


@dataclass(frozen=True)
class FinetuneConfig:
    """`matfm finetune`."""

    table: str
    """Path of the labelled table."""
    input: str
    """Column with the formulas, SMILES or SELFIES."""
    targets: tuple[str, ...]
    """Columns with the labels; empty cells are missing labels, `<5` and `>10` are censored ones."""
    kind: str | None = None
    """What the input column holds: composition, smiles or selfies; None is what the backbone reads."""
    conditions: tuple[str, ...] = ()
    """Numeric columns beside the input (temperature, pressure) that the head takes."""
    weight: str = ""
    """Column with the weights of the rows in the loss; all weigh the same if empty."""
    split: str = "random"
    """Name of a split: random, stratified, group, chemical-system, loco, …, column:NAME, file:PATH (docs/splits.md)."""
    valid_share: float = 0.1
    """Share of validation rows, where the split does not say."""
    test_share: float = 0.1
    """Share of test rows, where the split does not say."""
    ensemble: int = 1
    """Models trained with different seeds; predictions are their mean."""
    calibration_share: float = 0.0
    """Share of rows, taken from the training rows, to calibrate uncertainties on; 0 takes the validation rows."""
    calibration_group: str = ""
    """Column with groups in each of which intervals may be asked to hold (`--interval-groups column:NAME`)."""
    cross_conformal: int = 0
    """Models each trained without one of so many folds, on which it is calibrated (CV+); they are the ensemble."""
    on_bad: str = "skip"
    """skip or stop at rows that cannot be read."""
    seed: int = 0
    """Seed of the split, the first model's head and its batches."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Backbone, strategy and training."""

    def __post_init__(self) -> None:
        for name in (self.input, *self.targets, *self.conditions):
            if name in _OWN_COLUMNS:
                raise MatfmError(
                    f"predictions.parquet has a column {name!r} of its own; rename that column of the table"
                )
        if self.kind is not None and self.kind not in KINDS:
            raise MatfmError(f"kind is {self.kind!r}; choose one of {', '.join(KINDS)}")
        parse_split(self.split, self.kind)
        if self.on_bad not in ON_BAD:
            raise MatfmError(f"on_bad is {self.on_bad!r}; choose one of {', '.join(ON_BAD)}")
        if self.ensemble < 1:
            raise MatfmError(f"ensemble is {self.ensemble}; it must be at least 1")
        if not self.targets or not all(self.targets):
            raise MatfmError("no target column was named")
        beside = [self.input, *self.targets, *self.conditions, *([self.weight] if self.weight else [])]
        if len(set(beside)) < len(beside):
            double = next(name for name in beside if beside.count(name) > 1)
            raise MatfmError(f"column {double!r} is named twice among input, targets, conditions and weight")
        check_calibration(self)
        if not (0 <= self.valid_share < 1 and 0 <= self.test_share < 1 and self.valid_share + self.test_share < 1):
            raise MatfmError(
                f"valid_share {self.valid_share} and test_share {self.test_share} must leave training rows"
            )

    @property
    def models(self) -> int:
        """Number of models that are trained."""
        return self.cross_conformal or self.ensemble

    @property
    def backbone(self) -> str:
        """Where the encoder comes from."""
        return self.fit.backbone

    @property
    def strategy(self) -> str:
        """What is trained."""
        return self.fit.strategy

    @property
    def task(self) -> str:
        """regression or classification."""
        return self.fit.task


@alone_in_folder
def run(config: FinetuneConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Train, evaluate and write a run directory; returns the summary."""
    refuse_several("matfm finetune")
    started = time.perf_counter()
    device = resolve_device(config.device)
    check_backbone(config.fit)
    kind = backbone_kind(config.backbone, config.kind)
    config = replace(config, kind=kind, fit=config.fit.for_kind(kind))
    table = read_table(config.table)
    begun = out / SPLIT_FILE if resume and (out / SPLIT_FILE).is_file() else None
    if begun:  # a changed configuration is named before the split is found to differ
        RunDirectory.open(out, to_mapping(config), resume)
    labelled = load_rows(config, table, begun)
    directory = RunDirectory.open(out, to_mapping(config), resume)
    if (finished := directory.finished_summary()) is not None:
        return finished
    inputs = table.column(config.input, config.table)
    split = save_split(out / SPLIT_FILE, inputs, labelled.parts_of_table(), labelled.split_method)
    write_rejects(out / "rejects.csv", labelled.rejects)
    save_tokenizer(labelled.encoder.tokenizer, out)  # before the weights, which read nothing without it
    members, result = _train_members(config, labelled, out, device, resume)
    whole = in_prediction_forms(labelled.examples, labelled.encoder, labelled.inputs, config.fit.predict_enumerations)
    predicted = predict_members(members, whole, device, pooled=True)
    metrics = score_parts(labelled, predicted.value)
    write_predictions(out, config, labelled, predicted)
    for name, scores in assess(out, config, labelled, predicted).items():
        metrics["test"][name] |= scores
    draw(out, config, labelled, predicted.value)
    directory.write_metrics(metrics)
    summary = {
        "task": config.task,
        "kind": config.kind,
        "rows_in": labelled.rows_in,
        "rows_used": len(labelled.rows),
        "rows_rejected": labelled.rows_in - len(labelled.rows),
        **labelled.reading,
        "rows": {
            part: rows for part in PARTS if (rows := int((labelled.parts == part).sum())) or part != CALIBRATION_PART
        },
        "split_sha256": split.sha256,
        "leakage": shared_rows(labelled.inputs, labelled.parts, kind),
        "units": {p.name: p.unit for p in labelled.targets.properties},
        **({} if labelled.targets.classes else {"heads": labelled.targets.heads()}),
        **censored_counts(labelled.targets, labelled.examples),
        **({"conditions": list(config.conditions)} if config.conditions else {}),
        "metrics": metrics,
        "backbone": config.backbone,
        "strategy": config.strategy,
        "trainable_share": result["trainable_share"],
        "ensemble": config.models,
        "seed": config.seed,
        "seconds": round(time.perf_counter() - started, 1),
    }
    cards.write_finetuning_card(out, config, summary)
    plots.draw_curves(out)
    plots.draw_diagnostics(out)
    directory.finish(summary)
    return directory.summary()


def _train_members(
    config: FinetuneConfig, labelled: LabelledRows, out: Path, device: Any, resume: bool
) -> tuple[list[PropertyModel], dict[str, Any]]:
    """The members of the ensemble, and what the training of the last one says."""
    members: list[PropertyModel] = []
    result: dict[str, Any] = {}
    rows_of = rows_of_members(labelled, config)
    for number, folder in enumerate(member_folders(out, config.models)):
        if number == 0 or config.cross_conformal:
            train = _training_forms(config, labelled, rows_of[number])
        model, told = train_predictor(
            config.fit,
            labelled.targets,
            labelled.encoder,
            train,
            labelled.part("valid"),
            folder,
            config.seed + number,
            device,
            to_mapping(config),
            resume,
            label=f"finetune {number + 1}/{config.models}",
        )
        members.append(model)
        result = told
    return members, result


def _training_forms(config: FinetuneConfig, labelled: LabelledRows, rows: np.ndarray) -> Examples:
    train = labelled.examples.take(rows)
    with_heads(labelled.targets, config.fit, train)  # complains if the rows of one member lack a label
    cells = [labelled.inputs[row] for row in rows.tolist()]
    return in_training_forms(train, labelled.encoder, cells, config.fit.enumerate, config.seed)


def member_folders(out: Path, count: int) -> list[Path]:
    """The first member is the run directory itself, so that it loads like any saved model."""
    return [out, *(out / ENSEMBLE / str(number) for number in range(1, count))]


def score_parts(labelled: LabelledRows, predicted: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """part -> target -> metric -> value, for parts that have rows; censored labels are not scored."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for part in PARTS:
        rows = labelled.parts == part
        if not rows.any():
            continue
        true = labelled.examples.exact_labels()[rows]
        if labelled.targets.classes:
            scores[part] = {
                p.name: classification_scores(true[:, k], of_property)
                for k, (p, of_property) in enumerate(
                    zip(labelled.targets.properties, labelled.targets.of_each(predicted[rows]), strict=True)
                )
            }
        else:
            scores[part] = {
                p.name: regression_scores(true[:, k], predicted[rows, k])
                for k, p in enumerate(labelled.targets.properties)
            }
    return scores


def write_predictions(
    out: Path,
    config: FinetuneConfig,
    labelled: LabelledRows,
    predicted: Predicted,
    beside: dict[str, Any] | None = None,
) -> None:
    """`predictions.parquet`: every used row with its part, labels (and which are bounds) and predictions.

    `beside` are further columns, or others than the first ones.
    """
    columns: dict[str, Any] = {"row": labelled.rows, config.input: labelled.inputs, "part": list(labelled.parts)}
    columns.update(beside or {})
    examples = labelled.examples
    for k, name in enumerate(config.targets):
        columns[name] = examples.tokens.targets_RK[:, k].astype(np.float64)
        if examples.side_SK is not None:
            columns[f"{name}_censored"] = [_SIGN[side] for side in examples.side_SK[:, k].tolist()]
    for c, name in enumerate(config.conditions):
        assert examples.conditions_SC is not None
        columns[name] = examples.conditions_SC[:, c].astype(np.float64)
    columns.update(prediction_columns(labelled.targets, predicted))
    schema = pa.Table.from_pydict(columns).schema
    with table_writer(str(out / "predictions.parquet"), schema) as append:
        append(columns)


_SIGN = {-1: "<", 0: "", 1: ">"}


def draw(out: Path, config: FinetuneConfig, labelled: LabelledRows, mean: np.ndarray) -> None:
    """Parity or ROC of the first target on the test rows; of other rows if these have no exact label."""
    labels_R = labelled.examples.exact_labels()[:, 0]
    labelled_R = ~np.isnan(labels_R)
    part = next((p for p in ("test", "valid", "train") if (labelled_R & (labelled.parts == p)).any()), None)
    if part is None:
        return
    rows = labelled_R & (labelled.parts == part)
    true, known = labels_R[rows], labelled.targets.properties[0]
    title = f"{config.backbone}, {part} rows"
    if not labelled.targets.classes:
        plots.draw_parity(out, known.name, known.unit, true, mean[rows, 0], title)
    elif len(np.unique(true)) > 1:
        plots.draw_classes(out, labelled.targets.classes[0], true, labelled.targets.of_each(mean[rows])[0], title)
