"""The rows of a labelled table that a fine-tuning can use: read, split, and the others rejected with a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matfm.chem.split_file import UNUSED
from matfm.errors import MatfmError
from matfm.tasks.data import Reject
from matfm.tasks.encoding import EncodedRows, RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.labels import TableLabels, read_labels
from matfm.tasks.prompting.inputs import read_for
from matfm.tasks.readings import readings_to_check, vocabulary_report
from matfm.tasks.splitting import UsableRows, split_rows
from matfm.tasks.tables import Chunk, column_property
from matfm.tasks.targets import Targets, with_heads

if TYPE_CHECKING:
    from matfm.tasks.finetune import FinetuneConfig

# U usable rows, K targets


@dataclass(frozen=True)
class LabelledRows:
    """Rows that can be used, with labels and conditions, and the part each belongs to."""

    examples: Examples
    encoder: RowEncoder
    """How their inputs became tokens."""
    rows: np.ndarray
    """Row in the table, (U,)."""
    inputs: list[str]
    parts: np.ndarray
    split_method: dict[str, Any]
    """How the parts were made."""
    targets: Targets
    rows_in: int
    rejects: list[Reject]
    reading: dict[str, Any]
    """For the summary: readings to check, unknown tokens, rows that were cut."""

    def parts_of_table(self) -> np.ndarray:
        """Part of every row of the table; `-` for those that are not used."""
        parts = np.full(self.rows_in, UNUSED, dtype=object)
        parts[self.rows] = self.parts
        return parts

    def part(self, name: str) -> Examples:
        """The rows of train, valid or test."""
        return self.examples.take(np.flatnonzero(self.parts == name))

    def inputs_of(self, name: str) -> list[str]:
        """Cells of the input column of train, valid or test."""
        return [self.inputs[position] for position in np.flatnonzero(self.parts == name)]


def load_rows(config: FinetuneConfig, table: Chunk, begun: Path | None = None) -> LabelledRows:
    """Read inputs and labels, and split; rows without a readable input or any label are rejected with a reason.

    `begun` is the split file of the run that is continued.
    """
    inputs = table.column(config.input, config.table)
    for name in config.targets:
        table.column(name, config.table)
    if table.rows == 0:
        raise MatfmError(f"{config.table} has no rows; fine-tuning needs labelled examples")
    encoder = read_for(backbone_encoder(config.backbone, config.kind), config.fit.delta(), config.targets)
    encoded = encoder(inputs)
    unreadable = {**encoded.errors, **table.errors}
    labels = read_labels(table, config.table, config.targets, config.task, config.conditions, config.weight, unreadable)
    reasons = {**labels.reasons, **{row: (config.input, reason) for row, reason in unreadable.items()}}
    rejects = [
        Reject(row, column, table.columns[column][row], reason) for row, (column, reason) in sorted(reasons.items())
    ]
    _complain(config, table, rejects)
    encoded_used = np.flatnonzero([row not in reasons for row in encoded.rows])
    rows = encoded.rows[encoded_used]
    usable = UsableRows(table, config.table, config.input, encoder.kind, rows, labels.targets_RK[rows], labels.classes)
    shares = (config.valid_share, config.test_share, config.calibration_share)
    parts, method = split_rows(config.split, usable, shares, config.seed, begun)
    left_out = [
        Reject(row, config.input, inputs[row], "the split leaves this row out")
        for row in rows[parts == UNUSED].tolist()
    ]
    rejects = sorted([*rejects, *left_out], key=lambda reject: reject.row)
    rows, encoded_used, parts = (values[parts != UNUSED] for values in (rows, encoded_used, parts))
    examples = labelled_examples(encoded, encoded_used, labels, rows)
    if config.calibration_group:
        names = table.column(config.calibration_group, config.table)
        examples = replace(examples, group_S=np.array([names[row].strip() for row in rows.tolist()], dtype=object))
    known = tuple(column_property(config.table, name) for name in config.targets)
    targets = Targets(known, labels.classes, config.conditions)
    targets = with_heads(targets, config.fit, examples.take(np.flatnonzero(parts == "train")))
    kept = [inputs[row] for row in rows]
    cut = [row for row in encoded.truncated_rows if row not in reasons]
    reading = {
        **readings_to_check(encoded.warnings),
        **vocabulary_report(encoder.kind, encoded.unknown, cut),
    }
    return LabelledRows(examples, encoder, rows, kept, parts, method, targets, table.rows, rejects, reading)


def labelled_examples(
    encoded: EncodedRows, encoded_used: np.ndarray, labels: TableLabels, rows: np.ndarray
) -> Examples:
    """The used rows, with what stands beside them; arrays that say nothing are left out."""
    tokens = encoded.tokens.take(encoded_used)
    tokens.targets_RK = labels.targets_RK[rows].astype(np.float32)
    side_RK = labels.side_RK[rows]
    return Examples(
        tokens,
        side_RK if side_RK.any() else None,
        None if labels.weight_R is None else labels.weight_R[rows].astype(np.float32),
        None if labels.conditions_RC is None else labels.conditions_RC[rows],
    )


def _complain(config: FinetuneConfig, table: Chunk, rejects: list[Reject]) -> None:
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
    for name in config.targets if config.task == "regression" else ():
        filled = sum(bool(cell.strip()) for cell in table.columns[name])
        wrong = [reject for reject in rejects if reject.column == name and reject.value.strip()]
        if len(wrong) > filled / 2:
            raise MatfmError(
                f"{config.table}: most cells of column {name!r} are not numbers (row {wrong[0].row}: "
                f"{wrong[0].reason}); name a numeric --target, or use --task classification"
            )
