"""What the rows of a streamed table were: how many could be read, the first reasons, readings to check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

from matfm.tasks.encoding import EncodedRows
from matfm.tasks.readings import SHOWN, readings_to_check, vocabulary_report
from matfm.tasks.tables import Chunk


@dataclass
class RowTally:
    """Counts over all chunks; of everything else the first examples, so it stays small."""

    kind: str
    rows: int = 0
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """The first reasons, each with its first row."""
    to_check: int = 0
    warnings: dict[int, str] = field(default_factory=dict)
    """The first ones; the count says how many there are."""
    unknown: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    first_truncated: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """What the task counts of its outputs, by the name in the summary."""

    def add(
        self, chunk: Chunk, encoded: EncodedRows, errors: Mapping[int, str], counted: Mapping[str, int] | None = None
    ) -> None:
        """A chunk, how it was read, what is wrong with its rows by position, and what the task counts of the others."""
        self.counts.update(counted or {})
        self.to_check += len(encoded.warnings)
        for row, reading in islice(sorted(encoded.warnings.items()), SHOWN - len(self.warnings)):
            self.warnings[chunk.first_row + row] = reading
        self.unknown.update(encoded.unknown)
        self.truncated += encoded.truncated
        cut = encoded.truncated_rows[: SHOWN - len(self.first_truncated)]
        self.first_truncated += [chunk.first_row + row for row in cut]
        for row, reason in sorted(errors.items()):
            self.failed += 1
            if len(self.reasons) < SHOWN:
                self.reasons.setdefault(reason, chunk.first_row + row)
        self.rows += chunk.rows

    def summary(self) -> dict[str, Any]:
        """For the summary of the task."""
        return {
            "rows_in": self.rows,
            "rows_done": self.rows - self.failed,
            "rows_with_error": self.failed,
            **self.counts,
            **readings_to_check(self.warnings, self.to_check),
            **vocabulary_report(self.kind, self.unknown, self.first_truncated, self.truncated),
            "first_errors": [{"row": row, "reason": reason} for reason, row in self.reasons.items()],
        }

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "warnings": list(self.warnings.items()), "first_truncated": [*self.first_truncated]}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """From what `state` gave."""
        counters = {name: Counter(state[name]) for name in ("unknown", "counts")}
        return cls(**{**state, **counters, "warnings": dict(map(tuple, state["warnings"]))})
