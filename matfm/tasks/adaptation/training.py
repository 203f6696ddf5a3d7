"""Train the models of an adaptation: the control, a chain, or source and target together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from matfm.core.batching import TokenBatch
from matfm.core.bundled import MODEL_FILE
from matfm.core.config import from_mapping, load_toml, to_mapping
from matfm.core.domain_batches import GroupedBatches, RowGroup
from matfm.core.gradient_reversal import reversal_strength
from matfm.core.trainer import Evaluation, StepFunction, StepOutput, fit
from matfm.errors import MatfmError
from matfm.models.backbones import PropertyModel
from matfm.models.domain import ALIGNMENTS, AlignedPropertyModel, condition_on
from matfm.models.saving import save_tokenizer
from matfm.tasks import finetune, pretrain
from matfm.tasks.adaptation.config import AdaptConfig, DomainTable
from matfm.tasks.adaptation.rows import DomainRows
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.predictor import (
    choose_trained,
    in_training_forms,
    load_predictor,
    loop_of,
    loss_beside,
    new_predictor,
    save_predictor,
    saved_predictor,
    train_predictor,
    validation,
)
from matfm.tasks.targets import with_heads

# U usable rows, P rows of a training, S their sequences

CONTROL = "control"
"""Folder of the model without adaptation, inside a run directory."""
STAGES = "stages"
"""Folder of a chain's earlier stages."""
_ALONE = -1
"""Domain of a row that is only there for its label."""


@dataclass(frozen=True)
class Trained:
    """A model and what its training says."""

    model: PropertyModel
    result: dict[str, Any]


def train_control(config: AdaptConfig, rows: DomainRows, out: Path, device: torch.device, resume: bool) -> Trained:
    """The model that sees nothing of the target: trained on the source, after the earlier stages of a chain.

    With the method none it is the run itself.

    Raises:
        MatfmError: `resume`, and the control in `out` was trained with another configuration.
    """
    record = to_mapping(config) if config.method == "none" else _control_record(config)
    if resume and (out / MODEL_FILE).is_file():
        _check_same(out, config)
    backbone = train_stages(config, out.parent / STAGES, resume) if config.stages else ""
    out.mkdir(parents=True, exist_ok=True)
    save_tokenizer(rows.labelled.encoder.tokenizer, out)
    positions = rows.positions("source", "train")
    valid = rows.take(rows.positions("source", "valid"))
    return _train_alone(
        config, config.fit_of(config.sources, backbone), rows, positions, valid, out, device, record, resume
    )


def _control_record(config: AdaptConfig) -> dict[str, Any]:
    """What is kept beside the weights of a control: all that decides them."""
    return {"control_of": "matfm adapt", **config.control()}


def train_on_target(
    config: AdaptConfig, rows: DomainRows, out: Path, device: torch.device, resume: bool, start: Path | None
) -> Trained:
    """A model trained on the target's labels alone, beginning as `start` (the control) or as the backbone."""
    positions = rows.positions("target", "train", labelled=True)
    valid = rows.take(rows.positions("target", "valid"))
    fit_config, record = config.fit_of(config.target), to_mapping(config)
    return _train_alone(config, fit_config, rows, positions, valid, out, device, record, resume, start)


def train_stages(config: AdaptConfig, folder: Path, resume: bool) -> str:
    """The earlier stages of a chain, each a run of its own that goes on from the one before; returns the last one's."""
    backbone = config.fit.backbone
    for number, stage in enumerate(config.stages, start=1):
        out = folder / str(number)
        again = resume and (out / "config.json").is_file()
        if stage.pretrain:
            told = from_mapping(pretrain.PretrainConfig, load_toml(stage.pretrain), stage.pretrain)
            pretrain.run(replace(told, model=replace(told.model, start=backbone)), out, again)
        else:
            finetune.run(_stage(config, stage, backbone), out, again)
        backbone = str(out)
    return backbone


def _stage(config: AdaptConfig, stage: DomainTable, backbone: str) -> finetune.FinetuneConfig:
    plain = config.finetuning(config.fit_of((stage,), backbone))
    return replace(plain, table=stage.table, input=stage.input or config.input, targets=(stage.label or config.label,))


def train_together(config: AdaptConfig, rows: DomainRows, out: Path, device: torch.device, resume: bool) -> Trained:
    """Source labels, those of the target if there are some, and the alignment of their vectors, in every batch."""
    if resume and (out / MODEL_FILE).is_file():
        return Trained(*saved_predictor(config.fit, out))
    fit_config = config.fit.for_kind(rows.labelled.encoder.kind)
    aligns = config.method in ALIGNMENTS
    plan = plan_batches(config, rows, fit_config, aligns)
    train, source = _examples(config, rows, plan), rows.take(rows.positions("source", "train"))
    torch.manual_seed(config.seed)
    predictor = new_predictor(fit_config, rows.labelled.targets, rows.labelled.encoder, source)
    share = choose_trained(predictor, fit_config, rows.labelled.targets, rows.labelled.encoder, source, config.seed)
    model: Any = AlignedPropertyModel(predictor, config.alignment(), len(rows.joined.domains)) if aligns else predictor
    steps = math.ceil(fit_config.epochs * plan.batches_per_epoch / fit_config.accumulate)
    batches = GroupedBatches(
        train.in_epochs(config.seed, fit_config.jitter), plan.groups, config.seed, steps * fit_config.accumulate
    )
    evaluate = validation(rows.labelled.part("valid"), rows.labelled.targets, device)
    assert fit_config.optimizer is not None
    result = fit(
        model,
        aligning_step(config, fit_config, rows, train, _domains(plan, train), batches, device),
        batches,
        fit_config.optimizer,
        loop_of(fit_config, steps, evaluate is not None, config.keep == "best"),
        out,
        seed=config.seed,
        device=device,
        evaluate=_of_predictor(evaluate) if aligns and evaluate is not None else evaluate,
        layers_from_top=model.layers_from_top if aligns else predictor.base_model.layers_from_top,
        resume=resume,
        label=config.method,
    )
    save_predictor(fit_config, predictor, out, to_mapping(config))
    return Trained(predictor, {**result, "trainable_share": share})


@dataclass(frozen=True)
class BatchPlan:
    """Which usable rows are trained on, and how batches draw from them."""

    positions: np.ndarray
    """Usable row of each training row, (P,); a labelled target row is there twice."""
    domain_P: np.ndarray
    """Domain for the alignment; -1 for rows that are there for their label only."""
    supervised_P: np.ndarray
    """Whether the row's label is learned."""
    groups: tuple[RowGroup, ...]
    batches_per_epoch: int
    """Batches until as many source rows were seen as there are."""


def plan_batches(config: AdaptConfig, rows: DomainRows, fit_config: FitConfig, aligns: bool) -> BatchPlan:
    """Every batch has about as many source as target rows, each domain of a side the same number, and labelled rows.

    Labelled target rows are a group of their own, so that a few among many unlabelled ones count: their share of the
    labelled rows of a batch is `config.labelled_share`, or what there is.
    """
    source = rows.positions("source", "train")
    lengths_U = rows.labelled.examples.tokens.lengths_R
    a_side = max(2, round(fit_config.tokens_per_batch / float(lengths_U[source].mean())))
    of_source = _by_domain(source, rows.domain_U)
    of_target = _by_domain(rows.positions("target", "train"), rows.domain_U) if aligns else []
    labelled = rows.positions("target", "train", labelled=True)
    parts = [*of_source, *of_target, *([labelled] if len(labelled) else [])]
    starts = np.cumsum([0, *map(len, parts)])
    counts = [min(len(part), max(1, a_side // len(side))) for side in (of_source, of_target) for part in side]
    from_source = sum(counts[: len(of_source)])
    if len(labelled):
        wanted = from_source * config.labelled_share / (1 - config.labelled_share)
        counts.append(min(len(labelled), max(1, round(wanted))))
    positions = np.concatenate(parts)
    domain_P = rows.domain_U[positions].copy()
    if len(labelled):
        domain_P[starts[-2] :] = _ALONE
    supervised_P = ~rows.target_U[positions] | (domain_P == _ALONE)
    groups = tuple(
        RowGroup(np.arange(start, end), count)
        for start, end, count in zip(starts[:-1].tolist(), starts[1:].tolist(), counts, strict=True)
    )
    return BatchPlan(positions, domain_P, supervised_P, groups, math.ceil(len(source) / from_source))


def aligning_step(
    config: AdaptConfig,
    fit_config: FitConfig,
    rows: DomainRows,
    train: Examples,
    domain_S: np.ndarray,
    batches: GroupedBatches,
    device: torch.device,
) -> StepFunction:
    """The supervised loss, and of `AlignedPropertyModel` the alignment of the rows that have a domain.

    The strength of the alignment follows the progress of `batches`, which is that of the training.
    """
    supervised = loss_beside(fit_config, rows.labelled.targets, train, device)
    domains = torch.from_numpy(domain_S).to(device)

    def step(model: Any, batch: TokenBatch, _: torch.Generator) -> StepOutput:
        aligns = isinstance(model, AlignedPropertyModel)
        predictor = model.predictor if aligns else model
        pooled_BD = predictor.base_model.embed_packed(batch.ids_N, batch.amounts_N, batch.layout)
        raw, loss_sum, weight = supervised(predictor, pooled_BD, batch)
        if not aligns:
            return StepOutput(loss_sum, weight)
        domain_B = domains[batch.rows_B]
        aligned_B = domain_B != _ALONE
        told = condition_on(predictor.property_head, raw[aligned_B])
        strength = reversal_strength(batches.progress, config.gamma)
        alignment, metrics = model.alignment(pooled_BD[aligned_B], told, domain_B[aligned_B], strength)
        # The loop divides the sum by the weight of the labels, which leaves the alignment as it is.
        one = torch.ones_like(alignment.detach())
        told_to_log = {"alignment": (alignment.detach(), one), "strength": (strength * one, one), **metrics}
        return StepOutput(loss_sum + config.weight * alignment * weight.detach(), weight, told_to_log)

    return step


def _train_alone(
    config: AdaptConfig,
    fit_config: FitConfig,
    rows: DomainRows,
    positions: np.ndarray,
    valid: Examples,
    out: Path,
    device: torch.device,
    record: dict[str, Any],
    resume: bool,
    start: Path | None = None,
) -> Trained:
    own, encoder = rows.take(positions), rows.labelled.encoder
    targets = rows.labelled.targets if start else with_heads(rows.labelled.targets, fit_config, own)
    train = in_training_forms(own, encoder, rows.cells(positions), fit_config.enumerate, config.seed)
    held = valid if len(valid) else None
    return Trained(
        *train_predictor(
            fit_config, targets, encoder, train, held, out, config.seed, device, record, resume,
            label=out.name if out.name == CONTROL else config.method, keep_best=config.keep == "best", start=start,
        )
    )  # fmt: skip


def _examples(config: AdaptConfig, rows: DomainRows, plan: BatchPlan) -> Examples:
    """Training rows in their written forms; labels that are not learned are missing."""
    taken = rows.take(plan.positions)
    taken.tokens.targets_RK[~plan.supervised_P] = np.nan
    forms = config.fit.enumerate
    return in_training_forms(taken, rows.labelled.encoder, rows.cells(plan.positions), forms, config.seed)


def _domains(plan: BatchPlan, train: Examples) -> np.ndarray:
    """Domain of each sequence, (S,)."""
    return plan.domain_P if train.forms is None else np.repeat(plan.domain_P, np.diff(train.forms))


def _by_domain(positions: np.ndarray, domain_U: np.ndarray) -> list[np.ndarray]:
    return [positions[domain_U[positions] == domain] for domain in np.unique(domain_U[positions])]


def _of_predictor(evaluate: Evaluation) -> Evaluation:
    def of_predictor(model: nn.Module) -> dict[str, float]:
        return evaluate(model.predictor)  # type: ignore[arg-type]

    return of_predictor


def _check_same(out: Path, config: AdaptConfig) -> None:
    """The control in `out`, which may be a run of the method none, is that of the configuration."""
    begun = load_predictor(out).config.run or {}
    if begun.get("method") == "none":
        begun = _control_record(from_mapping(AdaptConfig, begun, str(out)))
    begun, wanted = (json.loads(json.dumps(record)) for record in (begun, _control_record(config)))
    if begun != wanted:
        changed = _different(begun, wanted)
        raise MatfmError(f"{out} was trained with another {changed}; adapt into another folder")


def _different(begun: dict[str, Any], record: dict[str, Any]) -> str:
    names: Iterable[str] = sorted(begun.keys() | record.keys())
    return next(name for name in names if begun.get(name) != record.get(name))
