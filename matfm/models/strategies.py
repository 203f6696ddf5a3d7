"""What fine-tuning trains of a model, behind one name: all of it, parts of it, or a small delta. The head always."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from matfm.chem.control_tokens import CONTROL_TOKENS
from matfm.errors import MatfmError
from matfm.models.deltas import METHODS, DeltaSpec, add_delta, deltas_of

DELTA = "default"
"""Name of the delta that a strategy trains."""
PROMPTS = ("prompt", "deep-prompt", "prefix", "control")
"""Strategies whose vectors begin as `prompt_start` says."""
STARTS = ("tokens", "random", "task", "classes")
NAMED_TOKENS = "tokens:"
"""Begins a start that names tokens: `tokens:O,F,Ti`."""

# name of the parameter, its distance from the head in layers, options -> trained?
_Rule = Callable[[str, int, "StrategyOptions"], bool]


def _in_delta(name: str, _: int, __: StrategyOptions) -> bool:
    return f".added.{DELTA}." in name


_RULES: dict[str, _Rule] = {
    "full": lambda name, distance, options: True,
    "feature": lambda name, distance, options: False,
    "partial": lambda name, distance, options: distance <= options.partial_layers,
    "bitfit": lambda name, distance, options: name.endswith(".bias"),
    **dict.fromkeys(METHODS, _in_delta),
}
STRATEGIES: tuple[str, ...] = tuple(_RULES)


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    """What is trained, and the shape of what is added. Options of other strategies have no effect."""

    strategy: str = "full"
    """full; feature: the head alone; partial: the last blocks; bitfit: biases (Ben Zaken et al. 2022); or, beside the
    frozen encoder: adapter (Houlsby et al. 2019), control: tokens of class and task around a formula, deep-prompt:
    tokens before the input of every layer (Jia et al. 2022), lora (Hu et al. 2021), prefix: keys and values in every
    layer (Li & Liang 2021), prompt: tokens before the input (Lester et al. 2021)."""
    partial_layers: int = 2
    """Blocks, from the top, that `partial` trains."""
    rank: int = 2
    """Rank of lora's updates."""
    alpha: float = 4.0
    """lora's updates are scaled by alpha / rank."""
    lora_maps: tuple[str, ...] = ()
    """Linear maps that lora updates, by last name (qkv, out, up, down); all maps of the blocks if empty."""
    bottleneck: int = 8
    """Width of adapters inside; there are two in every block."""
    prompt_length: int = 8
    """Vectors of a prompt, and in every layer of a deep prompt or a prefix."""
    prompt_start: str = "tokens"
    """What prompts, prefixes and control tokens begin as: tokens (random ones of the vocabulary), tokens:O,F,Ti (those
    named), task (pieces of the target's name, or the most frequent tokens of the training rows), classes (centres of
    clusters of training rows), all as the encoder sees them, or random numbers."""

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise MatfmError(f"strategy is {self.strategy!r}; choose one of {', '.join(STRATEGIES)}")
        if self.prompt_start not in STARTS and not self.prompt_start.startswith(NAMED_TOKENS):
            starts = ", ".join((*STARTS, f"{NAMED_TOKENS}O,F,Ti"))
            raise MatfmError(f"prompt_start is {self.prompt_start!r}; choose one of {starts}")
        for name in ("partial_layers", "rank", "bottleneck", "prompt_length"):
            if getattr(self, name) < 1:
                raise MatfmError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.alpha <= 0:
            raise MatfmError(f"alpha is {self.alpha}; it must be positive")

    @property
    def adds_delta(self) -> bool:
        """Whether the encoder stays as it is, and something is trained beside it."""
        return self.strategy in METHODS

    def delta(self) -> DeltaSpec | None:
        """The shape of the delta, None for a strategy that adds none."""
        return self.delta_spec() if self.adds_delta else None

    def delta_spec(self) -> DeltaSpec:
        """The shape of the delta of a strategy that adds one."""
        own: dict[str, dict[str, Any]] = {
            "lora": {"rank": self.rank, "alpha": self.alpha, "maps": self.lora_maps},
            "adapter": {"bottleneck": self.bottleneck},
            "control": {"length": CONTROL_TOKENS},
            "deep-prompt": {"length": self.prompt_length},
            "prefix": {"length": self.prompt_length},
            "prompt": {"length": self.prompt_length},
        }
        return DeltaSpec(self.strategy, **own[self.strategy])


def apply_strategy(
    model: Any, options: StrategyOptions, layers_from_top: Callable[[str], int], start: str | Tensor = "tokens"
) -> float:
    """Add what the strategy adds, and freeze what it does not train; returns the trained share of all parameters.

    Args:
        model: an encoder with a `property_head`.
        options: the strategy.
        layers_from_top: distance of a parameter, by name: 0 for the head, 1 for the last block, and so on.
        start: what a new prompt begins as, for `add_delta`.

    Raises:
        MatfmError: the encoder was trained with a delta of another shape, or has nothing of the kind that is adapted.
    """
    check_deltas(options, deltas_of(model), "the backbone")
    if options.adds_delta and DELTA not in deltas_of(model):
        add_delta(model, DELTA, options.delta_spec(), start)
    rule = _RULES[options.strategy]
    trained = total = 0
    for name, parameter in model.named_parameters():
        in_head = name.startswith("property_head.")
        parameter.requires_grad_(in_head or rule(name, layers_from_top(name), options))
        total += parameter.numel()
        trained += parameter.numel() if parameter.requires_grad else 0
    return trained / total


def trained_share(model: Any, options: StrategyOptions, layers_from_top: Callable[[str], int]) -> float:
    """What `apply_strategy` returned of a model that is trained by now, whose delta may be merged. Changes nothing."""
    return apply_strategy(copy.deepcopy(model), options, layers_from_top)


def check_deltas(options: StrategyOptions, known: dict[str, DeltaSpec], where: str) -> None:
    """A delta can be trained on a plain encoder, or go on where one of its shape ended.

    Raises:
        MatfmError: `known`, the deltas of `where`, are others.
    """
    if options.adds_delta and known and known != {DELTA: options.delta_spec()}:
        methods = ", ".join(spec.method for spec in known.values())
        raise MatfmError(
            f"{where} was trained with another delta ({methods}) than the strategy {options.strategy!r} trains; "
            "choose its shape, start from a plain backbone, or choose full, feature, partial or bitfit"
        )
