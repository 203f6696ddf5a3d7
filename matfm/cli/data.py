"""`matfm data …`: recipes, audits, vocabularies, token files, validity and leakage of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from matfm.cli.completion import recipes
from matfm.cli.help import Verbs
from matfm.cli.options import Cache, Input, Kind, Offline, OnBad, Out, ResumeTable, Settings, finish

app = Verbs(
    help="Data recipes, vocabularies, token files, validity and leakage.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list", examples=("data list",))
def data_list(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with everything, and nothing else.")] = False,
) -> None:
    """The shipped recipes: rows, task, unit, licence, size, citation."""
    from matfm.tasks.recipes import catalogue

    entries = catalogue.entries()
    if as_json:
        finish({"recipes": entries})
        return
    typer.echo(catalogue.readable(entries))
    finish({"recipes": [entry["name"] for entry in entries]})


@app.command("show", examples=("data show matbench_expt_gap",))
def data_show(name: Annotated[str, typer.Argument(help="Recipe.", autocompletion=recipes)]) -> None:
    """The datasheet of a recipe: columns, units, licence, citation, splits, published scores."""
    from matfm.core.config import to_mapping
    from matfm.tasks.recipes.datasheet import described
    from matfm.tasks.recipes.recipe import load_recipe

    recipe = load_recipe(name)
    typer.echo(described(recipe))
    finish(to_mapping(recipe))


@app.command(
    "build", examples=("data build matbench_expt_gap --out data", "data build 'matbench_*' --out data/matbench")
)
def data_build(
    names: Annotated[
        list[str],
        typer.Argument(help="Recipes: names, patterns ('matbench_*') or .toml files.", autocompletion=recipes),
    ],
    out: Out,
    exclude: Annotated[
        list[str], typer.Option("--exclude", help="Leave out what this evaluation set tests on; repeat for more.")
    ] = [],  # noqa: B006 (Typer copies)
    cache: Cache = None,
    offline: Offline = False,
) -> None:
    """Build recipes into Parquet tables; of several, each into its own folder. What is there already is kept."""
    from matfm.tasks import data as task

    config = task.BuildConfig(names[0], str(out), cache, offline, tuple(exclude))
    single = len(names) == 1 and not set("*?[") & set(names[0])
    summary = task.run(config) if single else task.run_all(names, config)
    if not summary["built"]:
        typer.echo("already built from the same recipe; nothing to do", err=True)
    finish(summary)


@app.command("check", examples=("data check my_gaps.toml",))
def data_check(
    recipe: Annotated[str, typer.Argument(help="Your own recipe (.toml).")],
    cache: Cache = None,
    offline: Offline = False,
) -> None:
    """Whether a recipe of your own is complete and its file is what it says; exit code 2 if not."""
    from matfm.errors import MatfmError
    from matfm.tasks.recipes import check as task

    summary = task.run(recipe, cache, offline)
    for sentence in summary["lacking"]:
        typer.echo(f"- {sentence}")
    finish(summary)
    if not summary["complete"]:
        raise MatfmError(f"{recipe} is not complete: {len(summary['lacking'])} thing(s) to do, listed above")


@app.command("init", examples=("data init my_gaps.csv",))
def data_init(
    table: Annotated[str, typer.Argument(help="Your table: CSV, TSV, JSONL or Parquet.")],
    out: Annotated[str | None, typer.Option("--out", help="Recipe to write [default: beside the table].")] = None,
    input_column: Annotated[str | None, typer.Option("--input", help="Input column, if the guess is wrong.")] = None,
) -> None:
    """Write a recipe for a table of your own, with columns, kinds and units guessed."""
    from matfm.tasks.recipes import init as task

    summary = task.run(task.InitConfig(table, out, input_column))
    typer.echo(f"{summary['recipe']} is written; fill in: {', '.join(summary['to_fill'])}")
    finish(summary)


@app.command("audit", examples=("data audit --pretrain oqmd --evaluate matbench_expt_gap --out audit",))
def data_audit(
    pretrain: Annotated[
        list[str],
        typer.Option("--pretrain", help="Recipe, pattern or table; NAME:a,b for the labels used. Repeat for more."),
    ],
    evaluate: Annotated[list[str], typer.Option("--evaluate", help="Evaluation sets, likewise.")],
    out: Annotated[
        str | None, typer.Option("--out", help="Folder (of the weights) for audit.json and audit.md.")
    ] = None,
    input_column: Annotated[
        str | None, typer.Option("--input", help="Input column of tables that matfm did not build.")
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="What that column holds.")] = Kind.composition,
    cache: Cache = None,
    offline: Offline = False,
) -> None:
    """What pretraining shares with evaluation sets: substances, and labels of the same property family."""
    from matfm.tasks import audit as task

    sets = (tuple(pretrain), tuple(evaluate))
    summary = task.run(task.AuditConfig(*sets, out, input_column, kind.value, cache, offline))
    typer.echo(task.markdown(summary))
    finish(summary)


@app.command(
    "encode",
    examples=(
        "data encode molecules.csv --input smiles --kind smiles --out tokens",
        "data encode 'parts/*.parquet' --input formula --scheme count --out tokens --resume",
    ),
)
def data_encode(
    tables: Annotated[
        list[str],
        typer.Argument(help="Tables, folders of tables or patterns ('part_*.csv'); - is CSV on standard input."),
    ],
    input_column: Input,
    out: Annotated[Path, typer.Option("--out", help="Folder of the token file.")],
    kind: Annotated[Kind, typer.Option("--kind", help="What the input column holds.")] = Kind.composition,
    vocabulary: Annotated[
        str | None, typer.Option("--vocab", help="Vocabulary file [default: the shipped one].")
    ] = None,
    max_length: Annotated[int | None, typer.Option("--max-length", help="Cut longer strings, and count them.")] = None,
    scheme: Annotated[
        str, typer.Option("--scheme", help="Compositions as fraction, repeat or count [default: fraction].")
    ] = "",
    order: Annotated[
        str,
        typer.Option("--order", help="Order of elements in repeat and count [default: electronegativity]."),
    ] = "",
    workers: Annotated[int, typer.Option("--workers", help="Processes; 0 for one per core.")] = 0,
    on_bad: Annotated[OnBad, typer.Option("--on-bad", help="Cells that cannot be read.")] = OnBad.skip,
    resume: ResumeTable = False,
) -> None:
    """Encode a column of TABLES, of any size, into a token file (uint16, read through a memory map)."""
    from matfm.tasks import corpus as task

    config = task.EncodeConfig(
        table=tuple(tables),
        input=input_column,
        out=str(out),
        kind=kind.value,
        vocabulary=vocabulary,
        max_length=max_length,
        workers=workers,
        on_bad=on_bad.value,
        scheme=scheme,
        order=order,
    )
    finish(task.encode(config, resume))


@app.command("vocab", examples=("data vocab molecules.csv --input smiles --out vocab.json --min-count 10",))
def data_vocab(
    table: str,
    input_column: Input,
    out: Annotated[Path, typer.Option("--out", help="Vocabulary file (.json) to write.")],
    kind: Annotated[Kind, typer.Option("--kind", help="smiles or selfies.")] = Kind.smiles,
    min_count: Annotated[int, typer.Option("--min-count", help="Occurrences a token needs.")] = 1,
    max_size: Annotated[int | None, typer.Option("--max-size", help="Most tokens; rare ones go first.")] = None,
    only_corpus: Annotated[
        bool, typer.Option("--only-corpus", help="Leave out what the shipped one always has.")
    ] = False,
) -> None:
    """Build the fixed vocabulary of a column of SMILES or SELFIES."""
    from matfm.tasks import corpus as task

    config = task.VocabConfig(table, input_column, str(out), kind.value, min_count, max_size, not only_corpus)
    finish(task.vocab(config))


@app.command("validity", examples=("data validity new.csv --input formula --reference my_gaps.csv --out judged.csv",))
def data_validity(
    table: Annotated[str, typer.Argument(help="Table to read; - is CSV on standard input.")],
    input_column: Annotated[str, typer.Option("--input", help="Column with the formula, SMILES or SELFIES.")],
    kind: Annotated[Kind, typer.Option("--kind", help="What the input column holds.")] = Kind.composition,
    reference: Annotated[str | None, typer.Option("--reference", help="Table of the training set.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Table to write; the name gives the format.")] = None,
    settings: Settings = [],  # noqa: B006 (Typer copies)
) -> None:
    """Check every row of TABLE: valid, charge neutral, balanced, novel; and the shares."""
    from matfm.core.config import apply_overrides, from_mapping
    from matfm.tasks import validity as task

    values: dict[str, Any] = {"table": table, "input": input_column, "kind": kind.value}
    values |= {"reference": reference, "out": out}
    finish(task.run(from_mapping(task.ValidityConfig, apply_overrides(values, settings), "data validity")))


@app.command("leakage", examples=("data leakage train.csv test.csv --input formula --out leakage.json",))
def data_leakage(
    train: Annotated[str, typer.Argument(help="Table a model was trained or pretrained on.")],
    test: Annotated[str, typer.Argument(help="Table a model is tested on.")],
    input_column: Annotated[str, typer.Option("--input", help="Column with the formula or molecule.")],
    train_input: Annotated[
        str | None, typer.Option("--train-input", help="Its name in TRAIN, where that is another.")
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="What the column holds.")] = Kind.composition,
    out: Annotated[str | None, typer.Option("--out", help="JSON file of the whole report.")] = None,
) -> None:
    """How much of TEST is in TRAIN: equal rows, formulas, elements and scaffolds, and nearest neighbours."""
    from matfm.tasks import leakage as task

    summary = task.run(task.LeakageConfig(train, test, input_column, train_input, kind.value, out))
    typer.echo(task.readable(summary))
    finish(summary)
