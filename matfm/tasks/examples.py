"""Rows as a predictor takes them: tokens with labels, and what stands beside them in the table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from matfm.core.batching import EpochTokens, RaggedTokens
from matfm.core.varied_tokens import VariedTokens
from matfm.tasks.jittered_tokens import JitteredTokens

# S sequences, R rows, K targets, C conditions


@dataclass(frozen=True)
class Examples:
    """Sequences with their labels in `tokens.targets_RK`. Arrays beside them are None where the table has nothing."""

    tokens: RaggedTokens
    side_SK: np.ndarray | None = None
    """Censored labels: -1 if the true value is below the label, +1 if above, 0 if the label is exact; int8."""
    weight_S: np.ndarray | None = None
    """Weights of the rows in the loss, float32."""
    conditions_SC: np.ndarray | None = None
    """Conditions in the units of their columns, float32."""
    group_S: np.ndarray | None = None
    """Name of each row's group, for intervals that hold in every group."""
    forms: np.ndarray | None = None
    """Where the written forms of each row start, (R + 1,); None if every sequence is a row of its own."""

    def __len__(self) -> int:
        """Sequences."""
        return len(self.tokens)

    def take(self, rows: np.ndarray) -> Examples:
        """The given rows, in that order. Rows of several forms are not taken apart."""
        if self.forms is not None:
            raise ValueError("take the rows before their forms are written")
        beside = {name: values[rows] for name, values in self._beside().items()}
        return replace(self, tokens=self.tokens.take(rows), **beside)

    def in_forms(self, tokens: RaggedTokens, forms: np.ndarray) -> Examples:
        """The same rows in several written forms each; what stands beside a row is repeated for each of them."""
        row_S = np.repeat(np.arange(len(self)), np.diff(forms))
        written = RaggedTokens(tokens.ids_N, tokens.amounts_N, tokens.offsets, self.tokens.targets_RK[row_S])
        return Examples(written, forms=forms, **{name: values[row_S] for name, values in self._beside().items()})

    def in_epochs(self, seed: int, jitter: float = 0.0) -> EpochTokens:
        """What every epoch of training sees: each row in one of its forms, or with `jitter` in its amounts."""
        if self.forms is None:
            return JitteredTokens(self.tokens, jitter, seed) if jitter else self.tokens
        return VariedTokens(self.tokens, self.tokens.targets_RK[self.forms[:-1]], self.forms, seed)

    def exact_labels(self) -> np.ndarray:
        """Labels (S, K), NaN where there is none or a censored one: what predictions can be compared with."""
        labels = self.tokens.targets_RK
        return labels if self.side_SK is None else np.where(self.side_SK == 0, labels, np.float32(np.nan))

    def _beside(self) -> dict[str, np.ndarray]:
        named = {
            "side_SK": self.side_SK,
            "weight_S": self.weight_S,
            "conditions_SC": self.conditions_SC,
            "group_S": self.group_S,
        }
        return {name: values for name, values in named.items() if values is not None}
