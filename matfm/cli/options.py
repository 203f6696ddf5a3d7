"""Options and outputs that commands share."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from matfm.cli import completion
from matfm.cli.help import MODEL, ROWS, RUN


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


Out = Annotated[Path, typer.Option("--out", help="Folder to write.", rich_help_panel=RUN)]
Settings = Annotated[
    list[str], typer.Option("--set", help="key=value over the configuration; repeat for more.", rich_help_panel=RUN)
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.", rich_help_panel=RUN)]
ResumeTable = Annotated[
    bool, typer.Option("--resume", help="Continue an interrupted run of the same call.", rich_help_panel=RUN)
]
Input = Annotated[
    str, typer.Option("--input", help="Column with the formulas, SMILES or SELFIES.", rich_help_panel=ROWS)
]
Target = Annotated[
    str,
    typer.Option("--target", help="Column with the labels; several separated by commas.", rich_help_panel=ROWS),
]
KindOption = Annotated[
    Kind | None,
    typer.Option(
        "--kind", help="What the input column holds [default: what the backbone reads].", rich_help_panel=ROWS
    ),
]
TaskOption = Annotated[Task, typer.Option("--task", help="What the target holds.", rich_help_panel=ROWS)]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="random, group, scaffold, loco, column:NAME, file:PATH, …; see docs/splits.md.",
        autocompletion=completion.splits,
        rich_help_panel=ROWS,
    ),
]
OnBadOption = Annotated[OnBad, typer.Option("--on-bad", help="Rows that cannot be read.", rich_help_panel=ROWS)]
Backbone = Annotated[
    str,
    typer.Option(
        "--backbone",
        help="Bundled name, folder, Hub id or scratch:SIZE.",
        autocompletion=completion.backbones,
        rich_help_panel=MODEL,
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        help=f"What is trained: {', '.join(completion.STRATEGIES)} (docs/strategies.md).",
        autocompletion=completion.strategies,
        rich_help_panel=MODEL,
    ),
]
Ensemble = Annotated[int, typer.Option("--ensemble", help="Number of models.", rich_help_panel=MODEL)]
Epochs = Annotated[float | None, typer.Option("--epochs", help="Passes over the training rows.", rich_help_panel=MODEL)]
Seed = Annotated[int, typer.Option("--seed", help="Seed of split, head and batches.", rich_help_panel=RUN)]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.", rich_help_panel=RUN)]
Cache = Annotated[
    str | None,
    typer.Option("--cache", help="Folder of fetched files [default: the user's cache].", rich_help_panel=RUN),
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only files that are in the cache.", rich_help_panel=RUN)]


def finish(summary: dict[str, Any]) -> None:
    """The last line of stdout; of several processes, the first one's."""
    from matfm.core.process import is_first_process

    if is_first_process():
        text = json.dumps(summary, ensure_ascii=False)
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:  # JSON has escapes of its own
            text = json.dumps(summary)
        typer.echo(text)
