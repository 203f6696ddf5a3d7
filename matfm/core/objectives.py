"""Training objectives as pure functions: each returns the summed loss and its weight (the count summed over)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# M masked tokens, V vocabulary, B rows, K targets, C classes

Pointwise = Callable[[Tensor, Tensor], Tensor]

REGRESSION_LOSSES: dict[str, Pointwise] = {
    "l1": lambda predicted, target: (predicted - target).abs(),
    "l2": lambda predicted, target: (predicted - target).square(),
    "huber": lambda predicted, target: F.huber_loss(predicted, target, reduction="none"),
}
"""Losses of one prediction, in scaled units."""


def masked_lm_loss(logits_MV: Tensor, labels_M: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) at the masked positions only (Devlin et al. 2019).

    `smoothing` in [0, 1] is the share of the target spread evenly over all classes (Szegedy et al. 2016).
    """
    total = F.cross_entropy(logits_MV, labels_M, reduction="sum", label_smoothing=smoothing)
    return total, torch.tensor(float(labels_M.numel()), device=logits_MV.device)


def multi_property_loss(
    predicted_BK: Tensor, target_BK: Tensor, pointwise: Pointwise, task_weight_K: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum over the labels that are present; NaN marks a missing label and gets no gradient."""
    present_BK = ~target_BK.isnan()
    loss_BK = pointwise(predicted_BK, torch.where(present_BK, target_BK, predicted_BK.detach()))
    weight_BK = present_BK.to(loss_BK.dtype)
    if task_weight_K is not None:
        weight_BK = weight_BK * task_weight_K
    return (loss_BK * weight_BK).sum(), weight_BK.sum()


def class_loss(logits_BC: Tensor, label_B: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) over rows with a label; NaN marks a missing one. `smoothing` as in `masked_lm_loss`."""
    present_B = ~label_B.isnan()
    logits, labels = logits_BC[present_B], label_B[present_B].long()
    total = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    return total, present_B.sum().to(logits_BC.dtype)
