"""Model cards: what a run was trained on, how, and how well it does."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from matfm.core.files import write_json, write_text
from matfm.tasks.devices import resolve_device

if TYPE_CHECKING:
    from matfm.tasks.finetune import FinetuneConfig
    from matfm.tasks.pretrain import PretrainConfig
    from matfm.tasks.recipes.recipe import Recipe

ENVIRONMENT = "environment.json"
_REPORTED = ("matfm", "torch", "transformers", "numpy", "scikit-learn")
_IN_UNIT = frozenset({"mae", "mae_low", "mae_high", "rmse", "width_90", "interval_score_90"})
"""Scores that have the unit of the property; the others are numbers."""


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _REPORTED}}


def command_line() -> str:
    """The call that is running, as typed."""
    program = Path(sys.argv[0]).name
    return " ".join(["matfm" if program in _STARTS else program, *sys.argv[1:]])


def write_environment(run: Path, device: str) -> None:
    """`environment.json`: the command, the versions and the machine that a result depends on."""
    used = resolve_device(device)
    found = {
        "command": command_line(),
        "versions": versions(),
        "device": f"cuda: {torch.cuda.get_device_name(used)}" if used.type == "cuda" else used.type,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
    write_json(run / ENVIRONMENT, found)


_STARTS = ("__main__.py", "-c")
"""Names of the program when Python starts the package or a line of code."""


def write_pretraining_card(
    run: Path, config: PretrainConfig, summary: dict[str, Any], recipe: Recipe | None = None
) -> None:
    """`card.md` of pretrained weights, and `environment.json`."""
    write_environment(run, config.device)
    things = _THINGS[config.data.kind]
    source = f"{recipe.title} (recipe `{recipe.name}` {recipe.version})" if recipe else config.data.table
    lines = [
        f"# {config.name}",
        "",
        (
            f"{_FAMILIES[config.model.family]} of size `{config.model.size}` ({summary['parameters']:,} parameters) "
            f"for {things}, {_begun(config)}pretrained with the objective(s) {_with_weights(config)}."
        ),
        "",
        "## Data",
        f"- {source or config.data.tokens}",
        *([f"- Licence: {recipe.license}", *(f"- {cited}" for cited in recipe.citation)] if recipe else []),
        (
            f"- {summary['rows_used'] - summary['rows_held_out']:,} rows trained on, {summary['rows_held_out']:,} held "
            f"out by a hash; {summary['rows_rejected']:,} rows and {summary['labels_rejected']:,} labels rejected"
        ),
        *_learned_lines(config, summary),
        "",
        "## Held-out rows",
        "| metric | value | unit |",
        "|---|---|---|",
        *(f"| {name} | {value:.4f} | {_unit(name, summary['units'])} |" for name, value in summary["valid"].items()),
        "",
        "## Training",
        f"- Command: `{command_line()}`",
        (
            f"- Seed {config.seed}, {summary['steps']} steps, {summary['seconds'] / 60:.0f} minutes on "
            f"{platform.machine()}, {summary['tokens_per_s']:,} tokens/s"
        ),
        f"- Versions: {', '.join(f'{name} {number}' for name, number in versions().items())}",
        "",
        "## Use and limits",
        _USE[config.model.family].format(things=things),
        *_translation_lines(config),
        *_condition_lines(summary),
        _LIMITS[config.data.kind],
        "",
    ]
    write_text(run / "card.md", "\n".join(lines))


_FAMILIES = {"matbert": "MatBERT encoder", "matgpt": "MatGPT decoder", "matt5": "MatT5 encoder-decoder"}
_THINGS = {"composition": "chemical compositions", "smiles": "molecules as SMILES", "selfies": "molecules as SELFIES"}
_USE = {
    "matbert": (
        "Meant as a starting point for fine-tuning on {things}, and for predicting the properties it was trained on, "
        "if any, at the level of its data."
    ),
    "matgpt": "Meant for generating {things} like those it was trained on; check these with `matfm data validity`.",
    "matt5": "Meant for filling in parts of {things} and as a starting point for sequence-to-sequence training.",
}

_LIMITS = {
    "composition": ("It sees composition only: polymorphs get one value. Elements that the data lacks are untrained."),
    "smiles": "It sees the molecular graph, not the conformation. Tokens that the data lacks are untrained.",
    "selfies": "It sees the molecular graph, not the conformation. Symbols that the data lacks are untrained.",
}


def _begun(config: PretrainConfig) -> str:
    return f"continued from `{config.model.start}`, " if config.model.start else ""


def _translation_lines(config: PretrainConfig) -> list[str]:
    """What it translates, and its further corpora."""
    if not config.joint:
        return []
    further = [f"`{corpus.recipe or corpus.table}`" for corpus in config.data.more]
    return [
        "It translates with `matfm translate`; of molecules, its column `same` says whether a translation is right.",
        *([f"Trained on {', '.join(further)} too."] if further else []),
    ]


def _condition_lines(summary: dict[str, Any]) -> list[str]:
    """What its texts can be asked for with."""
    return [
        f"`matfm generate --condition {name}=…` takes values in {summary['units'][name] or 'plain numbers'}; bins: "
        f"{', '.join(texts)}."
        for name, texts in summary.get("conditions", {}).items()
    ]


def _with_weights(config: PretrainConfig) -> str:
    return ", ".join(f"{objective.name} (weight {objective.weight:g})" for objective in config.objectives)


def _learned_lines(config: PretrainConfig, summary: dict[str, Any]) -> list[str]:
    """Labels, computed targets and spellings that the model learned from."""
    units = summary["units"]
    lines = [f"- Labels: {', '.join(f'{name} ({unit})' for name, unit in units.items())}"] if units else []
    if "descriptors" in summary:
        lines.append(f"- {summary['descriptors']} descriptors computed with RDKit")
    if config.data.fingerprint_bits:
        lines.append(f"- Morgan fingerprints of radius 2, {config.data.fingerprint_bits} bits")
    if config.data.enumerations:
        lines.append(f"- {config.data.enumerations} random SMILES of each molecule beside the canonical one")
    return lines


def _unit(metric: str, units: dict[str, str]) -> str:
    if metric.endswith("_nats"):
        return "nats"
    if metric in ("score", "descriptors_mae"):
        return "standard deviations" if units or metric == "descriptors_mae" else ""
    return units.get(metric.removeprefix("mae_"), "")


def write_finetuning_card(run: Path, config: FinetuneConfig, summary: dict[str, Any]) -> None:
    """`card.md` of a fine-tuned predictor, and `environment.json`."""
    write_environment(run, config.device)
    units = summary["units"]
    lines = [
        f"# {', '.join(config.targets)} from {config.input}",
        "",
        (
            f"{config.task} on `{config.table}`, fine-tuned from `{config.backbone}` (strategy `{config.strategy}`, "
            f"{summary['trainable_share']:.1%} of the parameters trained, {config.models} model(s))."
        ),
        "",
        "## Data",
        (
            f"- {summary['rows_in']:,} rows: {summary['rows_used']:,} used, "
            f"{summary['rows_rejected']:,} rejected (`rejects.csv`)"
        ),
        f"- Split `{config.split}`: {', '.join(f'{part} {rows:,}' for part, rows in summary['rows'].items())}",
        *_leakage_lines(summary["leakage"]),
        *_label_lines(summary),
        "",
        "## Scores",
        "| part | metric | value | unit |",
        "|---|---|---|---|",
        *(
            f"| {part} | {target} {metric} | {value:.4f} | {units.get(target, '') if metric in _IN_UNIT else ''} |"
            for part, targets in summary["metrics"].items()
            for target, scores in targets.items()
            for metric, value in scores.items()
            if metric != "n"
        ),
        "",
        "## Training",
        f"- Command: `{command_line()}`",
        f"- Seed {config.seed}, {summary['seconds'] / 60:.1f} minutes on {platform.machine()}",
        f"- Versions: {', '.join(f'{name} {number}' for name, number in versions().items())}",
        "",
        "## Limits",
        "Trust predictions for inputs like those in the training rows; `predictions.parquet` shows errors.",
        "",
    ]
    write_text(run / "card.md", "\n".join(lines))


def _leakage_lines(leakage: dict[str, float]) -> list[str]:
    what = {"same_reduced_formula": "reduced formula", "same_canonical": "canonical SMILES"}
    return [
        f"- Leakage: {share:.1%} of the test rows have the {what[name]} of a training row"
        for name, share in leakage.items()
    ]


def _label_lines(summary: dict[str, Any]) -> list[str]:
    """Heads that are not plain, censored labels and conditions."""
    heads = {
        name: [what for what in head.values() if what not in ("plain", "none")]
        for name, head in summary.get("heads", {}).items()
    }
    return [
        *(f"- Head of {name}: {', '.join(what)}" for name, what in heads.items() if what),
        *(
            f"- Censored labels of {name}: {count['below']:,} below, {count['above']:,} above a bound (not scored)"
            for name, count in summary.get("censored", {}).items()
        ),
        *([f"- Conditions: {', '.join(summary['conditions'])}"] if "conditions" in summary else []),
    ]
