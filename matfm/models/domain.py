"""Domain adaptation of a property model: what reads its pooled vectors during training, and is dropped afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from matfm.core.conditional_map import BINS, ConditionalMap, entropy_weights, soft_bins
from matfm.core.domain_losses import Distance, coral, domain_loss, mmd, pairwise
from matfm.core.gradient_reversal import reverse_gradient
from matfm.models.heads import PropertyHead

# B rows, D width of the pooled vectors, C entries of a prediction, M domains

Metrics = dict[str, tuple[Tensor, Tensor]]
STATISTICS: dict[str, Distance] = {"coral": coral, "mmd": mmd}
"""Methods that bring statistics of the domains together, without a classifier."""
ADVERSARIAL = ("dann", "cdan")
ALIGNMENTS = (*ADVERSARIAL, *STATISTICS)


class DomainHead(nn.Sequential):
    """Pooled vectors, or their conditional map, to a logit for each domain: one hidden layer.

    Args:
        inputs: width of what is read.
        hidden: width between.
        domains: M.
        dropout: before the output.
    """

    def __init__(self, inputs: int, hidden: int, domains: int, dropout: float = 0.0) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, domains))


@dataclass(frozen=True)
class AlignmentOptions:
    """How vectors of the domains are brought together."""

    method: str
    """dann, cdan, coral or mmd."""
    hidden: int = 256
    """Width between the layers of the domain classifier."""
    entropy: bool = False
    """Certain predictions count more for the domain classifier (CDAN+E)."""
    seed: int = 0
    """Of a randomised map."""


class AdversarialAlignment(nn.Module):
    """A domain classifier behind a gradient reversal: DANN (Ganin et al. 2016), CDAN (Long et al. 2018)."""

    def __init__(self, options: AlignmentOptions, head: PropertyHead, width: int, domains: int) -> None:
        super().__init__()
        entries = BINS if head.law is not None else sum(head.classes)
        self.map = ConditionalMap(width, entries, seed=options.seed) if options.method == "cdan" else None
        self.entropy = options.entropy
        self.classifier = DomainHead(self.map.width if self.map else width, options.hidden, domains)

    def forward(
        self, pooled_BD: Tensor, predictions_BC: Tensor, domain_B: Tensor, strength: float
    ) -> tuple[Tensor, Metrics]:
        """The classifier's loss; its gradient reaches the vectors times `-strength`, the classifier as it is."""
        reversed_BD = reverse_gradient(pooled_BD, strength)
        read = reversed_BD if self.map is None else self.map(reversed_BD, predictions_BC)
        scores_BM = self.classifier(read)
        weight_B = entropy_weights(predictions_BC) if self.entropy else None
        right = (scores_BM.argmax(dim=1) == domain_B).float().sum().detach()
        count = torch.full_like(right, len(domain_B))
        return domain_loss(scores_BM, domain_B, weight_B), {"domain_accuracy": (right, count)}


class StatisticAlignment(nn.Module):
    """A distance between the vectors of the domains, which grows into the loss as `strength` does."""

    def __init__(self, distance: Distance) -> None:
        super().__init__()
        self.distance = distance

    def forward(
        self,
        pooled_BD: Tensor,
        _: Tensor,
        domain_B: Tensor,
        strength: float,
    ) -> tuple[Tensor, Metrics]:
        """`strength` times the mean distance over all pairs of domains."""
        distance = pairwise(self.distance, pooled_BD, domain_B)
        one = torch.ones_like(distance.detach())
        return strength * distance, {"domain_distance": (distance.detach(), one)}


class AlignedPropertyModel(nn.Module):
    """A property model with what aligns its pooled vectors: the two are trained together, the first is kept."""

    def __init__(self, predictor: Any, options: AlignmentOptions, domains: int) -> None:
        super().__init__()
        self.predictor = predictor
        width, head = int(predictor.config.pooled_width), predictor.property_head
        self.alignment: nn.Module = (
            AdversarialAlignment(options, head, width, domains)
            if options.method in ADVERSARIAL
            else StatisticAlignment(STATISTICS[options.method])
        )

    def layers_from_top(self, name: str) -> int:
        """As of the predictor; the alignment learns at the head's rate."""
        if not name.startswith("predictor."):
            return 0
        distance: int = self.predictor.base_model.layers_from_top(name.removeprefix("predictor."))
        return distance


def condition_on(head: PropertyHead, raw: Tensor) -> Tensor:
    """What a conditional classifier is told of a prediction, (B, C), without gradient.

    Class probabilities, or the soft bins of the standardised prediction of the first target (`soft_bins` says why).
    """
    estimate = head.estimate(raw.detach().float())[..., 0]
    if head.law is None:
        return estimate
    return soft_bins(head.scaled(estimate)[:, 0])
