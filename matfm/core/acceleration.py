"""Less memory or time for the same numbers: recomputed activations and compilation, put on and taken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from matfm.core.attention_context import AttentionContext
from matfm.core.feed_forward import FeedForward, GatedFeedForward
from matfm.core.recomputation import keeping_all

_LISTS_OF_BLOCKS = ("blocks", "layers", "layer", "h")
"""Names that models, ours and Hugging Face's, give the list of their repeated blocks."""


def repeated_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every block of every stack."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in _LISTS_OF_BLOCKS:
            yield from ((f"{name}.{index}", block) for index, block in enumerate(module))


def checkpoint_activations(
    model: nn.Module, every: int = 1, checkpointed: Callable[..., Any] = checkpoint
) -> Callable[[], None]:
    """Keep only the input of every block and compute the rest again in the backward pass (Chen et al. 2016).

    Args:
        model: with repeated blocks.
        every: each so many blocks one is computed again; the others keep what they need.
        checkpointed: computes a function so, with the arguments of torch's `checkpoint`.

    Returns:
        A function that takes it off again, the same as `keep_activations`.
    """
    keep_activations(model)
    for _, block in islice(repeated_blocks(model), 0, None, every):
        block.forward = partial(_recomputed, checkpointed, block.forward)
    return partial(keep_activations, model)


def keep_activations(model: nn.Module) -> None:
    """Take activation checkpointing off, if it is on."""
    for _, block in repeated_blocks(model):
        put_on = vars(block).get("forward")
        if isinstance(put_on, partial) and put_on.func is _recomputed:
            del block.forward


def compile_feed_forward(model: nn.Module) -> Callable[[], None]:
    """Compile what acts on each token alone, for any number of tokens; returns a function that takes it off.

    Attention stays as it is: its packed layout differs from batch to batch, and each would be compiled anew.
    """
    parts = [module for module in model.modules() if isinstance(module, (FeedForward, GatedFeedForward))]
    for part in parts:
        part.compile(dynamic=True)

    def undo() -> None:
        for part in parts:
            part._compiled_call_impl = None

    return undo


def _recomputed(checkpointed: Callable[..., Any], forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    writes = any(isinstance(argument, AttentionContext) and argument.writes for argument in arguments)
    if writes or not torch.is_grad_enabled():
        return forward(*arguments, **options)
    # Not the reentrant kind: it would lose the gradients of tensors inside an argument, such as a context's memory.
    return checkpointed(keeping_all(forward), *arguments, use_reentrant=False, **options)
