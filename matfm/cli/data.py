"""`matfm data …`: recipes, vocabularies, token files, validity and leakage of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from matfm.cli.options import Cache, Input, Kind, Offline, OnBad, Out, Settings, finish

app = typer.Typer(
    help="Data recipes, vocabularies, token files, validity and leakage.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def data_list() -> None:
    """The shipped recipes."""
    from matfm.tasks.recipes import load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    for recipe in recipes:
        typer.echo(f"{recipe.name:24} {recipe.rows:>9,} rows  {recipe.title}")
    finish({"recipes": [recipe.name for recipe in recipes]})


@app.command("show")
def data_show(name: str) -> None:
    """What a recipe holds: columns, units, licence, citation, published scores."""
    from matfm.core.config import to_mapping
    from matfm.tasks.recipes import load_recipe

    recipe = load_recipe(name)
    typer.echo(f"{recipe.name}: {recipe.title}\n{recipe.rows:,} rows. {recipe.notes}\nLicence: {recipe.license}")
    for column, unit in recipe.column_units().items():
        typer.echo(f"  {column} ({unit})")
    for cited in recipe.citation:
        typer.echo(f"  cite: {cited}")
    finish(to_mapping(recipe))


@app.command("build")
def data_build(name: str, out: Out, cache: Cache = None, offline: Offline = False) -> None:
    """Build a recipe (by name or .toml) into a Parquet table."""
    from matfm.tasks import data as task

    finish(task.run(task.BuildConfig(name, str(out), cache, offline)))


@app.command("encode")
def data_encode(
    table: str,
    input_column: Input,
    out: Annotated[Path, typer.Option("--out", help="Folder of the token file.")],
    kind: Annotated[Kind, typer.Option("--kind", help="What the input column holds.")] = Kind.composition,
    vocabulary: Annotated[
        str | None, typer.Option("--vocab", help="Vocabulary file [default: the shipped one].")
    ] = None,
    max_length: Annotated[int | None, typer.Option("--max-length", help="Cut longer strings, and count them.")] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes; 0 for one per core.")] = 0,
    on_bad: Annotated[OnBad, typer.Option("--on-bad", help="Cells that cannot be read.")] = OnBad.skip,
) -> None:
    """Encode a column of TABLE, of any size, into a token file (uint16, read through a memory map)."""
    from matfm.tasks import corpus as task

    config = task.EncodeConfig(table, input_column, str(out), kind.value, vocabulary, max_length, workers, on_bad.value)
    finish(task.encode(config))


@app.command("vocab")
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


@app.command("validity")
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


@app.command("leakage")
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
