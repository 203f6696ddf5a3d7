"""Vectors in two dimensions, for pictures."""

from __future__ import annotations

import numpy as np

# R rows, D width

_PERPLEXITY = 30.0
_COMPONENTS_BEFORE = 50
"""t-SNE begins from so many principal components at most, as its authors advise."""


def two_dimensions(vectors_RD: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """PCA of standardised vectors, and t-SNE (van der Maaten and Hinton 2008) of their principal components, (R, 2)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = vectors_RD.astype(np.float64)
    spread_D = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread_D > 1e-12, spread_D, 1.0)
    components = PCA(min(_COMPONENTS_BEFORE, *values.shape), svd_solver="full").fit_transform(values)
    perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="random", random_state=seed, n_jobs=1)
    return {"PCA": components[:, :2], "t-SNE": tsne.fit_transform(components)}
