"""Train property predictors on tokens in memory: shared by `matfm finetune` and the estimators."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from matfm.chem.units import Property
from matfm.core.batching import EpochBatches, RaggedTokens, TokenBatch
from matfm.core.bundled import MODEL_FILE, resolve_weights
from matfm.core.loop_config import LoopOptions
from matfm.core.objectives import class_loss
from matfm.core.optim import OptimizerConfig
from matfm.core.trainer import Evaluation, LoopConfig, StepFunction, StepOutput, fit, remove_checkpoints
from matfm.errors import MatfmError
from matfm.models.inference import predict_properties
from matfm.models.matbert import MatBERTForProperty, MatBERTModel
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.saving import load_model, save_model
from matfm.models.strategies import STRATEGIES, apply_strategy

SCRATCH = "scratch:"
"""`scratch:small` starts from random weights of that size."""


def _optimizer() -> OptimizerConfig:
    return OptimizerConfig(learning_rate=5e-4, layer_decay=0.75, warmup=0.1)


@dataclass(frozen=True, kw_only=True)
class FitConfig(LoopOptions):
    """How a predictor is trained from a backbone."""

    backbone: str = "matbert-small"
    """Bundled name, folder, Hub id, or scratch:SIZE."""
    strategy: str = "full"
    """full, feature, partial or bitfit."""
    task: str = "regression"
    """regression or classification."""
    epochs: float = 30.0
    """Passes over the training rows."""
    tokens_per_batch: int = 256
    """Tokens of a batch; a formula has one per element and one more."""
    dropout: float = 0.1
    """Dropout in the encoder and the head."""
    loss: str = "l1"
    """l1, l2 or huber, on scaled targets."""
    pooling: str = "mean"
    """mean or cls."""
    label_smoothing: float = 0.0
    """Share of a class target spread over all classes (classification)."""
    evaluations: int = 10
    """Evaluations on the validation rows, if there are any; the best weights are kept."""
    optimizer: OptimizerConfig = field(default_factory=_optimizer)
    """Optimizer and schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise MatfmError(f"label_smoothing is {self.label_smoothing}; it is a share in [0, 1)")
        if self.label_smoothing and self.task != "classification":
            raise MatfmError(f"label_smoothing is {self.label_smoothing} and task is {self.task}; it is for classes")
        if self.strategy not in STRATEGIES:
            raise MatfmError(f"strategy is {self.strategy!r}; choose one of {', '.join(STRATEGIES)}")
        if self.task not in ("regression", "classification"):
            raise MatfmError(f"task is {self.task!r}; choose regression or classification")
        if self.epochs <= 0:
            raise MatfmError(f"epochs is {self.epochs}; it must be positive")


@dataclass(frozen=True)
class Targets:
    """What the columns of the target table mean."""

    properties: tuple[Property, ...]
    classes: tuple[str, ...] | None = None
    """Names of the classes; the target is then the class's index."""


def check_backbone(name: str) -> None:
    """Raise MatfmError for a size or weights that there are not, before anything is written."""
    if name.startswith(SCRATCH):
        MatBERTConfig.of_size(name.removeprefix(SCRATCH))
    else:
        resolve_weights(name)


def train_predictor(
    config: FitConfig,
    targets: Targets,
    train: RaggedTokens,
    valid: RaggedTokens | None,
    folder: Path,
    seed: int,
    device: torch.device,
    record: dict[str, Any],
    resume: bool = False,
    label: str = "finetune",
) -> tuple[MatBERTForProperty, dict[str, Any]]:
    """One trained model, saved in `folder`, and what `fit` says of it.

    `record` is the resolved configuration to keep beside the weights.
    With `resume`, a model already saved there is loaded, and an interrupted one is continued.
    """
    if resume and (folder / MODEL_FILE).is_file():
        return load_predictor(folder), {}
    torch.manual_seed(seed)
    model = new_predictor(config, targets, train)
    share = apply_strategy(model, config.strategy, model.matbert.layers_from_top)
    batches = EpochBatches(train, config.tokens_per_batch, seed)
    steps = math.ceil(config.epochs * batches.batches_per_epoch / config.accumulate)
    has_valid = valid is not None and len(valid) > 0
    loop = LoopConfig(
        **config.options(),
        steps=steps,
        evaluate_every=math.ceil(steps / config.evaluations) if has_valid else 0,
        keep_best=has_valid,
    )
    result = fit(
        model,
        smoothed_class_step(config.label_smoothing) if config.label_smoothing else property_step,
        batches,
        config.optimizer,
        loop,
        folder,
        seed=seed,
        device=device,
        evaluate=_validation(valid, config.task, device) if valid is not None and has_valid else None,
        layers_from_top=model.matbert.layers_from_top,
        resume=resume,
        label=label,
    )
    save_model(model, folder, record)
    remove_checkpoints(folder)
    return model, {**result, "trainable_share": share}


def new_predictor(config: FitConfig, targets: Targets, train: RaggedTokens) -> MatBERTForProperty:
    """Backbone weights with a fresh head, scaled to the training targets."""
    head = {
        "property_names": [p.name for p in targets.properties],
        "property_units": [p.unit for p in targets.properties],
        "property_loss": config.loss,
        "class_names": list(targets.classes) if targets.classes else None,
        "hidden_dropout_prob": config.dropout,
        "pooling": config.pooling,
    }
    if config.backbone.startswith(SCRATCH):
        model = MatBERTForProperty(MatBERTConfig.of_size(config.backbone.removeprefix(SCRATCH), **head))
    else:
        model = load_backbone(config.backbone, head)
    if not targets.classes:
        targets_RK = train.targets_RK.astype(np.float64)
        scale_K = torch.from_numpy(np.nanstd(targets_RK, axis=0)).float()
        model.property_head.set_scaling(torch.from_numpy(np.nanmean(targets_RK, axis=0)).float(), scale_K)
        model.property_head.set_bounds(*torch.tensor([p.limits for p in targets.properties]).T)
    return model


def load_backbone(name: str, head: dict[str, Any]) -> MatBERTForProperty:
    """Encoder weights by name; the head is new."""
    encoder: MatBERTModel = load_model(MatBERTModel, name)
    config = encoder.config
    for key, value in head.items():
        setattr(config, key, value)

    model = MatBERTForProperty(config)
    model.matbert.load_state_dict(encoder.state_dict())
    return model


def load_predictor(folder: str | Path) -> MatBERTForProperty:
    """A saved predictor, in evaluation mode."""
    model: MatBERTForProperty = load_model(MatBERTForProperty, str(folder))
    return model


def property_step(model: MatBERTForProperty, batch: TokenBatch, _: torch.Generator) -> StepOutput:
    """Supervised loss on the labels that are present."""
    raw = model.raw_packed(batch.ids_N, batch.amounts_N, batch.layout)
    return StepOutput(*model.loss(raw, batch.targets_BK))


def smoothed_class_step(label_smoothing: float) -> StepFunction:
    """Cross-entropy against smoothed labels."""

    def step(model: MatBERTForProperty, batch: TokenBatch, _: torch.Generator) -> StepOutput:
        raw_BC = model.raw_packed(batch.ids_N, batch.amounts_N, batch.layout)
        return StepOutput(*class_loss(raw_BC, batch.targets_BK[:, 0], label_smoothing))

    return step


def predict_members(
    members: list[MatBERTForProperty], data: RaggedTokens, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the members, each (R, K) in physical units or class probabilities."""
    every = np.stack([predict_properties(member.to(device), data, device) for member in members])
    return every.mean(axis=0), every.std(axis=0)


def _validation(valid: RaggedTokens, task: str, device: torch.device) -> Evaluation:
    """Mean absolute error in standard deviations, or mean negative log-likelihood (nats)."""
    true = valid.targets_RK
    spread = np.nanstd(true, axis=0)
    spread = np.where(spread > 0, spread, 1.0)

    def evaluate(model: nn.Module) -> dict[str, float]:
        predicted = predict_properties(model, valid, device)
        if task == "classification":
            present = ~np.isnan(true[:, 0])
            chosen = predicted[present, true[present, 0].astype(int)]
            return {"score": float(-np.log(chosen.clip(1e-12)).mean())}
        return {"score": float(np.nanmean(np.abs(predicted - true) / spread))}

    return evaluate
