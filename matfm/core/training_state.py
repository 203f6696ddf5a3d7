"""Weights and optimizer states as whole tensors under stable names, and back, however they are split."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from matfm.core.distributed import laid_out_like, whole

_NUMBER = "number:"
"""Prefix of optimizer states that are plain numbers (bitsandbytes counts its steps so)."""


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors. All processes must call this."""
    return {name: whole(value.detach()) for name, value in model.state_dict().items()}


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put whole tensors into a model, split as its own are. Raises KeyError for a missing one."""
    for name, value in model.state_dict().items():
        value.copy_(laid_out_like(weights[name], value))


def flatten_optimizers(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """`<index of the parameter>.<state>` to whole tensors. All processes must call this."""
    return dict(
        (f"{index}.{name}", whole(value))
        if isinstance(value, Tensor)
        else (f"{index}.{_NUMBER}{name}", torch.tensor(value))
        for index, (optimizer, parameter) in enumerate(_parameters(optimizers))
        for name, value in optimizer.state.get(parameter, {}).items()
    )


def restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """The inverse of `flatten_optimizers`."""
    parameters = _parameters(optimizers)
    for optimizer in optimizers:
        optimizer.state.clear()
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        optimizer, parameter = parameters[int(index)]
        restored: Any = value
        if name.startswith(_NUMBER):
            name, restored = name.removeprefix(_NUMBER), value.item()
        else:
            # The step counter of a fused optimizer lives beside the parameter, like its averages.
            restored = laid_out_like(value, parameter)
        optimizer.state[parameter][name] = restored


def _parameters(optimizers: list[torch.optim.Optimizer]) -> list[tuple[torch.optim.Optimizer, nn.Parameter]]:
    return [(optimizer, p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
