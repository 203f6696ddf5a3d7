"""Picking rows that are unlike each other."""

from __future__ import annotations

import numpy as np

# R rows, D width


def maxmin_pick(vectors_RD: np.ndarray, count: int) -> list[int]:
    """Rows by MaxMin picking (Ashton et al. 2002): the first one, then always the one farthest from all picked.

    Of rows that are equally far the first is taken; Euclidean distances.

    Args:
        vectors_RD: the best row first.
        count: rows to pick; all of them if there are no more.
    """
    vectors = vectors_RD.astype(np.float64)
    picked: list[int] = []
    apart_R = np.full(len(vectors), np.inf)
    while len(picked) < min(count, len(vectors)):
        picked.append(int(apart_R.argmax()))
        apart_R = np.minimum(apart_R, np.square(vectors - vectors[picked[-1]]).sum(axis=1))
        apart_R[picked] = -1.0  # below any distance: duplicates of picked rows come before rows picked already
    return picked
