"""`matfm doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from matfm.cli.options import Cache, finish
from matfm.errors import RunError


def doctor(
    out: Annotated[str, typer.Option("--out", help="Folder that runs are to be written in.")] = ".",
    cache: Cache = None,
) -> None:
    """Check the installation and the machine; exit code 1 if something essential is broken (docs/doctor.md)."""
    from matfm.tasks import doctor as task

    summary = task.run(task.DoctorConfig(out, cache))
    typer.echo(task.readable(summary), err=True)
    finish(summary)
    broken = [problem["what"] for problem in summary["problems"] if problem["essential"]]
    if broken:
        raise RunError("; ".join(broken))
