"""Numbers of fewer bits in the forward pass, and the scale that keeps float16 gradients from vanishing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from matfm.errors import MatfmError, RunError

DTYPES: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precision to the type that autocast uses; None is no autocast."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context of the forward pass."""
    dtype = DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def loss_scale_for(precision: str, device: torch.device) -> LossScale:
    """Dynamic for float16, fixed at 1 for the others.

    Raises:
        MatfmError: float16 somewhere else than on CUDA, where the kernels are missing or slow.
    """
    if precision == "float16" and device.type != "cuda":
        raise MatfmError(f"precision float16 needs CUDA and the device is {device.type}; use bfloat16 or float32")
    return LossScale(2.0**16) if precision == "float16" else LossScale()


class LossScale:
    """Factor on the loss before the backward pass (Micikevicius et al. 2018).

    It halves, and the step is skipped, when a gradient overflows, and doubles after `patience` good steps.
    Without an initial value it stays 1, and every overflow is an error of the run.
    """

    def __init__(self, initial: float | None = None, patience: int = 2000) -> None:
        self.value = initial or 1.0
        self.dynamic = initial is not None
        self.patience = patience
        self.good_steps = 0

    def skips(self, loss_is_finite: bool, norm_is_finite: bool) -> bool:
        """Whether to skip the step because only the scaled gradient overflowed; adapts the scale.

        Raises:
            RunError: gradients overflow although the scale has gone down to 1.
        """
        if not self.dynamic or not loss_is_finite:
            return False
        if norm_is_finite:
            self.good_steps += 1
            if self.good_steps >= self.patience:
                self.value, self.good_steps = self.value * 2, 0
            return False
        self.value, self.good_steps = self.value / 2, 0
        if self.value < 1:
            raise RunError("float16 gradients overflow at every loss scale; train with precision bfloat16 or float32")
        return True

    def state_dict(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"value": self.value, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """From a checkpoint."""
        self.value, self.good_steps = state["value"], int(state["good_steps"])
