"""The tasks on which pretraining is judged: Matbench folds and MoleculeACE sets, by one interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.labelled import LabelledTable, labelled
from benchmarks.scored import regression_errors

COMPOSITIONS = ("expt_gap", "phonons", "log_kvrh", "log_gvrh")
MOLECULES = ("CHEMBL204_Ki", "CHEMBL234_Ki", "CHEMBL2034_Ki")
TASKS = (*COMPOSITIONS, *MOLECULES)


@dataclass(frozen=True)
class Task:
    """A regression with one or several shipped splits."""

    name: str
    known: LabelledTable
    splits: dict[int, str]
    """Number of a split to its column."""
    metric: str

    @property
    def kind(self) -> str:
        return "composition" if self.name in COMPOSITIONS else "smiles"

    def score(self, split: int, predicted_T: np.ndarray) -> float:
        """The task's error on the test rows of a split."""
        true_T = self.known.label_R[self.known.test_rows(self.splits[split])]
        return regression_errors(true_T, predicted_T)[self.metric]


def load_task(name: str, folds: list[int], work: Path) -> Task:
    """Matbench tasks with these folds and the mean absolute error; MoleculeACE sets with their one split and RMSE."""
    if name in COMPOSITIONS:
        known = labelled(f"matbench_{name}", work)
        return Task(name, known, {fold: f"fold_{fold}" for fold in folds}, "mae")
    return Task(name, labelled(f"moleculeace_{name}", work), {0: "split"}, "rmse")
