"""`matfm adapt`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from matfm.cli import completion
from matfm.cli.options import Device, Kind, OnBad, Out, Resume, Settings, Task, finish


def adapt(
    out: Out,
    config: Annotated[str | None, typer.Argument(help="TOML file, in place of options or beside them.")] = None,
    source: Annotated[
        list[str], typer.Option("--source", help="Labelled table; repeat for more domains, or for a chain.")
    ] = [],  # noqa: B006 (Typer copies)
    target: Annotated[
        list[str], typer.Option("--target", help="Table of the other domain, with few labels or none; may be repeated.")
    ] = [],  # noqa: B006 (Typer copies)
    input_column: Annotated[
        str | None, typer.Option("--input", help="Column with the formulas, SMILES or SELFIES.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column with the labels.")] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="dann, cdan, coral, mmd, intermediate, joint, target or none [default: dann]."),
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="Column with each row's domain [default: a table is a domain].")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What the input column holds [default: what the backbone reads].")
    ] = None,
    task: Annotated[Task | None, typer.Option("--task", help="What the label holds [default: regression].")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="Bundled name, folder, Hub id or scratch:SIZE [default: matbert-small].",
            autocompletion=completion.backbones,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="As of finetune; not feature with an alignment [default: full].",
            autocompletion=completion.strategies,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Of the source rows; see docs/splits.md [default: random].")
    ] = None,
    target_split: Annotated[
        str | None, typer.Option("--target-split", help="Of the labelled target rows [default: random].")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the source's training rows.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of splits, head and batches [default: 0].")] = None,
    device: Annotated[Device | None, typer.Option("--device", help="Where to compute [default: auto].")] = None,
    on_bad: Annotated[OnBad | None, typer.Option("--on-bad", help="Rows that cannot be read [default: skip].")] = None,
    settings: Settings = [],  # noqa: B006 (Typer copies)
    resume: Resume = False,
) -> None:
    """Train on labelled --source rows for the rows of --target, with a control beside (docs/adaptation.md)."""
    from matfm.core.config import apply_overrides, from_mapping, load_toml
    from matfm.tasks import adapt as verb

    values: dict[str, Any] = load_toml(config) if config else {}
    given: dict[str, Any] = {
        "source": [{"table": path} for path in source] or None,
        "target": [{"table": path} for path in target] or None,
        "input": input_column,
        "label": label,
        "method": method,
        "domain": domain,
        "kind": None if kind is None else kind.value,
        "split": split,
        "target_split": target_split,
        "seed": seed,
        "device": None if device is None else device.value,
        "on_bad": None if on_bad is None else on_bad.value,
    }
    of_fit = {
        "task": None if task is None else task.value,
        "backbone": backbone,
        "strategy": strategy,
        "epochs": epochs,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    if told := {name: value for name, value in of_fit.items() if value is not None}:
        values["fit"] = {**values.get("fit", {}), **told}
    summary = verb.run(
        from_mapping(verb.AdaptConfig, apply_overrides(values, settings), config or "adapt"), out, resume
    )
    if warning := summary["negative_transfer"]["warning"]:
        typer.echo(f"matfm: warning: {warning}", err=True)
    finish(summary)
