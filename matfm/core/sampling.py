"""Choosing the next token: temperature, top-k, top-p and min-p, with one random number per token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matfm.errors import MatfmError

# B rows, V vocabulary, T tokens


@dataclass(frozen=True)
class SamplingConfig:
    """How the model's distribution is sharpened and cut before a token is drawn, in the order of the fields."""

    temperature: float = 1.0
    """Logits are divided by it; 0 always takes the likeliest token."""
    top_k: int = 0
    """Only the k likeliest tokens are drawn (Fan et al. 2018); 0 is all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have at least this probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Only tokens at least this many times as likely as the likeliest (Nguyen et al. 2024)."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.temperature == float("inf"):
            raise MatfmError(f"temperature is {self.temperature}; it is 0 (the likeliest token) or more, and finite")
        if self.top_k < 0:
            raise MatfmError(f"top_k is {self.top_k}; it is a number of tokens, or 0 for all of them")
        if not 0 < self.top_p <= 1:
            raise MatfmError(f"top_p is {self.top_p}; it is a probability above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise MatfmError(f"min_p is {self.min_p}; it is a share between 0 and 1")


def cut_logits(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Logits of the distribution that is drawn from; -inf for tokens that are not. Temperature 0 is `choose`'s."""
    logits_BV = logits_BV / (config.temperature or 1.0)
    if 0 < config.top_k < logits_BV.shape[-1]:
        lowest_B1 = logits_BV.topk(config.top_k).values[..., -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < lowest_B1, -torch.inf)
    if config.top_p < 1:
        ranked_BV, order_BV = logits_BV.softmax(dim=-1).sort(descending=True)
        # A token stays if those before it fall short of top_p; the first one always does.
        short_BV = ranked_BV.cumsum(dim=-1) - ranked_BV < config.top_p
        logits_BV = logits_BV.masked_fill(~short_BV.scatter(-1, order_BV, short_BV), -torch.inf)
    if config.min_p > 0:
        chances_BV = logits_BV.softmax(dim=-1)
        weak_BV = chances_BV < config.min_p * chances_BV.amax(dim=-1, keepdim=True)
        logits_BV = logits_BV.masked_fill(weak_BV, -torch.inf)
    return logits_BV


def choose(logits_BV: Tensor, uniform_B: Tensor, config: SamplingConfig) -> Tensor:
    """Token of every row, (B,): the quantile `uniform_B` (in [0, 1)) of its distribution. -inf is never chosen."""
    if config.temperature == 0:
        return logits_BV.argmax(dim=-1)
    # Double precision where there is one: the last token's share of a float32 sum would be rounded.
    precise = torch.float32 if logits_BV.device.type == "mps" else torch.float64
    mass_BV = cut_logits(logits_BV, config).to(precise).softmax(dim=-1)
    reached_BV = mass_BV.cumsum(dim=-1)
    wanted_B1 = uniform_B.to(precise)[:, None] * reached_BV[:, -1:]
    drawn_B = torch.searchsorted(reached_BV, wanted_B1, right=True)[:, 0]
    last_B = mass_BV.shape[-1] - 1 - (mass_BV > 0).flip(-1).int().argmax(dim=-1)
    return torch.minimum(drawn_B, last_B)


def uniforms(seed: int, index: int, count: int, stream: int = 0) -> np.ndarray:
    """The random numbers of sample `index`, (T,) in [0, 1): the same whatever else is drawn (Philox 4x64).

    Streams are independent: what is drawn beside the tokens has one of its own.
    """
    counter = np.array([0, 0, index, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter)).random(count)
