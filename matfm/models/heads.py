"""Heads on pooled representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from matfm.core.objectives import class_loss, sum_over_labels
from matfm.core.regression_losses import zero_loss
from matfm.errors import MatfmError
from matfm.models.output_laws import OutputLaw, PointLaw, output_law

# B sequences, D width, K targets, C conditions, O raw outputs of a target, S statistics of a target, V vocabulary

_LARGEST_LOG = 80.0
"""Logarithms beyond it would overflow float32."""
_LARGEST_LOG_SPREAD = 3.0
ZERO = "zero"
"""Statistic of a two-part head: the probability that the target is exactly 0."""


class PropertyHead(nn.Module):
    """Two-layer perceptron that predicts K properties in their own units, or the scores of the classes of K properties.

    Target scaling lives here, so predictions come out in eV (or whatever the property's unit is):
    `value = raw * scale + mean`, exponentiated for targets trained as logarithms, then clamped into the property's
    physical bounds outside training. Numeric conditions (a temperature) join the pooled vector, standardised.

    A target with a point mass at 0 may have two parts (Cragg, Econometrica 39, 829 (1971)): the probability of 0, and
    the value where it is not 0, trained on the labels that are not 0. The prediction is what the loss asks for: the
    mean, (1 - p) · value, or for l1 the median, which is 0 where p is at least one half and the value elsewhere.

    Args:
        width: D.
        targets: K, or the classes of all properties together.
        dropout: between the two layers.
        law: what the outputs of a regression mean; None for classes.
        two_part: which targets have two parts; none if empty.
        log: which targets are trained as natural logarithms; none if empty.
        conditions: C.
        classes: how many classes each property has, where they are several.
    """

    mean: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor
    condition_mean: Tensor
    condition_scale: Tensor

    def __init__(
        self,
        width: int,
        targets: int,
        dropout: float = 0.0,
        law: OutputLaw | None = PointLaw("l1"),  # noqa: B008  (immutable)
        two_part: Sequence[bool] = (),
        log: Sequence[bool] = (),
        conditions: int = 0,
        classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.law = law
        self.classes = list(classes) or [targets]
        self.targets = targets
        self.two_part = tuple(two_part) if any(two_part) else ()
        self.log = tuple(log) if any(log) else ()
        self.dense = nn.Linear(width + conditions, width)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, targets * (law.outputs if law else 1) + (targets if self.two_part else 0))
        self.initial = {"mean": 0.0, "scale": 1.0, "lower": -torch.inf, "upper": torch.inf}
        for name, value in self.initial.items():
            self.register_buffer(name, torch.full((targets,), value))
        if conditions:
            of_conditions = {"condition_mean": 0.0, "condition_scale": 1.0}
            for name, value in of_conditions.items():
                self.register_buffer(name, torch.full((conditions,), value))
            self.initial |= of_conditions
        self.conditions = conditions

    @classmethod
    def of(cls, config: Any) -> Self:
        """As a `PropertyConfig` says."""
        return cls(
            config.pooled_width,
            config.head_outputs,
            config.hidden_dropout_prob,
            None if config.class_names else output_law(config.property_loss, tuple(config.property_quantiles)),
            config.property_two_part or (),
            config.property_log or (),
            len(config.condition_names or ()),
            [len(names) for names in config.classes],
        )

    @property
    def statistics(self) -> tuple[str, ...]:
        """What `estimate` gives for each target; the prediction comes first."""
        if self.law is None:
            return ("probability",)
        return (*self.law.statistics, *((ZERO,) if self.two_part else ()))

    def forward(self, pooled_BD: Tensor, conditions_BC: Tensor | None = None) -> Tensor:
        """Raw outputs (B, K · O), with K logits of zero more where a target has two parts; or scores of all classes."""
        if self.conditions:
            if conditions_BC is None:
                raise MatfmError(f"this model was trained with {self.conditions} condition(s); give their values too")
            standardised_BC = (conditions_BC - self.condition_mean) / self.condition_scale
            pooled_BD = torch.cat([pooled_BD, standardised_BC.to(pooled_BD.dtype)], dim=1)
        return self.out(self.dropout(self.activation(self.dense(pooled_BD))))

    def loss(
        self,
        raw: Tensor,
        targets_BK: Tensor,
        side_BK: Tensor | None = None,
        weight_B: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Sum of the loss over the labels that are present, and their summed weight.

        Args:
            raw: what `forward` gives.
            targets_BK: in physical units, or indices of classes; NaN where missing.
            side_BK: of censored labels (see `matfm.core.regression_losses`); for laws that take them.
            weight_B: of the rows; 1 if None. Of classes also (B, K), of the labels.
            label_smoothing: for classes.
        """
        if self.law is None:
            return self._loss_of_classes(raw, targets_BK, weight_B, label_smoothing)
        raw_BKO, zero_BK = self._parts(raw)
        present_BK = ~targets_BK.isnan()
        two_part_K = self._flags(self.two_part, raw)
        valued_BK = present_BK & ~(two_part_K & (targets_BK == 0))
        scaled_BK = torch.where(valued_BK, self.scaled(targets_BK), 0.0)
        loss_BK = self.law.loss(raw_BKO, scaled_BK, side_BK) * valued_BK
        if zero_BK is not None:
            loss_BK = loss_BK + zero_loss(zero_BK, targets_BK) * (present_BK & two_part_K)
        return sum_over_labels(loss_BK, present_BK, weight_B)

    def estimate(self, raw: Tensor) -> Tensor:
        """Statistics (B, K, S) in physical units, or probabilities (B, ·, 1) of the classes of all properties."""
        if self.law is None:
            return torch.cat([scores_BC.softmax(dim=-1) for scores_BC in raw.split(self.classes, dim=1)], 1)[..., None]
        raw_BKO, zero_BK = self._parts(raw)
        statistics_BKS = self.law.estimate(raw_BKO, self._in_units, self._spread)
        return statistics_BKS if zero_BK is None else self._with_zeros(statistics_BKS, zero_BK)

    def physical(self, raw: Tensor) -> Tensor:
        """Predictions (B, K) in physical units, within bounds, or class probabilities."""
        return self.estimate(raw)[..., 0]

    def scaled(self, targets_BK: Tensor) -> Tensor:
        """Targets in physical units to raw units."""
        if self.log:
            targets_BK = torch.where(self._flags(self.log, targets_BK), targets_BK.log(), targets_BK)
        return (targets_BK - self.mean) / self.scale

    def set_scaling(self, mean_K: Tensor, scale_K: Tensor) -> None:
        """Fix the scaling from training targets. A constant target gets scale 1."""
        self.mean.copy_(mean_K)
        self.scale.copy_(torch.where(scale_K > 0, scale_K, torch.ones_like(scale_K)))

    def set_bounds(self, lower_K: Tensor, upper_K: Tensor) -> None:
        """Fix physical bounds; infinite where there is none."""
        self.lower.copy_(lower_K)
        self.upper.copy_(upper_K)

    def set_conditions(self, conditions_RC: np.ndarray) -> None:
        """Fix the standardisation from the conditions of the training rows. A constant one gets scale 1."""
        scale_C = conditions_RC.std(axis=0, dtype=np.float64)
        self.condition_mean.copy_(torch.from_numpy(conditions_RC.mean(axis=0, dtype=np.float64)))
        self.condition_scale.copy_(torch.from_numpy(np.where(scale_C > 0, scale_C, 1.0)))

    def _loss_of_classes(
        self, raw: Tensor, targets_BK: Tensor, weight: Tensor | None, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Sum over the properties; a missing label counts for its property only."""
        if weight is not None and weight.ndim == 1:
            weight = weight[:, None].expand(-1, len(self.classes))
        total, summed_weight = zip(
            *(
                class_loss(scores_BC, targets_BK[:, k], label_smoothing, None if weight is None else weight[:, k])
                for k, scores_BC in enumerate(raw.split(self.classes, dim=1))
            ),
            strict=True,
        )
        return torch.stack(total).sum(), torch.stack(summed_weight).sum()

    def _parts(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self.law is not None
        valued = self.targets * self.law.outputs
        raw_BKO = raw[:, :valued].view(len(raw), self.targets, self.law.outputs)
        return raw_BKO, raw[:, valued:] if self.two_part else None

    def _in_units(self, scaled_BK: Tensor) -> Tensor:
        values_BK = scaled_BK * self.scale + self.mean
        if self.log:
            grown_BK = values_BK.clamp_max(_LARGEST_LOG).exp()
            values_BK = torch.where(self._flags(self.log, values_BK), grown_BK, values_BK)
        return torch.clamp(values_BK, self.lower, self.upper)

    def _spread(self, mean_BK: Tensor, std_BK: Tensor) -> Tensor:
        """Standard deviations in physical units; of a log-normal distribution for logarithmic targets."""
        std_BK = std_BK * self.scale
        if not self.log:
            return std_BK
        log_std_BK = std_BK.clamp_max(_LARGEST_LOG_SPREAD)
        median_BK = (mean_BK * self.scale + self.mean).clamp_max(_LARGEST_LOG - _LARGEST_LOG_SPREAD**2).exp()
        variance_BK = log_std_BK.square()
        grown_BK = median_BK * (variance_BK / 2).exp() * torch.expm1(variance_BK).sqrt()
        return torch.where(self._flags(self.log, std_BK), grown_BK, std_BK)

    def _with_zeros(self, statistics_BKS: Tensor, zero_BK: Tensor) -> Tensor:
        """Statistics of the mixture of 0 and the other values, with the probability of 0 (0 without two parts)."""
        assert self.law is not None
        probability_BK = torch.where(self._flags(self.two_part, zero_BK), zero_BK.sigmoid(), 0.0)
        value_BK = statistics_BKS[..., 0]
        if isinstance(self.law, PointLaw) and self.law.name == "l1":
            mixed = [torch.where(probability_BK >= 0.5, 0.0, value_BK)]
        else:
            mixed = [(1 - probability_BK) * value_BK]
        if "std" in self.law.statistics:
            variance_BK = statistics_BKS[..., self.law.statistics.index("std")].square()
            spread_BK = variance_BK + probability_BK * value_BK.square()
            mixed.append(((1 - probability_BK) * spread_BK).sqrt())
        return torch.stack([*mixed, probability_BK], dim=-1)

    def _flags(self, flags: tuple[bool, ...], like: Tensor) -> Tensor:
        return torch.tensor(flags or (False,) * self.targets, device=like.device)


def scale_to_labels(head: PropertyHead, targets_RK: np.ndarray, limits: Sequence[tuple[float, float]]) -> None:
    """Fix the scaling of a regression head from its training labels (NaN where missing), and its bounds.

    Logarithmic targets are scaled as logarithms, targets of two parts without their zeros. `limits` are the bounds of
    each property in its unit (`Property.limits`).
    """
    values_RK = targets_RK.astype(np.float64)
    for k in np.flatnonzero(head.two_part):
        values_RK[values_RK[:, k] == 0, k] = np.nan
    for k in np.flatnonzero(head.log):
        values_RK[:, k] = np.log(values_RK[:, k])
    scale_K = torch.from_numpy(np.nanstd(values_RK, axis=0)).float()
    head.set_scaling(torch.from_numpy(np.nanmean(values_RK, axis=0)).float(), scale_K)
    head.set_bounds(*torch.tensor(limits).T)


class MaskedTokenHead(nn.Module):
    """Dense, activation, norm, and a projection to the vocabulary tied to the input embedding (as in BERT)."""

    def __init__(self, width: int, vocabulary: int, epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) to logits (…, V)."""
        return self.decoder(self.norm(self.activation(self.dense(hidden))))
