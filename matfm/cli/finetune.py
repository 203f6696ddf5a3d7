"""`matfm finetune`: options to a configuration."""
# ruff: noqa: ARG001 (the context has the values, and knows which of them were typed)

from __future__ import annotations

from typing import Annotated

import typer

from matfm.cli.finetune_values import finetune_values
from matfm.cli.help import ROWS, RUN
from matfm.cli.options import (
    Backbone,
    Device,
    DeviceOption,
    Ensemble,
    Epochs,
    KindOption,
    OnBad,
    OnBadOption,
    Out,
    Resume,
    Seed,
    Settings,
    Split,
    Strategy,
    Task,
    TaskOption,
    finish,
)


def finetune(
    context: typer.Context,
    out: Out,
    table: Annotated[str | None, typer.Argument(help="Labelled table.")] = None,
    input_column: Annotated[
        str | None,
        typer.Option("--input", help="Column with the formulas, SMILES or SELFIES (required).", rich_help_panel=ROWS),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="Column with the labels (required); several separated by commas.", rich_help_panel=ROWS
        ),
    ] = None,
    kind: KindOption = None,
    task: TaskOption = Task.regression,
    backbone: Backbone = "matbert-small",
    strategy: Strategy = "full",
    split: Split = "random",
    ensemble: Ensemble = 1,
    epochs: Epochs = None,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    on_bad: OnBadOption = OnBad.skip,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", help="TOML with a whole configuration; options that are given go over it.", rich_help_panel=RUN
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006 (Typer copies)
    resume: Resume = False,
) -> None:
    """Fine-tune a property predictor on a labelled TABLE (CSV, TSV, JSONL or Parquet)."""
    from matfm.core.config import from_mapping
    from matfm.errors import MatfmError
    from matfm.tasks import finetune as verb

    values = finetune_values(context, config, settings)
    for key, named in (("table", "TABLE"), ("input", "--input"), ("targets", "--target")):
        if key not in values:
            raise MatfmError(f"{named} is missing; give it, or a --config that says it (matfm finetune --help)")
    finish(verb.run(from_mapping(verb.FinetuneConfig, values, config or "finetune"), out, resume))
