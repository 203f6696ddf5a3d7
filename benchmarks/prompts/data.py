"""Tables of one fold: what is trained on, sub-sampled where asked for, and what is scored."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.labelled import LabelledTable
from matfm.core.files import write_text
from matfm.tasks.tables import read_table

PART = "part"
TUNING_SHARE = 0.15
"""Of the training rows, on which learning rates are compared; the test rows have no part in it."""


@dataclass(frozen=True)
class Fold:
    """Rows of one fold, with a column that says train or test."""

    known: LabelledTable
    rows: np.ndarray
    """Position of each row in the whole table."""
    all_train_rows: int
    """Training rows before sub-sampling."""

    @property
    def scored(self) -> np.ndarray:
        """Which rows are test rows, bool (R,)."""
        return self.known.test_rows(PART)

    @property
    def train_rows(self) -> int:
        return int((~self.scored).sum())


def fold_table(known: LabelledTable, fold: int, rows: int, tuning: bool, work: Path) -> Fold:
    """The official fold, or its training rows alone split anew.

    Args:
        known: the data set.
        fold: of Matbench.
        rows: training rows at most, the same ones for every method and seed; 0 for all.
        tuning: leave the test rows out and score `TUNING_SHARE` of the training rows.
        work: where tables are written.
    """
    test_R = known.test_rows(f"fold_{fold}")
    train = np.flatnonzero(~test_R)
    drawn = np.sort(np.random.default_rng(fold).permutation(train)[: rows or None])
    if tuning:
        scored = np.random.default_rng([fold, 1]).permutation(drawn)[: max(1, round(TUNING_SHARE * len(drawn)))]
        kept = drawn
    else:
        scored = np.flatnonzero(test_R)
        kept = np.sort(np.concatenate([drawn, scored]))
    part = np.where(np.isin(kept, scored), "test", "train")
    path = work / "tables" / f"{known.recipe}-fold{fold}-{rows or 'all'}-{'tuning' if tuning else 'final'}.csv"
    labels = known.table.columns[known.target]
    lines = [(known.inputs[row], labels[row], of) for row, of in zip(kept.tolist(), part.tolist(), strict=True)]
    _write(path, (known.input, known.target, PART), lines)
    of_fold = replace(known, path=str(path), table=read_table(str(path)), label_R=known.label_R[kept])
    return Fold(of_fold, kept, len(train))


def test_table(fold: Fold, work: Path) -> str:
    """Path of a table with the scored rows alone, for pictures."""
    known, path = fold.known, work / "tables" / f"{Path(fold.known.path).stem}-scored.csv"
    rows = np.flatnonzero(fold.scored).tolist()
    labels = known.table.columns[known.target]
    _write(path, (known.input, known.target), [(known.inputs[row], labels[row]) for row in rows])
    return str(path)


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())
