"""Options and outputs that commands share."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class Task(str, Enum):
    """What a target column holds."""

    regression = "regression"
    classification = "classification"


class Kind(str, Enum):
    """What an input column holds."""

    composition = "composition"
    smiles = "smiles"
    selfies = "selfies"


class Notation(str, Enum):
    """What a translation is written in."""

    selfies = "selfies"
    smiles = "smiles"
    text = "text"
    composition = "composition"


class OnBad(str, Enum):
    """What to do with rows that cannot be read."""

    skip = "skip"
    stop = "stop"


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Settings = Annotated[list[str], typer.Option("--set", help="key=value over the configuration; repeat for more.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")]
ResumeTable = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same call.")]
Input = Annotated[str, typer.Option("--input", help="Column with the formulas, SMILES or SELFIES.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
Cache = Annotated[str | None, typer.Option("--cache", help="Folder of fetched files [default: the user's cache].")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only files that are in the cache.")]


def finish(summary: dict[str, Any]) -> None:
    """The last line of stdout; of several processes, the first one's."""
    from matfm.core.process import is_first_process

    if is_first_process():
        typer.echo(json.dumps(summary, ensure_ascii=False))
