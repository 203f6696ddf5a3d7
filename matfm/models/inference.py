"""Predictions and embeddings of many sequences: sorted by length, batched by token budget, order restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from matfm.core.batching import RaggedTokens, TokenBatch, budget_slices

TOKENS_PER_BATCH = {"cpu": 2_048}
"""By device: what lies between two layers should fit into a core's cache."""
_MOST_TOKENS = 16_384
"""Of a batch on other devices."""


def length_sorted_batches(data: RaggedTokens, tokens: int = _MOST_TOKENS) -> Iterator[TokenBatch]:
    """Every row once, rows of similar length together."""
    order = np.argsort(data.lengths_R, kind="stable")
    for group in budget_slices(data.lengths_R[order], tokens):
        yield data.batch(order[group])


def map_rows(
    model: nn.Module, data: RaggedTokens, compute: Callable[[TokenBatch], Tensor], device: torch.device
) -> np.ndarray:
    """`compute(batch) -> (B, …)` for every row, in the order of `data`, as float32. The model is set to eval."""
    model.eval()
    parts, rows = [], []
    with torch.no_grad():
        for batch in length_sorted_batches(data, TOKENS_PER_BATCH.get(device.type, _MOST_TOKENS)):
            parts.append(compute(batch.to(device)).float().cpu().numpy())
            rows.append(batch.rows_B.numpy())
    joined = np.concatenate(parts)
    result = np.empty_like(joined)
    result[np.concatenate(rows)] = joined
    return result


def predict_properties(model: nn.Module, data: RaggedTokens, device: torch.device) -> np.ndarray:
    """Predictions (R, K) in physical units, or class probabilities (R, C)."""
    return map_rows(
        model,
        data,
        lambda batch: model.predict_packed(batch.ids_N, batch.amounts_N, batch.layout),  # type: ignore[operator]
        device,
    )


def predict_statistics(
    model: nn.Module, data: RaggedTokens, device: torch.device, conditions_RC: np.ndarray | None = None
) -> np.ndarray:
    """Statistics of the predictions (R, K, S), named by `model.property_head.statistics`."""
    return map_rows(model, data, _estimate_of(model, device, conditions_RC), device)


def statistics_and_pooled(
    model: nn.Module, data: RaggedTokens, device: torch.device, conditions_RC: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`predict_statistics`, and in the same pass the vectors (R, D) that the head reads (without the conditions)."""
    estimate = _estimate_of(model, device, conditions_RC)
    shape: list[int] = []

    def both(batch: TokenBatch) -> Tensor:
        read: list[Tensor] = []
        # The head says what it reads, whatever the encoder before it is.
        hook = model.property_head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))  # type: ignore[operator, union-attr]
        try:
            statistics_BKS = estimate(batch)
        finally:
            hook.remove()
        shape[:] = statistics_BKS.shape[1:]
        return torch.cat([statistics_BKS.flatten(1).float(), read[0].float()], dim=1)

    joined = map_rows(model, data, both, device)
    width = shape[0] * shape[1]
    return joined[:, :width].reshape(-1, *shape), joined[:, width:]


def _estimate_of(
    model: nn.Module, device: torch.device, conditions_RC: np.ndarray | None
) -> Callable[[TokenBatch], Tensor]:
    beside = None if conditions_RC is None else torch.from_numpy(conditions_RC).to(device)

    def statistics(batch: TokenBatch) -> Tensor:
        conditions_BC = None if beside is None else beside[batch.rows_B]
        return model.estimate_packed(batch.ids_N, batch.amounts_N, batch.layout, conditions_BC)  # type: ignore[operator]

    return statistics
