"""Training objectives as pure functions: each returns the summed loss and its weight (the count summed over)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from matfm.core.layout import PackedLayout

# N tokens, M predicted tokens, V vocabulary, B rows, K targets, C classes, D width

IGNORED = -100
"""Label of a token with nothing to predict (Hugging Face's number)."""

Pointwise = Callable[[Tensor, Tensor], Tensor]

REGRESSION_LOSSES: dict[str, Pointwise] = {
    "l1": lambda predicted, target: (predicted - target).abs(),
    "l2": lambda predicted, target: (predicted - target).square(),
    "huber": lambda predicted, target: F.huber_loss(predicted, target, reduction="none"),
}
"""Losses of one prediction, in scaled units."""


def masked_lm_loss(logits_MV: Tensor, labels_M: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) at the masked positions only (Devlin et al. 2019).

    `label_smoothing` in [0, 1) spreads that share of each label evenly over the vocabulary (Szegedy et al. 2016).
    """
    total = F.cross_entropy(logits_MV, labels_M, reduction="sum", label_smoothing=label_smoothing)
    return total, torch.tensor(float(labels_M.numel()), device=logits_MV.device)


def token_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) of logits (…, V) over the labels (…) that are not `IGNORED`."""
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, (labels != IGNORED).sum().to(logits.dtype)


def next_token_loss(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The same where logits at t score the label at t + 1 (causal language models)."""
    return token_loss(logits_BTV[:, :-1], labels_BT[:, 1:])


def predicting_positions(layout: PackedLayout, device: torch.device | None = None) -> Tensor:
    """Packed positions of the tokens that predict a next one: all but the last of each sequence. Shape (N - B,)."""
    predicts_N = torch.ones(layout.tokens, dtype=torch.bool)
    predicts_N[layout.first_tokens()[1:] - 1] = False
    predicts_N[-1:] = False
    return predicts_N.nonzero()[:, 0].to(device)


def causal_lm_loss(
    logits_NV: Tensor, ids_N: Tensor, layout: PackedLayout, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) of each token after the first of its sequence, given those before (Radford et al. 2018).

    The logits at a token predict the next token of the same sequence; those at its last token are not used.
    """
    positions_M = predicting_positions(layout, ids_N.device)
    return masked_lm_loss(logits_NV[positions_M], ids_N[positions_M + 1], label_smoothing)


def info_nce_loss(
    left_BD: Tensor,
    right_BD: Tensor,
    temperature: float,
    *,
    symmetric: bool = True,
    same_view: bool = False,
    group_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) of finding each row's other view among the batch, by cosine (InfoNCE, Oord et al. 2018).

    Args:
        left_BD: embeddings of one view, of any non-zero length.
        right_BD: embeddings of the other view, in the same order.
        temperature: divides the cosines; positive.
        symmetric: the mean of left-finds-right and right-finds-left; else the first alone.
        same_view: rows of the own view are negatives as well; with `symmetric` this is NT-Xent
            (SimCLR, Chen et al. 2020), but summed over pairs instead of over the 2B views.
        group_B: rows of one group (equal compositions) are no negatives of each other.

    Returns:
        The sum over the pairs, and B.

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive")
    left_BD, right_BD = F.normalize(left_BD, dim=-1), F.normalize(right_BD, dim=-1)
    rows = len(left_BD)
    self_BB = torch.eye(rows, dtype=torch.bool, device=left_BD.device)
    alike_BB = self_BB if group_B is None else group_B[:, None] == group_B
    label_B = torch.arange(rows, device=left_BD.device)

    def finds(anchor_BD: Tensor, other_BD: Tensor) -> Tensor:
        logits = (anchor_BD @ other_BD.T).masked_fill(alike_BB & ~self_BB, -torch.inf)
        if same_view:
            logits = torch.cat([logits, (anchor_BD @ anchor_BD.T).masked_fill(alike_BB, -torch.inf)], dim=1)
        return F.cross_entropy(logits / temperature, label_B, reduction="sum")

    total = finds(left_BD, right_BD)
    if symmetric:
        total = (total + finds(right_BD, left_BD)) / 2
    return total, torch.tensor(float(rows), device=left_BD.device)


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


def sum_over_labels(loss_BK: Tensor, present_BK: Tensor, weight_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of finite losses over the labels that are present, and their summed weight; rows weigh 1 if not given."""
    weight_BK = present_BK.to(loss_BK.dtype)
    if weight_B is not None:
        weight_BK = weight_BK * weight_B[:, None]
    return (loss_BK * weight_BK).sum(), weight_BK.sum()


def class_loss(
    logits_BC: Tensor, label_B: Tensor, label_smoothing: float = 0.0, weight_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) over rows with a label, and their number or summed weight; NaN marks a missing one."""
    present_B = ~label_B.isnan()
    labels = label_B[present_B].long()
    if weight_B is None:
        total = F.cross_entropy(logits_BC[present_B], labels, reduction="sum", label_smoothing=label_smoothing)
        return total, present_B.sum().to(logits_BC.dtype)
    loss_B = F.cross_entropy(logits_BC[present_B], labels, reduction="none", label_smoothing=label_smoothing)
    weight_B = weight_B[present_B]
    return (loss_B * weight_B).sum(), weight_B.sum()
