"""Prototypical networks: classes from a few examples by the distance to what they have in common.

Snell et al. (2017) take the mean of a class's examples and the squared Euclidean distance; Simple CNAPS (Bateni et al.
2020) measures it by the class's regularised covariance. Prototypes can be refined with the queries (Ren et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matfm.errors import MatfmError

# Q queries, S support examples, C classes, D width

_LEAST = 1e-12
"""Of weights under a root, whose gradient has no limit at 0."""
_COSINE_SCALE = 10.0

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (Q, D), support (S, D) and its membership of the classes (S, C) to distances (Q, C)."""


def class_means(support_SD: Tensor, weights_SC: Tensor) -> Tensor:
    """Prototypes (C, D): means of the support, weighted by its membership of each class (S, C)."""
    return weights_SC.T @ support_SD / weights_SC.sum(dim=0)[:, None]


def squared_euclidean(query_QD: Tensor, support_SD: Tensor, weights_SC: Tensor) -> Tensor:
    """Squared distance to the prototypes, (Q, C)."""
    return torch.stack([(query_QD - mean_D).square().sum(dim=1) for mean_D in class_means(support_SD, weights_SC)], 1)


def cosine(query_QD: Tensor, support_SD: Tensor, weights_SC: Tensor) -> Tensor:
    """1 − cosine to the mean of the class's unit vectors, (Q, C)."""
    means_CD = class_means(F.normalize(support_SD, dim=1), weights_SC)
    return 1 - F.normalize(query_QD, dim=1) @ F.normalize(means_CD, dim=1).T


def mahalanobis(query_QD: Tensor, support_SD: Tensor, weights_SC: Tensor, ridge: float = 1.0) -> Tensor:
    """Squared Mahalanobis distance to the prototypes, (Q, C), as Simple CNAPS (Bateni et al. 2020, eq. 2).

    The covariance of class k is λ Σ_k + (1 − λ) Σ + β I, where Σ is that of the whole support, λ = n_k / (n_k + 1)
    for n_k examples, and β is `ridge` times the mean variance, so that distances do not depend on the unit of the
    vectors. It is β I and a product of 2 S columns, so its inverse costs what S asks for, not D (Woodbury).
    """
    means_CD = class_means(support_SD, weights_SC)
    every = (support_SD - support_SD.mean(dim=0)) / len(support_SD) ** 0.5
    beta = ridge * every.square().sum(dim=0).mean().clamp_min(_LEAST)
    distances = []
    for mean_D, weight_S in zip(means_CD, weights_SC.T, strict=True):
        count = weight_S.sum()
        share = count / (count + 1)
        own = (support_SD - mean_D) * (share * weight_S / count).clamp_min(_LEAST).sqrt()[:, None]
        factor_UD = torch.cat([own, every * (1 - share).sqrt()])
        inner = factor_UD @ factor_UD.T + beta * torch.eye(len(factor_UD), dtype=beta.dtype, device=beta.device)
        away_QD = query_QD - mean_D
        inside = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), factor_UD @ away_QD.T, upper=False)
        distances.append((away_QD.square().sum(dim=1) - inside.square().sum(dim=0)) / beta)
    return torch.stack(distances, dim=1)


DISTANCES: dict[str, Distance] = {"euclidean": squared_euclidean, "cosine": cosine, "mahalanobis": mahalanobis}


class PrototypeHead(nn.Module):
    """Classes of queries from labelled examples; only the temperature is learned here.

    Args:
        distance: euclidean, cosine or mahalanobis.
        width: D, which the first temperature depends on.
        refinements: rounds of soft k-means in which the queries move the prototypes (transductive); 0 is off.
    """

    def __init__(self, distance: str, width: int, refinements: int = 0) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise MatfmError(f"distance is {distance!r}; choose one of {', '.join(DISTANCES)}")
        self.distance = distance
        self.refinements = refinements
        first = _COSINE_SCALE if distance == "cosine" else 1 / width
        self.log_scale = nn.Parameter(torch.tensor(math.log(first)))

    def forward(
        self, query_QD: Tensor, support_SD: Tensor, labels_S: Tensor, classes: int, refinements: int | None = None
    ) -> Tensor:
        """Logits (Q, C): −distance · exp(log_scale). `labels_S` are class numbers; each class has an example."""
        weights_SC = F.one_hot(labels_S, classes).to(support_SD.dtype)
        logits_QC = self._logits(query_QD, support_SD, weights_SC)
        for _ in range(self.refinements if refinements is None else refinements):
            seen = torch.cat([support_SD, query_QD]), torch.cat([weights_SC, logits_QC.softmax(dim=1)])
            logits_QC = self._logits(query_QD, *seen)
        return logits_QC

    def _logits(self, query_QD: Tensor, support_SD: Tensor, weights_SC: Tensor) -> Tensor:
        return -self.log_scale.exp() * DISTANCES[self.distance](query_QD, support_SD, weights_SC)


class KernelHead(nn.Module):
    """Numbers of queries from a few examples: Gaussian-process regression with a kernel of the distance.

    The kernel is exp(−|a − b|² / (2 ℓ² D)); ℓ and the noise are learned over tasks (a deep kernel, Patacchiola et al.
    2020). Values are scaled by the mean and deviation of the support.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.log_length = nn.Parameter(torch.zeros(()))
        self.log_noise = nn.Parameter(torch.tensor(math.log(0.1)))

    def forward(self, query_QD: Tensor, support_SD: Tensor, values_S: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (Q,), in the unit of the values (its square); the variance holds the noise."""
        middle, spread = values_S.mean(), values_S.std(correction=0)
        spread = torch.where(spread > 0, spread, 1.0)
        noise = self.log_noise.exp()
        inner = self._kernel(support_SD, support_SD) + noise * torch.eye(len(support_SD)).to(support_SD)
        root = torch.linalg.cholesky(inner)
        across_SQ = self._kernel(support_SD, query_QD)
        weights_S1 = torch.cholesky_solve(((values_S - middle) / spread)[:, None], root)
        explained = torch.linalg.solve_triangular(root, across_SQ, upper=False).square().sum(dim=0)
        variance_Q = (1 + noise - explained).clamp_min(_LEAST)
        return middle + spread * (across_SQ.T @ weights_S1)[:, 0], spread.square() * variance_Q

    def _kernel(self, left_RD: Tensor, right_SD: Tensor) -> Tensor:
        squared = left_RD.square().sum(1)[:, None] + right_SD.square().sum(1)[None] - 2 * left_RD @ right_SD.T
        return torch.exp(-squared.clamp_min(0) / (2 * self.width) * torch.exp(-2 * self.log_length))
