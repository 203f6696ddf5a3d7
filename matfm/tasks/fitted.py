"""A predictor in memory: fitted on given rows, calibrated, saved and loaded, without a table or a run directory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matfm.chem.splits import CALIBRATION_PART, random_split
from matfm.core.bundled import MODEL_FILE
from matfm.errors import MatfmError
from matfm.models.backbones import PropertyModel
from matfm.models.saving import save_model, save_tokenizer
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.finetune import member_folders
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.predict import load_members, targets_of
from matfm.tasks.predictions import Predicted, predict_members
from matfm.tasks.predictor import in_prediction_forms, in_training_forms, train_predictor
from matfm.tasks.splitting import identity_groups
from matfm.tasks.targets import Targets, with_heads
from matfm.tasks.uncertainty.calibration import (
    CALIBRATION,
    Calibration,
    by_target,
    load_calibration,
    out_of_fold,
    save_calibration,
)
from matfm.tasks.uncertainty.domain import Domain, domain_of, load_domain
from matfm.tasks.uncertainty.folds import fold_numbers
from matfm.tasks.uncertainty.intervals import IntervalConfig
from matfm.tasks.uncertainty.trust import Trust, trust_of

# R rows


@dataclass(frozen=True)
class Calibrating:
    """How many models are trained, and which rows each leaves out."""

    ensemble: int = 1
    """Models that see all rows that are trained on."""
    share: float = 0.0
    """Share of the rows set aside for calibration."""
    folds: int = 0
    """Models that each leave out one fold (CV+), in place of the ensemble; 0 for none."""

    def __post_init__(self) -> None:
        if self.ensemble < 1:
            raise MatfmError(f"ensemble is {self.ensemble}; it must be at least 1")
        if not 0 <= self.share < 1:
            raise MatfmError(f"calibration_share is {self.share}; it is a share in [0, 1)")
        if self.folds < 0 or self.folds == 1:
            raise MatfmError(f"cross_conformal is {self.folds}; it is a number of folds, at least 2, or 0 for none")
        if self.folds and (self.share or self.ensemble > 1):
            raise MatfmError("cross_conformal makes the ensemble and its held-out rows; leave the other two out")


@dataclass(frozen=True)
class FittedPredictor:
    """Members with what they read, and what was held out of their training."""

    members: list[PropertyModel]
    encoder: RowEncoder
    targets: Targets
    domain: Domain | None
    calibration: Calibration | None = None
    """None where no row was held out."""

    def predict(self, examples: Examples, cells: list[str], device: torch.device, pooled: bool = False) -> Predicted:
        """Predictions of readable rows, of which `cells` are the inputs."""
        forms = self.members[0].config.predict_enumerations
        written = in_prediction_forms(examples, self.encoder, cells, forms)
        return predict_members(self.members, written, device, pooled=pooled)

    def trust(self, intervals: IntervalConfig) -> Trust:
        """Intervals or sets. Raises MatfmError where no row was held out, or too few."""
        if self.calibration is None:
            raise MatfmError(
                "intervals and sets need rows that were held out; fit with calibration_share=0.2 or cross_conformal=5"
            )
        return trust_of(self.targets, self.encoder, self.domain, self.calibration, intervals)

    def save(self, folder: Path, record: dict[str, Any]) -> None:
        """Write a folder that `load_fitted` and `matfm predict` read. Raises MatfmError where there is a model."""
        if (folder / MODEL_FILE).exists():
            raise MatfmError(f"{folder} already holds a model; choose another folder")
        for path, model in zip(member_folders(folder, len(self.members)), self.members, strict=True):
            save_model(model, path, record)
        save_tokenizer(self.encoder.tokenizer, folder)
        if self.domain is not None:
            self.domain.save(folder)
        if self.calibration is not None:
            save_calibration(self.calibration, folder)


def load_fitted(folder: Path) -> FittedPredictor:
    """What `FittedPredictor.save` wrote. Raises MatfmError for what is not there or damaged."""
    members = load_members(str(folder))
    calibration = load_calibration(folder) if (folder / CALIBRATION).is_file() else None
    return FittedPredictor(
        members, backbone_encoder(str(folder)), targets_of(members[0]), load_domain(folder), calibration
    )


def fit_predictor(
    config: FitConfig,
    targets: Targets,
    encoder: RowEncoder,
    cells: list[str],
    examples: Examples,
    calibrating: Calibrating,
    seed: int,
    device: torch.device,
    record: dict[str, Any],
) -> FittedPredictor:
    """Train on rows in memory, without validation rows: the last weights are kept.

    Args:
        config: how each model is trained.
        targets: what the labels mean.
        encoder: made the tokens of `examples`.
        cells: inputs of the rows.
        examples: the rows with their labels.
        calibrating: models, and rows held out.
        seed: of the first model, and of the rows held out.
        device: to train on.
        record: kept beside the weights.
    """
    train, fold_R = _parts(encoder, cells, calibrating, seed)
    members = []
    targets = with_heads(targets, config, examples.take(train))
    for number in range(calibrating.folds or calibrating.ensemble):
        rows = train if fold_R is None else np.flatnonzero(fold_R != number)
        own = examples.take(rows)
        with_heads(targets, config, own)  # complains if the rows of one member lack a label
        forms = in_training_forms(own, encoder, [cells[row] for row in rows.tolist()], config.enumerate, seed)
        with tempfile.TemporaryDirectory() as folder:
            model, _ = train_predictor(
                config, targets, encoder, forms, None, Path(folder), seed + number, device, record, label="fit"
            )
        members.append(model)
    bare = FittedPredictor(members, encoder, targets, None)
    predicted = bare.predict(examples, cells, device, pooled=True)
    assert predicted.pooled_RD is not None
    held = np.setdiff1d(np.arange(len(examples)), train)
    vectors = predicted.pooled_RD
    domain = domain_of(examples.take(train), vectors[train], vectors[held], encoder.tokenizer, seed)
    true_RK, calibration = examples.exact_labels(), None
    if fold_R is not None:
        calibration = out_of_fold(targets, true_RK, predicted, fold_R)
    elif len(held):
        distance_R = domain.distances(vectors[held])
        calibration = Calibration(CALIBRATION_PART, by_target(targets, true_RK[held], predicted.take(held), distance_R))
    return FittedPredictor(members, encoder, targets, domain, calibration)


def _parts(
    encoder: RowEncoder, cells: list[str], calibrating: Calibrating, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows to train on, and the fold of each row where there are folds; the same inputs stay together."""
    everything = np.arange(len(cells))
    if not (calibrating.folds or calibrating.share):
        return everything, None
    groups = identity_groups(cells, encoder.kind)
    if calibrating.folds:
        return everything, fold_numbers(groups, calibrating.folds, seed)
    train = np.flatnonzero(random_split(groups, (calibrating.share, 0.0), seed) == "train")
    if len(train) == 0:
        raise MatfmError(f"calibration_share is {calibrating.share}, which leaves no row to train on")
    return train, None
