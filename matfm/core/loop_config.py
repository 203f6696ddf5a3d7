"""How a run trains: options that every training task offers, and the loop's own configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matfm.core.averaging import SHARES
from matfm.core.clipping import CLIPPERS
from matfm.core.precision import DTYPES
from matfm.errors import MatfmError

SHARDS = ("auto", "none", "ddp", "fsdp")


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Options of the loop that users set; tasks inherit them."""

    accumulate: int = 1
    """Batches per optimizer step, over all processes; the result equals one batch of their sum."""
    clip: str = "norm"
    """norm (of all gradients), value (of each entry), adaptive (each unit against its weights) or none."""
    clip_norm: float = 1.0
    """Largest gradient norm, where clip is norm; 0 turns clipping off."""
    clip_value: float = 1.0
    """Largest absolute entry of a gradient, where clip is value."""
    clip_ratio: float = 0.01
    """Largest ratio of a unit's gradient norm to its weights' norm, where clip is adaptive."""
    average: str = "none"
    """none, ema (exponential moving average) or swa (plain mean) of the weights; evaluated and kept."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average per step."""
    swa_start: float = 0.75
    """Share of the steps before the first weights enter the mean."""
    precision: str = "float32"
    """float32, or autocast to bfloat16 or float16 (CUDA only, with loss scaling)."""
    activation_checkpointing: bool = False
    """Compute the activations of the blocks again in the backward pass instead of keeping them."""
    compile: bool = False
    """Compile the feed-forward parts with torch.compile."""
    shard: str = "auto"
    """What several processes do: ddp, fsdp (FSDP2: weights split too), or auto (ddp); one process ignores it."""
    log_every: int = 20
    """Steps between records of log.jsonl."""
    tensorboard: bool = False
    """Write the log for TensorBoard too, into the folder `tensorboard`."""
    diagnose_every: int = 0
    """Steps between records of gradients, updates and activations per layer, and their picture; 0 is off."""
    checkpoint_every: int = 200
    """Steps between resumable checkpoints."""
    patience: int = 0
    """Stop after this many evaluations without a better score; 0 never stops early."""

    def __post_init__(self) -> None:
        for (holds, rule), names in _RULES.items():
            for name in names:
                if not holds(getattr(self, name)):
                    raise MatfmError(f"{name} is {getattr(self, name)}; it {rule}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise MatfmError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")

    @property
    def clip_limit(self) -> float:
        """The limit that belongs to `clip`."""
        return {"norm": self.clip_norm, "value": self.clip_value, "adaptive": self.clip_ratio}.get(self.clip, 0.0)

    def options(self) -> dict[str, Any]:
        """These options by name, to build a `LoopConfig` from."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(LoopOptions)}


_RULES: dict[tuple[Callable[[float], bool], str], tuple[str, ...]] = {
    (lambda value: value >= 1, "must be at least 1"): ("accumulate", "log_every", "checkpoint_every"),
    (lambda value: value >= 0, "must not be negative"): ("clip_norm", "patience", "diagnose_every"),
    (lambda value: value > 0, "must be positive"): ("clip_value", "clip_ratio"),
    (lambda value: 0 <= value < 1, "is a share in [0, 1)"): ("ema_decay", "swa_start"),
}
"""What numbers must fulfil, and the words for it."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "clip": tuple(CLIPPERS),
    "average": ("none", *SHARES),
    "precision": tuple(DTYPES),
    "shard": SHARDS,
}


@dataclass(frozen=True, kw_only=True)
class LoopConfig(LoopOptions):
    """How long and how often."""

    steps: int
    """Optimizer steps in all."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 evaluates only at the end."""
    keep_best: bool = False
    """End with the weights of the best evaluation (smallest `score`) instead of the last ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise MatfmError(f"steps is {self.steps}; it must be at least 1")
