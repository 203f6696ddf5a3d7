"""Train property predictors on tokens in memory: shared by `matfm finetune` and the estimators."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matfm.core.batching import EpochBatches, TokenBatch
from matfm.core.bundled import MODEL_FILE, resolve_weights
from matfm.core.trainer import Evaluation, LoopConfig, OnEvaluation, StepFunction, StepOutput, fit, remove_checkpoints
from matfm.models.backbones import PropertyModel, load_predictor, saved_architecture, with_new_head
from matfm.models.delta_files import save_delta
from matfm.models.deltas import delta_specs, merge_delta
from matfm.models.heads import scale_to_labels
from matfm.models.inference import predict_statistics
from matfm.models.matbert import MatBERTForProperty
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.saving import save_model
from matfm.models.strategies import DELTA, apply_strategy, check_deltas, trained_share
from matfm.tasks.encoding import RowEncoder, own_tokens
from matfm.tasks.enumeration import encode_forms
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import SCRATCH
from matfm.tasks.prompting.starts import prompt_start
from matfm.tasks.targets import Targets

__all__ = ["FitConfig", "Targets", "check_backbone", "load_predictor", "property_step", "train_predictor"]

PREDICTION_SEED = 0
"""Of the written forms that a prediction is the mean over: the same for every table and run."""


DELTA_FOLDER = "delta"
"""Of a run that trained a delta: that and the head alone, to go with any copy of the backbone."""


def check_backbone(config: FitConfig) -> None:
    """Raise MatfmError for a size or weights that there are not or do not suit, before anything is written."""
    name = config.backbone
    if name.startswith(SCRATCH):
        MatBERTConfig.of_size(name.removeprefix(SCRATCH))
        return
    folder = resolve_weights(name)
    if config.adds_delta:
        check_deltas(config, delta_specs(saved_architecture(folder).get("deltas")), name)


def train_predictor(
    config: FitConfig,
    targets: Targets,
    encoder: RowEncoder,
    train: Examples,
    valid: Examples | None,
    folder: Path,
    seed: int,
    device: torch.device,
    record: dict[str, Any],
    resume: bool = False,
    label: str = "finetune",
    keep_best: bool = True,
    start: Path | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> tuple[PropertyModel, dict[str, Any]]:
    """One trained model, saved in `folder`, and what `fit` says of it.

    `targets` are as `with_heads` leaves them, `encoder` made the tokens, `record` is the resolved configuration to keep
    beside the weights. With `resume`, a model already saved there is loaded, and an interrupted one is continued.
    `keep_best` leaves the weights of the best evaluation, if there are validation rows, and else the last ones.
    `start` is a predictor of the same targets to begin with, its head and scaling included.
    `on_evaluation` is told of every evaluation on the validation rows.
    """
    if resume and (folder / MODEL_FILE).is_file():
        return saved_predictor(config, folder)
    config = config.for_kind(encoder.kind)
    torch.manual_seed(seed)
    model = new_predictor(config, targets, encoder, train) if start is None else load_predictor(start)
    share = choose_trained(model, config, targets, encoder, train, seed)
    batches = EpochBatches(train.in_epochs(seed, config.jitter), config.tokens_per_batch, seed, config.length_pool)
    steps = math.ceil(config.epochs * batches.batches_per_epoch / config.accumulate)
    evaluate = validation(valid, targets, device)
    assert config.optimizer is not None
    result = fit(
        model,
        step_beside(config, targets, train, device),
        batches,
        config.optimizer,
        loop_of(config, steps, evaluate is not None, keep_best),
        folder,
        seed=seed,
        device=device,
        evaluate=evaluate,
        layers_from_top=model.base_model.layers_from_top,
        resume=resume,
        label=label,
        on_evaluation=on_evaluation,
    )
    save_predictor(config, model, folder, record)
    return model, {**result, "trainable_share": share}


def choose_trained(
    model: PropertyModel, config: FitConfig, targets: Targets, encoder: RowEncoder, train: Examples, seed: int
) -> float:
    """Freeze what the strategy does not train and add what it adds; returns the share of numbers that are trained."""
    start = prompt_start(config, model, encoder, train, [known.name for known in targets.properties], seed)
    return apply_strategy(model, config, model.base_model.layers_from_top, start)


def saved_predictor(config: FitConfig, folder: Path) -> tuple[PropertyModel, dict[str, Any]]:
    """A predictor that was trained before, and what of it was."""
    model = load_predictor(folder)
    return model, {"trainable_share": trained_share(model, config, model.base_model.layers_from_top)}


def loop_of(config: FitConfig, steps: int, evaluated: bool, keep_best: bool = True) -> LoopConfig:
    """The loop of so many steps, with evaluations where there are validation rows."""
    return LoopConfig(
        **config.options(),
        steps=steps,
        evaluate_every=math.ceil(steps / config.evaluations) if evaluated else 0,
        keep_best=evaluated and keep_best,
    )


def save_predictor(config: FitConfig, model: PropertyModel, folder: Path, record: dict[str, Any]) -> None:
    """Write a trained model, and its delta if it has one; its checkpoints go."""
    if config.adds_delta:
        save_delta(model, folder / DELTA_FOLDER, DELTA, config.backbone)
    if config.strategy == "lora":
        merge_delta(model, DELTA)
    save_model(model, folder, record)
    remove_checkpoints(folder)


def new_predictor(config: FitConfig, targets: Targets, encoder: RowEncoder, train: Examples) -> PropertyModel:
    """Backbone weights with a fresh head, scaled to the training targets and conditions."""
    head = {
        "property_names": [p.name for p in targets.properties],
        "property_units": [p.unit for p in targets.properties],
        "property_loss": config.loss,
        "property_quantiles": list(config.quantiles),
        "property_two_part": list(targets.two_part) if any(targets.two_part) else None,
        "property_log": list(targets.log) if any(targets.log) else None,
        "condition_names": list(targets.conditions) or None,
        "class_names": _class_names(targets),
        "predict_enumerations": config.predict_enumerations,
        "hidden_dropout_prob": config.dropout,
        "pooling": config.pooling,
    }
    if config.backbone.startswith(SCRATCH):
        size = config.backbone.removeprefix(SCRATCH)
        strings = {"vocab_size": len(encoder.tokenizer), "position_embedding": "rotary"}
        architecture = {} if encoder.kind == "composition" else strings
        model: PropertyModel = MatBERTForProperty(MatBERTConfig.of_size(size, **architecture, **head))
    else:
        model = with_new_head(config.backbone, head, own_tokens(encoder), encoder.kind)
    written = _first_forms(train)
    if not targets.classes:
        scale_to_labels(model.property_head, train.tokens.targets_RK[written], [p.limits for p in targets.properties])
    if train.conditions_SC is not None:
        model.property_head.set_conditions(train.conditions_SC[written])
    return model


def _class_names(targets: Targets) -> list[str] | list[list[str]] | None:
    names = [list(of_property) for of_property in targets.classes or ()]
    return names if len(names) > 1 else (names[0] if names else None)


def _first_forms(examples: Examples) -> np.ndarray:
    """The first sequence of every row."""
    return np.arange(len(examples)) if examples.forms is None else examples.forms[:-1]


def in_training_forms(examples: Examples, encoder: RowEncoder, cells: list[str], count: int, seed: int) -> Examples:
    """Training rows in up to `count` written forms each; as they are for 0 and 1. `cells` are their inputs."""
    return examples.in_forms(*encode_forms(encoder, cells, count, seed)) if count > 1 else examples


def in_prediction_forms(examples: Examples, encoder: RowEncoder, cells: list[str], count: int) -> Examples:
    """Rows in the written forms that a prediction is the mean over."""
    return in_training_forms(examples, encoder, cells, count, PREDICTION_SEED)


def property_step(model: PropertyModel, batch: TokenBatch, _: torch.Generator) -> StepOutput:
    """Supervised loss on the labels that are present."""
    raw = model.raw_packed(batch.ids_N, batch.amounts_N, batch.layout)
    return StepOutput(*model.loss(raw, batch.targets_BK))


LabelledLoss = Callable[[PropertyModel, Tensor, TokenBatch], tuple[Tensor, Tensor, Tensor]]
"""Model, pooled vectors (B, D) and batch to the head's raw outputs, and the loss's sum and weight."""


def step_beside(config: FitConfig, targets: Targets, train: Examples, device: torch.device) -> StepFunction:
    """Supervised loss with what stands beside the labels: weights, sides of censored labels, conditions."""
    loss = loss_beside(config, targets, train, device)

    def step(model: PropertyModel, batch: TokenBatch, _: torch.Generator) -> StepOutput:
        pooled_BD = model.base_model.embed_packed(batch.ids_N, batch.amounts_N, batch.layout)
        return StepOutput(*loss(model, pooled_BD, batch)[1:])

    return step


def loss_beside(config: FitConfig, targets: Targets, train: Examples, device: torch.device) -> LabelledLoss:
    """The loss of `step_beside`, from the vectors that the head reads."""
    weight_S = (
        _class_balanced(train, [len(names) for names in targets.classes])
        if config.class_weights == "balanced" and targets.classes
        else train.weight_S
    )
    side_SK = train.side_SK if train.side_SK is not None and train.side_SK.any() else None
    beside = [
        None if values is None else torch.from_numpy(values).to(device)
        for values in (train.conditions_SC, side_SK, weight_S)
    ]

    def loss(model: PropertyModel, pooled_BD: Tensor, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        conditions_BC, side_BK, weight_B = (_of(values, batch.rows_B) for values in beside)
        head = model.property_head
        raw = head(pooled_BD, conditions_BC)
        return raw, *head.loss(raw, batch.targets_BK, side_BK, weight_B, config.label_smoothing)

    return loss


def _of(values: Tensor | None, rows_B: Tensor) -> Tensor | None:
    return None if values is None else values[rows_B]


def _class_balanced(train: Examples, classes: list[int]) -> np.ndarray:
    """Weights (S, K) that give every class of a target the same sum, times those of the rows; 0 for missing labels.

    A class's rows weigh rows / (classes · rows of the class), as scikit-learn's `class_weight="balanced"`, so that
    their mean is 1 where rows weigh the same. A row in several forms counts once, as an epoch sees it.
    """
    weight_S = np.ones(len(train)) if train.weight_S is None else train.weight_S.astype(np.float64)
    balanced_SK = np.zeros(train.tokens.targets_RK.shape)
    first = np.zeros(len(train), dtype=bool)
    first[_first_forms(train)] = True
    for k, count in enumerate(classes):
        labelled_S = ~np.isnan(train.tokens.targets_RK[:, k])
        label_S = np.where(labelled_S, train.tokens.targets_RK[:, k], 0).astype(int)
        counted = labelled_S & first
        of_class = np.bincount(label_S[counted], weight_S[counted], minlength=count)
        present = of_class > 0
        factor = np.divide(of_class.sum(), present.sum() * of_class, out=np.zeros(count), where=present)
        balanced_SK[:, k] = weight_S * factor[label_S] * labelled_S
    return balanced_SK.astype(np.float32)


def validation(valid: Examples | None, targets: Targets, device: torch.device) -> Evaluation | None:
    """Mean absolute error in standard deviations of the exact labels, or mean negative log-likelihood (nats).

    None where there is no exact label.
    """
    if valid is None or np.isnan(true := valid.exact_labels()).all():
        return None
    labelled_K = ~np.isnan(true).all(axis=0)
    spread = np.nanstd(true[:, labelled_K], axis=0)
    spread = np.where(spread > 0, spread, 1.0)

    def evaluate(model: nn.Module) -> dict[str, float]:
        predicted = predict_statistics(model, valid.tokens, device, valid.conditions_SC)[..., 0]
        if targets.classes:
            chosen = [_of_true_class(true[:, k], part) for k, part in enumerate(targets.of_each(predicted))]
            return {"score": float(-np.log(np.concatenate(chosen).clip(1e-12)).mean())}
        return {"score": float(np.nanmean(np.abs(predicted[:, labelled_K] - true[:, labelled_K]) / spread))}

    return evaluate


def _of_true_class(label_R: np.ndarray, probability_RC: np.ndarray) -> np.ndarray:
    """The probabilities of the true classes, of the rows that have a label."""
    present = ~np.isnan(label_R)
    return probability_RC[present, label_R[present].astype(int)]
