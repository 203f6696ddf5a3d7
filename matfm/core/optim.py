"""Parameter groups, optimizers, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from matfm.core.muon import Muon
from matfm.core.transformer import BLOCKS
from matfm.errors import MatfmError


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule."""

    method: str = "adamw"
    """adamw (Loshchilov & Hutter 2019), or muon: Muon for the matrices of the blocks, AdamW for the rest."""
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
    """cosine, linear or constant; each after the warm-up."""
    warmup: float = 0.05
    """Share of the steps with a linearly rising rate."""
    final_share: float = 0.0
    """Learning rate at the end, as a share of the peak."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise MatfmError(f"optimizer.method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.schedule not in _SHAPES:
            raise MatfmError(f"optimizer.schedule is {self.schedule!r}; choose one of {', '.join(_SHAPES)}")
        if self.learning_rate <= 0:
            raise MatfmError(f"optimizer.learning_rate is {self.learning_rate}; it must be positive")
        if not 0 <= self.warmup < 1:
            raise MatfmError(f"optimizer.warmup is {self.warmup}; it is a share in [0, 1)")
        if not 0 < self.layer_decay <= 1:
            raise MatfmError(f"optimizer.layer_decay is {self.layer_decay}; it must lie in (0, 1]")


METHODS = ("adamw", "muon")

_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


def schedule_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Factor on the peak learning rate at `step` (0-based) of `steps`."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    shape = _SHAPES[config.schedule](min(1.0, progress))
    return config.final_share + (1 - config.final_share) * shape


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, layers_from_top: Callable[[str], int]
) -> list[dict[str, Any]]:
    """Groups of trainable parameters that share learning rate, decay and method.

    `layers_from_top` maps a parameter's name to 0 for the head, 1 for the last block, and so on.
    Each group has `peak_lr`, `weight_decay`, `muon` (True for matrices that Muon updates) and `stacked`.
    """
    undecayed = _undecayed_names(model)
    stacked = _block_matrices(model) if config.method == "muon" else {}
    groups: dict[tuple[int, bool, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (layers_from_top(name), name not in undecayed, stacked.get(name, 0))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "peak_lr": config.learning_rate * config.layer_decay**distance,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "muon": maps > 0,
            "stacked": maps,
        }
        for (distance, decayed, maps), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizers(groups: list[dict[str, Any]], config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Fused AdamW, and Muon where a group asks for it."""
    betas = (config.beta1, config.beta2)
    plain = [group for group in groups if not group["muon"]]
    matrices = [group for group in groups if group["muon"]]
    optimizers: list[torch.optim.Optimizer] = []
    if plain:
        optimizers.append(torch.optim.AdamW(plain, lr=config.learning_rate, betas=betas, eps=1e-8, fused=True))
    if matrices:
        optimizers.append(Muon(matrices, config.learning_rate))
    return optimizers


def set_learning_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


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
