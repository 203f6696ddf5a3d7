"""How far apart the features of several domains are, as losses: by a classifier's error, covariances, or kernels.

Domains are numbers 0, 1, …; those without rows in a batch are passed over. Statistics are computed in float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

# B rows, D width, M domains

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of two samples (·, D) of features."""
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels, in median squared distances (Long et al., ICML 2015)."""


def domain_loss(scores_BM: Tensor, domain_B: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Cross-entropy (nats) of a domain classifier for any number of domains; every domain present counts the same.

    Args:
        scores_BM: logits.
        domain_B: numbers of the domains, int64.
        weight_B: of the rows in the mean of their domain; all the same if None.
    """
    loss_B = F.cross_entropy(scores_BM.float(), domain_B, reduction="none")
    weight_B = torch.ones_like(loss_B) if weight_B is None else weight_B.to(loss_B.dtype)
    zero_M = loss_B.new_zeros(scores_BM.shape[1])
    total_M = zero_M.index_add(0, domain_B, weight_B)
    sum_M = zero_M.index_add(0, domain_B, weight_B * loss_B)
    present_M = total_M > 0
    return (sum_M / torch.where(present_M, total_M, 1.0)).sum() / present_M.sum().clamp_min(1)


def coral(first_AD: Tensor, second_BD: Tensor) -> Tensor:
    """Squared Frobenius distance of the covariances over 4 D² (Sun & Saenko, ECCV Workshops 2016, eq. 1-3).

    Samples of fewer than two rows have no covariance: the loss is 0 then.
    """
    first_AD, second_BD = _precise(first_AD), _precise(second_BD)
    if min(len(first_AD), len(second_BD)) < 2:
        return (first_AD.sum() + second_BD.sum()) * 0
    difference_DD = _covariance(first_AD) - _covariance(second_BD)
    return difference_DD.square().sum() / (4 * first_AD.shape[1] ** 2)


def mmd(first_AD: Tensor, second_BD: Tensor) -> Tensor:
    """Squared maximum mean discrepancy under the mean of five Gaussian kernels (Long et al., ICML 2015).

    The kernels' widths are multiples of the median squared distance between the rows of both samples (the median
    heuristic; Gretton et al., J. Mach. Learn. Res. 13, 723 (2012)). The estimate is the biased one, with the quadratic
    number of pairs: never negative, and 0 for equal samples.
    """
    first_AD, second_BD = _precise(first_AD), _precise(second_BD)
    if min(len(first_AD), len(second_BD)) == 0:
        return (first_AD.sum() + second_BD.sum()) * 0
    joined = torch.cat([first_AD, second_BD])
    squares = _squared_distances(joined)
    pairs = torch.triu_indices(len(joined), len(joined), 1, device=joined.device)
    median = squares.detach()[pairs[0], pairs[1]].median()
    width = torch.where(median > 0, median, 1.0)
    kernel = torch.stack([torch.exp(-squares / (factor * width)) for factor in BANDWIDTHS]).mean(dim=0)
    count = len(first_AD)
    return kernel[:count, :count].mean() + kernel[count:, count:].mean() - 2 * kernel[:count, count:].mean()


def pairwise(distance: Distance, features_BD: Tensor, domain_B: Tensor) -> Tensor:
    """Mean distance over all pairs of the domains that have rows; 0 for a single domain."""
    samples = [features_BD[domain_B == domain] for domain in domain_B.unique().tolist()]
    distances = [distance(first, second) for first, second in combinations(samples, 2)]
    return torch.stack(distances).mean() if distances else _precise(features_BD).sum() * 0


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _covariance(values_RD: Tensor) -> Tensor:
    centred_RD = values_RD - values_RD.mean(dim=0)
    return centred_RD.T @ centred_RD / (len(values_RD) - 1)


def _squared_distances(values_RD: Tensor) -> Tensor:
    """(R, R), never negative."""
    # The common mean is taken off, as the expanded square loses its digits far from the origin.
    values_RD = values_RD - values_RD.detach().mean(dim=0)
    squares_R = values_RD.square().sum(dim=1)
    return (squares_R[:, None] + squares_R[None] - 2 * values_RD @ values_RD.T).clamp_min(0)
