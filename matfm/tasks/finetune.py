"""`matfm finetune`: a table of formulas and labels in, a property predictor out."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.chem.split_file import UNUSED, save_split
from matfm.chem.splits import PARTS, parse_split
from matfm.core.batching import RaggedTokens
from matfm.core.config import to_mapping
from matfm.core.files import write_json
from matfm.core.metrics import classification_scores, regression_scores
from matfm.core.process import refuse_several
from matfm.core.run_directory import RunDirectory
from matfm.errors import MatfmError
from matfm.models.matbert import MatBERTForProperty
from matfm.tasks import cards, plots
from matfm.tasks.data import Reject, write_rejects
from matfm.tasks.devices import resolve_device
from matfm.tasks.encoding import encode_formulas, parse_number
from matfm.tasks.predictor import FitConfig, Targets, check_backbone, predict_members, train_predictor
from matfm.tasks.readings import readings_to_check
from matfm.tasks.splitting import SPLIT_FILE, UsableRows, make_split, resumed_split, shared_rows
from matfm.tasks.tables import Chunk, column_property, read_table, table_writer

ENSEMBLE = "ensemble"
"""Folder of the members beyond the first, inside a run directory."""
CALIBRATION = "calibration.json"
KINDS = ("composition",)


@dataclass(frozen=True)
class FinetuneConfig:
    """`matfm finetune`."""

    table: str
    """Path of the labelled table."""
    input: str
    """Column with the formula."""
    targets: tuple[str, ...]
    """Columns with the labels; empty cells are missing labels."""
    kind: str = "composition"
    """What the input column holds."""
    split: str = "random"
    """Name of a split: random, stratified, group, chemical-system, loco, …, column:NAME, file:PATH (docs/splits.md)."""
    valid_share: float = 0.1
    """Share of validation rows, where the split does not say."""
    test_share: float = 0.1
    """Share of test rows, where the split does not say."""
    ensemble: int = 1
    """Models trained with different seeds; predictions are their mean."""
    on_bad: str = "skip"
    """skip or stop at rows that cannot be read."""
    seed: int = 0
    """Seed of the split, the first model's head and its batches."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Backbone, strategy and training."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MatfmError(f"kind is {self.kind!r}; choose one of {', '.join(KINDS)}")
        parse_split(self.split, self.kind)
        if self.on_bad not in ("skip", "stop"):
            raise MatfmError(f"on_bad is {self.on_bad!r}; choose skip or stop")
        if self.ensemble < 1:
            raise MatfmError(f"ensemble is {self.ensemble}; it must be at least 1")
        if not self.targets or not all(self.targets):
            raise MatfmError("no target column was named")
        if self.fit.task == "classification" and len(self.targets) > 1:
            raise MatfmError("classification takes one target column; fine-tune once for each")
        if not (0 <= self.valid_share < 1 and 0 <= self.test_share < 1 and self.valid_share + self.test_share < 1):
            raise MatfmError(
                f"valid_share {self.valid_share} and test_share {self.test_share} must leave training rows"
            )

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


@dataclass(frozen=True)
class LabelledRows:
    """Rows that can be used, as tokens with targets, and the part each belongs to."""

    tokens: RaggedTokens
    rows: np.ndarray
    """Row in the table."""
    inputs: list[str]
    parts: np.ndarray
    split_method: dict[str, Any]
    """How the parts were made."""
    targets: Targets
    rows_in: int
    rejects: list[Reject]
    warnings: dict[int, str]
    """Row in the table to a reading of its formula that should be checked."""

    def parts_of_table(self) -> np.ndarray:
        """Part of every row of the table; `-` for those that are not used."""
        parts = np.full(self.rows_in, UNUSED, dtype=object)
        parts[self.rows] = self.parts
        return parts

    def part(self, name: str) -> RaggedTokens:
        """The rows of train, valid or test."""
        return self.tokens.take(np.flatnonzero(self.parts == name))


def run(config: FinetuneConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Train, evaluate and write a run directory; returns the summary."""
    refuse_several("matfm finetune")
    started = time.perf_counter()
    device = resolve_device(config.device)
    check_backbone(config.backbone)
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
    members: list[MatBERTForProperty] = []
    result: dict[str, Any] = {}
    for number, folder in enumerate(member_folders(out, config.ensemble)):
        model, told = train_predictor(
            config.fit,
            labelled.targets,
            labelled.part("train"),
            labelled.part("valid"),
            folder,
            config.seed + number,
            device,
            to_mapping(config),
            resume,
            label=f"finetune {number + 1}/{config.ensemble}",
        )
        members.append(model)
        result = told or result
    CompositionTokenizer().save_pretrained(str(out))
    mean, std = predict_members(members, labelled.tokens, device)
    metrics = score_parts(labelled, mean)
    _write_predictions(out, config, labelled, mean, std)
    write_json(out / CALIBRATION, _residuals(labelled, mean))
    _draw(out, config, labelled, mean)
    directory.write_metrics(metrics)
    trained = sum(p.numel() for p in members[0].parameters() if p.requires_grad)
    summary = {
        "task": config.task,
        "rows_in": labelled.rows_in,
        "rows_used": len(labelled.rows),
        "rows_rejected": labelled.rows_in - len(labelled.rows),
        **readings_to_check(labelled.warnings),
        "rows": {part: int((labelled.parts == part).sum()) for part in PARTS},
        "split_sha256": split.sha256,
        "leakage": shared_rows(labelled.inputs, labelled.parts, config.kind),
        "units": {p.name: p.unit for p in labelled.targets.properties},
        "metrics": metrics,
        "backbone": config.backbone,
        "strategy": config.strategy,
        "trainable_share": result.get("trainable_share", trained / sum(p.numel() for p in members[0].parameters())),
        "ensemble": config.ensemble,
        "seed": config.seed,
        "seconds": round(time.perf_counter() - started, 1),
    }
    cards.write_finetuning_card(out, config, summary)
    plots.draw_curves(out)
    plots.draw_diagnostics(out)
    directory.finish(summary)
    return directory.summary()


def member_folders(out: Path, count: int) -> list[Path]:
    """The first member is the run directory itself, so that it loads like any saved model."""
    return [out, *(out / ENSEMBLE / str(number) for number in range(1, count))]


def load_rows(config: FinetuneConfig, table: Chunk, begun: Path | None = None) -> LabelledRows:
    """Read inputs and labels, and split; rows without a readable input or any label are rejected with a reason.

    `begun` is the split file of the run that is continued.
    """
    inputs = table.column(config.input, config.table)
    cells = {name: table.column(name, config.table) for name in config.targets}
    if table.rows == 0:
        raise MatfmError(f"{config.table} has no rows; fine-tuning needs labelled examples")
    encoded = encode_formulas(inputs)
    reasons = {**encoded.errors, **table.errors}
    classes = _classes(cells[config.targets[0]]) if config.task == "classification" else None
    targets_RK = np.full((table.rows, len(cells)), np.nan)
    column_of = dict.fromkeys(reasons, config.input)
    for number, (name, values) in enumerate(cells.items()):
        for row, cell in enumerate(values):
            try:
                targets_RK[row, number] = _label(cell, classes)
            except MatfmError as error:
                reasons.setdefault(row, str(error))
                column_of.setdefault(row, name)
    for row in np.flatnonzero(np.isnan(targets_RK).all(axis=1)).tolist():
        reasons.setdefault(row, "no label: the target cell is empty")
        column_of.setdefault(row, config.targets[0])
    rejects = [
        Reject(row, column_of[row], table.columns[column_of[row]][row], reason)
        for row, reason in sorted(reasons.items())
    ]
    _complain(config, table, cells, rejects)
    encoded_used = np.flatnonzero([row not in reasons for row in encoded.rows])
    rows = encoded.rows[encoded_used]
    usable = UsableRows(table, config.table, config.input, config.kind, rows, targets_RK[rows], classes)
    shares = (config.valid_share, config.test_share)
    parts, method = resumed_split(begun, usable) if begun else make_split(config.split, usable, shares, config.seed)
    left_out = [
        Reject(row, config.input, inputs[row], "the split leaves this row out")
        for row in rows[parts == UNUSED].tolist()
    ]
    rejects = sorted([*rejects, *left_out], key=lambda reject: reject.row)
    rows, encoded_used, parts = (values[parts != UNUSED] for values in (rows, encoded_used, parts))
    tokens = encoded.tokens.take(encoded_used)
    tokens.targets_RK = targets_RK[rows].astype(np.float32)
    kept = [inputs[row] for row in rows]
    known = tuple(column_property(config.table, name) for name in config.targets)
    return LabelledRows(
        tokens, rows, kept, parts, method, Targets(known, classes), table.rows, rejects, encoded.warnings
    )


def score_parts(labelled: LabelledRows, predicted: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """part -> target -> metric -> value, for parts that have rows."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for part in PARTS:
        rows = labelled.parts == part
        if not rows.any():
            continue
        true = labelled.tokens.targets_RK[rows]
        if labelled.targets.classes:
            name = labelled.targets.properties[0].name
            scores[part] = {name: classification_scores(true[:, 0], predicted[rows])}
        else:
            scores[part] = {
                p.name: regression_scores(true[:, k], predicted[rows, k])
                for k, p in enumerate(labelled.targets.properties)
            }
    return scores


def _label(cell: str, classes: tuple[str, ...] | None) -> float:
    if classes is None:
        return parse_number(cell)
    return float(classes.index(cell.strip())) if cell.strip() else math.nan


def _classes(cells: list[str]) -> tuple[str, ...]:
    names = tuple(sorted({cell.strip() for cell in cells if cell.strip()}))
    if len(names) < 2:
        raise MatfmError(f"classification needs at least two classes; the target has {len(names)}")
    if len(names) > max(20, len(cells) // 5):
        raise MatfmError(f"the target has {len(names)} different values; is it a regression? Use --task regression")
    return names


def _complain(config: FinetuneConfig, table: Chunk, cells: dict[str, list[str]], rejects: list[Reject]) -> None:
    """Stop where nothing is left to train on, or where the user asked to stop at bad rows."""
    if rejects and config.on_bad == "stop":
        first = rejects[0]
        raise MatfmError(f"{config.table}, row {first.row}, column {first.column!r}: {first.reason} (--on-bad stop)")
    if len(rejects) == table.rows:
        first = rejects[0]
        raise MatfmError(
            f"{config.table} has no usable row; the first one, column {first.column!r}: {first.reason}; "
            "check --input, --target and --task"
        )
    for name in cells:
        if config.task == "regression" and sum(reject.column == name for reject in rejects) > table.rows / 2:
            first = next(reject for reject in rejects if reject.column == name)
            raise MatfmError(
                f"{config.table}: most cells of column {name!r} are not numbers (row {first.row}: {first.reason}); "
                "name a numeric --target, or use --task classification"
            )


def _residuals(labelled: LabelledRows, mean: np.ndarray) -> dict[str, list[float]]:
    """Sorted absolute validation errors of every regression target, for conformal intervals."""
    if labelled.targets.classes:
        return {}
    rows = labelled.parts == "valid"
    residuals = {}
    for k, known in enumerate(labelled.targets.properties):
        errors = np.abs(labelled.tokens.targets_RK[rows, k] - mean[rows, k])
        residuals[known.name] = np.sort(errors[~np.isnan(errors)]).round(6).tolist()
    return residuals


def _write_predictions(
    out: Path, config: FinetuneConfig, labelled: LabelledRows, mean: np.ndarray, std: np.ndarray
) -> None:
    """`predictions.parquet`: every used row with its part, labels and predictions."""
    columns: dict[str, Any] = {"row": labelled.rows, config.input: labelled.inputs, "part": list(labelled.parts)}
    for k, name in enumerate(config.targets):
        columns[name] = labelled.tokens.targets_RK[:, k].astype(np.float64)
    columns.update(prediction_columns(labelled.targets, config.ensemble, mean, std))
    schema = pa.Table.from_pydict(columns).schema
    with table_writer(str(out / "predictions.parquet"), schema) as append:
        append(columns)


def prediction_columns(targets: Targets, ensemble: int, mean: np.ndarray, std: np.ndarray) -> dict[str, np.ndarray]:
    """Output columns: values (with `_std` for ensembles), or class probabilities and the likeliest class."""
    if targets.classes:
        name = targets.properties[0].name
        columns = {f"probability_{label}": mean[:, c].astype(np.float64) for c, label in enumerate(targets.classes)}
        likeliest = np.array(targets.classes, dtype=object)[mean.argmax(axis=1)]
        return {f"predicted_{name}": likeliest, **columns}
    columns = {}
    for k, known in enumerate(targets.properties):
        columns[f"predicted_{known.name}"] = mean[:, k].astype(np.float64)
        if ensemble > 1:
            columns[f"predicted_{known.name}_std"] = std[:, k].astype(np.float64)
    return columns


def _draw(out: Path, config: FinetuneConfig, labelled: LabelledRows, mean: np.ndarray) -> None:
    """Parity (first target) or, for two classes, ROC of the test rows; of the training rows if there is no test."""
    part = next((p for p in ("test", "valid") if (labelled.parts == p).any()), "train")
    rows = (labelled.parts == part) & ~np.isnan(labelled.tokens.targets_RK[:, 0])
    true, known = labelled.tokens.targets_RK[rows, 0], labelled.targets.properties[0]
    title = f"{config.backbone}, {part} rows"
    if not labelled.targets.classes:
        plots.draw_parity(out, known.name, known.unit, true, mean[rows, 0], title)
    elif len(labelled.targets.classes) == 2 and len(np.unique(true)) == 2:
        plots.draw_roc(out, true, mean[rows, 1], title)
