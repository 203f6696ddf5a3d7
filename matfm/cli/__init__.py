"""The command line: parses, calls one task, prints its summary as one JSON line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from matfm.cli import data, strategies
from matfm.cli.options import (
    Cache,
    Device,
    DeviceOption,
    Input,
    Kind,
    Offline,
    OnBad,
    Out,
    Resume,
    Settings,
    Task,
    finish,
)
from matfm.errors import MatfmError, RunError

app = typer.Typer(
    help="Foundation models for materials and molecules.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)
app.add_typer(data.app, name="data")
app.command("compare-strategies")(strategies.compare)


@app.callback()
def _options(
    context: typer.Context, debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
) -> None:
    context.obj = debug


@app.command()
def quickstart(
    out: Out = Path("matfm-quickstart"),
    device: DeviceOption = Device.auto,
    cache: Cache = None,
    offline: Offline = False,
    resume: Resume = False,
) -> None:
    """Fine-tune the bundled encoder on real band gaps and compare with the literature (minutes on 2 cores)."""
    from matfm.tasks import quickstart as task

    summary = task.run(task.QuickstartConfig(str(out), device.value, cache, offline), resume)
    typer.echo(task.comparison(summary))
    finish(summary)


@app.command()
def pretrain(config: str, out: Out, settings: Settings = [], resume: Resume = False) -> None:  # noqa: B006 (Typer copies)
    """Pretrain MatBERT, MatGPT or MatT5 on compositions, SMILES or SELFIES as CONFIG.toml says (docs/training.md)."""
    from matfm.core.config import apply_overrides, from_mapping, load_toml
    from matfm.tasks import pretrain as task

    values = apply_overrides(load_toml(config), settings)
    finish(task.run(from_mapping(task.PretrainConfig, values, config), out, resume))


@app.command()
def finetune(
    table: str,
    input_column: Input,
    target: Annotated[str, typer.Option("--target", help="Column with the labels; several separated by commas.")],
    out: Out,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What the input column holds [default: what the backbone reads].")
    ] = None,
    task: Annotated[Task, typer.Option("--task", help="What the target holds.")] = Task.regression,
    backbone: Annotated[
        str, typer.Option("--backbone", help="Bundled name, folder, Hub id or scratch:SIZE.")
    ] = "matbert-small",
    strategy: Annotated[
        str,
        typer.Option("--strategy", help="full, feature, partial, bitfit, adapter, lora, prefix or prompt."),
    ] = "full",
    split: Annotated[
        str,
        typer.Option("--split", help="random, group, scaffold, loco, column:NAME, file:PATH, …; see docs/splits.md."),
    ] = "random",
    ensemble: Annotated[int, typer.Option("--ensemble", help="Number of models.")] = 1,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the training rows.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of split, head and batches.")] = 0,
    device: DeviceOption = Device.auto,
    on_bad: Annotated[OnBad, typer.Option("--on-bad", help="Rows that cannot be read.")] = OnBad.skip,
    settings: Settings = [],  # noqa: B006 (Typer copies)
    resume: Resume = False,
) -> None:
    """Fine-tune a property predictor on a labelled TABLE (CSV, TSV, JSONL or Parquet)."""
    from matfm.core.config import apply_overrides, from_mapping
    from matfm.tasks import finetune as verb

    fit: dict[str, Any] = {"backbone": backbone, "strategy": strategy, "task": task.value}
    if epochs is not None:
        fit["epochs"] = epochs
    values: dict[str, Any] = {
        "table": table,
        "input": input_column,
        "targets": [name.strip() for name in target.split(",")],
        "kind": None if kind is None else kind.value,
        "split": split,
        "ensemble": ensemble,
        "seed": seed,
        "device": device.value,
        "on_bad": on_bad.value,
        "fit": fit,
    }
    config = from_mapping(verb.FinetuneConfig, apply_overrides(values, settings), "finetune")
    finish(verb.run(config, out, resume))


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="Run directory, or the name of bundled weights.")],
    table: Annotated[str, typer.Argument(help="Table to read; - is CSV on standard input.")],
    input_column: Input,
    out: Annotated[str, typer.Option("--out", help="Table to write; the name gives the format.")],
    interval: Annotated[float | None, typer.Option("--interval", help="Coverage of intervals, e.g. 0.9.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Predict every row of TABLE; unreadable rows keep their place with a reason in column `error`."""
    from matfm.tasks import predict as task

    finish(task.run(task.PredictConfig(run, table, input_column, out, interval, device.value)))


@app.command()
def embed(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, Hub id or run directory.")],
    table: Annotated[str, typer.Argument(help="Table to read; - is CSV on standard input.")],
    input_column: Input,
    out: Annotated[str, typer.Option("--out", help="Parquet file to write.")],
    layer: Annotated[
        int | None,
        typer.Option("--layer", help="Hidden states to pool: 0 to the number of blocks [default: the last]."),
    ] = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="mean or cls [default: as the model was trained].")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Embed every row of TABLE as a vector; unreadable rows keep their place with a reason in column `error`."""
    from matfm.tasks import embed as task

    finish(task.run(task.EmbedConfig(model, table, input_column, out, layer, pooling, device.value)))


def main() -> None:
    """Entry point: errors are one sentence and an exit code, never a traceback (unless --debug)."""
    sys.exit(_guarded(app))


def _guarded(call: Callable[..., Any]) -> int:
    debug = "--debug" in sys.argv
    try:
        call(standalone_mode=False) if debug else call()
    except MatfmError as error:
        if debug:
            raise
        typer.echo(f"matfm: {error}", err=True)
        return error.exit_code
    except OSError as error:
        if debug:
            raise
        typer.echo(f"matfm: {error}", err=True)
        return RunError.exit_code
    return 0
