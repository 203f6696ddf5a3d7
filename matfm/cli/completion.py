"""What the shell offers after an option: names that are known without loading torch."""

from __future__ import annotations

STRATEGIES = (
    "full", "feature", "partial", "bitfit", "adapter", "control", "deep-prompt", "lora", "prefix", "prompt",
)  # fmt: skip
"""Those of `matfm.models.strategies`, whose import takes seconds."""


def strategies(incomplete: str) -> list[str]:
    """Names of strategies, the last of several separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in STRATEGIES if name.startswith(last)]


def backbones(incomplete: str) -> list[str]:
    """Bundled weights, and sizes of models with random weights."""
    from matfm.core.bundled import bundled_names
    from matfm.models.sizes import SIZES

    return _beginning(incomplete, [*bundled_names(), *(f"scratch:{size}" for size in SIZES)])


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from matfm.tasks.recipes.recipe import recipe_names

    return _beginning(incomplete, recipe_names())


def splits(incomplete: str) -> list[str]:
    """Names of splits."""
    from matfm.chem.splits import KINDS_OF

    return _beginning(incomplete, list(KINDS_OF))


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
