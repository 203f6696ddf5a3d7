"""MC dropout: networks drawn from the one that was trained with dropout (Gal & Ghahramani, ICML 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matfm.errors import MatfmError


@contextmanager
def thinned(model: nn.Module, seed: Sequence[int]) -> Iterator[None]:
    """Inside, `model` in evaluation mode is one network drawn from its dropout.

    Each dropout drops the same features of all tokens and rows: a draw of the weights, as in the paper, so that a row's
    prediction depends on `seed` alone, not on the rows beside it. Attention weights, which training drops too, are all
    kept: they are no weights of the network.

    Raises:
        MatfmError: the model was trained without dropout.
    """
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if not dropouts:
        raise MatfmError("the model was trained with fit.dropout=0, so nothing can be dropped; leave --mc-dropout out")
    with ExitStack() as stack:
        for number, module in enumerate(dropouts):
            hook = module.register_forward_hook(_fixed_mask(module.p, [*seed, number]))
            stack.callback(hook.remove)
        yield


def _fixed_mask(share: float, seed: list[int]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    masks: dict[int, Tensor] = {}

    def drop(_: nn.Module, __: Any, kept: Tensor) -> Tensor:
        width = kept.shape[-1]
        if width not in masks:
            keep = np.random.default_rng(seed).random(width) >= share
            masks[width] = torch.from_numpy(keep / (1 - share)).to(kept)
        return kept * masks[width]

    return drop
