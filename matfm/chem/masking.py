"""Which tokens to hide, and what to put in their place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matfm.chem.composition_schemes import FIRST_ELEMENT, MASK
from matfm.core.layout import PackedLayout
from matfm.errors import MatfmError

# N tokens, M masked tokens, B sequences


@dataclass(frozen=True)
class MaskingConfig:
    """Masked-element pretraining (BERT's 80/10/10)."""

    rows: float = 0.15
    """Share of the formulas that get a mask; the others keep every element."""
    rate: float = 0.25
    """Chance of each further element in such a formula; one is always masked."""
    mask_share: float = 0.8
    """Of the chosen tokens, how many become [MASK]."""
    random_share: float = 0.1
    """Of the chosen tokens, how many become a random element; the rest stay."""

    def __post_init__(self) -> None:
        for name in ("rows", "rate", "mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise MatfmError(f"masking.{name} is {getattr(self, name)}; it is a share in [0, 1]")
        if self.mask_share + self.random_share > 1:
            raise MatfmError("masking.mask_share and masking.random_share add up to more than 1")


@dataclass(frozen=True)
class MaskedTokens:
    """Corrupted ids and where the answers are."""

    ids_N: Tensor
    positions_M: Tensor
    labels_M: Tensor
    masked_row_B: Tensor
    """True for sequences with a masked token."""


def mask_elements(
    ids_N: Tensor, layout: PackedLayout, vocabulary: int, config: MaskingConfig, generator: torch.Generator
) -> MaskedTokens:
    """Hide elements in a share of the formulas; special tokens are never touched.

    Every chosen formula has at least one masked element. Random numbers come from `generator` (on the CPU).
    """
    row_N = torch.repeat_interleave(
        torch.arange(layout.sequences), torch.tensor([n for count, n in layout.runs for _ in range(count)])
    )
    element_N = (ids_N >= FIRST_ELEMENT).cpu()
    chosen_row_B = torch.rand(layout.sequences, generator=generator) < config.rows
    draw_N = torch.rand(len(ids_N), generator=generator).masked_fill(~element_N, 2.0)
    lowest_B = torch.full((layout.sequences,), 2.0).scatter_reduce(0, row_N, draw_N, "amin")
    picked_N = element_N & chosen_row_B[row_N] & ((draw_N < config.rate) | (draw_N == lowest_B[row_N]))
    positions_M = picked_N.nonzero()[:, 0]
    fate_M = torch.rand(len(positions_M), generator=generator)
    random_M = torch.randint(FIRST_ELEMENT, vocabulary, (len(positions_M),), generator=generator)
    device = ids_N.device
    labels_M = ids_N[positions_M.to(device)]
    replaced_M = torch.where(fate_M.to(device) < config.mask_share, MASK, labels_M)
    is_random_M = (fate_M >= config.mask_share) & (fate_M < config.mask_share + config.random_share)
    replaced_M = torch.where(is_random_M.to(device), random_M.to(device), replaced_M)
    masked_row_B = torch.zeros(layout.sequences, dtype=torch.bool).index_fill(0, row_N[positions_M], True)
    positions_M = positions_M.to(device)
    corrupted_N = ids_N.index_copy(0, positions_M, replaced_M)
    return MaskedTokens(corrupted_N, positions_M, labels_M, masked_row_B.to(device))
