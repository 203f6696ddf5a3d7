"""What happens in each layer: gradients, updates and activations, looked at in single steps by one callback."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from matfm.core.acceleration import repeated_blocks
from matfm.core.attention_maps import AttentionRecorder
from matfm.core.distributed import whole

KEY = "diagnostics"
"""Of the records in `log.jsonl`."""
_DEAD = 1e-6
"""A unit whose output varies less than this over all tokens carries nothing."""

# N tokens, D width


class Diagnostics:
    """Looks at a model in every `every`-th step; in the others there are no hooks and no copies.

    The loop calls `before_step`, `before_update` and `after_update`, all processes alike.
    A layer is a block, or for parameters outside of blocks the module that holds them.

    Args:
        model: that is trained.
        every: steps between looks; 0 never looks.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        self.model = model
        self.every = every
        self.blocks = dict(repeated_blocks(model))
        self.active = False
        self.within = ExitStack()
        self.handles: list[RemovableHandle] = []
        self.activations: dict[str, dict[str, float]] = {}
        self.attention: dict[str, list[list[float]]] = {}
        self.gradient_norms: dict[str, float] = {}
        self.before: dict[str, Tensor] = {}

    def before_step(self, step: int) -> None:
        """`step` is 1-based."""
        self.active = self.every > 0 and step % self.every == 0
        if self.active:
            self.activations = {}
            self.attention = {}
            for name, block in self.blocks.items():
                self.handles.append(block.register_forward_pre_hook(self._entered(name)))
                self.handles.append(block.register_forward_hook(self._recorder(name)))

    def before_update(self, divisor: float) -> None:
        """Gradients are there, still to be divided by `divisor`, and not clipped."""
        if self.active:
            self._unhook()
            gradients = {name: p.grad for name, p in self._trained() if p.grad is not None}
            self.gradient_norms = {layer: norm / divisor for layer, norm in self._norms(gradients).items()}
            self.before = {name: p.detach().clone() for name, p in self._trained()}

    def after_update(self) -> dict[str, Any] | None:
        """What was seen, where this step was looked at.

        `gradient_norm` and `update_ratio` (norm of the update over norm of the weights) by layer;
        by block, of the last forward pass, `activation`: mean, standard deviation and share of dead units, and
        `attention`: the weights of the longest sequence's tokens (rows) on each other.
        """
        if not self.active:
            return None
        moved = self._norms({name: p.detach() - self.before[name] for name, p in self._trained()})
        norms = self._norms(self.before)
        self.before = {}
        ratios = {layer: norm / norms[layer] if norms[layer] else 0.0 for layer, norm in moved.items()}
        return {"gradient_norm": self.gradient_norms, "update_ratio": ratios, **self._seen_in_blocks()}

    def skip(self) -> None:
        """The step ends without an update, or in an error."""
        self.within.close()
        self._unhook()
        self.active = False

    def _seen_in_blocks(self) -> dict[str, Any]:
        return {"activation": self.activations, "attention": self.attention}

    def _unhook(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def _layer_of(self, name: str) -> str:
        return next((block for block in self.blocks if name.startswith(f"{block}.")), name.rpartition(".")[0])

    def _norms(self, tensors: dict[str, Tensor]) -> dict[str, float]:
        squares: dict[str, float] = defaultdict(float)
        for name, tensor in tensors.items():
            squares[self._layer_of(name)] += float(whole(torch.linalg.vector_norm(tensor))) ** 2
        return {layer: square**0.5 for layer, square in squares.items()}

    def _entered(self, name: str) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            def keep(weights: list[list[float]]) -> None:
                self.attention[name] = weights

            self.within = ExitStack()
            self.within.enter_context(AttentionRecorder(keep))

        return enter

    def _recorder(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        @torch.no_grad()
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.within.close()
            hidden = output[0] if isinstance(output, tuple) else output
            self.activations[name] = activation_statistics(hidden)

        return record


def activation_statistics(hidden: Tensor) -> dict[str, float]:
    """Mean, standard deviation, and share of units (…, D) that are the same for every token."""
    hidden_ND = hidden.detach().float().flatten(0, -2)
    spread_D = hidden_ND.amax(dim=0) - hidden_ND.amin(dim=0)
    return {
        "mean": float(hidden_ND.mean()),
        "std": float(hidden_ND.std(correction=0)),
        "dead": float((spread_D < _DEAD).float().mean()),
    }
