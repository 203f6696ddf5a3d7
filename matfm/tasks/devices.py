"""Which device a run uses."""

from __future__ import annotations

import torch

from matfm.errors import MatfmError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one, then Apple's MPS, then the CPU."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if name not in DEVICES:
        raise MatfmError(f"device is {name!r}; choose one of {', '.join(DEVICES)}")
    if not available[name]:
        raise MatfmError(f"device {name!r} is not available on this machine; use --device cpu or auto")
    return torch.device(name)
