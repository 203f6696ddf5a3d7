"""What `matfm data encode` made of the rows so far: counts, and of everything else the first examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

from matfm.chem.composition_encoder import EncodedFormulas
from matfm.chem.line_corpus import EncodedLines
from matfm.tasks.readings import SHOWN, readings_to_check
from matfm.tasks.screening.library import ShardChunk

_NAMED = 20
"""Unknown tokens that the summary names."""
_TOLD_APART = 10_000
"""Different unknown tokens that are counted one by one; a column of another kind has millions."""


@dataclass
class EncodeTally:
    """Counts over all chunks; it stays small."""

    rows: int = 0
    rejected: int = 0
    truncated: int = 0
    unknown_tokens: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    to_check: int = 0
    warnings: dict[int, str] = field(default_factory=dict)
    """The first ones; the count says how many there are."""
    shards: dict[str, int] = field(default_factory=dict)
    """Rows of each shard."""

    def add(self, chunk: ShardChunk, encoded: EncodedLines | EncodedFormulas, errors: Mapping[int, str]) -> None:
        """A chunk, its tokens, and what is wrong with its rows by position."""
        self.rows += chunk.rows
        self.rejected += len(errors)
        self.shards[chunk.shard] = self.shards.get(chunk.shard, 0) + chunk.rows
        if isinstance(encoded, EncodedFormulas):
            self.to_check += len(encoded.warnings)
            for row, reading in islice(sorted(encoded.warnings.items()), SHOWN - len(self.warnings)):
                self.warnings[chunk.first_row + row] = reading
            return
        self.truncated += encoded.truncated
        self.unknown_tokens += encoded.unknown.total()
        for token, count in encoded.unknown.items():
            if token in self.unknown or len(self.unknown) < _TOLD_APART:
                self.unknown[token] += count

    def summary(self) -> dict[str, Any]:
        """For the summary of the task."""
        return {
            "rows_in": self.rows,
            "rows_used": self.rows - self.rejected,
            "rows_rejected": self.rejected,
            **readings_to_check(self.warnings, self.to_check),
            "unknown_tokens": self.unknown_tokens,
            "unknown": dict(self.unknown.most_common(_NAMED)),
            "truncated": self.truncated,
        }

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "warnings": list(self.warnings.items())}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """From what `state` gave."""
        return cls(**{**state, "warnings": dict(map(tuple, state["warnings"])), "unknown": Counter(state["unknown"])})
