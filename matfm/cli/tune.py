"""`matfm tune`: options to a configuration."""
# ruff: noqa: ARG001 (the context has the values, and knows which of them were typed)

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from matfm.cli.finetune_values import finetune_values, given_keys
from matfm.cli.help import SEARCH
from matfm.cli.options import (
    Backbone,
    Device,
    DeviceOption,
    Ensemble,
    Epochs,
    Input,
    KindOption,
    OnBad,
    OnBadOption,
    Out,
    Resume,
    Seed,
    Settings,
    Split,
    Strategy,
    Target,
    Task,
    TaskOption,
    finish,
)


def tune(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="Labelled table.")],
    input_column: Input,
    target: Target,
    out: Out,
    trials: Annotated[int, typer.Option("--trials", help="Trials in all.", rich_help_panel=SEARCH)] = 30,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds after which no trial begins; 0: no end.", rich_help_panel=SEARCH)
    ] = 0.0,
    space: Annotated[
        str | None,
        typer.Option(
            "--space", help="TOML that says what is searched [default: docs/tuning.md].", rich_help_panel=SEARCH
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option("--folds", help="Folds of the training rows; 1: validation rows.", rich_help_panel=SEARCH),
    ] = 3,
    pruner: Annotated[
        str, typer.Option("--pruner", help="median, hyperband or none.", rich_help_panel=SEARCH)
    ] = "median",
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Train with the best settings.", rich_help_panel=SEARCH)
    ] = True,
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
    settings: Settings = [],  # noqa: B006 (Typer copies)
    resume: Resume = False,
) -> None:
    """Search settings of `finetune` on folds of the training rows; what is given is not searched (docs/tuning.md)."""
    from matfm.core.config import from_mapping, load_toml
    from matfm.tasks import tune as verb

    chosen = [*given_keys(context), *(setting.partition("=")[0].strip() for setting in settings)]
    values: dict[str, Any] = {
        "finetune": finetune_values(context, None, settings),
        "fixed": sorted({key for key in chosen if key.startswith("fit.")}),
        "trials": trials,
        "timeout": timeout,
        "folds": folds,
        "pruner": pruner,
        "refit": refit,
    }
    config = from_mapping(verb.TuneConfig, values, "tune")
    if space is not None:
        config = replace(config, space=load_toml(space))
    finish(verb.run(config, out, resume))
