"""Many sources to their most probable targets with an encoder-decoder: sorted by length, in batches, cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matfm.core.batching import budget_slices

# R sources, B sources of a batch, S length of a source

TOKENS_PER_BATCH = 4_096
"""Tokens of sources that are translated together, over the number of beams."""
_SPARE_TOKENS = 64
"""A target may have twice the tokens of its source and so many more."""


@dataclass(frozen=True)
class Translated:
    """A target."""

    ids: list[int]
    """Without the start and the end token."""
    ended: bool
    """Whether the model ended it; else it ran into the limit."""


def translate_ids(
    model: Any, sources: Sequence[Sequence[int]], device: torch.device, beams: int = 1, tokens: int = TOKENS_PER_BATCH
) -> list[Translated]:
    """The target of every source, in the order of the sources, by greedy search or with beams.

    Args:
        model: with `generate`, in evaluation mode; decoding begins with its start token.
        sources: token ids, special ones included.
        device: of the model.
        beams: 1 is greedy search.
        tokens: budget of a batch.
    """
    lengths_R = np.array([len(source) for source in sources], np.int64)
    order = np.argsort(lengths_R, kind="stable")
    made: list[Translated | None] = [None] * len(sources)
    for group in budget_slices(lengths_R[order], max(1, tokens // beams)):
        rows = order[group]
        found = _translate_batch(model, [sources[row] for row in rows], device, beams)
        for row, target in zip(rows.tolist(), found, strict=True):
            made[row] = target
    return [target for target in made if target is not None]


@torch.no_grad()
def _translate_batch(model: Any, sources: list[Sequence[int]], device: torch.device, beams: int) -> list[Translated]:
    config = model.config
    input_ids, mask = _padded(sources, config.pad_token_id)
    made = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=mask.to(device),
        num_beams=beams,
        do_sample=False,
        max_new_tokens=_limit(sources[-1]),
    )
    rows = zip(made[:, 1:].tolist(), sources, strict=True)
    return [_target(row[: _limit(source)], config.eos_token_id) for row, source in rows]


def _limit(source: Sequence[int]) -> int:
    """Most tokens of a target, its end included; the longest source comes last."""
    return 2 * len(source) + _SPARE_TOKENS


def _padded(sources: list[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Ids (B, S) and mask (1 = real token)."""
    longest = max(map(len, sources))
    ids = torch.full((len(sources), longest), padding)
    mask = torch.zeros_like(ids)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = torch.tensor(source)
        mask[row, : len(source)] = 1
    return ids, mask


def _target(row: list[int], end: int) -> Translated:
    ended = end in row
    return Translated(row[: row.index(end)] if ended else row, ended)
