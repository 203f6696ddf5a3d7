"""Formulas whose amounts differ a little in every epoch of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matfm.chem.augment import jitter_amounts
from matfm.core.batching import RaggedTokens


@dataclass(frozen=True)
class JitteredTokens:
    """Rows with noise in their amounts (see `matfm.chem.augment.jitter_amounts`)."""

    tokens: RaggedTokens
    scale: float
    """Relative standard deviation of an amount."""
    seed: int

    def __len__(self) -> int:
        return len(self.tokens)

    def of_epoch(self, epoch: int) -> RaggedTokens:
        """The same rows with noise that depends on the epoch only."""
        known, generator = self.tokens, np.random.default_rng([self.seed, epoch])
        amounts_N = jitter_amounts(known.amounts_N, known.offsets, self.scale, generator)
        return RaggedTokens(known.ids_N, amounts_N, known.offsets, known.targets_RK, known.numbers_R)
