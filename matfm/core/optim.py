"""Parameter groups, optimizers, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from matfm.core.muon import Muon
from matfm.core.schedules import SHAPES
from matfm.core.transformer import BLOCKS
from matfm.errors import MatfmError


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule."""

    method: str = "adamw"
    """adamw (Loshchilov & Hutter 2019), adamw8bit (states in 8 bits, with bitsandbytes; Dettmers et al. 2022), or
    muon: Muon for the matrices of the blocks, AdamW for the rest."""
    learning_rate: float = 1e-3
    """Peak learning rate of the last layer and the heads."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices; biases, norms and embeddings get none."""
    beta1: float = 0.9
    """Decay of the gradient average."""
    beta2: float = 0.98
    """Decay of the squared-gradient average."""
    layer_decay: float = 1.0
    """Factor between the learning rates of neighbouring layers (1 = none), from the head downwards."""
    schedule: str = "cosine"
    """cosine, linear, constant, restarts (cosines) or stable (constant, then a decay); each after the warm-up."""
    warmup: float = 0.05
    """Share of the steps with a linearly rising rate."""
    final_share: float = 0.0
    """Learning rate at the end, as a share of the peak."""
    cycles: int = 4
    """Cosines of the schedule `restarts`."""
    decay_share: float = 0.2
    """Share of the steps after the warm-up in which the schedule `stable` falls."""
    rates: dict[str, float] = field(default_factory=dict)
    """Regular expression found in a parameter's name to a factor on its learning rate; 0 freezes."""
    sam: float = 0.0
    """Radius of sharpness-aware minimisation, two passes a step (Foret et al. 2021; 0.05 there); 0 is off."""

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("schedule", SHAPES)):
            if getattr(self, name) not in known:
                raise MatfmError(f"optimizer.{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        for name, (holds, rule) in _RULES.items():
            if not holds(getattr(self, name)):
                raise MatfmError(f"optimizer.{name} is {getattr(self, name)}; it {rule}")
        for pattern, factor in self.rates.items():
            _check_rate(pattern, factor)


_RULES: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda value: value > 0, "must be positive"),
    "warmup": (lambda value: 0 <= value < 1, "is a share in [0, 1)"),
    "layer_decay": (lambda value: 0 < value <= 1, "must lie in (0, 1]"),
    "final_share": (lambda value: 0 <= value <= 1, "is a share in [0, 1]"),
    "cycles": (lambda value: value >= 1, "must be at least 1"),
    "decay_share": (lambda value: 0 < value <= 1, "is a share in (0, 1]"),
    "sam": (lambda value: value >= 0, "is a radius and must not be negative"),
}
"""What a number must fulfil, and the words for it."""


def _check_rate(pattern: str, factor: float) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise MatfmError(f"optimizer.rates: {pattern!r} is not a regular expression ({error})") from error
    if factor < 0:
        raise MatfmError(f"optimizer.rates: the factor of {pattern!r} is {factor}; it must not be negative")


def schedule_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Factor on the peak learning rate at `step` (0-based) of `steps`."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    shape = SHAPES[config.schedule](min(1.0, progress), config.cycles, config.decay_share)
    return config.final_share + (1 - config.final_share) * shape


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, layers_from_top: Callable[[str], int]
) -> list[dict[str, Any]]:
    """Groups of trainable parameters that share learning rate, decay and method.

    `layers_from_top` maps a parameter's name to 0 for the head, 1 for the last block, and so on.
    Each group has `peak_lr`, `weight_decay`, `muon` (True for matrices that Muon updates) and `stacked`.

    Raises:
        MatfmError: a pattern of `rates` is found in no trainable parameter's name.
    """
    factor_of = _rate_factors(model, config.rates)
    undecayed = _undecayed_names(model)
    stacked = _block_matrices(model) if config.method == "muon" else {}
    groups: dict[tuple[int, bool, int, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (layers_from_top(name), name not in undecayed, stacked.get(name, 0), factor_of[name])
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "peak_lr": config.learning_rate * config.layer_decay**distance * factor,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "muon": maps > 0,
            "stacked": maps,
        }
        for (distance, decayed, maps, factor), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizers(groups: list[dict[str, Any]], config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The method's AdamW, and Muon where a group asks for it."""
    plain = [group for group in groups if not group["muon"]]
    matrices = [group for group in groups if group["muon"]]
    optimizers: list[torch.optim.Optimizer] = []
    if plain:
        optimizers.append(METHODS[config.method](plain, config))
    if matrices:
        optimizers.append(Muon(matrices, config.learning_rate))
    return optimizers


def _adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=1e-8, fused=True)


def _adamw_8bit(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise MatfmError(
            "optimizer.method is 'adamw8bit' and bitsandbytes is not installed; "
            "pip install 'matfm[eightbit]', or choose adamw"
        ) from error
    built: torch.optim.Optimizer = AdamW8bit(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=1e-8
    )
    return built


METHODS: dict[str, Callable[[list[dict[str, Any]], OptimizerConfig], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "muon": _adamw,
    "adamw8bit": _adamw_8bit,
}
"""Method to what updates the parameters that Muon does not."""


def set_learning_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def _rate_factors(model: nn.Module, rates: dict[str, float]) -> dict[str, float]:
    """Factor of every trainable parameter's rate: the product over the patterns found in its name."""
    factors = {name: 1.0 for name, parameter in model.named_parameters() if parameter.requires_grad}
    for pattern, factor in rates.items():
        found = [name for name in factors if re.search(pattern, name)]
        if not found:
            raise MatfmError(
                f"optimizer.rates: {pattern!r} is found in no trainable parameter's name; "
                f"names are like {', '.join(list(factors)[:3])}"
            )
        for name in found:
            factors[name] *= factor
    return factors


def _undecayed_names(model: nn.Module) -> set[str]:
    """Names of biases, norm weights and embeddings."""
    embeddings = {f"{prefix}.weight" for prefix, module in model.named_modules() if isinstance(module, nn.Embedding)}
    return embeddings | {name for name, parameter in model.named_parameters() if parameter.ndim < 2}


def _block_matrices(model: nn.Module) -> dict[str, int]:
    """Names of the matrices inside blocks, and how many maps are stacked in each."""
    matrices: dict[str, int] = {}
    for prefix, block in model.named_modules():
        if isinstance(block, BLOCKS):
            matrices.update({name: 1 for name, weight in block.named_parameters(prefix) if weight.ndim == 2})
            for inner, part in block.named_modules(prefix=prefix):
                stacked: dict[str, int] = getattr(type(part), "stacked", {})
                matrices.update({f"{inner}.{name}.weight": maps for name, maps in stacked.items()})
    return matrices
