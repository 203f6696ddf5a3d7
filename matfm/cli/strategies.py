"""`matfm compare-strategies`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from matfm.cli import completion
from matfm.cli.options import (
    Backbone,
    Device,
    DeviceOption,
    Epochs,
    Input,
    Kind,
    OnBad,
    OnBadOption,
    Out,
    Resume,
    Seed,
    Settings,
    Split,
    Task,
    TaskOption,
    finish,
)


def compare(
    table: str,
    input_column: Input,
    target: Annotated[str, typer.Option("--target", help="Column with the labels.")],
    out: Out,
    strategies: Annotated[
        str | None,
        typer.Option(
            "--strategies",
            help="Names separated by commas [default: all that the backbone can be trained with].",
            autocompletion=completion.strategies,
        ),
    ] = None,
    task: TaskOption = Task.regression,
    backbone: Backbone = "matbert-small",
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What the input column holds [default: what the backbone reads].")
    ] = None,
    split: Split = "random",
    epochs: Epochs = None,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    on_bad: OnBadOption = OnBad.skip,
    settings: Settings = [],  # noqa: B006 (Typer copies)
    resume: Resume = False,
) -> None:
    """Fine-tune on TABLE with every strategy: trained share, score, time and memory, and their picture."""
    from matfm.core.config import apply_overrides, from_mapping
    from matfm.tasks import compare_strategies as verb

    fit: dict[str, Any] = {"backbone": backbone, "task": task.value}
    if epochs is not None:
        fit["epochs"] = epochs
    tuning: dict[str, Any] = {
        "table": table,
        "input": input_column,
        "targets": [target],
        "split": split,
        "seed": seed,
        "device": device.value,
        "on_bad": on_bad.value,
        "kind": None if kind is None else kind.value,
        "fit": fit,
    }
    values: dict[str, Any] = {"finetune": apply_overrides(tuning, settings)}
    if strategies is not None:
        values["strategies"] = [name.strip() for name in strategies.split(",")]
    finish(verb.run(from_mapping(verb.CompareStrategiesConfig, values, "compare-strategies"), out, resume))
