"""Learning-rate schedules after the warm-up, as pure functions of the progress in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """From 1 to 0 along a line."""
    return 1 - progress


def constant(progress: float) -> float:  # noqa: ARG001 (the functions share a signature)
    """Always 1."""
    return 1.0


def restarts(progress: float, cycles: int) -> float:
    """Cosines of equal length, each beginning at 1 (SGDR, Loshchilov & Hutter 2017)."""
    position = progress * cycles
    return cosine(position - min(int(position), cycles - 1))


def stable(progress: float, decay_share: float) -> float:
    """1, and in the last `decay_share` linearly down to 0 (warm-up–stable–decay, Hu et al. 2024)."""
    return min(1.0, (1 - progress) / decay_share)


SHAPES: dict[str, Callable[[float, int, float], float]] = {
    "cosine": lambda progress, cycles, decay_share: cosine(progress),
    "linear": lambda progress, cycles, decay_share: linear(progress),
    "constant": lambda progress, cycles, decay_share: constant(progress),
    "restarts": lambda progress, cycles, decay_share: restarts(progress, cycles),
    "stable": lambda progress, cycles, decay_share: stable(progress, decay_share),
}
"""Name to function of progress, number of cycles and share of decay."""
