"""Training over tasks: every step is an episode, and the loss is that of its queries given its support."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matfm.core.batching import TokenBatch
from matfm.core.loop_config import LoopConfig, LoopOptions
from matfm.core.optim import OptimizerConfig
from matfm.core.step import Evaluation, StepFunction, StepOutput
from matfm.core.trainer import fit, remove_checkpoints
from matfm.models.fewshot_encoder import FewShotEncoder, save_fewshot
from matfm.models.strategies import StrategyOptions, apply_strategy
from matfm.tasks.few_shot.episodes import IS_QUERY, LABEL, EpisodeBatches, EpisodeSampler, episode_batch

# B sequences, Q queries, S support, F classical features


def episode_step(regression: bool, classical_RF: Tensor | None = None) -> StepFunction:
    """Loss of the queries of an episode; per query.

    Classes: cross-entropy of the prototype head. Regression: negative log density of the kernel head, of values scaled
    by the deviation of the support. Each batch is one episode, so accumulated batches are several episodes.

    Args:
        regression: whether labels are numbers.
        classical_RF: features of all rows, which `batch.rows_B` numbers.
    """
    loss_of = _regression_loss if regression else _class_loss

    def step(model: FewShotEncoder, batch: TokenBatch, _: torch.Generator) -> StepOutput:
        beside = None if classical_RF is None else classical_RF[batch.rows_B]
        # Distances and their inverses are taken in single precision whatever the encoder computes in.
        vectors_BE = model.embed(batch, beside).float()
        is_query = batch.targets_BK[:, IS_QUERY] > 0
        labels_B = batch.targets_BK[:, LABEL]
        with torch.autocast(batch.ids_N.device.type, enabled=False):
            return loss_of(model, vectors_BE[is_query], vectors_BE[~is_query], labels_B[is_query], labels_B[~is_query])

    return step


def _class_loss(
    model: FewShotEncoder, query_QE: Tensor, support_SE: Tensor, labels_Q: Tensor, labels_S: Tensor
) -> StepOutput:
    classes = int(labels_S.max()) + 1
    logits_QC = model.prototype_head(query_QE, support_SE, labels_S.long(), classes)
    count = logits_QC.new_tensor(len(labels_Q))
    right = (logits_QC.argmax(dim=1) == labels_Q.long()).sum().float()
    return StepOutput(F.cross_entropy(logits_QC, labels_Q.long(), reduction="sum"), count, {"accuracy": (right, count)})


def _regression_loss(
    model: FewShotEncoder, query_QE: Tensor, support_SE: Tensor, values_Q: Tensor, values_S: Tensor
) -> StepOutput:
    spread = values_S.std(correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    mean_Q, variance_Q = model.kernel_head(query_QE, support_SE, values_S)
    scaled = (mean_Q - values_Q) / spread
    loss = F.gaussian_nll_loss(scaled, torch.zeros_like(scaled), variance_Q / spread.square(), reduction="sum")
    count = loss.new_tensor(len(values_Q))
    return StepOutput(loss, count, {"error": (scaled.detach().abs().sum(), count)})


def validation_on(sampler: EpisodeSampler, episodes: int, batches: EpisodeBatches, step: StepFunction) -> Evaluation:
    """Mean loss per query over fixed episodes of tasks (or rows) that are not trained on."""
    fixed = [
        episode_batch(sampler.episode(i), batches.sequences, batches.forms, 1, 0.0, np.random.default_rng(0))
        for i in range(episodes)
    ]

    def evaluate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        outputs = [step(model, batch.to(device), torch.Generator()) for batch in fixed]
        weight = sum(float(output.weight) for output in outputs)
        found = {"score": sum(float(output.loss_sum) for output in outputs) / weight}
        for name in outputs[0].metrics:
            found[name] = sum(float(output.metrics[name][0]) for output in outputs) / weight
        return found

    return evaluate


def meta_train(
    model: FewShotEncoder,
    batches: EpisodeBatches,
    classical_RF: np.ndarray | None,
    options: LoopOptions,
    optimizer: OptimizerConfig,
    steps: int,
    folder: Path,
    *,
    strategy: str,
    seed: int,
    device: torch.device,
    record: dict[str, Any],
    validation: tuple[EpisodeSampler, int, int] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train in place, save in `folder`, and return what the loop says.

    Args:
        model: encoder and what stands on it.
        batches: episodes of the tasks to learn from.
        classical_RF: features of the rows, as the model takes them.
        options: of the loop.
        optimizer: and its schedule.
        steps: updates, of `options.accumulate` episodes each.
        folder: of the run.
        strategy: full, partial, feature or bitfit: what of the encoder is trained.
        seed: of dropout.
        device: to train on.
        record: resolved configuration, kept beside the weights.
        validation: sampler, number of episodes, and steps between evaluations; the best weights are kept.
        resume: go on from the newest checkpoint.
    """
    apply_strategy(model.backbone, StrategyOptions(strategy=strategy), model.backbone.layers_from_top)
    regression = batches.sampler.table.regression
    for name, parameter in model.named_parameters():  # what stands on the encoder is trained, but for the unused head
        if not name.startswith("backbone."):
            unused = "prototype_head." if regression else "kernel_head."
            parameter.requires_grad_(not name.startswith(unused))
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    share = sum(count for count, trained in counts if trained) / sum(count for count, _ in counts)
    beside = None if classical_RF is None else torch.from_numpy(classical_RF).to(device)
    step = episode_step(regression, beside)
    loop = LoopConfig(
        **options.options(),
        steps=steps,
        evaluate_every=validation[2] if validation else 0,
        keep_best=validation is not None,
    )
    result = fit(
        model, step, batches, optimizer, loop, folder, seed=seed, device=device,
        evaluate=validation_on(validation[0], validation[1], batches, step) if validation else None,
        layers_from_top=model.layers_from_top, resume=resume, label="meta-train",
    )  # fmt: skip
    save_fewshot(model, folder, record)
    remove_checkpoints(folder)
    return {**result, "trainable_share": share}
