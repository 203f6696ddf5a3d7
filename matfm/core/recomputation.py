"""Values that the backward pass computes again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def computed_again(value: Tensor, compute: Callable[[], Tensor]) -> saved_tensors_hooks:
    """A context in which autograd remembers how `value` is computed wherever an operation would keep `value` itself.

    `compute` must give the same numbers again (nothing random), from tensors that are kept anyway: then the memory of
    `value` is spared for the price of one more computation.
    """

    def pack(kept: Tensor) -> Any:
        same = kept.data_ptr() == value.data_ptr() and kept.shape == value.shape and kept.dtype == value.dtype
        return compute if same else kept

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            again: Tensor = kept()
        return again

    return saved_tensors_hooks(pack, unpack)
