"""Every parser of matfm as a function that takes bytes and raises nothing but a MatfmError."""

from __future__ import annotations

from benchmarks.fuzz import configurations, notations, saved_files, tables
from benchmarks.fuzz.target import Target, outcome

__all__ = ["TARGETS", "Target", "outcome"]

TARGETS: dict[str, Target] = {
    **notations.TARGETS,
    **tables.TARGETS,
    **configurations.TARGETS,
    **saved_files.TARGETS,
}
"""Name to parser."""
