"""What attention looks at, read off torch's attention function: right for every model that calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

TOKENS = 32
"""Most tokens of a recorded map."""

# B sequences, H heads, T queries, S keys, d width of a head


class AttentionRecorder(TorchFunctionMode):
    """While active, hands the weights of each call of `scaled_dot_product_attention` to `record`, as (T, S) rows.

    The last sequence of the call is taken and the mean over its heads; dropout is left out.
    """

    def __init__(self, record: Callable[[list[list[float]]], None]) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is F.scaled_dot_product_attention:
            with torch.no_grad(), torch._C.DisableTorchFunction():
                weights_TS = attention_weights(*args, **options)[-1].flatten(0, -3).mean(dim=0)
                self.record(weights_TS[:TOKENS, :TOKENS].float().cpu().numpy().round(4).tolist())
        return func(*args, **options)


def attention_weights(
    query_BHTd: Tensor,
    key_BHSd: Tensor,
    value_BHSd: Tensor,  # noqa: ARG001 (the signature is torch's)
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Weights (B, H, T, S) that `scaled_dot_product_attention` gives to the values, without dropout."""
    if enable_gqa:
        key_BHSd = key_BHSd.repeat_interleave(query_BHTd.shape[-3] // key_BHSd.shape[-3], dim=-3)
    scores = query_BHTd @ key_BHSd.mT * (query_BHTd.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -torch.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1)
