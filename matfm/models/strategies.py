"""Which parameters a fine-tuning strategy trains. The head is always trained."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

PARTIAL_LAYERS = 2
"""Encoder blocks, from the top, that `partial` trains."""

# name of the parameter, its layers_from_top distance -> trained?
_RULES: dict[str, Callable[[str, int], bool]] = {
    "full": lambda name, distance: True,
    "feature": lambda name, distance: False,
    "partial": lambda name, distance: distance <= PARTIAL_LAYERS,
    "bitfit": lambda name, distance: name.endswith(".bias"),
}
STRATEGIES: tuple[str, ...] = tuple(_RULES)


def apply_strategy(model: nn.Module, strategy: str, layers_from_top: Callable[[str], int]) -> float:
    """Freeze what the strategy does not train; returns the trained share of all parameters.

    `bitfit` trains biases only (Ben Zaken et al. 2022); `feature` trains the head on a frozen encoder.
    """
    rule = _RULES[strategy]
    trained = total = 0
    for name, parameter in model.named_parameters():
        in_head = name.startswith("property_head.")
        parameter.requires_grad_(in_head or rule(name, layers_from_top(name)))
        total += parameter.numel()
        trained += parameter.numel() if parameter.requires_grad else 0
    return trained / total
