"""How a predictor is trained from a backbone: the options of `--set fit.…`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from matfm.core.loop_config import LoopOptions
from matfm.core.optim import OptimizerConfig
from matfm.errors import MatfmError
from matfm.models.output_laws import PROPERTY_LOSSES, QUANTILES, output_law
from matfm.models.pooling import POOLINGS
from matfm.models.strategies import StrategyOptions

TASKS = ("regression", "classification")
HEADS = ("plain", "two-part", "auto")
TRANSFORMS = ("none", "log", "auto")
CLASS_WEIGHTS = ("none", "balanced")
TOKENS_OF_FORMULAS, TOKENS_OF_STRINGS = 256, 2048
"""Tokens of a batch: about sixty rows of either."""
POOL_OF_STRINGS = 16


_LEARNING_RATES = {
    **dict.fromkeys(("bitfit", "adapter", "lora"), 2e-3),
    **dict.fromkeys(("control", "deep-prompt", "prefix", "prompt"), 5e-3),
}
"""Of strategies that train few numbers, which have further to go; prompts ten times as far as whole encoders."""


def optimizer_of(strategy: str) -> OptimizerConfig:
    """The optimizer that suits a strategy (docs/strategies.md)."""
    if strategy in _LEARNING_RATES:
        return OptimizerConfig(learning_rate=_LEARNING_RATES[strategy], weight_decay=0.0, warmup=0.1)
    return OptimizerConfig(learning_rate=5e-4, layer_decay=0.75, warmup=0.1)


@dataclass(frozen=True, kw_only=True)
class FitConfig(StrategyOptions, LoopOptions):
    """How a predictor is trained from a backbone."""

    backbone: str = "matbert-small"
    """Bundled name, folder, Hub id, or scratch:SIZE."""
    task: str = "regression"
    """regression or classification."""
    epochs: float = 30.0
    """Passes over the training rows."""
    tokens_per_batch: int = 0
    """Tokens of a batch; a formula has one per element and one more. 0: 256 for formulas, 2048 for strings."""
    length_pool: int = 0
    """Batches whose rows are sorted by length together; 1 leaves batches random. 0: 1 for formulas, 16 for strings."""
    enumerate: int = 0
    """Written forms of a training molecule (the canonical one and random ones), one an epoch in turn; 0 is off."""
    predict_enumerations: int = 0
    """Written forms of a molecule that a prediction is the mean over; 0 reads the canonical one."""
    jitter: float = 0.0
    """Relative deviation of the amounts of a training formula, drawn anew every epoch; 0 is off."""
    dropout: float = 0.1
    """Dropout in the encoder and the head."""
    loss: str = "l1"
    """l1, l2, huber, gaussian (mean and variance) or quantile, on scaled targets (regression)."""
    quantiles: tuple[float, ...] = QUANTILES
    """Levels of the loss quantile, ascending; 0.5, the prediction, is one of them."""
    head: str = "plain"
    """plain, two-part (the probability of 0, and the value elsewhere), or auto: two-part where many labels are 0."""
    transform: str = "none"
    """none, log (targets are trained as logarithms), or auto: log where labels are positive and skewed."""
    class_weights: str = "none"
    """none, or balanced: every class weighs as much in the loss (classification)."""
    pooling: str = "mean"
    """mean, mean-max (beside the mean the maximum of every channel) or cls."""
    label_smoothing: float = 0.0
    """Share of a class target spread over all classes (classification)."""
    evaluations: int = 10
    """Evaluations on the validation rows, if there are any; the best weights are kept."""
    optimizer: OptimizerConfig | None = None
    """Optimizer and schedule; None is what suits the strategy."""

    def __post_init__(self) -> None:
        LoopOptions.__post_init__(self)
        StrategyOptions.__post_init__(self)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise MatfmError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        for name in ("tokens_per_batch", "length_pool", "enumerate", "predict_enumerations"):
            if getattr(self, name) < 0:
                raise MatfmError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.jitter < 1:
            raise MatfmError(f"jitter is {self.jitter}; it is a relative deviation in [0, 1)")
        if not 0 <= self.label_smoothing < 1:
            raise MatfmError(f"label_smoothing is {self.label_smoothing}; it is a share in [0, 1)")
        if self.epochs <= 0:
            raise MatfmError(f"epochs is {self.epochs}; it must be positive")
        self._check_head()

    def _check_head(self) -> None:
        output_law(self.loss, self.quantiles)
        if self.head == "two-part" and self.loss == "quantile":
            raise MatfmError("head is two-part and loss is quantile; quantiles show a point mass at 0 themselves")
        other = "regression" if self.task == "classification" else "classification"
        for name in _ONLY_FOR[other]:
            if getattr(self, name) != FitConfig.__dataclass_fields__[name].default:
                raise MatfmError(f"{name} is {getattr(self, name)} and task is {self.task}; it is for {other}")

    def for_kind(self, kind: str) -> FitConfig:
        """With the defaults that depend on the kind of input and on the strategy filled in.

        Raises:
            MatfmError: an option that is only for molecules, or only for formulas.
        """
        strings = kind != "composition"
        for name in ("enumerate", "predict_enumerations"):
            if getattr(self, name) and not strings:
                raise MatfmError(f"fit.{name} is {getattr(self, name)} and the input is {kind}; it is for molecules")
        if self.jitter and strings:
            raise MatfmError(f"fit.jitter is {self.jitter} and the input is {kind}; it is for formulas")
        return replace(
            self,
            tokens_per_batch=self.tokens_per_batch or (TOKENS_OF_STRINGS if strings else TOKENS_OF_FORMULAS),
            length_pool=self.length_pool or (POOL_OF_STRINGS if strings else 1),
            optimizer=self.optimizer or optimizer_of(self.strategy),
        )


_CHOICES: dict[str, tuple[str, ...]] = {
    "task": TASKS,
    "loss": PROPERTY_LOSSES,
    "head": HEADS,
    "transform": TRANSFORMS,
    "class_weights": CLASS_WEIGHTS,
    "pooling": tuple(POOLINGS),
}
_ONLY_FOR = {
    "regression": ("loss", "quantiles", "head", "transform"),
    "classification": ("label_smoothing", "class_weights"),
}
