"""Fine-tuned models in benchmarks: each member of an ensemble is a run of its own, so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.labelled import LabelledTable
from matfm.core.config import apply_overrides, from_mapping
from matfm.tasks import finetune
from matfm.tasks.tables import read_table

# R rows of the table, T test rows


@dataclass(frozen=True)
class Tuning:
    """How models are fine-tuned."""

    backbone: str
    overrides: tuple[str, ...] = ()
    """`key=value` of `matfm finetune --set`, as `fit.epochs=10`."""
    device: str = "auto"


@dataclass(frozen=True)
class Predictions:
    """Of test rows, in the order of the table."""

    value_T: np.ndarray
    """Values, or probabilities of the second class."""
    seconds: float


def fine_tuned(known: LabelledTable, split: str, tuning: Tuning, seed: int, out: Path) -> Predictions:
    """Fine-tune (or go on with, or read) the run in `out`, and read its predictions of the test rows.

    Args:
        known: the data set.
        split: column that says train and test.
        tuning: backbone and settings.
        seed: of head and batches.
        out: run directory.
    """
    values = {
        "table": known.path,
        "input": known.input,
        "targets": [known.target],
        "split": f"column:{split}",
        "seed": seed,
        "device": tuning.device,
        "fit": {"backbone": tuning.backbone, "task": known.task},
    }
    config = from_mapping(finetune.FinetuneConfig, apply_overrides(values, tuning.overrides), "--set")
    summary = finetune.run(config, out, resume=out.exists())
    columns = read_table(str(out / "predictions.parquet")).columns
    name = f"predicted_{known.target}" if known.classes is None else f"probability_{known.classes[1]}"
    test_rows = np.flatnonzero(known.test_rows(split))
    position = {int(row): number for number, row in enumerate(columns["row"])}
    value_T = np.array([float(columns[name][position[row]]) for row in test_rows.tolist()])
    return Predictions(value_T, float(summary["seconds"]))


def averaged(members: Sequence[Predictions]) -> Predictions:
    """The ensemble of models that were trained with different seeds."""
    return Predictions(np.mean([member.value_T for member in members], axis=0), sum(m.seconds for m in members))
