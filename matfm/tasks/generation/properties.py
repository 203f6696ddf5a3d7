"""Properties of generated rows, predicted by a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from matfm.errors import MatfmError
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.predict import load_members, targets_of
from matfm.tasks.predictions import no_rows, predict_members, prediction_columns
from matfm.tasks.predictor import in_prediction_forms

_CELLS = {
    ("composition", "composition"): "canonical",
    ("smiles", "smiles"): "canonical",
    ("selfies", "smiles"): "canonical",
    ("selfies", "selfies"): "selfies",
}
"""Kinds of the generator and of the predictor to the column that the predictor reads."""


class PropertyColumns:
    """Columns as `matfm predict` writes them; empty for rows that are not valid.

    Raises:
        MatfmError: the run reads another kind of input, or conditions that generated rows do not have.
    """

    def __init__(self, run: str, kind: str, device: torch.device) -> None:
        self._members, self._encoder, self._device = load_members(run), backbone_encoder(run), device
        self.targets = targets_of(self._members[0])
        column = _CELLS.get((kind, self._encoder.kind))
        if column is None:
            raise MatfmError(f"--predict {run} reads {self._encoder.kind}, but the model writes {kind}")
        if self.targets.conditions:
            needed = ", ".join(self.targets.conditions)
            raise MatfmError(f"--predict {run} needs the conditions {needed}, which generated rows do not have")
        self._column = column
        text = {f"predicted_{self.targets.properties[0].name}"} if self.targets.classes else set()
        names = prediction_columns(self.targets, no_rows(self._members))
        self.fields: dict[str, pa.DataType] = {name: pa.string() if name in text else pa.float64() for name in names}

    def of(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Predictions of the rows of a chunk."""
        result: dict[str, list[Any]] = {name: [None] * len(columns["valid"]) for name in self.fields}
        rows = np.flatnonzero(np.array(columns["valid"], bool))
        cells = [columns[self._column][row] for row in rows]
        if not cells:
            return result
        encoded = self._encoder(cells)
        readable = [cells[position] for position in encoded.rows]
        forms = self._members[0].config.predict_enumerations
        examples = in_prediction_forms(Examples(encoded.tokens), self._encoder, readable, forms)
        if len(examples):
            predicted = prediction_columns(self.targets, predict_members(self._members, examples, self._device))
            for name, values in predicted.items():
                for row, value in zip(rows[encoded.rows], values.tolist(), strict=True):
                    result[name][row] = value
        return result
