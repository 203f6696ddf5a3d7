"""What pretraining reports of held-out rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from matfm.core.step import Evaluation, StepFunction
from matfm.models.inference import predict_properties
from matfm.tasks.pretraining.conditions import CausalObjective
from matfm.tasks.pretraining.objectives import objective_step
from matfm.tasks.pretraining.rows import Part
from matfm.tasks.pretraining.setting import Objective, Setting
from matfm.tasks.pretraining.translation import TranslationObjective, exact_matches

if TYPE_CHECKING:
    from matfm.tasks.pretraining.config import PretrainConfig

_FROM_PREDICTIONS = frozenset({"property", "descriptors"})


def held_out_evaluation(config: PretrainConfig, held_out: Part, setting: Setting, device: torch.device) -> Evaluation:
    """A function that judges a model on the held-out rows.

    It gives, of each objective that is trained: the mean absolute error of every property in its unit (`mae_NAME`),
    that of the descriptors in standard deviations (`descriptors_mae`), the cross-entropy in nats (`NAME_nats`), the
    share of masked tokens found (`masked_accuracy`) and the perplexity (`causal_perplexity`), both given all known
    conditions if there are any, and without them (`unconditional_nats`); of translation also the
    cross-entropy of every task (`TASK_nats`) and the share of a sample that greedy decoding translates exactly
    (`TASK_exact`). Masks, spans, noise and pairs are the same every time, and every row has a mask. `score` (smaller is
    better) is the mean error of the properties in standard deviations; where there are none, the weighted sum of the
    other losses.
    """
    judged = replace(setting, part=held_out, label_smoothing=0.0)
    conditional = [o for o in config.objectives if isinstance(o, CausalObjective) and o.condition]
    steps = _steps(tuple(o.evaluated() if o in conditional else o for o in config.objectives), judged)
    without = [objective_step((objective.unconditional(),), judged) for objective in conditional]
    weights = {objective.name: objective.weight for objective in config.objectives}
    names = config.data.targets if "property" in weights else ()
    translated = [o for o in config.objectives if isinstance(o, TranslationObjective) and o.sample]

    def evaluate(model: nn.Module) -> dict[str, float]:
        found = _term_means(model, held_out, steps, config.seed, device)
        losses = {name: value for name, value in found.items() if name in weights}
        found = {f"{name}_nats" if name in weights else name: value for name, value in found.items()}
        if "causal" in losses:
            found["causal_perplexity"] = math.exp(min(losses["causal"], 700.0))
        if conditional:
            found["unconditional_nats"] = _term_means(model, held_out, without, config.seed, device)["causal"]
        for objective in translated:
            found.update(exact_matches(model, held_out, objective, judged, config.seed, device))
        score = math.nan
        if weights.keys() & _FROM_PREDICTIONS:
            mae_K = _mean_absolute_errors(model, held_out, device)
            labelled = {name: float(mae) for name, mae in zip(names, mae_K, strict=False) if not math.isnan(mae)}
            found.update({f"mae_{name}": mae for name, mae in labelled.items()})
            if "descriptors" in weights:
                losses["descriptors"] = found["descriptors_mae"] = _in_deviations(model, mae_K, len(names))
            if names:
                score = _mean_in_spreads(mae_K[: len(names)], held_out.tokens.targets_RK[:, : len(names)])
        if not names:
            score = sum(weights[name] * loss for name, loss in losses.items())
        return {"score": score, **found}

    return evaluate


def _steps(objectives: tuple[Objective, ...], setting: Setting) -> list[StepFunction]:
    """Masks and hidden amounts apart from the terms that see whole rows; properties are judged by predictions."""
    every_row = replace(setting.masking, rows=1.0)
    groups = {
        "masked": replace(setting, masking=every_row, amounts=0.0),
        "amounts": replace(setting, amounts=1.0),
        "": replace(setting, amounts=0.0),
    }
    steps = []
    for group, of in groups.items():
        terms = tuple(o for o in objectives if o.name not in _FROM_PREDICTIONS and _group(o.name, groups) == group)
        if terms:
            steps.append(objective_step(terms, replace(of, terms=frozenset(objective.name for objective in terms))))
    return steps


def _group(name: str, groups: dict[str, Setting]) -> str:
    return name if name in groups else ""


def _term_means(
    model: nn.Module, held_out: Part, steps: list[StepFunction], seed: int, device: torch.device
) -> dict[str, float]:
    """Means of the terms' metrics over all rows, with random numbers from the seed."""
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, list[float]] = {}
    for batch in held_out.evaluated() if steps else ():
        for step in steps:
            with torch.no_grad():
                metrics = step(model, batch.to(device), generator).metrics
            for name, (total, weight) in metrics.items():
                pair = sums.setdefault(name, [0.0, 0.0])
                pair[0] += float(total)
                pair[1] += float(weight)
    return {name: total / weight for name, (total, weight) in sums.items() if weight > 0}


def _mean_absolute_errors(model: nn.Module, held_out: Part, device: torch.device) -> np.ndarray:
    """Of every column; NaN where no held-out row has a label."""
    targets_RK = held_out.tokens.targets_RK
    errors_RK = np.abs(predict_properties(model, held_out.tokens, device) - targets_RK)
    labelled_K = ~np.isnan(targets_RK).all(axis=0)
    mae_K = np.full(targets_RK.shape[1], np.nan, errors_RK.dtype)
    mae_K[labelled_K] = np.nanmean(errors_RK[:, labelled_K], axis=0)
    return mae_K


def _mean_in_spreads(mae_K: np.ndarray, targets_RK: np.ndarray) -> float:
    """Mean error in standard deviations of held-out labels; equal labels have none: their error counts as it is."""
    labelled_K = ~np.isnan(mae_K)
    spread_K = np.nanstd(targets_RK[:, labelled_K], axis=0)
    return float(np.mean(mae_K[labelled_K] / np.where(spread_K > 0, spread_K, 1)))


def _in_deviations(model: Any, mae_K: np.ndarray, columns: int) -> float:
    """Mean error of the descriptors in standard deviations of the training rows."""
    scale_K = model.property_head.scale.cpu().numpy()
    return float(np.nanmean(mae_K[columns:] / scale_K[columns:]))
