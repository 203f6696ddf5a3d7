"""Training objectives as pure functions: each returns the summed loss and its weight (the count summed over)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from matfm.core.layout import PackedLayout

# M masked tokens, V vocabulary, B rows, K targets, C classes

IGNORED = -100
"""Label of a token with nothing to predict (Hugging Face's number)."""

Pointwise = Callable[[Tensor, Tensor], Tensor]

REGRESSION_LOSSES: dict[str, Pointwise] = {
    "l1": lambda predicted, target: (predicted - target).abs(),
    "l2": lambda predicted, target: (predicted - target).square(),
    "huber": lambda predicted, target: F.huber_loss(predicted, target, reduction="none"),
}
"""Losses of one prediction, in scaled units."""


def masked_lm_loss(logits_MV: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) at the masked positions only (Devlin et al. 2019)."""
    total = F.cross_entropy(logits_MV, labels_M, reduction="sum")
    return total, torch.tensor(float(labels_M.numel()), device=logits_MV.device)


def token_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) of logits (…, V) over the labels (…) that are not `IGNORED`."""
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, (labels != IGNORED).sum().to(logits.dtype)


def next_token_loss(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The same where logits at t score the label at t + 1 (causal language models)."""
    return token_loss(logits_BTV[:, :-1], labels_BT[:, 1:])


def next_token_labels(ids_N: Tensor, layout: PackedLayout) -> Tensor:
    """What follows each packed token, (N,); `IGNORED` at the last token of each sequence."""
    labels_N = ids_N.roll(-1)
    # The last token of a sequence lies before the first of the next, and index -1 before the first of all.
    labels_N[layout.first_tokens(ids_N.device) - 1] = IGNORED
    return labels_N


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


def class_loss(logits_BC: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) over rows with a label; NaN marks a missing one."""
    present_B = ~label_B.isnan()
    total = F.cross_entropy(logits_BC[present_B], label_B[present_B].long(), reduction="sum")
    return total, present_B.sum().to(logits_BC.dtype)
