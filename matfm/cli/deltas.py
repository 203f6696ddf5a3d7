"""`matfm deltas …`: several trained tasks on one frozen encoder, and what a prompt does."""

from __future__ import annotations

from typing import Annotated

import typer

from matfm.cli.help import Verbs
from matfm.cli.options import Device, DeviceOption, Input, Out, finish

app = Verbs(
    help="Several tasks on one frozen encoder, chosen by name; what a prompt does.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("add", examples=("deltas add runs/properties runs/my-gaps --name gap",))
def deltas_add(
    folder: Annotated[str, typer.Argument(help="Folder of the set; made if it is not there.")],
    run: Annotated[str, typer.Argument(help="Run of a strategy that adds a delta.")],
    name: Annotated[str, typer.Option("--name", help="Of the task in the set.")],
    domain: Annotated[
        bool, typer.Option("--domain/--no-domain", help="Also keep what the training rows were like (up to 2 MiB).")
    ] = False,
) -> None:
    """Put the delta and head of RUN into a set, which names the encoder but does not hold it (docs/prompts.md)."""
    from matfm.tasks import deltas as task

    finish(task.add(task.AddDeltaConfig(folder, run, name, domain)))


@app.command("list", examples=("deltas list runs/properties",))
def deltas_list(folder: Annotated[str, typer.Argument(help="Folder of the set.")]) -> None:
    """The tasks of a set, and the encoder that they belong to."""
    from matfm.tasks import deltas as task

    finish(task.DeltaSet.open(folder).record)


@app.command(
    "analyse", examples=("deltas analyse runs/my-gaps my_gaps.csv --input formula --color gap_eV --out runs/analysis",)
)
def deltas_analyse(
    run: Annotated[str, typer.Argument(help="Run of the strategy prompt, deep-prompt, prefix or control.")],
    table: Annotated[str, typer.Argument(help="Table to read; - is CSV on standard input.")],
    input_column: Input,
    color: Annotated[str, typer.Option("--color", help="Column with numbers or classes that colours the picture.")],
    out: Out,
    rows: Annotated[int, typer.Option("--rows", help="Rows at most, drawn at random.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the rows and of t-SNE.")] = 0,
    device: DeviceOption = Device.auto,
) -> None:
    """Draw the embeddings of TABLE with and without a prompt, and what each layer attends to it."""
    from matfm.tasks.prompting import analysis as task

    finish(task.run(task.AnalyseConfig(run, table, input_column, color, str(out), rows, seed, device.value)))
