"""What is compared: nothing, a linear probe, untrained and trained prompts, full fine-tuning; with their counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from matfm.core.bundled import MODEL_FILE
from matfm.models.backbones import load_encoder
from matfm.models.delta_parts import DeltaSpec
from matfm.models.deltas import add_delta, delta_parameters
from matfm.models.saving import save_model
from matfm.models.strategies import STRATEGIES, StrategyOptions
from matfm.tasks.fit_config import optimizer_of
from matfm.tasks.kinds import backbone_encoder

DUMMY, RIDGE, PROBE, FULL = "dummy", "ridge", "probe", "full"
FIXED = "fixed-"
"""Begins the name of a prompt that is left as it began, under a trained head."""
WITH_LENGTH = ("prompt", "deep-prompt", "prefix")
METHODS = (
    DUMMY, RIDGE, PROBE, *(f"{FIXED}{name}" for name in WITH_LENGTH), "control", *WITH_LENGTH, FULL,
    "bitfit", "adapter", "lora", "partial",
)  # fmt: skip
DEFAULT = (DUMMY, RIDGE, PROBE, *(f"{FIXED}{name}" for name in WITH_LENGTH), "control", *WITH_LENGTH, FULL)
"""Those of the issue's table; the others are for the learning rates."""


@dataclass(frozen=True)
class Method:
    """A method with a length and a learning rate."""

    key: str
    length: int = 8
    """Vectors of a prompt, in every layer where they differ."""
    epochs: float = 30.0
    rate: float | None = None
    """Learning rate; None is the strategy's own."""
    further: tuple[str, ...] = ()
    """Settings as of `matfm finetune --set`."""

    @property
    def is_trained(self) -> bool:
        """Whether it is a run of `matfm finetune`, which a seed changes."""
        return self.key not in (DUMMY, RIDGE)

    @property
    def has_length(self) -> bool:
        return self.key.removeprefix(FIXED) in WITH_LENGTH

    @property
    def strategy(self) -> str:
        """What is trained."""
        return "feature" if self.key == PROBE or self.key.startswith(FIXED) else self.key

    @property
    def learning_rate(self) -> float:
        return optimizer_of(self.strategy).learning_rate if self.rate is None else self.rate

    @property
    def short(self) -> str:
        """Name without settings."""
        return f"{self.key} ×{self.length}" if self.has_length else self.key

    @property
    def name(self) -> str:
        """What records call it."""
        if not self.is_trained:
            return self.short
        told = [f"{self.epochs:g} epochs", f"rate {self.learning_rate:g}", *self.further]
        return f"{self.short} [{', '.join(told)}]"

    def overrides(self) -> tuple[str, ...]:
        """Settings of the fine-tuning; all of the optimizer, as one of them resets the others."""
        own = optimizer_of(self.strategy)
        kept = {"weight_decay": own.weight_decay, "layer_decay": own.layer_decay, "warmup": own.warmup}
        return (
            f'fit.strategy="{self.strategy}"', f"fit.prompt_length={self.length}", f"fit.epochs={self.epochs}",
            f"fit.optimizer.learning_rate={self.learning_rate}",
            *(f"fit.optimizer.{name}={value}" for name, value in kept.items()), *self.further,
        )  # fmt: skip

    def backbone(self, backbone: str, work: Path, seed: int) -> str:
        """Where the encoder comes from: of untrained prompts a folder with them, made once for a seed."""
        if not self.key.startswith(FIXED):
            return backbone
        folder = work / "fixed" / f"{Path(backbone).name}-{self.key}-{self.length}-{seed}"
        if not (folder / MODEL_FILE).is_file():
            encoder = load_encoder(backbone)
            torch.manual_seed(seed)
            add_delta(encoder, "fixed", self.spec(), "tokens")  # as the trained ones begin
            backbone_encoder(backbone).tokenizer.save_pretrained(str(folder))
            save_model(encoder, folder, {"prompt_on": Path(backbone).name, "seed": seed})
        return str(folder)

    def spec(self) -> DeltaSpec:
        """Of the prompt, trained or not."""
        return StrategyOptions(strategy=self.key.removeprefix(FIXED), prompt_length=self.length).delta_spec()

    def delta_numbers(self, backbone: str) -> int:
        """Numbers of what is added to the encoder, without the head."""
        if self.key in (DUMMY, RIDGE, PROBE) or not StrategyOptions(strategy=self.key.removeprefix(FIXED)).adds_delta:
            return 0
        encoder = load_encoder(backbone)
        add_delta(encoder, "counted", self.spec())
        return sum(parameter.numel() for parameter in delta_parameters(encoder, "counted").values())


assert set(METHODS) - {DUMMY, RIDGE, PROBE} - {f"{FIXED}{name}" for name in WITH_LENGTH} <= set(STRATEGIES)
