"""Options of fine-tuning as the values of its configuration, for the commands that offer them."""

from __future__ import annotations

from typing import Any

import typer

_KEYS = {
    "table": "table",
    "input_column": "input",
    "target": "targets",
    "kind": "kind",
    "split": "split",
    "ensemble": "ensemble",
    "seed": "seed",
    "device": "device",
    "on_bad": "on_bad",
    "task": "fit.task",
    "backbone": "fit.backbone",
    "strategy": "fit.strategy",
    "epochs": "fit.epochs",
}
"""Parameter of a command to the key of a fine-tuning's configuration."""


def given_keys(context: typer.Context) -> list[str]:
    """Keys of the options that were typed, with their defaults or not."""
    return [key for name, key in _KEYS.items() if name in context.params and _typed(context, name)]


def finetune_values(context: typer.Context, config: str | None, settings: list[str]) -> dict[str, Any]:
    """The configuration's values: of the file if there is one, over it the options that were typed, then `--set`."""
    from matfm.core.config import apply_overrides, load_toml

    values: dict[str, Any] = load_toml(config) if config is not None else {}
    for name, key in _KEYS.items():
        value = context.params.get(name)
        if value is None or (config is not None and not _typed(context, name)):
            continue
        *sections, last = key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        if name == "target":
            value = [column.strip() for column in value.split(",")]
        section[last] = getattr(value, "value", value)
    return apply_overrides(values, settings)


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
