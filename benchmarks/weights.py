"""Which weights a record is about: a name stays when a second edition of the weights is trained."""

from __future__ import annotations

from functools import cache

from matfm.tasks.kinds import SCRATCH
from matfm.tasks.streaming.journal import weights_digest


@cache
def weights_of(model: str | None) -> str | None:
    """First 12 digits of the SHA-256 of a model's weights, by bundled name or folder; None for random weights."""
    return None if model is None or model.startswith(SCRATCH) else weights_digest(model)[:12]


def edition(weights: str | None) -> str:
    """The end of the name of a folder or file that belongs to these weights; nothing for None."""
    return f"-{weights}" if weights else ""
