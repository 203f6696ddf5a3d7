"""`matfm report`: a run directory, whatever verb made it, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matfm.core.files import write_text
from matfm.tasks.reporting.adaptation import adaptation_section
from matfm.tasks.reporting.comparison import audit_section, baselines_section
from matfm.tasks.reporting.curves import curves_section
from matfm.tasks.reporting.errors import elements_section, groups_section, hardest_section
from matfm.tasks.reporting.evaluation import predictions_section
from matfm.tasks.reporting.overview import (
    config_section,
    data_section,
    environment_section,
    summary_section,
)
from matfm.tasks.reporting.page import Section, page
from matfm.tasks.reporting.run_files import RunFiles
from matfm.tasks.reporting.scores import scores_section
from matfm.tasks.reporting.search import search_section
from matfm.tasks.reporting.strategies import strategies_section
from matfm.tasks.reporting.support_curves import support_section
from matfm.tasks.reporting.titles import titles
from matfm.tasks.reporting.uncertainty import uncertainty_section

PAGE = "report.html"

SECTIONS: tuple[Callable[[RunFiles], Section | None], ...] = (
    summary_section,
    adaptation_section,
    search_section,
    strategies_section,
    support_section,
    scores_section,
    baselines_section,
    predictions_section,
    uncertainty_section,
    elements_section,
    groups_section,
    hardest_section,
    curves_section,
    data_section,
    audit_section,
    environment_section,
    config_section,
)
"""In the order of the page; each is left out where the run has nothing for it."""


@dataclass(frozen=True)
class ReportConfig:
    """`matfm report`."""

    run: str
    """A finished run directory."""
    out: str | None = None
    """File to write; `report.html` in the run directory if None."""


def run(config: ReportConfig) -> dict[str, Any]:
    """Write the page of a finished run; returns where it is, its size and its sections.

    Everything comes from the files of the run, and the audit from beside the weights of its backbone.

    Raises:
        MatfmError: there is no finished run, a file of it is damaged, or the page cannot be written.
    """
    files = RunFiles.read(Path(config.run))
    sections = [section for section_of in SECTIONS if (section := section_of(files)) is not None]
    html = page(*titles(files), sections)
    out = files.path / PAGE if config.out is None else Path(config.out)
    write_text(out, html)
    return {
        "task": "report",
        "run": config.run,
        "page": str(out),
        "bytes": len(html.encode()),
        "sections": [section.name for section in sections],
    }
