"""`matfm compare-strategies`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from matfm.cli.options import Device, DeviceOption, Input, Out, Resume, Settings, Task, finish


def compare(
    table: str,
    input_column: Input,
    target: Annotated[str, typer.Option("--target", help="Column with the labels.")],
    out: Out,
    strategies: Annotated[
        str | None, typer.Option("--strategies", help="Names separated by commas [default: all].")
    ] = None,
    task: Annotated[Task, typer.Option("--task", help="What the target holds.")] = Task.regression,
    backbone: Annotated[
        str, typer.Option("--backbone", help="Bundled name, folder, Hub id or scratch:SIZE.")
    ] = "matbert-small",
    split: Annotated[
        str,
        typer.Option("--split", help="random, group, scaffold, loco, column:NAME, file:PATH, …; see docs/splits.md."),
    ] = "random",
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the training rows.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of split, head and batches.")] = 0,
    device: DeviceOption = Device.auto,
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
        "fit": fit,
    }
    values: dict[str, Any] = {"finetune": apply_overrides(tuning, settings)}
    if strategies is not None:
        values["strategies"] = [name.strip() for name in strategies.split(",")]
    finish(verb.run(from_mapping(verb.CompareStrategiesConfig, values, "compare-strategies"), out, resume))
