"""Folds of rows for cross-conformal prediction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from matfm.errors import MatfmError

# R rows


def fold_numbers(groups: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """Fold of each row (R,): whole groups in random order, one fold after the other, as equal as groups allow.

    Raises:
        MatfmError: there are fewer groups than folds.
    """
    number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    if len(number_of) < folds:
        raise MatfmError(f"{len(number_of)} different training inputs cannot make {folds} folds; choose fewer")
    group_R = np.array([number_of[group] for group in groups])
    place_of_group = np.argsort(np.random.default_rng(seed).permutation(len(number_of)))
    fold_R: np.ndarray = place_of_group[group_R] * folds // len(number_of)
    return fold_R
