"""Values that the backward pass computes again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_KEEP_ALL: ContextVar[bool] = ContextVar("keep_all", default=False)


def computed_again(value: Tensor, compute: Callable[[], Tensor]) -> AbstractContextManager[Any]:
    """A context in which autograd remembers how `value` is computed wherever an operation would keep `value` itself.

    `compute` must give the same numbers again (nothing random), from tensors that are kept anyway: then the memory of
    `value` is spared for the price of one more computation.
    """
    if _KEEP_ALL.get() or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return nullcontext()

    # Not `value` itself: autograd holds on to this function.
    identity = _identity(value)

    def pack(kept: Tensor) -> Any:
        return compute if _identity(kept) == identity else kept

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            again: Tensor = kept()
        return again

    return saved_tensors_hooks(pack, unpack)


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Strides too: a square matrix and its transpose are alike in all else."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def keeping_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without `computed_again`: activation checkpointing keeps less, and must see what is kept."""

    @wraps(function)
    def kept(*arguments: Any, **options: Any) -> Any:
        token = _KEEP_ALL.set(True)
        try:
            return function(*arguments, **options)
        finally:
            _KEEP_ALL.reset(token)

    return kept
