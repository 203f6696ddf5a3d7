"""`matfm generate`: options to a configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from matfm.cli.options import Device, DeviceOption, finish


def generate(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, Hub id or run directory of a MatGPT.")],
    n: Annotated[int, typer.Option("--n", help="Rows to write.")],
    out: Annotated[str, typer.Option("--out", help="Table to write; the name gives the format.")],
    elements: Annotated[str, typer.Option("--elements", help="Elements that may occur, e.g. Li,Fe,O.")] = "",
    require: Annotated[str, typer.Option("--require", help="Elements that must occur (compositions).")] = "",
    prompt: Annotated[str, typer.Option("--prompt", help="How every formula or molecule begins.")] = "",
    condition: Annotated[
        list[str] | None, typer.Option("--condition", help="Wanted property, e.g. band_gap=2.0 or e_form=-1.5..-0.5.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="Draw from the k likeliest tokens; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Draw from tokens of this probability together.")] = 1.0,
    min_p: Annotated[float, typer.Option("--min-p", help="Draw from tokens this share as likely as the best.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the samples.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences computed together.")] = 256,
    max_length: Annotated[int, typer.Option("--max-length", help="Most tokens; 0 for 64 or 128 (molecules).")] = 0,
    min_elements: Annotated[int, typer.Option("--min-elements", help="Fewest elements (compositions).")] = 0,
    max_elements: Annotated[int, typer.Option("--max-elements", help="Most elements (compositions).")] = 0,
    max_atoms: Annotated[int, typer.Option("--max-atoms", help="Most atoms (molecules: other than H).")] = 0,
    charge_neutral: Annotated[
        bool, typer.Option("--charge-neutral", help="Only charge-neutral compositions, by construction.")
    ] = False,
    oxidation_states: Annotated[
        str, typer.Option("--oxidation-states", help="icsd24, icsd16, smact14 or pymatgen_sp.")
    ] = "icsd24",
    alloys: Annotated[bool, typer.Option("--alloys/--no-alloys", help="Whether metals alone are neutral.")] = True,
    substructure: Annotated[str, typer.Option("--substructure", help="SMARTS to look for in molecules.")] = "",
    only: Annotated[
        str, typer.Option("--only", help="Keep rows that are: valid,unique,novel,neutral,balanced,substructure.")
    ] = "",
    max_draws: Annotated[int, typer.Option("--max-draws", help="Most samples for --only; 0 for 20 n.")] = 0,
    novel_to: Annotated[
        str, typer.Option("--novel-to", help="Table of known ones, or training: the model's own.")
    ] = "",
    novel_input: Annotated[str, typer.Option("--novel-input", help="Its column.")] = "",
    predict: Annotated[str, typer.Option("--predict", help="Run whose properties are predicted.")] = "",
    device: DeviceOption = Device.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same --out.")] = False,
) -> None:
    """Generate N compositions or molecules, judged, with the model's log-probability (docs/generation.md)."""
    from matfm.tasks import generate as task

    config = task.GenerateConfig(
        model=model, n=n, out=out, prompt=prompt, condition=tuple(condition or ()), temperature=temperature,
        top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, batch_size=batch_size, max_length=max_length,
        elements=_listed(elements), require=_listed(require), min_elements=min_elements, max_elements=max_elements,
        max_atoms=max_atoms, charge_neutral=charge_neutral, oxidation_states=oxidation_states, alloys=alloys,
        substructure=substructure, only=_listed(only), max_draws=max_draws, novel_to=novel_to,
        novel_input=novel_input, predict=predict, device=device.value,
    )  # fmt: skip
    finish(task.run(config, resume))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
