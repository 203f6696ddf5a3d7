"""Which compositions belong together: same reduced formula, same elements, same cluster of features."""

from __future__ import annotations

import numpy as np

from matfm.chem.formula import read_formula
from matfm.chem.reduced_composition import whole_amounts
from matfm.errors import MatfmError

KMEANS_STARTS = 10
"""k-means is begun this often; the best result counts."""


def composition_group(formula: str) -> frozenset[tuple[str, int]]:
    """Equal for formulas of the same reduced composition, however they are written."""
    return frozenset(whole_amounts(read_formula(formula)).items())


def chemical_system(formula: str) -> frozenset[str]:
    """The elements: equal for FeO and Fe2O3."""
    return frozenset(read_formula(formula).amounts)


def loco_folds(features: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Fold of each row for leave-one-cluster-out cross-validation (Meredig et al., doi 10.1039/C8ME00012C).

    k-means on features standardised to mean 0 and standard deviation 1 (constant ones become 0). Folds are numbered
    by the first row they hold, so the numbers do not depend on how k-means numbers its clusters.

    Args:
        features: shape (R, F).
        clusters: number of clusters, at least 2.
        seed: of k-means.

    Raises:
        MatfmError: fewer different rows than clusters, or fewer than two clusters.
    """
    from sklearn.cluster import KMeans

    different = len(np.unique(features, axis=0))
    if not 2 <= clusters <= different:
        raise MatfmError(
            f"{clusters} clusters cannot be made of {different} different compositions; choose from 2 to {different}"
        )
    spread = features.std(axis=0)
    # A column of equal numbers has a spread of rounding errors, which must not be blown up to 1.
    constant = spread <= 1e-12 * np.abs(features).max(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(constant, 1.0, spread)
    scaled[:, constant] = 0.0
    labels = KMeans(clusters, n_init=KMEANS_STARTS, random_state=seed).fit_predict(scaled)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]
