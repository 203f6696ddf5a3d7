"""The command line: parses, calls one task, prints its summary as one JSON line."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from matfm.cli import data, deltas, strategies
from matfm.cli.adapt import adapt
from matfm.cli.completion import backbones
from matfm.cli.doctor import doctor
from matfm.cli.finetune import finetune
from matfm.cli.generate import generate
from matfm.cli.help import Verbs, shown
from matfm.cli.options import (
    Cache,
    Device,
    DeviceOption,
    Input,
    Kind,
    Notation,
    Offline,
    Out,
    Resume,
    ResumeTable,
    Settings,
    finish,
)
from matfm.cli.tune import tune
from matfm.errors import MatfmError, RunError

app = Verbs(
    help="Foundation models for materials and molecules.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
    epilog=shown(
        (
            "quickstart",
            "finetune my_gaps.csv --input formula --target gap_eV --out runs/my-gaps",
            "predict runs/my-gaps candidates.csv --input formula --out predicted.csv",
            "doctor",
        )
    ),
)
app.add_typer(data.app, name="data")
app.add_typer(deltas.app, name="deltas")
app.command(
    examples=(
        "finetune my_gaps.csv --input formula --target gap_eV --out runs/my-gaps",
        "finetune --config runs/search/best.toml --out runs/best",
    )
)(finetune)
app.command(examples=("tune my_gaps.csv --input formula --target gap_eV --out runs/search --trials 30",))(tune)
app.command(
    "compare-strategies",
    examples=("compare-strategies my_gaps.csv --input formula --target gap_eV --out runs/strategies",),
)(strategies.compare)
app.command(
    examples=(
        "generate runs/matgpt --n 1000 --out new.csv --elements Li,Fe,P,O --charge-neutral",
        "generate runs/molgpt --n 1000 --out new.csv --only valid,unique",
    )
)(generate)
app.command(examples=("doctor",))(doctor)
app.command(
    examples=("adapt --source computed.csv --target measured.csv --input formula --label gap_eV --out runs/adapted",)
)(adapt)


@app.callback()
def _options(
    context: typer.Context, debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
) -> None:
    context.obj = debug


@app.command(examples=("quickstart", "quickstart --out runs/first --device cpu"))
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


@app.command(examples=("pretrain matfm/models/configs/composition_matbert.toml --out runs/matbert",))
def pretrain(config: str, out: Out, settings: Settings = [], resume: Resume = False) -> None:  # noqa: B006 (Typer copies)
    """Pretrain MatBERT, MatGPT or MatT5 on compositions, SMILES or SELFIES as CONFIG.toml says (docs/training.md)."""
    from matfm.core.config import apply_overrides, from_mapping, load_toml
    from matfm.tasks import pretrain as task

    values = apply_overrides(load_toml(config), settings)
    finish(task.run(from_mapping(task.PretrainConfig, values, config), out, resume))


@app.command(examples=("fewshot fewshot.toml --out runs/fewshot",))
def fewshot(config: str, out: Out, settings: Settings = [], resume: Resume = False) -> None:  # noqa: B006 (Typer copies)
    """Train an encoder over many small tasks and score few-shot methods on others, as CONFIG.toml says."""
    from matfm.core.config import apply_overrides, from_mapping, load_toml
    from matfm.tasks import fewshot as task

    values = apply_overrides(load_toml(config), settings)
    finish(task.run(from_mapping(task.FewshotConfig, values, config), out, resume))


@app.command(examples=("predict runs/my-gaps candidates.csv --input formula --out predicted.csv --interval 0.9",))
def predict(
    run: Annotated[str, typer.Argument(help="Run directory, or the name of bundled weights.")],
    table: Annotated[str, typer.Argument(help="Table to read; - is CSV on standard input.")],
    input_column: Input,
    out: Annotated[str, typer.Option("--out", help="Table to write; the name gives the format.")],
    interval: Annotated[
        float | None, typer.Option("--interval", help="Coverage of intervals, or of sets of classes; e.g. 0.9.")
    ] = None,
    method: Annotated[
        str,
        typer.Option("--interval-method", help="auto, absolute, std, distance or quantile; of classes: lac or aps."),
    ] = "auto",
    groups: Annotated[
        str, typer.Option("--interval-groups", help="Cover each group: none, zero, class or column:NAME.")
    ] = "none",
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Probabilities at the temperature; std times its factor.")
    ] = False,
    mc_dropout: Annotated[int, typer.Option("--mc-dropout", help="Networks that dropout draws, for the std.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of MC dropout.")] = 0,
    domain: Annotated[
        bool, typer.Option("--domain/--no-domain", help="Say which rows are unlike the training.")
    ] = True,
    delta: Annotated[str | None, typer.Option("--delta", help="Task, where RUN is a set of deltas.")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Copy of the encoder of a set of deltas [default: as it says].")
    ] = None,
    device: DeviceOption = Device.auto,
    resume: ResumeTable = False,
) -> None:
    """Predict every row of TABLE; unreadable rows keep their place with a reason in column `error`."""
    from matfm.tasks import predict as task

    uncertainty = (method, groups, calibrated, mc_dropout, seed, domain)
    config = task.PredictConfig(run, table, input_column, out, interval, device.value, *uncertainty, delta, backbone)
    finish(task.run(config, resume))


@app.command(examples=("embed matbert-small candidates.csv --input formula --out vectors.parquet",))
def embed(
    model: Annotated[
        str, typer.Argument(help="Bundled name, folder, Hub id or run directory.", autocompletion=backbones)
    ],
    table: Annotated[str, typer.Argument(help="Table to read; - is CSV on standard input.")],
    input_column: Input,
    out: Annotated[str, typer.Option("--out", help="Parquet file to write.")],
    layer: Annotated[
        int | None,
        typer.Option("--layer", help="Hidden states to pool: 0 to the number of blocks [default: the last]."),
    ] = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="mean, mean-max or cls [default: as the model was trained].")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What the input column holds [default: what the model reads].")
    ] = None,
    device: DeviceOption = Device.auto,
    resume: ResumeTable = False,
) -> None:
    """Embed every row of TABLE as a vector; unreadable rows keep their place with a reason in column `error`."""
    from matfm.tasks import embed as task

    reads = None if kind is None else kind.value
    finish(task.run(task.EmbedConfig(model, table, input_column, out, layer, pooling, device.value, reads), resume))


@app.command(
    examples=("screen library.csv --support known.csv --input formula --label active --out hits.csv --top 100",)
)
def screen(
    library: Annotated[str, typer.Argument(help="Table, folder of tables, or - for CSV on standard input.")],
    support: Annotated[str, typer.Option("--support", help="Table of a few labelled examples.")],
    input_column: Input,
    label: Annotated[str, typer.Option("--label", help="Column of the support: numbers or two classes.")],
    out: Annotated[str, typer.Option("--out", help="Table to write; the name gives the format.")],
    top: Annotated[int, typer.Option("--top", help="Rows to keep.")] = 1000,
    backbone: Annotated[
        str,
        typer.Option("--backbone", help="Bundled name, folder, Hub id or run directory.", autocompletion=backbones),
    ] = "matbert-small",
    classical: Annotated[
        str,
        typer.Option("--classical", help="Features beside the embedding: auto, none, ecfp, fractions or magpie."),
    ] = "auto",
    scorer: Annotated[
        str, typer.Option("--scorer", help="kernel (Gaussian process) or prototypes (two classes).")
    ] = "kernel",
    distance: Annotated[
        str | None,
        typer.Option(
            "--distance", help="Of prototypes: euclidean, cosine or mahalanobis [default: as learned, or mahalanobis]."
        ),
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="local or ray.")] = "local",
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What the input column holds [default: what the backbone reads].")
    ] = None,
    positive: Annotated[str | None, typer.Option("--positive", help="Label of the wanted class.")] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="Low values are the best.")] = False,
    diversity: Annotated[
        int | None, typer.Option("--diversity", help="Pick that many of the kept rows, unlike each other.")
    ] = None,
    label_next: Annotated[
        int | None, typer.Option("--next", help="Write that many rows to label next [beside --out, .next.…].")
    ] = None,
    select: Annotated[
        str, typer.Option("--select", help="How they are chosen: most-uncertain, medoids or stratified:COLUMN.")
    ] = "most-uncertain",
    keep_bad: Annotated[
        str | None, typer.Option("--keep-bad", help="List of unreadable rows [default: beside --out, .rejects.csv].")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes; 0 for one per core.")] = 0,
    device: DeviceOption = Device.auto,
    resume: ResumeTable = False,
) -> None:
    """Rank a LIBRARY of any size by a few labelled examples and keep the best rows (docs/screening.md)."""
    from matfm.tasks import screen as task

    config = task.ScreenConfig(
        library=library,
        support=support,
        input=input_column,
        label=label,
        out=out,
        top=top,
        backbone=backbone,
        classical=classical,
        scorer=scorer,
        distance=distance,
        engine=engine,
        kind=None if kind is None else kind.value,
        positive=positive,
        minimize=minimize,
        diversity=diversity,
        label_next=label_next,
        select=select,
        keep_bad=keep_bad,
        workers=workers,
        device=device.value,
    )
    summary = task.run(config, resume)
    typer.echo(task.told(summary))
    finish(summary)


@app.command(examples=("translate runs/matt5 molecules.csv --input smiles --to selfies --out selfies.csv",))
def translate(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, Hub id or run directory of a MatT5.")],
    table: Annotated[str, typer.Argument(help="Table to read; - is CSV on standard input.")],
    input_column: Annotated[str, typer.Option("--input", help="Column with SMILES, SELFIES, formulas or texts.")],
    to: Annotated[Notation, typer.Option("--to", help="What to write.")],
    out: Annotated[str, typer.Option("--out", help="Table to write; the name gives the format.")],
    ask: Annotated[
        str, typer.Option("--ask", help="Properties of formulas to answer, separated by commas (with --to text).")
    ] = "",
    beams: Annotated[int, typer.Option("--beams", help="Beams of the search; 1 is greedy.")] = 1,
    device: DeviceOption = Device.auto,
    resume: ResumeTable = False,
) -> None:
    """Translate every row of TABLE: SMILES, SELFIES, formulas and texts into each other (docs/translation.md)."""
    from matfm.tasks import translate as task

    asked = tuple(name.strip() for name in ask.split(",") if name.strip())
    config = task.TranslateConfig(model, table, input_column, out, to.value, asked, beams, device.value)
    finish(task.run(config, resume))


@app.command(examples=("report runs/my-gaps",))
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write [default: report.html in RUN].")] = None,
) -> None:
    """Show a finished RUN as one HTML page: scores, pictures, errors by element, hardest cases (docs/report.md)."""
    from matfm.tasks import report as task

    finish(task.run(task.ReportConfig(str(run), None if out is None else str(out))))


def main() -> None:
    """Entry point: errors are one sentence and an exit code, never a traceback (unless --debug)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's way to say Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files and units that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_guarded(app))


def _guarded(call: Callable[..., Any]) -> int:
    debug = "--debug" in sys.argv
    try:
        # As its users know it, also where it was started as `python -m matfm`: completion asks for that name.
        call(prog_name="matfm", standalone_mode=False) if debug else call(prog_name="matfm")
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
