"""What the property head of a model predicts, and from what it is fed."""

from __future__ import annotations

from typing import Any

from matfm.errors import MatfmError
from matfm.models.family_config import FamilyConfig
from matfm.models.output_laws import PROPERTY_LOSSES, QUANTILES
from matfm.models.pooling import POOLINGS, pooled_width


class PropertyConfig(FamilyConfig):
    """Architecture of a property head."""

    hidden_dropout_prob: float = 0.0
    pooling: str = "mean"
    """mean (over all but the first, special token), mean-max (that beside the maximum) or cls (that first token)."""
    property_names: list[str] | None = None
    property_units: list[str] | None = None
    property_loss: str = "l1"
    """l1, l2, huber, gaussian or quantile."""
    property_quantiles: list[float] | tuple[float, ...] = QUANTILES
    """Levels of the loss quantile; 0.5, the prediction, is one of them."""
    property_two_part: list[bool] | None = None
    """Which properties have a probability of 0 beside their value; None for none."""
    property_log: list[bool] | None = None
    """Which properties are trained as logarithms; None for none."""
    condition_names: list[str] | None = None
    """Numeric columns beside the input that the head takes, in this order."""
    class_names: list[str] | list[list[str]] | None = None
    """Names of the classes of a classifier, a list for each property if it has several; None for regression."""
    predict_enumerations: int = 0
    """Written forms of a molecule that a prediction is the mean over; 0 reads the canonical one."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.pooling not in POOLINGS:
            raise MatfmError(f"model.pooling is {self.pooling!r}; choose one of {', '.join(POOLINGS)}")
        if self.property_loss not in PROPERTY_LOSSES:
            raise MatfmError(f"model.loss is {self.property_loss!r}; choose one of {', '.join(PROPERTY_LOSSES)}")

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """Names of the classes of each property; empty for regression."""
        several = [names for names in self.class_names or () if not isinstance(names, str)]
        if several:
            return tuple(tuple(names) for names in several)
        return (tuple(str(name) for name in self.class_names),) if self.class_names else ()

    @property
    def pooled_width(self) -> int:
        """Width of the vectors that heads read."""
        return pooled_width(self.pooling, self.hidden_size)

    @property
    def head_outputs(self) -> int:
        """Properties of the property head, or classes of all its properties."""
        return sum(map(len, self.classes)) or len(self.property_names or [""])
